"""Grown weights in their author's own class, made with a larger configuration, and back."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [torch]")
pytest.importorskip("onnxscript", reason="needs the extra [torch]")
transformers = pytest.importorskip("transformers", reason="needs the extra [test-frameworks]")
from torch import Tensor, nn  # noqa: E402

import onnx_net2net as n2n  # noqa: E402
from onnx_net2net.frameworks.absorb import absorb  # noqa: E402
from onnx_net2net.frameworks.state_dict import state_dict  # noqa: E402
from onnx_net2net.frameworks.torch.exporter import from_torch  # noqa: E402
from onnx_net2net.verification.verify import run  # noqa: E402

Sizes = dict[str, Any]


class Logits(nn.Module):
    """The author's class, giving its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).logits


def resnet(width: int = 8, last: int = 12) -> nn.Module:
    return transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            embedding_size=width,
            hidden_sizes=[width, last],
            depths=[1, 2],
            layer_type="basic",
            num_labels=5,
        )
    )


def bert(hidden_size: int = 12, num_attention_heads: int = 2, intermediate_size: int = 18) -> Any:
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            hidden_size=hidden_size,
            num_attention_heads=num_attention_heads,
            intermediate_size=intermediate_size,
            num_hidden_layers=2,
            vocab_size=31,
            max_position_embeddings=20,
            num_labels=3,
        )
    )


def llama(
    hidden_size: int = 12,
    num_key_value_heads: int = 2,
    intermediate_size: int = 18,
    rms_norm_eps: float = 1e-6,
) -> Any:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=hidden_size,
            num_attention_heads=2 * num_key_value_heads,
            num_key_value_heads=num_key_value_heads,
            intermediate_size=intermediate_size,
            rms_norm_eps=rms_norm_eps,
            head_dim=4,
            num_hidden_layers=1,
            vocab_size=31,
            max_position_embeddings=20,
            tie_word_embeddings=True,
            use_cache=False,
        )
    )


def steadied() -> Any:
    return llama(rms_norm_eps=0.05)


def pixels() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def tokens() -> Tensor:
    return torch.randint(31, (2, 7), generator=torch.Generator().manual_seed(1))


# Class, input, what grows (by the end of a dimension's name), and the larger configuration.
CASES: dict[str, tuple[Callable[..., Any], Callable[[], Tensor], Sizes, Sizes]] = {
    "ResNet": (
        resnet,
        pixels,
        {
            "embedder.embedder.convolution": 11,
            "stages.0.layers.0.layer.0.convolution": 11,
            "stages.1.layers.0.layer.0.convolution": 17,
            "stages.1.layers.0.layer.1.convolution": 17,
            "stages.1.layers.1.layer.0.convolution": 17,
        },
        {"width": 11, "last": 17},
    ),
    "BERT": (
        bert,
        tokens,
        {
            "word_embeddings": 24,
            "self.query:heads": 4,
            "intermediate.dense": 25,
            "pooler.dense": 24,
        },
        {"hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 25},
    ),
    "Llama": (
        llama,
        tokens,
        {"embed_tokens": 24, "q_proj:kv_heads": 3, "gate_proj": 29},
        {"hidden_size": 24, "num_key_value_heads": 3, "intermediate_size": 29},
    ),
}


@cache
def exported(build: Callable[..., Any], make: Callable[[], Tensor]) -> tuple[nn.Module, n2n.Model]:
    torch.manual_seed(0)
    module = Logits(build()).eval()
    rng = torch.Generator().manual_seed(2)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point() and "inv_freq" not in name:  # nothing fresh: no ones, zeros
            tensor.data += 0.2 * torch.rand(tensor.shape, generator=rng)
    return module, from_torch(module, make())


def grown(name: str) -> tuple[nn.Module, n2n.Model, nn.Module, Tensor]:
    """The author's module, the grown file, a fresh larger module, an input."""
    build, make, widths, sizes = CASES[name]
    module, model = exported(build, make)
    meant = {
        d.name: width
        for end, width in widths.items()
        for d in n2n.inspect(model)
        if d.name.endswith(end) and d.growth != "fixed"
    }
    assert len(meant) >= len(widths)
    torch.manual_seed(7)
    return module, n2n.widen(model, meant), Logits(build(**sizes)).eval(), make()


def output(model: n2n.Model, x: Tensor) -> np.ndarray:
    name = model.proto.graph.input[0].name
    return next(iter(run(model, {name: x.numpy()}).values()))


def close(found: Any, wanted: Any) -> bool:
    a, b = (np.asarray(v.detach() if hasattr(v, "detach") else v) for v in (found, wanted))
    return a.shape == b.shape and bool(np.abs(a - b).max() <= 2e-5 * max(1, np.abs(b).max()))


@pytest.mark.parametrize("name", CASES)
def test_grown_weights_load_into_a_larger_class_and_trained_ones_come_back(name: str) -> None:
    module, model, bigger, x = grown(name)
    assert not close(bigger(x), module(x))
    state = state_dict(model)
    bigger.load_state_dict(state)
    assert close(bigger(x), output(model, x)) and close(bigger(x), module(x))
    faulty = {k: t + 0.3 * t.roll(1, 0) if "head" in k or "embed" in k else t
              for k, t in state.items()}  # fmt: skip
    bigger.load_state_dict(faulty)
    assert not close(bigger(x), output(model, x)), "or it sees nothing"
    bigger.load_state_dict(state)

    optimizer = torch.optim.SGD(bigger.train().parameters(), lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        bigger(x).square().mean().backward()
        optimizer.step()
    trained = absorb(model, bigger.eval())
    assert not close(bigger(x), module(x))
    assert close(bigger(x), output(trained, x))
    assert [step["operation"] for step in trained.history] == ["widen", "absorb"]


def test_a_padded_stream_fits_a_class_with_a_smaller_epsilon() -> None:
    """12 units become 20: the norms' vectors deviate less by eta, whose square is 12 / 20."""
    module, model = exported(steadied, tokens)
    padded = n2n.widen(model, {"model.model.embed_tokens": 20})
    assert len(padded.proto.graph.node) == len(model.proto.graph.node)
    for epsilon, fits in ((0.05 * 12 / 20, True), (0.05, False)):
        bigger = Logits(llama(hidden_size=20, rms_norm_eps=epsilon)).eval()
        bigger.load_state_dict(state_dict(padded))
        assert close(bigger(tokens()), module(tokens())) == fits
    bigger.train()(tokens()).square().mean().backward()
    rows = bigger.model.model.layers[0].self_attn.o_proj.weight.grad[12:]
    assert rows.abs().min() > 0, "what writes padded units would never be trained"


class NormedHeads(nn.Module):
    """Products of queries and keys, each normed over what they are summed over."""

    def __init__(self, size: int = 5) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(6, size), nn.Linear(6, size)
        self.scale = nn.Parameter(torch.rand(size) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.query(x), self.key(x)
        q, k = (self.scale * r / (r.square().mean(-1, keepdim=True) + 1e-6).sqrt() for r in rows)
        return q @ k.transpose(-2, -1)


def test_what_a_class_cannot_hold_is_refused() -> None:
    """A mean over what copies share takes a factor in the graph: the class has no place for it."""
    model = from_torch(NormedHeads().eval(), torch.randn(2, 3, 6))
    grown = n2n.widen(model, {d.name: 8 for d in n2n.inspect(model) if d.width == 5})
    with pytest.raises(n2n.Refused, match=r"_shares: .* no such keys\n.*to_torch"):
        state_dict(grown)
    assert n2n.verify(model, grown)


def test_ties_stay_ties() -> None:
    _, model, bigger, _ = grown("Llama")
    state = state_dict(model)
    embed, head = "model.model.embed_tokens.weight", "model.lm_head.weight"
    assert state[embed] is state[head]
    bigger.load_state_dict(state)
    assert bigger.model.lm_head.weight is bigger.model.model.embed_tokens.weight
