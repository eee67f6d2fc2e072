"""Files as they were written years ago: IR 3, opset 7, weights among the inputs, no names.

The networks that ship with the onnx package have all of that; Inception v2 is the very network
of the Net2Net paper. They come without weights, which are drawn at random here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import onnx
import pytest
from onnx import ModelProto

from onnx_net2net.errors import Refused
from onnx_net2net.model.model import load
from onnx_net2net.widening.dimensions import analyse
from onnx_net2net.widening.widen import widen
from tests import light_models
from tests.judging import Subject, everything, wider
from tests.networks import Net

Store = Literal["initializer", "input", "constant"]


def convnet(store: Store, *, opset: int, named: bool) -> ModelProto:
    """Inception in small: norms, branches, a sum, a flatten by Reshape, dropout."""
    net = Net(opset=opset, store=store, named=named, ir_version=3 if store == "input" else 4)

    def conv(source: str, inside: int, outside: int, kernel: int) -> str:
        weights = net.weight(outside, inside, kernel, kernel), net.weight(outside)
        pads = [kernel // 2] * 4
        made = net("Conv", source, *weights, kernel_shape=[kernel, kernel], pads=pads)
        scale, bias, mean = net.weight(outside, low=0.5), net.weight(outside), net.weight(outside)
        variance = net.weight(outside, low=0.5)
        return net("Relu", net("BatchNormalization", made, scale, bias, mean, variance))

    stem = conv(net.input(1, 3, 9, 8), 3, 7, 3)
    branches = net("Concat", conv(stem, 7, 4, 1), conv(stem, 7, 5, 3), axis=1)
    total = net("Sum", branches, conv(stem, 7, 9, 1))
    pooled = net("AveragePool", total, kernel_shape=[3, 2], strides=[3, 2])
    flat = net("Reshape", pooled, net.put([1, 9 * 3 * 4], "sizes"))
    hidden = net(
        "Relu", net("Gemm", net("Dropout", flat), net.weight(11, 108), net.weight(11), transB=1)
    )
    return net.model(net("Gemm", hidden, net.weight(11, 6), net.weight(6)))


@pytest.mark.parametrize("named", [True, False], ids=["named", "nameless"])
@pytest.mark.parametrize("opset", [7, 8, 9, 11])
@pytest.mark.parametrize("store", ["initializer", "input", "constant"])
def test_every_dimension_of_an_old_network_grows(store: Store, opset: int, named: bool) -> None:
    proto = convnet(store, opset=opset, named=named)
    assert not proto.graph.value_info
    subject = Subject(load(proto))
    assert [d.growth for d in subject.growable] == ["any"] * 4  # stem, two branches, hidden
    for widths in ({d.name: wider(d)} for d in subject.growable):
        assert subject.judge(widen(subject.model, widths))
    grown = widen(subject.model, everything(subject.dimensions))
    assert subject.judge(grown)
    assert grown.proto.ir_version == proto.ir_version
    assert grown.opset == subject.model.opset


def test_weights_stay_where_they_were() -> None:
    """Among the inputs, with their new sizes; Constants stay Constants."""
    model = load(convnet("input", opset=7, named=True))
    grown = widen(model, {model_dimension(model): 12}).proto.graph
    assert [v.name for v in grown.input] == [v.name for v in model.proto.graph.input]
    shapes = {t.name: list(t.dims) for t in grown.initializer}
    for value in grown.input[1:]:
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        assert dims == shapes[value.name], value.name
    constants = load(convnet("constant", opset=9, named=False))
    grown = widen(constants, {model_dimension(constants): 12}).proto.graph
    assert not grown.initializer
    assert [n.op_type for n in grown.node] == [n.op_type for n in constants.proto.graph.node]


def model_dimension(model: object) -> str:
    """The first dimension that grows."""
    return Subject(model).growable[0].name  # type: ignore[arg-type]


def test_nameless_nodes_are_named_by_their_outputs() -> None:
    model = load(convnet("initializer", opset=9, named=False))
    assert widen(model, {"conv0_y": 10}).changes[0].new == 10
    assert widen(model, {"w0": 10}).changes[0].new == 10


@lru_cache(maxsize=2)  # large; tests of one model stand together
def subject_of(name: str) -> Subject:
    """A light model with random weights, its fully connected layers narrower, no softmax.

    Random weights saturate a softmax over 1000 classes, which would hide differences.
    """
    model = light_models.fill(name, widths={4096: 40})
    last = model.graph.node[-1]
    if last.op_type == "Softmax":
        model.graph.output[0].name = last.input[0]
        model.graph.node.remove(last)
    onnx.checker.check_model(model)
    return Subject(load(model))


def assert_sees(subject: Subject, widths: dict[str, int], seed: int = 1) -> None:
    report = subject.agrees(widen(subject.model, widths, seed=seed))
    assert report, report.verdict
    assert not report.outputs[0].warnings, "agreement shows little"


@pytest.mark.parametrize("name", [n for n in light_models.NAMES if n != "vgg19"])
def test_light_models_grow_everywhere_at_once(name: str) -> None:
    subject = subject_of(name)
    assert_sees(subject, everything(subject.dimensions, turn=0))


@pytest.mark.parametrize("name", ["squeezenet", "inception_v2"])
def test_light_models_grow_one_dimension_at_a_time(name: str) -> None:
    """Three of them: near the input, in the middle, near the output."""
    subject = subject_of(name)
    count = len(subject.growable)
    for turn, index in enumerate((0, count // 2, count - 1)):
        dimension = subject.growable[index]
        assert_sees(subject, {dimension.name: wider(dimension, turn)})


def test_all_of_inception_v2_can_grow() -> None:
    """Every convolution of the paper's network: what is fixed are kernels and the interface."""
    subject = subject_of("inception_v2")
    convolutions = [n for n in subject.model.proto.graph.node if n.op_type == "Conv"]
    written = {name for d in subject.growable for name in d.writers}
    assert len(convolutions) == 69
    made_by = {n.outputs[0]: n.name for n in analyse(subject.model).solution.graph.nodes}
    assert {made_by[n.output[0]] for n in convolutions} <= written


def test_vgg19_is_analysed() -> None:
    """Too slow to be run in a test; widening it is not."""
    subject = subject_of("vgg19")
    assert len(subject.growable) == 18
    grown = widen(subject.model, everything(subject.dimensions))
    onnx.checker.check_model(onnx.load_from_string(grown.to_bytes()))


def test_channels_under_a_window_of_channels_are_refused() -> None:
    subject = subject_of("bvlc_alexnet")
    with pytest.raises(Refused, match="normalised in a window of channels"):
        widen(subject.model, {"conv1_w_0": 100})


def test_a_wrong_weight_is_seen() -> None:
    """These judgements can fail: one filter of one deep layer of Inception v2 off by a quarter."""
    subject = subject_of("inception_v2")
    grown = widen(subject.model, everything(subject.dimensions, turn=0))
    proto = onnx.ModelProto.FromString(grown.to_bytes())
    convolution = [n for n in proto.graph.node if n.op_type == "Conv"][50]
    tensor = next(t for t in proto.graph.initializer if t.name == convolution.input[1])
    array = onnx.numpy_helper.to_array(tensor).copy()
    array[3] *= 1.25
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    assert not subject.judge(load(proto))
