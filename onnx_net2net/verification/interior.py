"""Is any tensor inside a network empty at given sizes of its inputs?

>>> interior = Interior(model, specs)              # five poolings by 2
>>> interior.empty({"batch": 1, "height": 16, "width": 64})
'MaxPool_4_output'
>>> interior.empty({"batch": 1, "height": 64, "width": 64}) is None
True

A window larger than what it slides over leaves nothing to compare, or another answer in every
program. onnx's shape inference says so without running anything; what it cannot tell counts as not
empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import helper

from onnx_net2net.model.model import Model
from onnx_net2net.model.native import infer_trial
from onnx_net2net.verification.sizes import InputSpec, concrete

UNKNOWN = 1 << 62


class Interior:
    """The shapes inside a network, as onnx infers them."""

    def __init__(self, model: Model, specs: Sequence[InputSpec]) -> None:
        self._model = model
        self._specs = {spec.name: spec for spec in specs}
        self._always: set[str] | None = None

    def empty(self, sizes: Mapping[str, int]) -> str | None:
        """Return the first tensor that is empty at these sizes, if it is not so at any sizes."""
        specs = self._specs.items()
        names = self._empty({n: concrete(s, sizes) for n, s in specs if s.shape is not None})
        if names and self._always is None:
            self._always = set(self._empty({}))  # a constant without elements, say
        return next((name for name in names if name not in (self._always or ())), None)

    def _empty(self, given: Mapping[str, Sequence[int]]) -> list[str]:
        """Return the tensors that are empty, or should be, where inputs have the given shapes."""
        shapes = self._shapes(given)
        small = [
            node.output[0]
            for node in self._model.proto.graph.node
            if node.op_type.endswith("Pool") and _slides_over_too_little(node, shapes)
        ]
        return [*(name for name, shape in shapes.items() if min(shape, default=1) <= 0), *small]

    def _shapes(self, given: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        """Return the shapes of all tensors, UNKNOWN where a size is."""
        copy = self._model.editable()
        del copy.graph.value_info[:]
        for value in copy.graph.output:
            value.type.tensor_type.ClearField("shape")
        for value in copy.graph.input:
            if value.name in given:
                dims = value.type.tensor_type.shape
                del dims.dim[:]
                for size in given[value.name]:
                    dims.dim.add(dim_value=size)
        graph = infer_trial(copy, self._model.small)
        if graph is None:
            return {}
        values = (*graph.input, *graph.value_info, *graph.output)
        return {
            value.name: [
                dim.dim_value if dim.HasField("dim_value") else UNKNOWN
                for dim in value.type.tensor_type.shape.dim
            ]
            for value in values
        }


def _slides_over_too_little(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> bool:
    """Return whether a window of a pooling is larger than its padded input.

    By the formula of the standard the output has floor((n + pads - d (k - 1) - 1) / s) + 1 places,
    which onnx takes for one at least.
    """
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    kernel = attributes.get("kernel_shape", [])
    sizes = shapes.get(node.input[0], [])[2:]
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return False
    if len(sizes) != len(kernel):
        return False
    ones = [1] * len(kernel)
    pads = attributes.get("pads", [0] * 2 * len(kernel))
    strides = attributes.get("strides", ones)
    for axis, (n, k, s) in enumerate(zip(sizes, kernel, strides, strict=True)):
        padded = n + pads[axis] + pads[axis + len(kernel)]
        room = padded - attributes.get("dilations", ones)[axis] * (k - 1) - 1
        if n != UNKNOWN and (room + (s - 1) * attributes.get("ceil_mode", 0)) // s < 0:
            return True
    return False
