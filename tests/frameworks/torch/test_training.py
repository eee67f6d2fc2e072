"""Modules made from files train, and behave like any other module of PyTorch."""

from __future__ import annotations

import copy
import io
import pickle
import sys
import traceback
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")

import torch
from torch import nn

import onnx_net2net as n2n
from onnx_net2net.frameworks.torch import to_torch
from onnx_net2net.frameworks.torch.module import tensor_of
from tests.test_fixtures import FILES, FOLDER, make_inputs
from tests.torch_models import difference, expected

# Quantised from end to end: every weight is an integer.
NO_PARAMETERS = {"lenet.qdq.onnx"}
# The branch that these inputs do not take.
NOT_TAKEN = {"if.dynamo.onnx": ("no1.", "no2.")}
STEPS = 20


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def inputs_of(path: Path) -> tuple[torch.Tensor, ...]:
    return tuple(tensor_of(value) for value in make_inputs(onnx.load(path), 1).values())


def floats(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Iterator[torch.Tensor]:
    found = module(*inputs)
    for value in found if isinstance(found, tuple) else (found,):
        if value.is_floating_point():
            yield value.float()


def loss(module: nn.Module, inputs: tuple[torch.Tensor, ...], scale: float) -> torch.Tensor:
    """Return the mean square of all outputs, about one at first."""
    torch.manual_seed(0)
    return sum((y.square().mean() for y in floats(module, inputs)), torch.zeros(())) / scale


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_loss_falls_and_all_parameters_take_part(path: Path) -> None:
    module = to_torch(n2n.load(path))
    inputs = inputs_of(path)
    parameters = list(module.parameters())
    if path.name in NO_PARAMETERS:
        assert not parameters
        return
    module.train()
    with torch.no_grad():
        scale = float(loss(module, inputs, 1.0))
    optimizer = torch.optim.SGD(parameters, lr=3e-3)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        value = loss(module, inputs, scale)
        value.backward()
        if step == 0:
            idle = NOT_TAKEN.get(path.name, ())
            named = module.named_parameters()
            missing = [n for n, p in named if p.grad is None and not n.startswith(idle or ("?",))]
            assert not missing
            assert all(torch.isfinite(p.grad).all() for p in parameters if p.grad is not None)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append(float(value.detach()))
    assert losses[-1] < losses[0]


NORMALISED = ("resnet.dynamo-raw.onnx", "resnet.ts17-raw.onnx", "densenet.dynamo.onnx")


@pytest.mark.parametrize("name", NORMALISED)
def test_statistics_move_in_train_mode_only(name: str) -> None:
    module = to_torch(n2n.load(FOLDER / name))
    inputs = inputs_of(FOLDER / name)
    before = {k: v.clone() for k, v in module.named_buffers() if "running" in k}
    assert before
    module(*inputs)
    assert all(torch.equal(module.get_buffer(k), v) for k, v in before.items())
    module.train()(*inputs)
    assert all(not torch.equal(module.get_buffer(k), v) for k, v in before.items())


def standardised(how: str) -> onnx.ModelProto:
    """Return a convolution whose weight a BatchNormalization standardises; its bias is zeros."""
    helper, array = onnx.helper, onnx.numpy_helper.from_array
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    weights = {
        "conv.weight": weight,
        "conv.gain": np.full(4, 2, np.float32),
        "conv.bias": np.zeros(4, np.float32),
        "rows": np.array([1, 4, -1]),
        "kernel": np.array([4, 3, 3, 3]),
        "axes": np.array([0, 2]),
    }
    nodes = [helper.make_node("Reshape", ["conv.weight", "rows"], ["w"])]
    operands, results, options = ["conv.bias", "conv.gain"], ["z"], {}
    if how == "training":
        # Of their own: onnxruntime writes the new statistics over the old ones.
        weights |= {"old_mean": np.zeros(4, np.float32), "old_var": np.ones(4, np.float32)}
        operands, results = ["old_mean", "old_var"], ["z", "mean", "var"]
        options = {"training_mode": 1}
    if how == "computed":
        nodes += [
            helper.make_node("ReduceMean", ["w", "axes"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["w", "w"], ["squares"]),
            helper.make_node("ReduceMean", ["squares", "axes"], ["var"], keepdims=0),
        ]
        operands = ["mean", "var"]
    nodes += [
        helper.make_node(
            "BatchNormalization", ["w", "conv.gain", "conv.bias", *operands], results, **options
        ),
        helper.make_node("Reshape", ["z", "kernel"], ["v"]),
        helper.make_node("Conv", ["x", "v", "conv.bias"], ["y"]),
    ]
    described = [helper.make_tensor_value_info(n, 1, None) for n in ("x", "y")]
    described[0] = helper.make_tensor_value_info("x", 1, [2, 3, 6, 6])
    stored = [
        array(value, name) for name, value in weights.items() if how == "computed" or name != "axes"
    ]
    graph = helper.make_graph(nodes, "standardised", described[:1], described[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("how", ["training", "inference", "computed"])
def test_standardised_weights_train(how: str) -> None:
    """What stands for the statistics is a parameter, or made from one."""
    proto = standardised(how)
    module, x = to_torch(n2n.load(proto)), torch.randn(2, 3, 6, 6)
    want = expected(proto, {"x": x.numpy()})
    with torch.no_grad():
        assert difference(want[0], module(x).numpy()) < 1e-5
    for mode in (module.eval, module.train):
        mode()
        module.zero_grad()
        module(x).square().mean().backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all()


def test_momentum_is_what_the_file_says() -> None:
    """ONNX's momentum is the share of the old statistics, PyTorch's that of the new."""
    model = onnx.load(FOLDER / "resnet.dynamo-raw.onnx")
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "momentum":
                attribute.f = 0.75
    module = to_torch(n2n.load(model))
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert {m.momentum for m in norms} == {0.25}


COPIED = (
    "resnet.dynamo-raw.onnx", "gpt2.dynamo.onnx", "lstm.ts17.onnx", "mlp.bfloat16-stored.onnx",
    "vit.dynamo.onnx", "loop.ts17.onnx", "bert.dynamo.onnx",
)  # fmt: skip


def equal(a: nn.Module, b: nn.Module, inputs: tuple[torch.Tensor, ...]) -> bool:
    with torch.no_grad():
        return all(map(torch.equal, floats(a, inputs), floats(b, inputs)))


@pytest.mark.parametrize("name", COPIED)
def test_copies_and_pickles(name: str) -> None:
    module, inputs = to_torch(n2n.load(FOLDER / name)), inputs_of(FOLDER / name)
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    again = [
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(buffer, weights_only=False),
    ]
    for twin in again:
        assert equal(module, twin, inputs)
        assert twin.state_dict().keys() == module.state_dict().keys()
        with torch.no_grad():  # the copy has weights of its own
            for parameter in twin.parameters():
                parameter.mul_(1.5)
        assert not equal(module, twin, inputs)


@pytest.mark.parametrize("name", COPIED)
def test_compiles_in_one_piece(name: str) -> None:
    module, inputs = to_torch(n2n.load(FOLDER / name)), inputs_of(FOLDER / name)
    torch._dynamo.reset()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=name != "loop.ts17.onnx")
    with torch.no_grad():
        for a, b in zip(floats(module, inputs), floats(compiled, inputs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet.dynamo-raw", "gpt2.ts17", "mlp.ts17"])
def test_exports_with_dynamic_sizes(name: str) -> None:
    path = FOLDER / f"{name}.onnx"
    module, inputs = to_torch(n2n.load(path)), inputs_of(path)
    shapes = tuple(
        {
            axis: torch.export.Dim.AUTO
            for axis, dim in enumerate(value.type.tensor_type.shape.dim)
            if dim.dim_param
        }
        for value in onnx.load(path).graph.input
    )
    exported = torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False).module()
    larger = tuple(torch.cat((x, x[:1])) for x in inputs)
    with torch.no_grad():
        for a, b in zip(floats(module, larger), floats(exported, larger), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_sequence_of_layers_keeps_its_numbers() -> None:
    """Names that are no identifiers, at the root and in gaps."""
    torch.manual_seed(0)
    theirs = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 5, 1)), nn.Flatten()
    )
    x = torch.randn(2, 3, 6, 6)
    pytest.importorskip("onnxscript")
    from onnx_net2net.frameworks.torch.exporter import from_torch

    ours = to_torch(from_torch(theirs.eval(), (x,)))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    torch.testing.assert_close(ours(x), theirs(x))
    assert equal(ours, copy.deepcopy(ours), (x,))
    torch._dynamo.reset()
    assert equal(ours, torch.compile(ours, backend="aot_eager", fullgraph=True), (x,))


def test_inputs_may_have_any_name() -> None:
    names = ["x:0", "x_0", "class", "0", "torch"]
    values = [onnx.helper.make_tensor_value_info(n, 1, [2]) for n in (*names, "y")]
    node = onnx.helper.make_node("Sum", names, ["y"])
    graph = onnx.helper.make_graph([node], "odd", values[:-1], values[-1:])
    opset = [onnx.helper.make_opsetid("", 17)]
    model = n2n.load(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8))
    given = [torch.full((2,), float(10**i)) for i in range(5)]
    assert to_torch(model)(*given).tolist() == [11111.0, 11111.0]


def test_an_input_may_be_called_like_a_function_of_the_code() -> None:
    helper = onnx.helper
    node = helper.make_node("Hardmax", ["hardmax"], ["y"])
    values = [helper.make_tensor_value_info(n, 1, [2, 3]) for n in ("hardmax", "y")]
    graph = helper.make_graph([node], "odd", values[:1], values[1:])
    opset = [helper.make_opsetid("", 17)]
    module = to_torch(n2n.load(helper.make_model(graph, opset_imports=opset, ir_version=8)))
    assert module(torch.tensor([[1.0, 3, 2], [5, 4, 0]])).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_hooks_and_printing() -> None:
    module, inputs = (f(FOLDER / "resnet.dynamo-raw.onnx") for f in (loaded, inputs_of))
    seen = []
    module.get_submodule("layer1.0.bn1").register_forward_hook(lambda *_: seen.append(1))
    module(*inputs)
    assert seen
    assert "(bn1): BatchNorm2d(8" in repr(module)


def loaded(path: Path) -> nn.Module:
    return to_torch(n2n.load(path))


def test_tracebacks_show_the_source() -> None:
    module = loaded(FOLDER / "mlp.ts17.onnx")
    with pytest.raises(RuntimeError) as error:
        module(torch.zeros(2, 3))
    shown = "".join(traceback.format_exception(error.value))
    assert "F.relu(self.fc1(x))" in shown


# ---- against the author's own modules -----------------------------------------------------------


@pytest.fixture(scope="module")
def cases() -> Iterator[dict[str, object]]:
    pytest.importorskip("transformers")
    sys.path.insert(0, str(FOLDER / "makers"))
    try:
        import make_torch

        yield {case.name: case for case in make_torch.CASES}
    finally:
        sys.path.remove(str(FOLDER / "makers"))


AUTHORED = (
    "resnet.dynamo-raw", "mlp.dynamo", "lenet.ts17", "gpt2.dynamo-raw", "llama.dynamo-raw",
    "bert.dynamo-raw", "vit.dynamo-raw",
)  # fmt: skip


def authored(case: object) -> nn.Module:
    """Return the module that a fixture was exported from, with its weights."""
    from export import randomise

    seed = zlib.crc32(case.name.encode())  # type: ignore[attr-defined]
    torch.manual_seed(seed)
    module = case.build().eval()  # type: ignore[attr-defined]
    randomise(module, torch.Generator().manual_seed(seed))
    return module


def gradients(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    for parameter in module.parameters():
        parameter.grad = None
    sum((y.square().mean() for y in floats(module, inputs)), torch.zeros(())).backward()
    return {n: p.grad for n, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", AUTHORED)
def test_gradients_are_those_of_the_author(
    name: str, training: bool, cases: dict[str, object]
) -> None:
    """Same weights, same batch, same loss: the same gradient for every parameter by its name."""
    case = cases[name.partition(".")[0]]
    theirs, ours = authored(case), loaded(FOLDER / f"{name}.onnx")
    if training and name.startswith(("gpt2", "bert")):
        pytest.skip("the author's module drops out in train mode, the file was exported in eval")
    theirs.train(training)
    ours.train(training)
    inputs = inputs_of(FOLDER / f"{name}.onnx")
    want, got = gradients(theirs, inputs), gradients(ours, inputs)
    common = want.keys() & got.keys()
    assert len(common) >= 0.9 * len(want)
    for key in common:
        scale = float(want[key].abs().max())
        torch.testing.assert_close(got[key], want[key], rtol=1e-3, atol=1e-4 * scale + 1e-7)


# ---- grown networks -----------------------------------------------------------------------------

GROWN = ("resnet.dynamo-raw", "gpt2.dynamo", "llama.dynamo", "mobilenetv3.ts11", "lstm.ts17")


@pytest.mark.parametrize("name", GROWN)
def test_grown_networks_agree_and_their_copies_part(name: str) -> None:
    model = n2n.load(FOLDER / f"{name}.onnx")
    widths = {
        d.name: d.width + 3 if d.growth == "any" else 2 * d.width
        for d in n2n.inspect(model)
        if d.growth != "fixed"
    }
    grown = n2n.widen(model, widths, seed=3)
    small, large = to_torch(model), to_torch(grown)
    inputs = inputs_of(FOLDER / f"{name}.onnx")
    with torch.no_grad():
        for a, b in zip(floats(small, inputs), floats(large, inputs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(a.abs().max()))
    assert sum(p.numel() for p in large.parameters()) > sum(p.numel() for p in small.parameters())


def test_copies_of_one_unit_differ_after_a_step() -> None:
    model = n2n.load(FOLDER / "mlp.ts17.onnx")
    large = to_torch(n2n.widen(model, {"fc1": 46}, seed=3))  # every unit twice
    inputs = inputs_of(FOLDER / "mlp.ts17.onnx")
    rows = large.get_parameter("fc1.weight")
    source = [
        int(np.argmin([float((row - old).abs().max().detach()) for old in rows[:23]]))
        for row in rows[23:]
    ]
    assert torch.equal(rows[23:], rows[source])
    optimizer = torch.optim.SGD(large.parameters(), lr=0.1)
    loss(large, inputs, 1.0).backward()
    optimizer.step()
    moved = (rows[23:] - rows[source]).abs().amax(1)
    alive = rows.grad.abs().amax(1)[23:] > 0  # type: ignore[union-attr]
    assert alive.any()
    assert (moved[alive] > 0).all()
