"""Names that move with the blocks: none is taken twice, none means another tensor than before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnx_net2net as n2n
from tests.networks import Net, arrays, row


def stacked(net: Net, count: int = 3, *, norm: bool = False) -> str:
    """Layers ``layers.0``, ...; with ``norm`` they end in one, as BERT's do."""
    last = net.input("n", 6)
    if norm:
        last = net("LayerNormalization", last, net.weight(6), net.weight(6), epsilon=1e-12)
    for name in (f"layers.{number}" for number in range(count)):
        hidden = net("Tanh", net("MatMul", last, net.weight(6, 9, name=f"{name}.a.weight")))
        last = net("Add", last, net("MatMul", hidden, net.weight(9, 6, name=f"{name}.b.weight")))
        if norm:
            scale = net.weight(6, low=2, high=3, name=f"{name}.n.weight")
            bias = net.weight(6, name=f"{name}.n.bias")
            last = net("LayerNormalization", last, scale, bias, epsilon=1e-12)
    return last


def tensor_of_the_new_name() -> ModelProto:
    net = Net()
    last = stacked(net)
    turned = net("Transpose", net.weight(6, 6, name="layers.2.c"), perm=[1, 0])
    proto = net.model(net("MatMul", last, turned))
    for node in proto.graph.node:
        for side in (node.input, node.output):
            side[:] = ["layers.3.c" if name == turned else name for name in side]
    return proto


def body_with_the_new_name() -> ModelProto:
    """The weight would be renamed to what one branch calls a weight of its own."""
    net = Net()
    last = stacked(net)
    net.weight(6, 6, name="layers.2.c")
    yes, no = (
        helper.make_graph(
            [helper.make_node("MatMul", [last, weight], [result])],
            result,
            [],
            [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)],
        )
        for weight, result in (("layers.2.c", "yes"), ("layers.3.c", "no"))
    )
    own = np.random.default_rng(1).normal(size=(6, 6)).astype(np.float32)
    no.initializer.append(numpy_helper.from_array(own, "layers.3.c"))
    condition = net("Cast", net("ReduceSum", last, keepdims=0), to=TensorProto.BOOL)
    return net.model(net("If", condition, then_branch=yes, else_branch=no))


def weight_that_is_an_output() -> ModelProto:
    net = Net()
    return net.model(net("Identity", stacked(net)), "layers.2.a.weight")


TAKEN: list[Callable[[], ModelProto]] = [
    tensor_of_the_new_name, body_with_the_new_name, weight_that_is_an_output
]  # fmt: skip


@pytest.mark.parametrize("made", TAKEN)
def test_names_that_are_not_free_are_left_alone(made: Callable[[], ModelProto]) -> None:
    model = n2n.load(made())
    with pytest.raises(n2n.Refused, match=r"'layers.2.* would be 'layers.3") as caught:
        n2n.deepen(model, block="layers.0")
    assert caught.value.remedy == "leave all names as they are (--no-renumber)"
    deeper = n2n.deepen(model, block="layers.0", renumber=False)
    assert n2n.verify(model, deeper)


def test_numbers_keep_their_digits() -> None:
    net = Net()
    last = stacked(net)
    model = n2n.load(net.model(net("MatMul", last, net.weight(6, 6, name="layers.02.b.weight"))))
    (change,) = n2n.deepen(model, block="layers.0").changes
    assert change.renames["layers.02.b.weight"] == "layers.03.b.weight"
    assert change.renames["layers.2.b.weight"] == "layers.3.b.weight"


@pytest.mark.parametrize("number", [0, 1])
def test_an_affine_that_is_an_output_stays_what_it_is(number: int) -> None:
    """It moves to the copy, but the network gives it as it was."""
    net = Net()
    model = n2n.load(net.model(net("Identity", stacked(net, 2, norm=True)), "layers.1.n.weight"))
    deeper = n2n.deepen(model, block=f"layers.{number}", renumber=False)
    assert n2n.verify(model, deeper)


def test_quantization_annotations_follow_their_tensors() -> None:
    net = Net()
    proto = net.model(net("Identity", stacked(net)))
    annotation = proto.graph.quantization_annotation.add(tensor_name="layers.2.a.weight")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="layers.2.b.weight")
    deeper = n2n.deepen(n2n.load(proto), block="layers.0").proto
    (moved,) = deeper.graph.quantization_annotation
    assert moved.tensor_name == "layers.3.a.weight"
    assert moved.quant_parameter_tensor_names[0].value == "layers.3.b.weight"
    before, after = arrays(proto), n2n.deepen(n2n.load(proto), block="layers.0").weights
    np.testing.assert_array_equal(after[moved.tensor_name].array(), before["layers.2.a.weight"])


def test_constants_that_are_called_like_what_nodes_give_stay_so() -> None:
    """TorchScript keeps some of a layer's constants as initializers, and writes others by nodes."""
    net = Net()
    last = stacked(net)
    kept = net.weight(6, name="/layers/layers.1/Constant_output_0")
    proto = net.model(net("Mul", net("Mul", last, kept), net("Abs", net.weight(6))))
    made = next(node for node in proto.graph.node if node.op_type == "Abs")
    reader = proto.graph.node[-1]
    made.output[0] = reader.input[1] = "/layers/layers.2/Constant_output_0"
    model = n2n.load(proto)
    deeper = n2n.deepen(model, block="layers.0")
    assert {"layers.3.a.weight", kept} <= deeper.weights.keys()
    assert n2n.verify(model, deeper)


@pytest.mark.parametrize(
    "first, second", [("a.\u0663", "a.\u0664"), ("a²", "a³"), ("a" + "9" * 5000, "b")]
)
def test_what_is_no_number_counts_nothing(first: str, second: str) -> None:
    """Digits of other scripts, raised ones, and more than any count: int() takes some, or none."""
    model = n2n.load(row(first, second))
    block, _ = n2n.blocks(model)
    deeper = n2n.deepen(model, block=block.name)
    assert n2n.verify(model, deeper)
    assert f"{first}_copy1.up.weight" in deeper.weights


@pytest.mark.parametrize("block, copies", [("a.0", 2), ("a.2", 1), ("a.*", 1)])
def test_numbers_go_on_in_steps_of_a_series(block: str, copies: int) -> None:
    """Where what lies between has no parameters, as a Dropout."""
    model = n2n.load(row("a.0", "a.2", "a.4"))
    deeper = n2n.deepen(model, block=block, copies=copies)
    assert n2n.verify(model, deeper)
    count = 6 if block == "a.*" else 3 + copies
    assert {name.rpartition(".up")[0] for name in deeper.weights if ".up" in name} == {
        f"a.{2 * number}" for number in range(count)
    }
