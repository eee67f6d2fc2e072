"""Models that run in segments: the same numbers, the same verdicts, and little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_net2net as n2n
from onnx_net2net.model.model import Model, load
from onnx_net2net.verification import candidate
from onnx_net2net.verification.candidate import Candidate
from onnx_net2net.verification.contents import contents
from onnx_net2net.verification.segments import Limits, cut
from onnx_net2net.verification.sessions import Session
from onnx_net2net.verification.trials import Planner
from onnx_net2net.verification.verify import run, tensors, verify
from tests.console import FIXTURES, ROOT, environment
from tests.judging import CPU
from tests.long_networks import NETWORKS
from tests.networks import Net

BY_BYTES, BY_NODES = Limits(nbytes=1000, nodes=1 << 30), Limits(nbytes=1 << 60, nodes=7)
SINGLE = Limits(nbytes=1, nodes=1)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut every model at every node."""
    monkeypatch.setattr(candidate, "LIMITS", SINGLE)


# The same numbers ------------------------------------------------------------------------------

FIXED = (
    "bert.fused", "convnext.dynamo", "gpt2.dynamo", "gqa.handmade", "if.dynamo", "lenet.qdq",
    "loop.ts17", "lstm.ts17", "lstm-state.ts11", "llama.dynamo", "mlp.bfloat16-stored",
    "mlp.float64", "mlp.int8", "old.handmade", "resnet.ts17", "scan.dynamo",
    "sklearn-classifier.skl2onnx", "t5.ts17",
)  # fmt: skip
SMALL = {  # for that limit
    ("if.dynamo", BY_NODES), ("loop.ts17", BY_NODES), ("mlp.float64", BY_NODES),
    ("scan.dynamo", BY_BYTES),
}  # fmt: skip


def both_ways(model: Model, limits: Limits) -> tuple[Candidate, list[tuple[object, object]]]:
    """Return a candidate in segments, and pairs of outputs of one session and of that."""
    whole = Candidate("whole", model, CPU)
    # Packed weights are multiplied in another order.
    whole._base = Session(contents(model, as_file=False), CPU, optimised=False, lean=True)
    planned = Planner(whole.run, whole.specs, (whole.graph,)).seeded(2, None)
    parts = Candidate("parts", model, CPU, limits=limits)
    outputs = parts.rerun([feeds for _, feeds, _ in planned])
    assert outputs is not None
    pairs = [(a, b) for (_, _, a), b in zip(planned, outputs, strict=True)]
    assert all(a.keys() == b.keys() for a, b in pairs)
    return parts, [(a[name], b[name]) for a, b in pairs for name in a]


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        pytest.param(name, limits, id=f"{name}-{kind}")
        for name in FIXED
        for kind, limits in (("bytes", BY_BYTES), ("nodes", BY_NODES))
        if (name, limits) not in SMALL
    ],
)
def test_segments_compute_what_one_session_does(name: str, limits: Limits) -> None:
    model = load(FIXTURES / f"{name}.onnx")
    parts, pairs = both_ways(model, limits)
    assert len(parts.segments) > 1
    for whole, cut_up in pairs:
        np.testing.assert_array_equal(whole, cut_up)


def sequences(net: Net) -> list[str]:
    cut = net("SplitToSequence", net("Relu", net.input(6, 3)), net.put(np.array([2, 4])), axis=0)
    return [net("Relu", net("SequenceAt", cut, net.put(np.int64(1))))]


def shared_weight(net: Net) -> list[str]:
    x, weight = net.input(5, 7), net.weight(7, 7)
    for _ in range(4):
        x = net("Tanh", net("MatMul", x, weight))
    return [x]


def constants(net: Net) -> list[str]:
    value = numpy_helper.from_array(np.float32([1.5, -2, 3]))
    constant = net("Constant", value=value)
    x = net("Tanh", net("Add", net.input(2, 3), constant))
    return [net("Mul", net("Exp", x), constant), constant]


def passed_through(net: Net) -> list[str]:
    x = net.input(2, 3)
    return [net("Relu", net("Neg", x)), x, net.weight(4)]


def bfloat16_inside(net: Net) -> list[str]:
    narrow = net("Cast", net("Exp", net.input(4, 3)), to=TensorProto.BFLOAT16)
    return [net("Exp", net("Cast", narrow, to=TensorProto.FLOAT))]


def float8_inside(net: Net) -> list[str]:
    narrow = net("Cast", net("Exp", net.input(4, 3)), to=TensorProto.FLOAT8E4M3FN)
    return [net("Exp", net("Cast", narrow, to=TensorProto.FLOAT)), narrow]


def int4_inside(net: Net) -> list[str]:
    narrow = net("Cast", net.input(4, 3), to=TensorProto.INT4)
    return [net("Exp", net("Cast", narrow, to=TensorProto.FLOAT))]


def bfloat16_weight(net: Net) -> list[str]:
    narrow = net("Cast", net.weight(4, 3), to=TensorProto.BFLOAT16)
    same = net("Reshape", net("Identity", narrow), net.put(np.array([12])))
    return [net("Add", net("Cast", same, to=TensorProto.FLOAT), net.input(1, 1))]


def optional_inside(net: Net) -> list[str]:
    wrapped = net("Optional", net("Relu", net.input(2, 3)))
    return [net("Exp", net("OptionalGetElement", wrapped))]


def sequence_out(net: Net) -> list[str]:
    x = net("Exp", net.input(2, 3))
    return [net("SequenceConstruct", x, net("Neg", x))]


CROSSING: dict[str, tuple[Callable[[Net], list[str]], int]] = {
    # what crosses, and the number of segments
    "a sequence": (sequences, 4),
    "a weight that all segments read": (shared_weight, 8),
    "Constants, one of them an output": (constants, 4),
    "an input and a weight that are outputs": (passed_through, 2),
    "bfloat16": (bfloat16_inside, 4),
    "bfloat16 that may lie in another's memory": (bfloat16_weight, 5),
    "float8": (float8_inside, 4),
    "int4": (int4_inside, 3),
    "an optional value, which is not cut": (optional_inside, 1),
    "an output that is no tensor, which is not cut": (sequence_out, 1),
}


@pytest.mark.parametrize("kind", CROSSING)
def test_whatever_crosses(kind: str) -> None:
    build, count = CROSSING[kind]
    net = Net(opset=21)
    outputs = build(net)
    proto = net.model(*outputs)
    for value in proto.graph.output if "no tensor" in kind else ():
        inner = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
        value.type.CopyFrom(helper.make_sequence_type_proto(inner))
    parts, pairs = both_ways(load(proto), SINGLE)
    assert len(parts.segments) == count
    assert pairs
    for whole, cut_up in pairs:
        np.testing.assert_array_equal(whole, cut_up)


# Where it is cut -------------------------------------------------------------------------------


def test_narrow_places_are_taken_and_no_segment_is_too_large() -> None:
    model = load(NETWORKS["numbered"](300))  # blocks of four nodes around one stream
    for limits in (Limits(nodes=50), Limits(nbytes=8000)):
        segments = cut(model, limits)
        assert [len(segment.writes) for segment in segments] == [1] * len(segments)
        assert all(segment.nbytes <= limits.nbytes for segment in segments)
        assert all(len(segment.nodes) <= limits.nodes for segment in segments)
        assert len(segments) <= 2 * max(1201 / limits.nodes, model.parameters * 4 / limits.nbytes)
        nodes = [node.name for segment in segments for node in segment.nodes]
        assert nodes == [node.name for node in model.proto.graph.node]


def test_a_second_model_is_cut_where_the_first_is() -> None:
    small = load(NETWORKS["numbered"](100))
    large = n2n.widen(small, factor=2, names=["h.*.mlp.up"])
    first = Candidate("first", small, CPU, limits=Limits(nbytes=4000))
    second = Candidate("second", large, CPU, beside=first.crossing, limits=Limits(nbytes=4000))
    assert len(second.segments) > len(first.segments) > 5
    assert len(first.crossing & second.crossing) > 0.8 * len(first.crossing)


# The same verdicts -----------------------------------------------------------------------------


def changed(model: Model, name: str, factor: float) -> Model:
    """Multiply the first element of a weight."""
    array = model.weights[name].array().copy()
    array.flat[0] *= factor
    weight = n2n.model.model.Computed(name, model.weights[name].dtype, array.shape, lambda: array)
    return model.with_changes(model.editable(), {name: weight})


GROWN = ("bert.fused", "lstm.ts17", "mlp.bfloat16", "mlp.float16", "mlp.int8")


@pytest.mark.parametrize("name", GROWN)
def test_a_grown_model_is_equivalent_in_segments(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(FIXTURES / f"{name}.onnx")
    grown = n2n.widen(model, factor=2, all=True, seed=3)
    whole = verify(model, grown, seeds=2, provider="cpu")
    monkeypatch.setattr(candidate, "LIMITS", Limits(nodes=4))
    report = verify(model, grown, seeds=2, provider="cpu")
    assert report, report.verdict
    assert set(report.noise_sources) >= set(whole.noise_sources)
    for a, b in zip(whole.outputs, report.outputs, strict=True):
        assert b.tolerance < 10 * a.tolerance


@pytest.mark.parametrize("layer", [0, 2])
def test_one_changed_weight_in_one_segment_is_seen(layer: int, tiny: None) -> None:
    model = load(NETWORKS["numbered"](3))
    assert verify(model, model, provider="cpu")
    report = verify(model, changed(model, f"h.{layer}.mlp.up.weight", 1.01), provider="cpu")
    assert not report
    (told,) = [warning for warning in report.warnings if "inside" in warning]
    assert f"'/h.{layer}/mlp/up/MatMul_y' is the first that differs" in told
    before = report.inside[[bool(tensor) for tensor in report.inside].index(False) - 1].name
    assert f"{before!r} agrees" in told


def signs(seed: int = 0) -> Model:
    """Layers whose output keeps the sign alone."""
    net = Net(seed=seed)
    x = net.input(4, 6)
    for index in range(4):
        x = net("Tanh", net("MatMul", x, net.weight(6, 6, name=f"{index}.weight")))
    return load(net.model(net("Sign", x)))


def test_what_no_output_shows_is_told_of(tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = signs()
    grown = changed(model, "2.weight", 1.001)
    report = verify(model, grown, provider="cpu")
    assert report, "no output shows it"
    (told,) = [warning for warning in report.warnings if "inside" in warning]
    assert "'matmul4_y' inside differs" in told and "which no output shows" in told
    assert not any("inside" in warning for warning in verify(model, model).warnings)
    assert json.loads(json.dumps(report.as_dict()))["inside"][4]["equivalent"] is False


def test_equal_names_of_other_tensors_are_no_difference(tiny: None) -> None:
    """Two exporters number tensors their own way."""
    model = signs()
    proto = model.editable()
    names = [name for node in proto.graph.node[:-1] for name in node.output]
    other = dict(zip(names, names[::-1], strict=True))
    for node in proto.graph.node:
        for field in (node.input, node.output):
            field[:] = [other.get(name, name) for name in field]
    report = verify(model, model.with_changes(proto, {}), provider="cpu")
    assert report and report.verdict == "equivalent"
    assert any(not tensor for tensor in report.inside)
    assert not any("inside" in warning for warning in report.warnings)


def test_full_tensors_inside_do_not_make_up_for_empty_outputs(tiny: None) -> None:
    net = Net()
    hidden = net("Tanh", net("Exp", net.input(4, 6)))
    empty = net("Slice", hidden, *(net.put(np.array([number])) for number in (2, 2, 0)))
    model = load(net.model(empty))
    report = verify(model, model, provider="cpu")
    assert report.inside and not report, report.verdict
    with pytest.raises(n2n.UsageError, match=r"'tanh1_y', which is no output"):
        verify(model, model, provider="cpu", rtol={"tanh1_y": 0.1})


def last(build: Callable[[Net, str], str], factor: float, *, typed: bool = True) -> Model:
    """A network of two outputs, of which the second one is special."""
    net = Net(opset=21)
    x = net.input(4, 3)
    scaled = net("Mul", net("Exp", x), net.put(np.float32(factor)))
    proto = net.model(net("Exp", x), build(net, scaled))
    if not typed:
        proto.graph.output[1].ClearField("type")
    return load(proto)


SPECIAL: dict[str, tuple[Callable[[Net, str], str], bool]] = {
    # the second output, and whether its type is declared
    "float8": (lambda net, x: net("Cast", x, to=TensorProto.FLOAT8E4M3FN), True),
    "float8 of another kind": (lambda net, x: net("Cast", x, to=TensorProto.FLOAT8E5M2), True),
    "strings": (lambda net, x: net("Cast", x, to=TensorProto.STRING), False),
    "a sequence": (lambda net, x: net("SequenceConstruct", x, x), False),
    "random numbers": (lambda net, x: net("Add", x, net("RandomNormalLike", x)), True),
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_an_output_of_a_special_kind_is_not_left_out(kind: str, tiny: None) -> None:
    """Of a network with two outputs the other one alone would be compared."""
    build, typed = SPECIAL[kind]
    one, two = (last(build, factor, typed=typed) for factor in (1, 2))
    assert bool(verify(one, one, provider="cpu")) == (kind != "random numbers")
    assert not verify(one, two, provider="cpu")


def test_an_output_that_numpy_lacks_is_refused(tiny: None) -> None:
    model = last(lambda net, x: net("Cast", x, to=TensorProto.INT4), 1)
    with pytest.raises(n2n.UsageError, match="No corresponding Numpy type"):
        verify(model, model, provider="cpu")


def test_optional_values_of_branches_do_not_cross(tiny: None) -> None:
    """An empty one ends the process that asks for its type."""
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [2, 3])
    optional = helper.make_optional_type_proto(tensor)
    results = [helper.make_value_info(name, optional) for name in ("none", "some")]
    none = helper.make_node("Optional", [], ["none"], type=tensor)
    some = helper.make_node("Optional", ["e"], ["some"])
    branches = {
        "then_branch": helper.make_graph([none], "then", [], results[:1]),
        "else_branch": helper.make_graph([some], "else", [], results[1:]),
    }
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("ReduceMax", ["e"], ["most"], keepdims=0),
        helper.make_node("Less", ["most", "limit"], ["small"]),
        helper.make_node("If", ["small"], ["maybe"], **branches),
        helper.make_node("OptionalHasElement", ["maybe"], ["has"]),
        helper.make_node("Cast", ["has"], ["y"], to=TensorProto.FLOAT),
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [2, 3]), ("y", []))
    )
    limit = numpy_helper.from_array(np.float32(3), "limit")
    graph = helper.make_graph(nodes, "g", [x], [y], [limit])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    assert len(Candidate("parts", load(proto), CPU).segments) == 1
    assert verify(proto, proto, provider="cpu").trials


def test_nodes_that_nothing_needs_are_no_segment(tiny: None) -> None:
    net = Net()
    x = net("Exp", net.input(2, 3))
    net("MatMul", x, net.weight(3, 9))
    assert verify(proto := net.model(net("Neg", x)), proto, provider="cpu")
    net("MatMul", x, net.weight(3, 9))
    assert verify(proto := net.model("exp0_y"), proto, provider="cpu")


def test_what_is_too_large_but_whole_is_run_optimised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate, "LIMITS", SINGLE)
    net = Net()
    model = load(net.model(net("MatMul", net.input(2, 30), net.weight(30, 30))))
    report = verify(model, model, provider="cpu")
    assert report and not report.warnings


@pytest.mark.parametrize("limits", [SINGLE, Limits()], ids=["segments", "whole"])
def test_inputs_of_another_type_are_refused(
    limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidate, "LIMITS", limits)
    net = Net()
    x = net.input(3, dtype=np.int64)
    model = load(net.model(net("Neg", net("Abs", x))))
    for wrong in (np.float32([1.5, 2, 3]), np.complex64([1j, 2, 3]), np.array([1, None, 3])):
        with pytest.raises(n2n.Net2NetError):
            run(model, {x: wrong}, provider="cpu")
    with pytest.raises(n2n.Net2NetError):
        run(model, {x: np.array([1, 2, 3])}, ["nothing"], provider="cpu")


def test_a_trial_on_which_a_segment_stops_is_named(tiny: None) -> None:
    def model(rows: int) -> Model:
        net = Net()
        x = net("Relu", net.input("batch", 4))
        return load(net.model(net("Reshape", x, net.put(np.array([-1, 4 * rows])))))

    report = verify(model(1), model(2), sizes={"batch": [2, 3]}, provider="cpu")
    assert "the second model fails on seed 1, batch=3" in report.verdict


def test_a_model_that_only_loads_without_its_segments_is_no_riddle(tiny: None) -> None:
    net = Net()
    proto = net.model(net("Relu", net("Neg", net.input(2, 3))))
    proto.graph.node[1].op_type = "Unheard"
    proto.graph.node[1].domain = "of.nobody"
    proto.opset_import.add(domain="of.nobody", version=1)
    with pytest.raises(n2n.InvalidModel, match=r"cannot load the first model: .*of\.nobody"):
        verify(proto, proto, provider="cpu")


def test_single_runs_and_tensors_in_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(FIXTURES / "resnet.dynamo.onnx")
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 3, 40, 36)).astype(np.float32)}
    feeds = {model.proto.graph.input[0].name: feeds["x"]}
    whole = run(model, feeds, provider="cpu") | tensors(model, None, feeds, provider="cpu")
    monkeypatch.setattr(candidate, "LIMITS", BY_NODES)
    cut_up = run(model, feeds, provider="cpu") | tensors(model, None, feeds, provider="cpu")
    assert list(whole) == list(cut_up)
    for name, value in whole.items():
        np.testing.assert_allclose(value, cut_up[name], rtol=1e-4, atol=1e-4)
    last = model.proto.graph.output[0].name
    assert list(run(model, feeds, [last], provider="cpu")) == [last]


# Memory ----------------------------------------------------------------------------------------

_WATCHED = """
import sys, threading
from pathlib import Path
from onnx_net2net.model.model import load
from onnx_net2net.verification import candidate
from onnx_net2net.verification.segments import Limits
from onnx_net2net.verification.verify import verify
candidate.LIMITS = Limits(nbytes=int(sys.argv[2]))
def anonymous():
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) << 10
def watch():
    while not done.wait(0.002):
        peaks.append(anonymous())
model = load(sys.argv[1])
verify(load("fixtures/lenet.ts17.onnx"), load("fixtures/lenet.ts17.onnx"), provider="cpu", seeds=1)
before, peaks, done = anonymous(), [0], threading.Event()
watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
assert verify(sys.argv[1], model, provider="cpu", seeds=1)
done.set()
watcher.join()
print(max(peaks) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_memory_is_that_of_a_segment(dtype: type, tmp_path: Path) -> None:
    """Of a file of 100 MB, or 50 MB; in one session they take six times as much in float32."""
    net = Net(dtype=dtype)
    x = net.input(1, 1024)
    for _ in range(24):
        x = net("Relu", net("MatMul", x, net.weight(1024, 1024, low=-0.05, high=0.05)))
    path = load(net.model(x)).save(tmp_path / "model.onnx", external=True)
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED, path, str(8 << 20)],
        cwd=ROOT, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100 << 20


# A quick look ----------------------------------------------------------------------------------


def test_a_sample_says_what_it_is(tmp_path: Path) -> None:
    model = load(FIXTURES / "resnet.dynamo.onnx")
    grown = n2n.widen(model, {"layer1.0.conv1": 13})
    report = verify(model, grown, sample=True, provider="cpu")
    assert report and report.verdict == "equivalent, as far as a sample shows"
    assert report.sample and report.as_dict()["sample"]
    assert 'name="onnx-net2net verify (a sample)"' in report.junit()
    assert len(report.trials) == 1
    assert report.noise_sources == ["inputs and weights moved by one ulp"]
    halves = []
    for factor in (1, 1.015):
        net = Net(dtype=np.float16)
        scale = net.put(np.float16(factor))
        halves.append(load(net.model(net("Mul", net("Exp", net.input(4, 8)), scale))))
    assert not verify(*halves, sample=True, provider="cpu"), "noise is less than 16 eps"
    fault = verify(model, changed(model, "fc.weight", 1.1), sample=True, provider="cpu")
    assert fault.verdict.startswith(
        "not equivalent in a sample, with noise that was measured once:"
    )
