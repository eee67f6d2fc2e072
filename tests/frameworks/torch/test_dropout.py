"""What a module drops while it trains it still drops after a way through ONNX."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [torch]")
pytest.importorskip("onnxscript", reason="needs the extra [torch]")
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import onnx_net2net as n2n  # noqa: E402
from onnx_net2net.frameworks.torch.dropout import draws  # noqa: E402
from onnx_net2net.frameworks.unkept import RANDOM  # noqa: E402
from onnx_net2net.verification.verify import run  # noqa: E402
from tests.networks import dropout_ratios  # noqa: E402

X = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(3))


class Calling(nn.Module):
    """Two linear layers, and ``function(self, x)`` between them."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 12), nn.Linear(12, 4)
        self.parts, self.function, self.calls = nn.ModuleDict(parts), function, 0
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.steps = self.steps + 1
        return self.last(self.function(self, self.first(x)))


def attended(module: Any, x: Tensor) -> Tensor:
    q = x.reshape(*x.shape[:2], 3, 4).transpose(1, 2)
    y = F.scaled_dot_product_attention(q, q, q, dropout_p=0.3 if module.training else 0.0)
    return y.transpose(1, 2).reshape(x.shape)


def dropped(ratio: float) -> Callable[[Any, Tensor], Tensor]:
    return lambda module, x: F.dropout(x, ratio, module.training)


def layer(**options: Any) -> nn.Module:
    options = {"dim_feedforward": 16, "batch_first": True, **options}
    return nn.TransformerEncoderLayer(8, 2, **options)


# What is kept: a module, and its ratios in the order of its calls.
KEPT: dict[str, tuple[Callable[[], nn.Module], list[float]]] = {
    "layers": (
        lambda: nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.25), nn.ReLU(), nn.Dropout(0.5)),
        [0.25, 0.5],
    ),
    "a function": (lambda: Calling(dropped(0.4)), [0.4]),
    "in place": (
        lambda: nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.2, inplace=True)), [0.2]
    ),
    "a ratio that is 0 in inference": (
        lambda: Calling(lambda m, x: F.dropout(x, 0.3 if m.training else 0.0)), [0.3]
    ),
    "one layer, called twice": (
        lambda: Calling(lambda m, x: m.parts["d"](F.relu(m.parts["d"](x))), d=nn.Dropout(0.1)),
        [0.1, 0.1],
    ),
    "ratios that differ from call to call": (
        lambda: Calling(
            lambda m, x: F.dropout(F.relu(F.dropout(x, 0.1, m.training)), 0.6, m.training)
        ),
        [0.1, 0.6],
    ),
    "attention": (lambda: Calling(attended), [0.3]),
    "a transformer layer": (lambda: layer(dropout=0.1), [0.1] * 4),
    "batch norm, one sample": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(40, 6), nn.BatchNorm1d(6), nn.Dropout(0.2)),
        [0.2],
    ),
}  # fmt: skip


class DropPath(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * x.new_empty(x.shape[0], 1, 1).bernoulli_(0.9) / 0.9


def skipped(module: Any, x: Tensor) -> Tensor:
    if module.training and torch.rand(()) < 0.2:
        return x
    return F.dropout(F.relu(x), 0.4, module.training)


# What is not: a module, and the words that say so.
LOST: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "stochastic depth": (
        lambda: Calling(lambda m, x: m.parts["path"](x), path=DropPath()),
        "the random numbers that parts.path (DropPath) draw",
    ),
    "whole channels": (lambda: nn.Dropout1d(0.2), "the module itself (Dropout1d)"),
    "another dropout": (
        lambda: nn.Sequential(nn.Linear(8, 8), nn.AlphaDropout(0.1)), "1 (AlphaDropout)"
    ),
    "layers that are skipped": (lambda: Calling(skipped), "the module itself (Calling)"),
    "everything": (lambda: nn.Sequential(nn.Linear(8, 4), nn.Dropout(1.0)), "1 (Dropout)"),
    "attention that gives its weights": (
        lambda: Calling(
            lambda m, x: m.parts["a"](x, x, x)[0], a=nn.MultiheadAttention(12, 2, dropout=0.1)
        ),
        "parts.a (MultiheadAttention)",
    ),
    "a call in training mode only": (
        lambda: Calling(lambda m, x: F.dropout(x, 0.2) if m.training else x), "(Calling)"
    ),
    "training mode that fails": (
        lambda: Calling(lambda m, x: m.missing if m.training else x),
        "where training mode failed (AttributeError: 'Calling' object has no attribute 'missing')",
    ),
}  # fmt: skip


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The ratios of all calls of dropout, of layers and of attention."""
    drops: list[float] = []
    dropout, attention = F.dropout, F.scaled_dot_product_attention

    def one(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        drops.extend([p] if training and p else [])
        return dropout(x, p, training)

    def other(*args: Any, dropout_p: float = 0.0, **kwargs: Any) -> Tensor:
        drops.extend([dropout_p] if dropout_p else [])
        return attention(*args, dropout_p=dropout_p, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(F, "dropout", one)
        patch.setattr(F, "scaled_dot_product_attention", other)
        yield drops


@pytest.mark.parametrize("name", KEPT)
def test_dropout_is_kept_all_the_way_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build, expected = KEPT[name]
    torch.manual_seed(0)
    module, x = build(), X[:1] if "one sample" in name else X
    model = n2n.from_torch(module, x, dynamic=False)
    assert dropout_ratios(model) == pytest.approx(expected)
    assert RANDOM not in model.metadata

    with torch.no_grad():
        wanted = module.eval()(x)
        (value,) = model.proto.graph.input
        (given,) = run(model, {value.name: x.numpy()}).values()
        np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-6)

        back = n2n.to_torch(model)
        np.testing.assert_allclose(back.eval()(x), wanted, rtol=1e-5, atol=1e-6)
        with recorded(monkeypatch) as drops:
            back.eval()(x)
            assert not drops
            back.train()
            for part in back.modules():
                part.training &= not isinstance(part, nn.BatchNorm1d)
            first, second = back(x), back(x)
        assert drops == pytest.approx([*expected, *expected])
        assert not torch.equal(first, second)


@pytest.mark.parametrize("name", LOST)
def test_what_is_not_kept_is_said(name: str) -> None:
    build, words = LOST[name]
    module = build()
    with pytest.warns(UserWarning, match="not kept of how it trains: ") as caught:
        model = n2n.from_torch(module, X, dynamic=False)
    (warning,) = caught
    assert words in str(warning.message)
    assert model.metadata[RANDOM] in str(warning.message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = n2n.from_torch(module, X, dynamic=False, dropout=False)
    assert RANDOM not in plain.metadata


def test_what_is_kept_beside_what_is_not() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.3), nn.AlphaDropout(0.1), nn.Dropout(0.2))
    with pytest.warns(UserWarning, match=r"that 2 \(AlphaDropout\) draw"):
        model = n2n.from_torch(module, X)
    assert dropout_ratios(model) == pytest.approx([0.3, 0.2])
    assert dropout_ratios(n2n.from_torch(module, X, dropout=False)) == []


def test_dropout_of_inference_itself_stays_random() -> None:
    module = nn.Sequential(
        nn.Linear(8, 8), nn.Dropout(0.3), Calling(lambda m, x: F.dropout(x, 0.5))
    )
    with pytest.warns(UserWarning, match="2 .Calling."):
        model = n2n.from_torch(module, X)
    (node,) = [n for n in model.proto.graph.node if n.op_type == "Dropout"]
    assert bool(model.weights[node.input[2]].array()), "it would be silently set to inference"


@pytest.mark.parametrize("mode", [True, False])
def test_the_module_is_left_as_it_was(mode: bool) -> None:
    module = Calling(dropped(0.4), norm=nn.BatchNorm1d(5)).train(mode)
    module.parts["norm"].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    attributes, function = dict(vars(module)), F.dropout
    state, other = torch.get_rng_state(), random.getstate()
    draws(module, (X,), {})
    assert vars(module) == attributes
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == other
    assert F.dropout is function
    assert [part.training for part in module.modules()] == modes
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_grown_network_drops_as_the_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = n2n.from_torch(nn.Sequential(layer(dropout=0.2), nn.Linear(8, 3)), X)
    plain = n2n.from_torch(nn.Sequential(layer(dropout=0.2), nn.Linear(8, 3)), X, dropout=False)
    widths = {d.name: (d.width, d.growth) for d in n2n.inspect(model)}
    assert widths == {d.name: (d.width, d.growth) for d in n2n.inspect(plain)}

    grown = n2n.widen(model, {"0.linear1": 21})
    assert n2n.verify(model, grown)
    with recorded(monkeypatch) as drops:
        n2n.to_torch(grown).train()(X)
    assert drops == pytest.approx([0.2] * 4)
    assert n2n.verify(model, n2n.widen(model, factor=2, all=True))


def test_a_module_without_weights_tells_the_same() -> None:
    with torch.device("meta"):
        module = layer(dropout=0.1)
    assert dropout_ratios(n2n.from_torch(module, X, dynamic=False)) == pytest.approx([0.1] * 4)


def test_attention_of_a_language_model_is_kept() -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    config = transformers.GPT2Config(
        n_embd=16, n_layer=2, n_head=2, n_positions=8, vocab_size=20, attn_pdrop=0.2,
        eos_token_id=1, bos_token_id=1, use_cache=False,
    )  # fmt: skip
    module = transformers.GPT2Model(config)
    model = n2n.from_torch(module, torch.randint(20, (2, 7)))
    assert dropout_ratios(model) == pytest.approx([0.1, *[0.2, 0.1, 0.1] * 2])


def test_an_export_that_drops_otherwise_is_refused() -> None:
    """No ratio is sure where a module does something else while it is exported."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = F.dropout(x, 0.2, m.training)
        return F.dropout(x, 0.5, m.training) if torch.compiler.is_exporting() else x

    with pytest.raises(n2n.Refused, match="not call dropout as training") as refusal:
        n2n.from_torch(Calling(forward), torch.randn(2, 8))
    assert "dropout=False" in str(refusal.value.remedy)
    n2n.from_torch(Calling(forward), torch.randn(2, 8), dropout=False)
