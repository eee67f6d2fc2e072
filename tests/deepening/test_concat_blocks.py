"""Modules whose branches a Concat joins: found by their structure, and refused with the reason."""

from __future__ import annotations

import pytest
from onnx import ModelProto

from onnx_net2net.deepening.blocks import blocks
from onnx_net2net.deepening.deepen import deepen
from onnx_net2net.errors import Refused
from onnx_net2net.model.model import load
from onnx_net2net.verification.verify import verify
from tests.light_models import fill
from tests.networks import Net

# Those of the networks of Net2Net's time that give as many channels as they read.
MODULES = {
    "inception_v1": ["inception_4b", "inception_4c", "inception_5a"],
    "inception_v2": [f"module.{number}" for number in range(6)],  # its weights have no such names
    "squeezenet": ["fire3", "fire5", "fire7", "fire9"],
}


@pytest.mark.parametrize("network", MODULES)
def test_modules_are_found_and_refused_with_the_reason(network: str) -> None:
    model = load(fill(network, seed=0))
    found = blocks(model)
    assert [block.name for block in found] == MODULES[network]
    for block in found:
        assert not block.exact and "Concat" in (block.reason or "")
        with pytest.raises(Refused, match="side by side") as refusal:
            deepen(model, block=block.name)
        assert "--after" in (refusal.value.remedy or "")


def inception(*widths: tuple[int, int], residual: bool = False) -> ModelProto:
    """A module for each pair of widths: branches of 1x1 and of 3x3."""
    net = Net(opset=17)
    x = net.input("batch", 8, 6, 6)
    for number, (narrow, wide) in enumerate(widths):
        pooled = net("MaxPool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
        first = net("Relu", net("Conv", x, net.weight(narrow, 8, 1, 1)))
        second = net("Relu", net("Conv", pooled, net.weight(wide, 8, 1, 1)))
        joined = net("Concat", first, second, axis=1, name=f"joined{number}")
        x = net("Add", x, joined) if residual else joined
    return net.model(net("GlobalAveragePool", x))


def test_one_module_alone_is_no_series() -> None:
    assert not blocks(load(inception((4, 4))))
    assert len(blocks(load(inception((4, 4), (4, 4))))) == 2
    assert len(blocks(load(inception((4, 4), (2, 6))))) == 2


def test_what_has_another_way_out_is_none() -> None:
    proto = inception((4, 4), (4, 4))
    proto.graph.node[-1].input[0] = proto.graph.node[3].output[0]  # the second is read by nobody
    inside = next(node for node in proto.graph.node if node.op_type == "MaxPool").output[0]
    proto.graph.output.append(type(proto.graph.output[0])(name=inside))
    proto.graph.output[-1].type.tensor_type.elem_type = 1
    assert not blocks(load(proto))


def test_a_module_in_a_residual_block_is_that_block() -> None:
    model = load(inception((4, 4), (4, 4), residual=True))
    found = blocks(model)
    assert [block.exact for block in found] == [True, True]
    assert verify(model, deepen(model, block=[block.name for block in found]))
