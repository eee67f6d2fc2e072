"""Where two models part: planted faults are found at the node in which they lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_net2net.verification.divergence import Divergence, locate
from onnx_net2net.verification.verify import verify
from tests.console import complaint, finished, left_behind
from tests.verify_networks import (
    convnet,
    edited,
    layers,
    mlp,
    model,
    permuted,
    scale_one,
    swap_channels,
)


def parted(a: onnx.ModelProto, b: onnx.ModelProto, **options: object) -> Divergence | None:
    report = verify(a, b, **options)  # type: ignore[arg-type]
    assert not report, "or there is nothing to look for"
    return locate(a, b, report, **options)  # type: ignore[arg-type]


def renamed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same with other names inside, as another exporter has it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    inside = {o for node in proto.graph.node for o in node.output}
    inside -= {value.name for value in proto.graph.output}
    for node in copy.graph.node:
        for names in (node.input, node.output):
            names[:] = [f"t/{name}" if name in inside else name for name in names]
    return copy


@pytest.mark.parametrize("other", [lambda proto: proto, renamed])
@pytest.mark.parametrize("at", range(4))
def test_a_planted_fault_is_found_at_its_layer(
    at: int, other: Callable[[onnx.ModelProto], onnx.ModelProto], rng: np.random.Generator
) -> None:
    proto = mlp(layers(rng, [5, 9, 9, 9, 4]), activation="Tanh")
    divergence = parted(proto, other(edited(proto, f"w{at}", scale_one)))
    assert divergence is not None and divergence.operator == "Gemm"
    assert divergence.tensor == ("y" if at == 3 else f"h{at}")
    assert list(divergence.feeds) == ["x" if at == 0 else f"a{at - 1}"]
    assert [node.op_type for node in divergence.a.proto.graph.node] == ["Gemm"]
    assert "differ by more than" in divergence.problem and "all that it reads" in str(divergence)


def test_the_parts_are_models_that_differ(rng: np.random.Generator, tmp_path: Path) -> None:
    proto = convnet(rng)
    divergence = parted(proto, renamed(edited(proto, "s", scale_one)))
    assert divergence is not None and divergence.operator == "BatchNormalization"
    folder = tmp_path / "parted"
    divergence.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["a.onnx", "b.onnx", "inputs.npz"]
    a, b, inputs = (folder / name for name in ("a.onnx", "b.onnx", "inputs.npz"))
    assert not verify(a, b, inputs=inputs)
    assert verify(a, a, inputs=inputs)
    assert len(onnx.load(a).graph.node) == 1 and len(onnx.load(a).graph.initializer) == 4


def test_an_operator_that_one_model_lacks(rng: np.random.Generator) -> None:
    proto = mlp(layers(rng, [5, 9, 9, 4]))
    bad = onnx.ModelProto()
    bad.CopyFrom(proto)
    relu = bad.graph.node[3]
    assert relu.op_type == "Relu"
    bad.graph.node[4].input[0] = relu.input[0]
    del bad.graph.node[3]
    divergence = parted(proto, bad)
    assert divergence is not None and divergence.tensor == "y" and "h1" in divergence.feeds
    assert [len(m.proto.graph.node) for m in (divergence.a, divergence.b)] == [2, 1]


def test_equal_layers_in_another_order_are_told_apart(rng: np.random.Generator) -> None:
    """Hidden units in another order differ by name and agree in nothing; the fault lies behind."""
    stack = layers(rng, [5, 9, 9, 4])
    wrong = edited(mlp(permuted(stack, 0, rng)), "w2", swap_channels)
    divergence = parted(mlp(stack), wrong)
    assert divergence is not None and divergence.tensor == "y" and list(divergence.feeds) == ["a1"]


def test_by_position_and_after_a_cast(rng: np.random.Generator) -> None:
    stack = layers(rng, [5, 9, 9, 4])
    wrong = edited(mlp(stack, np.float16, output="z"), "w1", swap_channels)
    wrong.graph.input[0].name = "in"
    wrong.graph.node[0].input[0] = "in"
    divergence = parted(mlp(stack), wrong, by_position=True)
    assert divergence is not None and divergence.tensor == "h1"


def test_a_body_that_captures_is_cut_out_whole(rng: np.random.Generator) -> None:
    def branching(factor: float) -> onnx.ModelProto:
        def body(name: str, operator: str) -> onnx.GraphProto:
            node = helper.make_node(operator, ["h", "f"], [f"{name}_y"])
            value = helper.make_tensor_value_info(f"{name}_y", 1, None)
            return helper.make_graph([node], name, [], [value])

        nodes = [
            helper.make_node("Abs", ["x"], ["h"]),
            helper.make_node("If", ["c"], ["i"], then_branch=body("t", "Mul"),
                             else_branch=body("e", "Add")),
            helper.make_node("Exp", ["i"], ["y"]),
        ]  # fmt: skip
        weights = {"f": np.full(1, factor, np.float32), "c": np.array(True)}
        return model(nodes, [("x", 1, ["b", 3])], [("y", 1, ["b", 3])], weights)

    divergence = parted(branching(0.5), branching(0.6))
    assert divergence is not None and divergence.operator == "If"
    assert list(divergence.feeds) == ["h"] and not verify(divergence.a, divergence.b)


def test_nothing_is_located_where_nothing_differs(rng: np.random.Generator) -> None:
    proto = mlp(layers(rng, [5, 9, 4]))
    assert locate(proto, proto, verify(proto, proto)) is None


def test_the_command_writes_the_parts(rng: np.random.Generator, tmp_path: Path) -> None:
    good, bad, folder = tmp_path / "a.onnx", tmp_path / "b.onnx", tmp_path / "parted"
    onnx.save(convnet(rng), good)
    onnx.save(edited(onnx.load(good), "s", scale_one), bad)
    asked = ("verify", good, bad, "--bisect", folder)
    result = finished(*asked)
    assert result.code == 1 and "the models part at node 'n' (BatchNormalization)" in result.out
    names = ["a.onnx", "b.onnx", "inputs.npz"]
    assert left_behind(folder) == names
    again = ("verify", folder / "a.onnx", folder / "b.onnx", "--inputs", folder / "inputs.npz")
    assert finished(*again).code == 1
    assert "exists" in complaint(finished(*asked), 2)[0]
    result = finished(*asked, "--force", "--json")
    assert result.code == 1 and "(written to" in json.loads(result.out)["bisect"]
    equal = finished("verify", good, good, "--bisect", tmp_path / "none")
    assert equal.code == 0 and left_behind(tmp_path) == ["a.onnx", "b.onnx", "parted"]
    recorded = ("verify", good, "--against", good, "--inputs", good, "--bisect", folder)
    assert "recorded outputs have no graph" in complaint(finished(*recorded), 2)[0]
