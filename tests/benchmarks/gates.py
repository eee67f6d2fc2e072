"""Thirty pairs of models, judged by this program and by Polygraphy: who passes what is right, and
who catches what is wrong, each with its default options?

    python tests/benchmarks/gates.py

Right are exports of one network by several exporters, graphs that onnxruntime's optimisers wrote,
units in another order, and copies in float16. Wrong are copies with planted faults of ten kinds.
Without Polygraphy (`pip install polygraphy`) its column is empty. The last lines are the table of
the README.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from onnx_net2net.errors import Net2NetError
from onnx_net2net.model.model import load
from onnx_net2net.verification.precision import in_precision
from onnx_net2net.verification.verify import verify

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.verify_networks import layers, mlp, permuted  # noqa: E402

FIXTURES = ROOT / "fixtures"
EXPORTERS = [
    ("lenet.ts17", "lenet.dynamo"), ("resnet.ts17", "resnet.dynamo"),
    ("mobilenetv3.ts11", "mobilenetv3.dynamo"), ("bert.ts17", "bert.dynamo"),
    ("bert.dynamo", "bert.fused"), ("gpt2.dynamo-raw", "gpt2.dynamo"),
    ("llama.dynamo-raw", "llama.dynamo"), ("gru.ts17", "gru.dynamo"),
]  # fmt: skip
OPTIMISED = [("resnet.dynamo", "BASIC"), ("convnext.dynamo", "EXTENDED"), ("vit.dynamo", "ALL")]
HALVES = ["mlp.ts17", "resnet.dynamo", "gpt2.dynamo"]

Pair = tuple[str, str, bool, onnx.ModelProto, onnx.ModelProto]
Fault = Callable[[onnx.ModelProto], None]


def fixture(name: str) -> onnx.ModelProto:
    """A model of the fixtures."""
    return onnx.load(FIXTURES / f"{name}.onnx")


# Right -------------------------------------------------------------------------------------------


def optimised(proto: onnx.ModelProto, level: str, folder: Path) -> onnx.ModelProto:
    """The graph that onnxruntime's optimiser makes."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx")


def half(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The whole network in float16."""
    return onnx.load_from_string(in_precision(load(proto), TensorProto.FLOAT16).to_bytes())


# Wrong -------------------------------------------------------------------------------------------


def copied(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A deep copy."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


def array(proto: onnx.ModelProto, name: str) -> np.ndarray:
    """A weight."""
    return numpy_helper.to_array(next(t for t in proto.graph.initializer if t.name == name))


def put(proto: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    """Replace a weight."""
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))


def weights(proto: onnx.ModelProto) -> list[str]:
    """Names of the float matrices and kernels, in the order they are read."""
    known = {t.name for t in proto.graph.initializer if t.data_type == 1 and len(t.dims) >= 2}
    read = [name for node in proto.graph.node for name in node.input if name in known]
    return list(dict.fromkeys(read))


def changed(change: Callable[[np.ndarray], np.ndarray], which: int = 1) -> Fault:
    """A fault in one weight."""

    def fault(proto: onnx.ModelProto) -> None:
        name = weights(proto)[which]
        put(proto, name, change(array(proto, name).copy()).astype(np.float32))

    return fault


def scale_one(value: np.ndarray) -> np.ndarray:
    """One number in a weight is 2 % too large."""
    value.flat[np.abs(value).argmax()] *= 1.02
    return value


def swap(value: np.ndarray) -> np.ndarray:
    """Two channels change places."""
    value[[0, 1]] = value[[1, 0]]
    return value


def eight_bits(value: np.ndarray) -> np.ndarray:
    """Weights are rounded to eight bits."""
    step = np.abs(value).max() / 127
    return np.round(value / step) * step


def nan(value: np.ndarray) -> np.ndarray:
    """One number is none."""
    value.flat[0] = np.nan
    return value


def dropped(operator: str) -> Fault:
    """An operator is left out."""

    def fault(proto: onnx.ModelProto) -> None:
        node = next(n for n in proto.graph.node if n.op_type == operator)
        twin = helper.make_node("Identity", [node.input[0]], [node.output[0]])
        node.CopyFrom(twin)

    return fault


def attribute(operator: str, name: str, value: object) -> Fault:
    """An attribute of the last node of its kind has another value."""

    def fault(proto: onnx.ModelProto) -> None:
        node = [n for n in proto.graph.node if n.op_type == operator][-1]
        for old in [a for a in node.attribute if a.name == name]:
            node.attribute.remove(old)
        node.attribute.append(helper.make_attribute(name, value))

    return fault


def approximate(proto: onnx.ModelProto) -> None:
    """One error function is tanh(1.13 x + 0.1 x^3), as GELU is approximated."""
    graph = proto.graph
    at, node = next((i, n) for i, n in enumerate(graph.node) if n.op_type == "Erf")
    x, y = node.input[0], node.output[0]
    constants = {"erf_linear": 1.1283792, "erf_cubic": 0.1009112}
    graph.initializer.extend(
        numpy_helper.from_array(np.float32(v), n) for n, v in constants.items()
    )
    made = [
        helper.make_node("Mul", [x, x], ["erf_square"]),
        helper.make_node("Mul", ["erf_square", "erf_cubic"], ["erf_more"]),
        helper.make_node("Add", ["erf_more", "erf_linear"], ["erf_factor"]),
        helper.make_node("Mul", [x, "erf_factor"], ["erf_inside"]),
        helper.make_node("Tanh", ["erf_inside"], [y]),
    ]
    nodes = [*graph.node[:at], *made, *graph.node[at + 1 :]]
    del graph.node[:]
    graph.node.extend(nodes)


def rare(proto: onnx.ModelProto) -> None:
    """A term that only large inputs switch on: relu(x - 3), for a saturation that was lost."""
    graph = proto.graph
    output = graph.output[0].name
    given = next(i.name for i in graph.input if i.type.tensor_type.elem_type == 1)
    for node in graph.node:
        node.output[:] = ["inner" if name == output else name for name in node.output]
    graph.initializer.append(numpy_helper.from_array(np.float32(3), "three"))
    graph.node.extend([
        helper.make_node("Sub", [given, "three"], ["beyond"]),
        helper.make_node("Relu", ["beyond"], ["switched"]),
        helper.make_node("ReduceSum", ["switched"], ["total"], keepdims=0),
        helper.make_node("Add", ["inner", "total"], [output]),
    ])  # fmt: skip


def batch(proto: onnx.ModelProto) -> None:
    """Every sample is answered as the first of its batch."""
    graph = proto.graph
    output = graph.output[0].name
    for node in graph.node:
        node.output[:] = ["inner" if name == output else name for name in node.output]
    graph.initializer.append(numpy_helper.from_array(np.array([0]), "zero"))
    graph.node.extend([
        helper.make_node("Gather", ["inner", "zero"], ["first"], axis=0),
        helper.make_node("Shape", ["inner"], ["sizes"]),
        helper.make_node("Expand", ["first", "sizes"], [output]),
    ])  # fmt: skip


FAULTS: list[tuple[str, str, Fault]] = [
    ("one weight 2 % off", "lenet.ts17", changed(scale_one)),
    ("one weight 2 % off", "resnet.dynamo", changed(scale_one, 3)),
    ("two channels swapped", "resnet.dynamo", changed(swap)),
    ("two channels swapped", "bert.dynamo", changed(swap, 4)),
    ("weights of one layer in 8 bits", "lenet.ts17", changed(eight_bits)),
    ("weights of one layer in 8 bits", "bert.dynamo", changed(eight_bits, 6)),
    ("NaN in a weight", "lenet.ts17", changed(nan)),
    ("an activation left out", "lenet.ts17", dropped("Relu")),
    ("an activation left out", "mobilenetv3.dynamo", dropped("HardSwish")),
    ("an approximation of erf", "bert.dynamo", approximate),
    ("another epsilon", "convnext.dynamo", attribute("LayerNormalization", "epsilon", 1e-3)),
    ("softmax over the wrong axis", "bert.dynamo", attribute("Softmax", "axis", 1)),
    ("wrong where inputs exceed 3", "lenet.ts17", rare),
    ("wrong from the second sample on", "lenet.ts17", batch),
    ("wrong from the second sample on", "resnet.dynamo", batch),
]


def pairs(folder: Path) -> Iterator[Pair]:
    """All thirty."""
    for a, b in EXPORTERS:
        yield "exporters", f"{a} / {b.partition('.')[2]}", True, fixture(a), fixture(b)
    for name, level in OPTIMISED:
        proto = fixture(name)
        yield "optimiser", f"{name} / {level}", True, proto, optimised(proto, level, folder)
    rng = np.random.default_rng(1)
    stack = layers(rng, [64, 256, 256, 10])
    yield "units in another order", "mlp", True, mlp(stack), mlp(permuted(stack, 1, rng))
    for name in HALVES:
        yield "float16", name, True, fixture(name), half(fixture(name))
    for kind, name, fault in FAULTS:
        proto = fixture(name)
        bad = copied(proto)
        fault(bad)
        yield kind, name, False, proto, bad


# The two judges ----------------------------------------------------------------------------------


def ours(a: onnx.ModelProto, b: onnx.ModelProto) -> tuple[bool | None, str]:
    """Whether they are equivalent, and why not."""
    try:
        report = verify(a, b)
    except Net2NetError as error:
        return None, error.problem
    return bool(report), report.verdict


def polygraphy(a: onnx.ModelProto, b: onnx.ModelProto) -> tuple[bool | None, str]:
    """The same by Polygraphy: two runners, its own inputs, its default comparison."""
    try:
        from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
        from polygraphy.comparator import Comparator
        from polygraphy.logger import G_LOGGER
    except ImportError:
        return None, "not installed"
    G_LOGGER.module_severity = G_LOGGER.CRITICAL
    sessions = [SessionFromOnnx(proto.SerializeToString()) for proto in (a, b)]
    runners = [OnnxrtRunner(s, name=n) for s, n in zip(sessions, "ab", strict=True)]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            results = Comparator.run(runners)
            return bool(Comparator.compare_accuracy(results)), ""
    except Exception as error:
        return None, str(error).splitlines()[0]


def main() -> None:
    """Print each verdict, then the table."""
    rows: dict[tuple[str, bool], list[list[bool]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, name, equal, a, b in pairs(Path(folder)):
            verdicts = [ours(a, b), polygraphy(a, b)]
            good = [verdict is equal for verdict, _ in verdicts]
            rows.setdefault((kind, equal), []).append(good)
            shown = ["?" if v is None else "equal" if v else "differ" for v, _ in verdicts]
            wrong = "" if all(good) else f"   {[text[:90] for _, text in verdicts]}"
            print(f"{kind:32} {name:36} {shown[0]:8} {shown[1]:8}{wrong}", flush=True)
    print("\n| pairs | | onnx-net2net | Polygraphy |\n| --- | --- | --- | --- |")
    totals: dict[bool, list[list[bool]]] = {True: [], False: []}
    for (kind, equal), results in rows.items():
        totals[equal] += results
        print(row(f"{kind}: {'passed' if equal else 'caught'}", results))
    print(row("all that is right: passed", totals[True]))
    print(row("all that is wrong: caught", totals[False]))


def row(title: str, results: list[list[bool]]) -> str:
    """A line of the table."""
    counts = [sum(column) for column in zip(*results, strict=True)]
    return f"| {title} | {len(results)} | {counts[0]} | {counts[1]} |"


if __name__ == "__main__":
    sys.exit(main())
