"""Out of PyTorch: every name, layout and tie is kept, and the function is the module's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [torch]")
pytest.importorskip("onnxscript", reason="needs the extra [torch]")
from torch import Tensor, nn  # noqa: E402

import onnx_net2net as n2n  # noqa: E402
from onnx_net2net.model.history import TIES  # noqa: E402
from onnx_net2net.verification.verify import run  # noqa: E402
from tests.console import ROOT, environment  # noqa: E402


class ConvNet(nn.Module):
    """Everything an optimiser likes to fold: BatchNorm, scale 1, zero bias, ReZero, padding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(6)
        self.scale = nn.Parameter(torch.ones(()))
        self.rezero = nn.Parameter(torch.zeros(()))
        self.pointwise = nn.Conv2d(6, 5, 1)
        self.register_buffer("offset", torch.zeros(1))
        self.head = nn.Linear(5, 4)
        nn.init.zeros_(self.pointwise.bias)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv(x))) * self.scale + self.offset
        x = x + self.rezero * x
        x = nn.functional.pad(x, (1, 1, 0, 0))
        return self.head(self.pointwise(x).mean((2, 3)))


class TiedModel(nn.Module):
    """Tokens with learned positions, and a head that is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(13, 8)
        self.positions = nn.Embedding(32, 8)
        self.norm = nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.5), nn.Linear(16, 8))
        self.head = nn.Linear(8, 13, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.positions(torch.arange(tokens.shape[1]))
        return self.head(x + self.mlp(self.norm(x)))


def stateful(build: Callable[[], nn.Module]) -> nn.Module:
    """Return a module whose BatchNorm statistics are not those of a fresh one."""
    torch.manual_seed(0)
    module = build()
    for name, buffer in module.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return module


def results(model: n2n.Model, *values: Tensor) -> list[np.ndarray]:
    names = [value.name for value in model.proto.graph.input]
    feeds = {name: value.numpy() for name, value in zip(names, values, strict=True)}
    return list(run(model, feeds).values())


def assert_keeps_state(module: nn.Module, model: n2n.Model) -> None:
    """Every float tensor of the state dict is an initializer, by itself or through a tie."""
    ties = json.loads(model.metadata.get(TIES, "{}"))
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            weight = model.weights[ties.get(name, name)]
            np.testing.assert_array_equal(weight.array(), tensor.numpy(), err_msg=name)


@pytest.fixture(scope="module")
def convnet() -> tuple[nn.Module, n2n.Model]:
    module = stateful(ConvNet)
    return module, n2n.from_torch(module, torch.randn(2, 3, 7, 6))


@pytest.fixture(scope="module")
def tied() -> tuple[nn.Module, n2n.Model]:
    module = stateful(TiedModel).eval()
    return module, n2n.from_torch(module, torch.randint(13, (2, 5)))


def test_a_convnet_keeps_its_state_and_function(convnet: tuple[nn.Module, n2n.Model]) -> None:
    module, model = convnet
    assert_keeps_state(module, model)
    x = torch.randn(5, 3, 7, 6)
    module.eval()
    np.testing.assert_allclose(results(model, x)[0], module(x).detach(), rtol=1e-5, atol=1e-6)


def test_the_default_export_would_have_lost_names() -> None:
    """What this module is for: if PyTorch ever keeps them by itself, it can go."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            stateful(ConvNet).eval(), (torch.randn(2, 3, 7, 6),), dynamo=True, verbose=False
        )
    assert "bn.running_mean" not in program.model.graph.initializers


def test_ties_and_a_sequence_that_varies(tied: tuple[nn.Module, n2n.Model]) -> None:
    module, model = tied
    assert_keeps_state(module, model)
    assert len({"embed.weight", "head.weight"} & set(model.weights)) == 1
    tokens = torch.randint(13, (3, 11))
    np.testing.assert_allclose(
        results(model, tokens)[0], module(tokens).detach(), rtol=1e-5, atol=1e-6
    )


def test_sizes_carry_names_that_people_use(tied: tuple[nn.Module, n2n.Model]) -> None:
    (tokens,) = tied[1].proto.graph.input
    names = [dim.dim_param for dim in tokens.type.tensor_type.shape.dim]
    assert names == ["batch", "sequence"]


def test_sizes_are_fixed_on_request() -> None:
    model = n2n.from_torch(TiedModel(), torch.randint(13, (2, 5)), dynamic=False)
    (tokens,) = model.proto.graph.input
    assert [dim.dim_value for dim in tokens.type.tensor_type.shape.dim] == [2, 5]


class Merging(nn.Module):
    """What PyTorch fixes for good where it sees a batch of one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Recurrent(nn.Module):
    """Axis 0 of its state is no batch, and must be of size 1."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(5, 6, batch_first=True)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        return self.gru(x, state)[0]


def test_a_batch_of_one_may_vary() -> None:
    module = Merging().eval()
    model = n2n.from_torch(module, torch.randn(1, 4, 8))
    for batch in (1, 3):
        x = torch.randn(batch, 4, 8)
        (result,) = run(model, {"x": x.numpy()}).values()
        np.testing.assert_allclose(result, module(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_an_axis_that_must_be_one_is_fixed() -> None:
    model = n2n.from_torch(Recurrent(), (torch.randn(2, 4, 5), torch.zeros(1, 2, 6)))
    sizes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
             for v in model.proto.graph.input]  # fmt: skip
    assert sizes == [["batch", 4, 5], [1, 2, 6]]


class Squeezing(nn.Module):
    """It gives no batch of one, and fewer axes for it."""

    def forward(self, x: Tensor) -> Tensor:
        return (2 * x).squeeze()


class Branching(nn.Module):
    """It doubles a batch of one."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(2 * x if x.shape[0] == 1 else x)


@pytest.mark.parametrize("module", [Squeezing(), Branching()])
def test_a_batch_of_one_that_is_special_is_fixed(module: nn.Module) -> None:
    x = torch.randn(1, 4, 8)
    model = n2n.from_torch(module, x)
    (value,) = model.proto.graph.input
    assert value.type.tensor_type.shape.dim[0].dim_value == 1
    (result,) = run(model, {"x": x.numpy()}).values()
    np.testing.assert_allclose(result, module(x).numpy(), rtol=1e-6)


class Permuted(nn.Module):
    """What it computes from whole numbers cannot be computed where they are absent."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("order", torch.arange(4).flip(0))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)[:, (2 * self.order - self.order) % 4]


def test_whole_numbers_may_be_absent() -> None:
    model = n2n.from_torch(Permuted().to("meta"), torch.randn(2, 4))
    assert not model.weights["order"].given
    model = n2n.from_torch(Permuted(), torch.randn(2, 4), unread=False)
    assert "order" not in model.weights, "folded"


def test_dynamic_shapes_of_torch_export_and_keyword_arguments() -> None:
    model = n2n.from_torch(ConvNet(), {"x": torch.randn(2, 3, 7, 6)}, {"x": {0: "images"}})
    (x,) = model.proto.graph.input
    assert (x.name, x.type.tensor_type.shape.dim[0].dim_param) == ("x", "images")


def test_the_module_is_left_as_it_was_and_not_followed() -> None:
    module = stateful(ConvNet).train()
    module.bn.eval()  # a frozen BatchNorm in a module that trains
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    model = n2n.from_torch(module, torch.randn(2, 3, 7, 6))
    assert [part.training for part in (module, module.conv, module.bn)] == [True, True, False]
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])
    with torch.no_grad():
        module.conv.weight.add_(1)
    np.testing.assert_array_equal(
        model.weights["conv.weight"].array(), before["conv.weight"].numpy()
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_keep_their_bits(dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 2)).to(dtype)
    model = n2n.from_torch(module, torch.randn(2, 40).to(dtype))
    for name, tensor in module.state_dict().items():
        array = model.weights[name].array()
        assert array.tobytes() == tensor.contiguous().view(torch.uint8).numpy().tobytes(), name


def test_what_it_gives_can_be_widened_and_saved(
    convnet: tuple[nn.Module, n2n.Model], tmp_path: Path
) -> None:
    _, model = convnet
    grown = n2n.widen(model, {"conv": 9})
    assert n2n.verify(model, grown)
    grown.save(tmp_path / "grown.onnx")
    assert n2n.load(tmp_path / "grown.onnx").weights["bn.weight"].shape == (9,)


def test_a_plain_sequential_comes_back() -> None:
    """Its modules are called 0, 1, 2, which no class of ours may take for its own list."""
    small = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    module = n2n.to_torch(n2n.from_torch(small, torch.randn(2, 5)))
    x = torch.randn(7, 5)
    torch.testing.assert_close(module(x), small(x))
    assert module.state_dict().keys() == small.state_dict().keys()


class Untraceable(nn.Module):
    """Its control flow hangs on the data."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if float(x.sum()) > 0 else x


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


@dataclass
class Record:
    left: torch.Tensor
    right: torch.Tensor | None = None


torch.export.register_dataclass(Record)


class Containers(nn.Module):
    """Takes and gives containers, as ``take`` and ``give`` say."""

    def __init__(self, take: Callable[..., Any], give: Callable[..., Any]) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(5, 4)
        self.take, self.give = take, give

    def compute(self, left: torch.Tensor, right: torch.Tensor) -> Any:
        return self.give(self.left(left), self.right(right))


class One(Containers):
    def forward(self, p: Any) -> Any:
        return self.compute(*self.take(p))


class Many(Containers):
    def forward(self, *p: Any) -> Any:
        return self.compute(*p)


class Named(Containers):
    def forward(self, left: Any, **others: Any) -> Any:
        return self.compute(left, others["right"])


def fields(p: Any) -> tuple[Any, Any]:
    return p.left, p.right


def entries(p: Any) -> tuple[Any, Any]:
    return p["left"], p["right"]


def plain(left: torch.Tensor, right: torch.Tensor) -> Any:
    return left, right


X = {"left": torch.randn(2, 3), "right": torch.randn(2, 5)}
CONTAINERS: dict[str, tuple[nn.Module, Any]] = {
    "named tuples": (One(fields, Pair), (Pair(**X),)),
    "a named tuple by name": (One(fields, Pair), {"p": Pair(**X)}),
    "a dict that comes last": (One(entries, lambda a, b: {"a": a, "b": b}), (X,)),
    "a dict by name": (One(entries, plain), {"p": X}),
    "a named tuple in a dict": (One(lambda p: fields(p["p"]), plain), ({"p": Pair(**X)},)),
    "dataclasses": (One(fields, Record), (Record(**X),)),
    "a list": (One(tuple, lambda a, b: [a, (b,)]), (list(X.values()),)),
    "any number": (Many(plain, plain), tuple(X.values())),
    "any names": (Named(plain, plain), X),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_in_and_out(name: str) -> None:
    module, given = CONTAINERS[name]
    forward = module.forward
    model = n2n.from_torch(module, given)
    assert module.forward == forward and "forward" not in vars(module)
    inputs = model.proto.graph.input
    assert [value.type.tensor_type.shape.dim[0].dim_param[:5] for value in inputs] == ["batch"] * 2
    assert set(model.weights) == set(module.state_dict())
    feeds = dict(zip([v.name for v in inputs], (v.numpy() for v in X.values()), strict=True))
    found = list(run(model, feeds).values())
    wanted = [module.left(X["left"]), module.right(X["right"])]
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b, atol=1e-6)


def test_outputs_of_transformers() -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs")
    give = lambda a, b: outputs.BaseModelOutput(last_hidden_state=a, hidden_states=(b,))  # noqa: E731
    model = n2n.from_torch(Named(plain, give), X)
    assert len(model.proto.graph.output) == 2


def test_a_dataclass_that_pytorch_does_not_know_is_refused() -> None:
    @dataclass
    class Stranger:
        left: torch.Tensor

    module = One(lambda p: (p.left, X["right"]), plain)
    with pytest.raises(n2n.Refused, match="register_dataclass"):
        n2n.from_torch(module, (Stranger(X["left"]),))


def test_what_pytorch_cannot_export_is_refused() -> None:
    with pytest.raises(n2n.Refused, match=r"Untraceable: PyTorch cannot export it") as caught:
        n2n.from_torch(Untraceable(), torch.randn(2, 3))
    assert caught.value.remedy and "torch.export.export" in caught.value.remedy


class Cache:
    """What no exported network can return."""


@pytest.mark.parametrize(
    ("result", "held"),
    [
        (lambda a, b: (a, Cache()), ": 1 is of type Cache"),
        (lambda a, b: {"logits": a, "more": [b, Cache()]}, r": more\.1 is of type Cache"),
        (lambda a, b: Cache(), "the result is of type Cache"),
        (lambda a, b: (a, 3, "text", b), ": 1 is of type int, 2 is of type str"),
        (lambda a, b: {"logits": a, "loss": 0.5}, ": loss is of type float"),
    ],
)
def test_results_that_are_no_tensors_are_named(result: Any, held: str) -> None:
    with pytest.raises(n2n.Refused, match=held) as caught:
        n2n.from_torch(One(entries, result), (X,))
    assert caught.value.remedy and "return tensors only" in caught.value.remedy


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [("image.png", "type str"), ((torch.ones(2), torch.ones(2)), "do not fit the module")],
)
def test_inputs_that_make_no_sense(inputs: object, problem: str) -> None:
    with pytest.raises(n2n.UsageError, match=problem):
        n2n.from_torch(ConvNet(), inputs)


def test_without_pytorch_the_error_names_the_extra() -> None:
    """In a process of its own: here PyTorch is long imported."""
    code = """
import sys
sys.modules["torch"] = None
import onnx_net2net as n2n
try:
    n2n.from_torch
except n2n.UsageError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert "from_torch needs torch, which is not installed" in done.stdout, done.stderr
    assert "pip install 'onnx-net2net[torch]'" in done.stdout
