"""Native code that does not survive absurd operands runs elsewhere, and costs one clear refusal."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_net2net as n2n
from onnx_net2net.model import hazards, native
from onnx_net2net.model.isolation import Failed, Isolated
from onnx_net2net.verification.engine import CPU, Engine, hazard, open_engine, process_of
from tests.console import environment
from tests.small_models import ROOT


def _die() -> None:
    os.abort()


def _hang() -> None:
    time.sleep(60)


def _grow() -> int:
    return len(bytearray(1 << 40))


def _wrong() -> None:
    raise ValueError("a reason")


# What the process of the tests below offers.
ERRORS = (ValueError,)
CALLS = {"die": _die, "grow": _grow, "hang": _hang, "wrong": _wrong, "double": lambda x: 2 * x}


@pytest.mark.parametrize(
    ("call", "said"),
    [("die", "it crashes"), ("grow", "memory"), ("hang", "too long"), ("wrong", "a reason")],
)
def test_what_goes_wrong_is_told_and_the_next_call_works(call: str, said: str) -> None:
    process = Isolated(__name__, 1 << 30)
    with pytest.raises(Failed, match=said):
        process.call(call, 5 if call != "hang" else 1)
    assert process.call("double", 30, x=np.ones(3)).tolist() == [2, 2, 2]


def _model(
    nodes: list[onnx.NodeProto], weights: dict[str, Any], shape: list[Any], opset: int = 20
) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "net", [value("x", TensorProto.FLOAT, shape)],
        [onnx.ValueInfoProto(name=nodes[-1].output[0])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )  # fmt: skip
    graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def _sliced(
    node: onnx.NodeProto, weights: dict[str, Any], shape: list[Any], axis: int = 1
) -> onnx.ModelProto:
    """``node``, and a Slice of what it writes: onnx asserts that there is something to cut."""
    cut = helper.make_node("Slice", [node.output[0], "from", "to", "along"], ["y"])
    return _model(
        [node, cut],
        weights | {"from": np.array([4]), "to": np.array([15]), "along": np.array([axis])},
        shape,
    )


BIG = 2**40
HOSTILE = {
    "stft-step": _sliced(
        helper.make_node("STFT", ["x", "step", "window"], ["s"]),
        {"step": np.int64(0), "window": np.ones(9, np.float32)}, ["b", 9, 1],
    ),
    "stft-window": _sliced(
        helper.make_node("STFT", ["x", "step", "", "length"], ["s"]),
        {"step": np.int64(1), "length": np.int64(BIG)}, [1, 9, 1],
    ),
    "conv-kernel": _sliced(
        helper.make_node("Conv", ["x", "w"], ["s"]), {"w": np.ones((2, 3, 9, 9), np.float32)},
        [1, 3, 4, 4], 2,
    ),
    "pool-kernel": _sliced(
        helper.make_node("MaxPool", ["x"], ["s"], kernel_shape=[9, 9]), {}, [1, 3, 4, 4], 2
    ),
    "pad-negative": _sliced(
        helper.make_node("Pad", ["x", "pads"], ["s"]), {"pads": np.array([0, -9, 0, -9])}, [2, 5]
    ),
    "slice-far": _model(
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Slice", ["s", "zero", "far"], ["t"]),
            helper.make_node("ConstantOfShape", ["t"], ["y"]),
        ],
        {"zero": np.array([0]), "far": np.array([-(2**31)])}, [2, 3],
    ),
    "fill": _model(
        [helper.make_node("ConstantOfShape", ["s"], ["y"])], {"s": np.array([BIG])}, [2]
    ),
    "expand": _model(
        [helper.make_node("Expand", ["x", "s"], ["y"])], {"s": np.array([BIG, 1])}, [1]
    ),
    "tile": _model([helper.make_node("Tile", ["x", "s"], ["y"])], {"s": np.array([BIG])}, [3]),
    "range": _model(
        [
            helper.make_node("Range", ["a", "b", "c"], ["r"]),
            helper.make_node("Cast", ["r"], ["y"], to=1),
        ],
        {"a": np.int64(0), "b": np.int64(BIG), "c": np.int64(1)}, [3],
    ),
    "range-step": _model(
        [helper.make_node("Range", ["a", "b", "c"], ["y"])],
        {"a": np.float32(0), "b": np.float32(9), "c": np.float32(0)}, [3],
    ),
    "one-hot": _model(
        [helper.make_node("OneHot", ["x", "d", "v"], ["y"])],
        {"d": np.int64(BIG), "v": np.float32([0, 1])}, [3],
    ),
    "window": _model([helper.make_node("HannWindow", ["n"], ["y"])], {"n": np.int64(10**12)}, [3]),
    "resize": _model(
        [helper.make_node("Resize", ["x", "", "s"], ["y"])], {"s": np.float32([1, 1e30])}, [3, 4]
    ),
    "resize-nan": _model(
        [helper.make_node("Resize", ["x", "", "s"], ["y"])], {"s": np.float32([1, "nan"])}, [3, 4]
    ),
    "split": _model(
        [helper.make_node("Split", ["x"], ["y", "z"], num_outputs=BIG, axis=0)], {}, [6]
    ),
    "space-to-depth": _model(
        [helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=0)], {}, [1, 2, 4, 4]
    ),
    "pool-stride": _model(
        [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2], strides=[0])], {}, [1, 2, 8]
    ),
    "conv-group": _model(
        [helper.make_node("Conv", ["x", "w"], ["y"], group=0)],
        {"w": np.ones((2, 2, 1), np.float32)}, [1, 2, 8],
    ),
    "dft": _model([helper.make_node("DFT", ["x", "n"], ["y"])], {"n": np.int64(BIG)}, [1, 8, 1]),
    "unsqueeze": _model(
        [helper.make_node("Unsqueeze", ["x", "a"], ["y"])], {"a": np.array([BIG])}, [3]
    ),
    "attention-heads": _model(
        [helper.make_node("Attention", ["x", "x", "x"], ["y"], q_num_heads=0, kv_num_heads=0)],
        {}, [1, 4, 8], 23,
    ),
    "slice-step": _model(  # onnx's inference counts a shape's elements with the step in 32 bits
        [helper.make_node("Shape", ["x"], ["s"]),
         helper.make_node("Slice", ["s", "b", "e", "a", "t"], ["n"]),
         helper.make_node("ConstantOfShape", ["n"], ["y"])],
        {"b": np.zeros(1, np.int64), "e": np.ones(1, np.int64), "a": np.zeros(1, np.int64),
         "t": np.array([1 << 40])},
        [2, 3],
    ),
    "gather-batch": _model(
        [helper.make_node("GatherND", ["x", "i"], ["y"], batch_dims=-2)],
        {"i": np.zeros((1, 1), np.int64)}, [2, 3],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_operands_end_no_process(name: str) -> None:
    """Read, looked at, counted and judged: an answer, or an error of ours, in little memory."""
    try:
        model = n2n.load(HOSTILE[name])
    except n2n.InvalidModel as error:
        assert error.remedy
        return
    assert all(dimension.growth == "fixed" for dimension in n2n.inspect(model))
    for call in (n2n.costs, n2n.blocks, lambda m: n2n.verify(m, m, seeds=1, provider="cpu")):
        try:
            call(model)
        except n2n.Net2NetError as error:
            assert str(error)


def test_reading_what_nothing_writes_ends_no_process() -> None:
    nodes = [
        helper.make_node("RegexFullMatch", ["nowhere"], ["match"], pattern="a"),
        helper.make_node("Cast", ["match"], ["number"], to=1),
        helper.make_node("Add", ["x", "number"], ["y"]),
    ]
    model = n2n.load(_model(nodes, {}, [2, 3]))
    with pytest.raises(n2n.Net2NetError, match="nowhere"):
        n2n.verify(model, model)


@pytest.mark.parametrize("name", ["Concat", "EyeLike", "LayerNormalization", "Max", "Sum"])
def test_an_input_that_must_be_there(name: str) -> None:
    node = helper.make_node(name, ["x", ""][: 1 if name == "EyeLike" else 2], ["y"])
    if name == "EyeLike":
        node.input[0] = ""
    if name == "Concat":
        node.attribute.append(helper.make_attribute("axis", 0))
    with pytest.raises(n2n.InvalidModel, match="must not be absent"):
        n2n.inspect(n2n.load(_model([node], {}, [2, 2])))


def test_ordinary_networks_are_not_odd() -> None:
    """So they run here, at full speed."""
    odd = {path.stem: hazard(n2n.load(path)) for path in (ROOT / "fixtures").glob("*.onnx")}
    assert len(odd) > 90
    assert not {name: reason for name, reason in odd.items() if reason}


def test_odd_models_run_elsewhere_and_come_out_right() -> None:
    """Odd is no judgement: what survives is compared as anything else is."""
    node = helper.make_node("Loop", ["", "go", "x"], ["y"])
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", "state"], ["next"]),
            helper.make_node("Not", ["condition"], ["again"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("count", TensorProto.INT64, []),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [3]),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [3]),
        ],
    )
    node.attribute.append(helper.make_attribute("body", body))
    model = n2n.load(_model([node], {"go": np.array(True)}, [3]))
    assert "no bound" in str(hazard(model))
    assert n2n.verify(model, model, seeds=1, provider="cpu")


def test_a_session_elsewhere_is_never_answered_by_a_later_one() -> None:
    """Sessions of a model and of its copies follow one another in one process."""

    def opened(operator: str) -> Engine:
        proto = _model([helper.make_node(operator, ["x"], ["y"])], {}, [2])
        return open_engine(proto.SerializeToString(), CPU, optimised=False, process=process)

    process = process_of(n2n.load(HOSTILE["tile"]))
    assert (
        process is not None
        and process_of(n2n.load(_model([helper.make_node("Relu", ["x"], ["y"])], {}, [2]))) is None
    )
    feeds = {"x": np.float32([-1, 1])}
    first = opened("Relu")
    assert first.run(["y"], feeds)[0].tolist() == [0, 1]
    second = opened("Neg")
    assert second.run(["y"], feeds)[0].tolist() == [1, -1]
    with pytest.raises(Failed):
        first.run(["y"], feeds)


def test_odd_inference_is_the_same() -> None:
    proto = _model([helper.make_node("Relu", ["x"], ["y"])], {}, [2, 3])
    here = native.infer_shapes(proto, lambda name: None)
    there = native.infer_shapes(proto, lambda name: None, isolated=True)
    assert here is not None and here == there
    assert hazards.node_hazard(proto.graph.node[0], lambda name: None) is None


@pytest.mark.parametrize("size", [2**24, 2**31 - 1])
@pytest.mark.parametrize("how", ["input", "Reshape", "Expand", "flattened"])
def test_a_long_vector_is_not_spelled_out(how: str, size: int) -> None:
    """onnx takes any vector for one of sizes, and keeps 70 bytes for each element."""
    shapes = {"input": [size], "Reshape": [1], "Expand": [1], "flattened": [size // 8, 8]}
    made = {
        "input": helper.make_node("Identity", ["x"], ["h"]),
        "Reshape": helper.make_node("Reshape", ["x", "stated"], ["h"]),
        "Expand": helper.make_node("Expand", ["x", "stated"], ["h"]),
        "flattened": helper.make_node("Reshape", ["x", "rest"], ["h"]),
    }
    squares = [helper.make_node("Mul", [a, a], [b]) for a, b in ("hi", "ij", "jy")]
    weights = {"stated": np.array([size]), "rest": np.array([-1])}
    proto = _model([made[how], *squares], weights, shapes[how])
    started = time.process_time()
    native.infer_shapes(proto, weights.get)
    native.absurd_inside(proto)
    n2n.inspect(n2n.load(proto))
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("axis", [-(2**40), 2, -3, 2**40])
def test_an_axis_that_is_not_there_pins_all(op: str, axis: int) -> None:
    """Runtimes cut such a number down to 32 bits and take some axis; this must not take another."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node(op, ["h"], ["s"], axis=axis),
        helper.make_node("MatMul", ["s", "v"], ["y"]),
    ]
    weights = {"w": np.ones((4, 6), np.float32), "v": np.ones((6, 3), np.float32)}
    model = n2n.load(_model(nodes, weights, ["b", 4]))
    assert all(dimension.growth == "fixed" for dimension in n2n.inspect(model))


def test_a_slice_behind_a_window_survives_small_trial_sizes() -> None:
    """Sizes that are tried may leave less than nothing between the two."""
    nodes = [
        helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[40], strides=[3]),
        helper.make_node("Slice", ["p", "from", "to", "axis"], ["y"]),
    ]
    bounds = {"from": np.array([0]), "to": np.array([3]), "axis": np.array([2])}
    assert n2n.verify(*[n2n.load(_model(nodes, bounds, [1, 2, "n"]))] * 2, provider="cpu")


def test_sizes_that_inputs_tell_are_computed_elsewhere() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["k"], to=TensorProto.INT64),
        helper.make_node("ConstantOfShape", ["k"], ["y"]),
    ]
    assert "a size that the inputs tell" in str(hazard(n2n.load(_model(nodes, {}, [1]))))
    nodes[0] = helper.make_node("Shape", ["x"], ["k"])
    assert hazard(n2n.load(_model(nodes, {}, [1]))) is None


def test_nothing_is_imported_from_the_current_folder(tmp_path: Path) -> None:
    """A stranger's archive may hold a numpy.py beside its model."""
    for module in ("numpy", "pickle", "onnx", "onnxruntime", "ml_dtypes"):
        (tmp_path / f"{module}.py").write_text("open('ran', 'w')")
    onnx.save(HOSTILE["range"], tmp_path / "m.onnx")
    code = "import sys; from onnx_net2net.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-P", "-c", code, "verify", "m.onnx", "m.onnx"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120
    )
    assert not (tmp_path / "ran").exists(), "a file of the current folder was run"
    assert done.returncode in (0, 1, 2), done.stderr
