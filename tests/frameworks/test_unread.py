"""What the network does not read goes along with its weights, so that its class loads them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [torch]")
pytest.importorskip("onnxscript", reason="needs the extra [torch]")
from torch import Tensor, nn  # noqa: E402

import onnx_net2net as n2n  # noqa: E402
from onnx_net2net.frameworks import state_dict as state_dicts  # noqa: E402
from onnx_net2net.model.unread import unread  # noqa: E402


class Heads(nn.Module):
    """A network of residual blocks that returns one of its two heads.

    The other head, a tied copy of it, and buffers are not read.
    """

    def __init__(self, width: int = 6, blocks: int = 2) -> None:
        super().__init__()
        self.up, self.head, self.aux = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(8, 2)
        self.tied, self.unused = nn.Linear(8, 2), nn.Parameter(torch.ones(2))
        self.tied.weight = self.aux.weight
        self.h = nn.ModuleList(
            nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 8), nn.BatchNorm1d(8))
            for _ in range(blocks)
        )
        for block in self.h:
            block.register_buffer("spare", torch.rand(3))
        self.table: Tensor
        self.register_buffer("table", torch.arange(8))
        self.register_buffer("mask", torch.rand(8) > 0.5)
        self.register_buffer("scratch", torch.rand(4), persistent=False)

    def forward(self, y: Tensor) -> Tensor:
        x = self.up(y)[:, self.table]
        for block in self.h:
            x = x + block(x)
        return self.head(x)


NOT_READ = {"aux.weight", "aux.bias", "tied.bias", "unused", "table", "mask"}
NOT_READ |= {"h.0.spare", "h.1.spare"}
INPUTS = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))


def heads(*sizes: int) -> nn.Module:
    torch.manual_seed(len(sizes))
    return Heads(*sizes).eval()


def exported(module: nn.Module, **options: Any) -> n2n.Model:
    return n2n.from_torch(module, INPUTS, **options)


def same(a: nn.Module, b: nn.Module) -> bool:
    return torch.allclose(a(INPUTS), b(INPUTS), atol=1e-5)


def wider(model: n2n.Model) -> n2n.Model:
    return n2n.widen(model, {"h.0.0": 9, "h.1.0": 9})


def test_all_but_counts_of_batches_is_kept(tmp_path: Any) -> None:
    module = heads()
    model = exported(module)
    assert unread(model) == NOT_READ
    model.save(tmp_path / "heads.onnx")
    for again in (model, n2n.load(tmp_path / "heads.onnx")):
        state = n2n.state_dict(again)
        counts = {name for name in module.state_dict() if name.endswith("num_batches_tracked")}
        assert state.keys() == module.state_dict().keys() - counts
        assert all(torch.equal(state[name], module.state_dict()[name]) for name in state)
        assert state["aux.weight"] is state["tied.weight"]
    assert not unread(exported(module, unread=False))


@pytest.mark.parametrize(
    ("grow", "sizes"),
    [(wider, (9, 2)), (lambda m: n2n.deepen(m, block="h.0"), (6, 3))],
    ids=["wider", "deeper"],
)
def test_the_larger_class_loads_it_strictly(
    grow: Callable[[n2n.Model], n2n.Model], sizes: tuple[int, ...]
) -> None:
    module, large = heads(), heads(*sizes)
    grown = grow(exported(module))
    large.load_state_dict(n2n.state_dict(grown), strict=True)
    assert same(module, large)
    assert torch.equal(large.aux.weight, module.aux.weight)  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match=r"Missing key.*aux\.weight"):  # a planted fault
        large.load_state_dict(n2n.state_dict(grow(exported(module, unread=False))), strict=True)


class Pooled(nn.Module):
    """The pooler has the size of what grows, and is not read."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.up, self.head = nn.Linear(5, width), nn.Linear(width, 3)
        self.pooler = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.up(x).relu())


def test_what_may_have_to_grow_is_refused_and_taken_from_the_larger_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, large = Pooled().eval(), Pooled(9).eval()
    grown = n2n.widen(exported(module), {"up": 9})
    with pytest.raises(n2n.Refused, match=r"pooler\.bias, pooler\.weight: .*\n.*absorb"):
        n2n.state_dict(grown)
    before = large.pooler.weight.clone()
    known = n2n.state_dict(n2n.widen(exported(module, unread=False), {"up": 9}))
    large.load_state_dict(known, strict=False)
    large.load_state_dict(n2n.state_dict(n2n.absorb(grown, large)), strict=True)
    assert same(module, large) and torch.equal(large.pooler.weight, before)
    monkeypatch.setattr(state_dicts, "_check_unread", lambda model: None)  # a planted fault
    with pytest.raises(RuntimeError, match=r"size mismatch for pooler\.weight"):
        large.load_state_dict(n2n.state_dict(grown), strict=True)


def test_the_authors_module_is_absorbed_as_it_is_after_training() -> None:
    module = heads()
    model = exported(module)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor += 1 if tensor.dtype != torch.bool else False
        module.table -= 1
    state = n2n.state_dict(n2n.absorb(model, module))
    assert all(torch.equal(state[name], module.state_dict()[name]) for name in state)
    module.table += 1  # which PyTorch's exporter has computed with
    with pytest.raises(n2n.UsageError, match="table"):
        n2n.absorb(model, module)


def test_written_modules_and_models_train_what_is_read() -> None:
    model = wider(exported(heads()))
    written = n2n.to_torch(model)
    assert not NOT_READ & written.state_dict().keys()
    written(INPUTS).sum().backward()
    assert all(parameter.grad is not None for parameter in written.parameters())
    assert n2n.state_dict(n2n.absorb(model, written)).keys() > NOT_READ
    pytest.importorskip("keras", reason="needs the extra [tensorflow]")
    network = n2n.to_keras(model)
    assert not any("aux" in weight.path or "unused" in weight.path for weight in network.weights)
    assert n2n.state_dict(n2n.absorb(model, network)).keys() > NOT_READ


def test_an_optimizer_of_all_parameters_grows() -> None:
    module, large = heads(), heads(9, 2)
    optimizer, larger = (torch.optim.Adam(m.named_parameters()) for m in (module, large))
    (module(INPUTS).sum() + module.aux.weight.sum()).backward()  # type: ignore[union-attr]
    optimizer.step()
    grown = wider(exported(module))
    state = n2n.grow_optimizer(optimizer.state_dict(), grown)
    larger.load_state_dict(state)
    assert larger.state[large.aux.weight]["exp_avg"].ne(0).all()  # type: ignore[union-attr]


def test_names_and_types_are_known_where_contents_are_absent() -> None:
    with torch.device("meta"):
        module = Pooled()
    model = n2n.from_torch(module, INPUTS)
    assert model.weights["pooler.weight"].shape == (6, 6)
    assert not model.weights["pooler.weight"].given


def test_the_pooler_of_a_bert_of_which_hidden_states_are_asked() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "vocab_size": 30}
    config = transformers.BertConfig(**sizes, intermediate_size=24, max_position_embeddings=10)

    class States(nn.Module):
        def __init__(self, config: Any) -> None:
            super().__init__()
            self.bert = transformers.BertModel(config)

        def forward(self, input_ids: Tensor) -> Tensor:
            states: Tensor = self.bert(input_ids).last_hidden_state
            return states

    tokens = torch.arange(12).reshape(2, 6)
    small = States(config).eval()
    model = n2n.from_torch(small, tokens)
    grown = n2n.widen(model, {f"bert.encoder.layer.{i}.intermediate.dense": 40 for i in (0, 1)})
    config.intermediate_size = 40
    large = States(config).eval()
    large.load_state_dict(n2n.state_dict(grown), strict=True)
    assert torch.allclose(small(tokens), large(tokens), atol=1e-5)
    pooled = (m.bert(tokens).pooler_output for m in (small, large))
    assert torch.allclose(*pooled, atol=1e-5)
