"""Blocks are found by structure where names tell nothing, and copies get names that speak."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node

import onnx_net2net as n2n
from onnx_net2net.deepening import segments
from tests.console import FIXTURES
from tests.deepening.test_blocks import EXPECTED, NAMES

RANDOM = np.random.default_rng(1)


def anonymous(model: n2n.Model) -> tuple[n2n.Model, dict[str, str]]:
    """``model`` under names that say nothing, {old: new}; its inputs and outputs keep theirs."""
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    kept = {value.name for value in (*graph.input, *graph.output)}
    old = [entry.name for entry in graph.initializer]
    old += [name for node in graph.node for name in node.output if name]
    names = {name: f"t{i}" for i, name in enumerate(dict.fromkeys(old)) if name not in kept}
    for entry in graph.initializer:
        entry.name = names.get(entry.name, entry.name)
    for index, node in enumerate(graph.node):
        node.name = f"n{index}"
        del node.metadata_props[:]
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    del graph.value_info[:]
    weights = {names[w]: model.weights[w].renamed(names[w]) for w in names if w in model.weights}
    return model.with_changes(proto, weights), names


def exact(model: n2n.Model) -> list[n2n.Block]:
    return [block for block in n2n.blocks(model) if block.exact]


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith(tuple(EXPECTED))])
def test_names_do_not_matter(name: str) -> None:
    """Each block that has a name is found without it, or as its halves one behind the other."""
    model = n2n.load(FIXTURES / name)
    plain, names = anonymous(model)
    following = {block.input: block for block in exact(plain)}
    for block in exact(model):
        at, found = names.get(block.input, block.input), set()
        while at in following and at != names.get(block.output, block.output):
            found |= set(following[at].parameters)
            at = following[at].output
        assert at == names.get(block.output, block.output), block.name
        assert found == {names[parameter] for parameter in block.parameters}, block.name


@pytest.mark.parametrize("name", ["bert.fused", "llama.dynamo", "resnet.ts17", "vit.dynamo"])
def test_copies_of_nameless_blocks_are_the_identity(name: str) -> None:
    model, _ = anonymous(n2n.load(FIXTURES / f"{name}.onnx"))
    names = [block.name for block in exact(model)]
    assert names == [f"block.{i}" for i in range(len(names))]
    deeper = n2n.deepen(model, block=names, copies=2)
    assert n2n.verify(model, deeper, seeds=1)
    assert not any(change.renames for change in deeper.changes)
    assert len(exact(deeper)) == 3 * len(names)
    assert all("_copy" in new for change in deeper.changes for new in change.parameters)


# ---- names of other exporters --------------------------------------------------------------------


def network(nodes: list[NodeProto], weights: dict[str, np.ndarray], shape: tuple) -> n2n.Model:
    outputs = [o for node in nodes for o in node.output if o.startswith(("y", "present"))]
    graph = helper.make_graph(
        nodes,
        "structure",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in weights.items()],
    )
    opset = helper.make_opsetid("", 18)
    return n2n.load(helper.make_model(graph, opset_imports=[opset], ir_version=9))


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def keras_resnet() -> n2n.Model:
    """Residual blocks of two convolutions, named as Keras and tf2onnx name them."""
    last = "resnet/out/Relu:0"
    nodes, weights = [make_node("Relu", ["x"], [last])], {}
    for index in (1, 2, 3):
        block, given = f"resnet/conv2_block{index}", last
        for part in (1, 2):
            kernel = f"{block}_{part}_conv/Conv2D/ReadVariableOp:0"
            written = f"{block}_{part}_conv/Conv2D:0"
            weights[kernel] = normal(4, 4, 1, 1)
            nodes += [
                make_node("Conv", [last, kernel], [written], f"{block}_{part}_conv/Conv2D"),
                make_node("Relu", [written], [f"{block}_{part}_relu/Relu:0"]),
            ]
            last = written if part == 2 else f"{block}_{part}_relu/Relu:0"
            nodes = nodes[:-1] if part == 2 else nodes
        final = "y" if index == 3 else f"{block}_out/Relu:0"
        nodes += [
            make_node("Add", [last, given], [f"{block}_add/add:0"], f"{block}_add/add"),
            make_node("Relu", [f"{block}_add/add:0"], [final], f"{block}_out/Relu"),
        ]
        last = final
    return network(nodes, weights, (2, 4, 3, 3))


def test_blocks_are_called_what_their_names_begin_with() -> None:
    model = keras_resnet()
    assert [block.name for block in exact(model)] == [f"conv2_block{i}" for i in (1, 2, 3)]
    deeper = n2n.deepen(model, block="conv2_block2")
    assert n2n.verify(model, deeper)
    assert set(deeper.changes[0].parameters) == {
        f"resnet/conv2_block2_copy1_{i}_conv/Conv2D/ReadVariableOp:0" for i in (1, 2)
    }
    again = n2n.deepen(deeper, block="conv2_block2")
    assert n2n.verify(model, again)


def test_blocks_keep_their_names_when_others_are_copied() -> None:
    deeper = n2n.deepen(keras_resnet(), block="conv2_block2", copies=2)
    assert [block.name for block in exact(deeper)] == [
        "conv2_block1", "conv2_block2", "conv2_block2_copy1", "conv2_block2_copy2", "conv2_block3",
    ]  # fmt: skip


def test_a_scale_on_the_identity_path_is_one() -> None:
    """PoolFormer's: x * scale + f(x)."""
    nodes, weights, last = [], {}, "x"
    for i in range(2):
        at = f"blocks.{i}."
        weights |= {at + "scale": normal(6), at + "fc.weight": normal(6, 6)}
        nodes += [
            make_node("Mul", [last, at + "scale"], [at + "s"]),
            make_node("MatMul", [last, at + "fc.weight"], [at + "m"]),
            make_node("Add", [at + "s", at + "m"], ["y" if i else "h"]),
        ]
        last = "h"
    model = network(nodes, weights, (3, 6))
    assert [dict(b.values)[f"{b.name}.scale"] for b in exact(model)] == [1.0, 1.0]
    assert n2n.verify(model, n2n.deepen(model, block="*"))


def test_a_cast_to_the_type_of_another_passes_zeros_and_sums() -> None:
    """Unoptimised exports of PyTorch's ``type_as``: x + (n(f(x)) as x), and the sum as x."""
    nodes, weights, last = [], {}, "x"
    for i in range(2):
        at = f"layers.{i}."
        weights[at + "fc.weight"] = normal(6, 6)
        nodes += [
            make_node("MatMul", [last, at + "fc.weight"], [at + "m"]),
            make_node("CastLike", [at + "m", last], [at + "c"]),
            make_node("Add", [last, at + "c"], [at + "s"]),
            make_node("CastLike", [at + "s", last], ["y" if i else "h"]),
        ]
        last = "h"
    model = network(nodes, weights, (3, 6))
    assert [block.name for block in exact(model)] == ["layers.0", "layers.1"]
    assert n2n.verify(model, n2n.deepen(model, block="*"))


def standardised() -> n2n.Model:
    """Two residual layers whose weights a norm in training mode computes, as NFNets' are."""
    # Tensors of their own: onnxruntime writes the running statistics into those that it is given.
    weights = {name: np.zeros(6, np.float32) for name in ("bias", "mean", "var")}
    nodes, last = [], "x"
    for i in range(2):
        at, scope = f"stages.0.{i}.", f"/stages/stages.0/stages.0.{i}/fc/"
        weights |= {at + "fc.raw": normal(6, 6), at + "fc.gain": normal(6)}
        weights[at + "fc.bias"] = normal(6)
        given = [at + "fc.raw", at + "fc.gain", "bias", "mean", "var"]
        computed = [scope + f"BatchNormalization_output_{n}" for n in range(3)]
        nodes += [
            make_node("BatchNormalization", given, computed, training_mode=1),
            make_node("Gemm", [last, computed[0], at + "fc.bias"], [at + "m"]),
            make_node("Add", [last, at + "m"], ["y" if i else "h"]),
        ]
        last = "h"
    return network(nodes, weights, (3, 6))


def test_blocks_whose_weights_no_rule_explains_are_found_once_these_are_folded() -> None:
    model = standardised()
    for block in n2n.blocks(model):
        assert "BatchNormalization in training mode" in (block.reason or "")
        assert "--fold" in (block.remedy or "")
    folded = n2n.fold(model)
    assert [block.name for block in exact(folded)] == ["stages.0.0", "stages.0.1"]
    assert n2n.verify(model, n2n.deepen(folded, block="*"))


def cached(*, aside: str) -> n2n.Model:
    """Two blocks whose inner tensor is an output of the network as well, through ``aside``."""
    nodes, weights, last = [], {}, "x"
    for i in range(2):
        at = f"layers.{i}."
        weights |= {at + "key.weight": normal(6, 6), at + "out.weight": normal(6, 6)}
        nodes += [
            make_node("MatMul", [last, at + "key.weight"], [at + "k"]),
            make_node(aside, [at + "k"], [f"present.{i}"]),
            make_node("MatMul", [at + "k", at + "out.weight"], [at + "m"]),
            make_node("Add", [last, at + "m"], ["y" if i else "h"]),
        ]
        last = "h"
    return network(nodes, weights, (3, 6))


@pytest.mark.parametrize("aside", ["Identity", "Transpose"])
def test_a_block_that_fills_a_cache_is_refused(aside: str) -> None:
    model = cached(aside=aside)
    assert {block.exact for block in n2n.blocks(model)} == {False}
    with pytest.raises(n2n.Refused, match=r"output 'present\.1' comes from within it") as caught:
        n2n.deepen(model, block="layers.1")
    assert "use_cache" in (caught.value.remedy or "")


# ---- planted faults ------------------------------------------------------------------------------


def test_a_zero_outside_of_the_copy_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Llama's attention as onnxruntime fuses it reads a norm that is none of the block's nodes."""
    model = n2n.load(FIXTURES / "llama.fused.onnx")
    assert not exact(model)
    whole = segments.Vanishing
    monkeypatch.setattr(segments, "_parting", lambda *_: None)

    class Everywhere(whole):  # type: ignore[misc, valid-type]
        def _producer(self, tensor: str) -> object:
            return self.analysis.solution.graph.producer.get(tensor)

    monkeypatch.setattr(segments, "Vanishing", Everywhere)
    model = n2n.load(FIXTURES / "llama.fused.onnx")  # of which nothing is known yet
    wrong = [b.name for b in exact(model)]
    assert any(not n2n.verify(model, n2n.deepen(model, block=name)) for name in wrong)
