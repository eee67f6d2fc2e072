"""Layers of Keras' own for PRelu, Resize and Einsum, where they compute the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_net2net.frameworks.absorb import absorb
from onnx_net2net.model.model import Model
from tests.keras_models import differences, expected, load, outputs, to_keras

# A node, the weight that it reads, the shape of x, and the layer (None: operations do it).
SIZES = "s = Constant <value = float[4] {%s}> ()"
CASES: dict[str, tuple[str, str, str, str | None]] = {
    "slope of each channel": ("y = PRelu (x, w)", "3,1,1", "n,3,4,5", "PReLU"),
    "slope of each column": ("y = PRelu (x, w)", "5", "n,3,4,5", "PReLU"),
    "one slope": ("y = PRelu (x, w)", "1", "n,3,4,5", "PReLU"),
    "slope of each row": ("y = PRelu (x, w)", "1,4,1", "n,3,4,5", "PReLU"),
    "slope of each sample": ("y = PRelu (x, w)", "2,1,1,1", "2,3,4,5", None),
    "slope of open axes": ("y = PRelu (x, w)", "3,1,1", "n,3,h,v", "PReLU"),
    "projection": ('y = Einsum <equation = "abc,cde->abde"> (x, w)', "5,2,3", "n,4,5",
                   "EinsumDense"),
    "joined heads": ('y = Einsum <equation = "abcd,cde->abe"> (x, w)', "3,2,5", "n,4,3,2",
                     "EinsumDense"),
    "over the batch": ('y = Einsum <equation = "abc,ad->bcd"> (x, w)', "2,3", "2,4,5", None),
    "diagonal": ('y = Einsum <equation = "aab,bc->ac"> (x, w)', "5,3", "4,4,5", None),
}  # fmt: skip
HALF, OLD = '"half_pixel"', '"asymmetric"'
RESIZED: dict[str, tuple[str, str, str | None]] = {
    "twice": (f'mode = "nearest", coordinate_transformation_mode = {HALF}', "1,1,2,2",
              "UpSampling2D"),
    "uneven": (f'coordinate_transformation_mode = {OLD}, nearest_mode = "floor"', "1,1,3,1",
               "UpSampling2D"),
    "four times, ceil": ('nearest_mode = "round_prefer_ceil"', "1,1,4,5", "UpSampling2D"),
    "rounded otherwise": (f"coordinate_transformation_mode = {OLD}", "1,1,3,3", None),
    "upwards": (f'coordinate_transformation_mode = {OLD}, nearest_mode = "ceil"', "1,1,2,2", None),
    "a part": (f"coordinate_transformation_mode = {HALF}", "1,1,1.5,2", None),
    "linear": ('mode = "linear"', "1,1,2,2", None),
    "channels": ('mode = "nearest"', "1,2,1,1", None),
    "corners": ('coordinate_transformation_mode = "align_corners"', "1,1,2,2", None),
}  # fmt: skip


def made(body: str, shape: str, weight: str = "") -> Model:
    """A network of one node, whose weight is random."""
    rank = len(shape.split(","))
    declared = f"<float[{weight}] w>" if weight else ""
    text = f'<ir_version: 8, opset_import: ["": 18]> net (float[{shape}] x) => (float y) '
    proto = onnx.parser.parse_model(text + declared + f"{{ {body} }}")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    if weight:
        del proto.graph.value_info[:]
        values = np.random.default_rng(rank).normal(size=list(map(int, weight.split(","))))
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), "w"))
    return load(proto)


def judged(model: Model, shape: str, layer: str | None, names: tuple[str, ...]) -> Any:
    """The network, which computes what onnxruntime does, by that layer."""
    network = to_keras(model)
    sizes = [int(n) if n.isdigit() else 6 + place for place, n in enumerate(shape.split(","))]
    feeds = {"x": np.random.default_rng(1).normal(size=sizes).astype(np.float32)}
    assert differences(expected(model, feeds), outputs(network, feeds)) == []
    found = {type(operation).__name__ for operation in network.operations} & set(names)
    assert found == ({layer} if layer else set())
    return network


@pytest.mark.parametrize("name", CASES)
def test_weights_lie_in_layers_of_keras(name: str) -> None:
    body, weight, shape, layer = CASES[name]
    model = made(body, shape, weight)
    network = judged(model, shape, layer, ("PReLU", "EinsumDense"))
    (variable,) = network.trainable_variables
    variable.assign_add(np.full(variable.shape, 0.5, np.float32))
    trained = absorb(model, network).weights["w"].array()
    assert np.allclose(trained, model.weights["w"].array() + 0.5)


@pytest.mark.parametrize("name", RESIZED)
def test_whole_copies_are_upsampled(name: str) -> None:
    options, scales, layer = RESIZED[name]
    model = made(SIZES % scales + f" y = Resize <{options}> (x, , s)", "2,3,4,5")
    judged(model, "2,3,4,5", layer, ("UpSampling2D",))


def test_convolutions_around_copies_turn_nothing() -> None:
    body = (
        "s = Constant <value = float[4] {1,1,2,2}> () a = Conv (x, w) b = Resize (a, , s) "
        "y = Relu (b)"
    )
    network = judged(made(body, "n,3,6,7", "4,3,3,3"), "n,3,6,7", "UpSampling2D", ("UpSampling2D",))
    assert sum(type(o).__name__ in ("Permute", "Transpose") for o in network.operations) == 2


# A node over axes, the shape of x, and the layer.
OVER = {
    "behind": ("y = ReduceMean <axes = [2, 3], keepdims = 0> (x)", "n,3,4,5", True),
    "between": ("y = ReduceMean <axes = [-3, -2]> (x)", "n,3,4,5", True),
    "in front": ("y = ReduceMean <axes = [0, 1]> (x)", "n,3,4,5", False),
    "apart": ("y = ReduceMean <axes = [1, 3]> (x)", "n,3,4,5", False),
    "one of four": ("y = ReduceMean <axes = [2]> (x)", "n,3,4,5", False),
    "turned": (
        "t = Transpose <perm = [0, 2, 1]> (x) y = ReduceMean <axes = [1]> (t)",
        "n,3,4",
        True,
    ),
}  # fmt: skip
PADDED = {
    "around images": ("0,0,1,2,0,0,3,0", "n,3,4,5", "ZeroPadding2D"),
    "channels last": ("0,1,2,0,0,3,0,0", "n,3,4,5", "ZeroPadding2D"),
    "a sequence": ("0,2,0,0,1,0", "n,3,4", "ZeroPadding1D"),
    "channels": ("0,1,0,1,0,0,0,0", "n,3,4,5", None),
    "cut": ("0,0,-1,0,0,0,2,0", "n,3,4,5", None),
}


@pytest.mark.parametrize("name", OVER)
def test_means_are_poolings_wherever_the_channels_lie(name: str) -> None:
    body, shape, pools = OVER[name]
    text = (
        f'<ir_version: 8, opset_import: ["": 17]> net (float[{shape}] x) => (float y) {{ {body} }}'
    )
    proto = onnx.parser.parse_model(text)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    layers = tuple(f"GlobalAveragePooling{rank}D" for rank in (1, 2))
    judged(load(proto), shape, layers[len(shape.split(",")) - 3] if pools else None, layers)


@pytest.mark.parametrize("name", PADDED)
def test_zeros_around_are_layers(name: str) -> None:
    pads, shape, layer = PADDED[name]
    count = len(pads.split(","))
    body = f"p = Constant <value = int64[{count}] {{{pads}}}> () y = Pad (x, p)"
    judged(made(body, shape), shape, layer, ("ZeroPadding1D", "ZeroPadding2D"))
