"""onnx's shape inference, the only place that asks it: what may end the process runs in another.

graph = infer_shapes(proto, value)      # the graph with what was inferred, or None
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Set
from copy import deepcopy
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto
from onnx.checker import ValidationError
from onnx.numpy_helper import to_array
from onnx.shape_inference import InferenceError
from onnx.shape_inference import infer_shapes as _infer_shapes

from onnx_net2net.model.hazards import LONG, absurd_shape, graph_hazard
from onnx_net2net.model.isolation import Died, Failed, Isolated
from onnx_net2net.model.tensors import carried, constants

__all__ = ["absurd_inside", "infer_shapes", "infer_trial"]

ERRORS = (InferenceError, ValidationError, RuntimeError, ValueError, TypeError)
_LARGE = 1 << 28  # elements
_RATIO = 1 << 12  # times as much as the largest input or weight
_MEMORY = 1 << 30  # bytes; skeletons are small
_SECONDS = 3.0
_PASSES = 16
_SIZES, _AXES = (TensorProto.INT32, TensorProto.INT64), 8  # what a shape is given as
_deadly: deque[str] = deque(maxlen=64)  # what a process died of is not tried again
_elsewhere = Isolated(__name__, _MEMORY)


def infer_shapes(
    proto: ModelProto,
    value: Callable[[str], np.ndarray[Any, Any] | None],
    *,
    isolated: bool = False,
) -> GraphProto | None:
    """Return the graph of ``proto`` with inferred shapes; None if refused, or not survived.

    ``value`` gives small constants by name: the absurd is looked for there, and what is absurd, or
    ``isolated``, is computed elsewhere.
    """
    reason = graph_hazard(proto.graph, value)
    if reason in _deadly:
        return None
    try:
        if reason is None and not isolated:
            inferred = _inferred(proto)
        else:
            contents = _elsewhere.call("infer", _SECONDS, contents=proto.SerializeToString())
            inferred = ModelProto.FromString(contents)
    except Died:
        if reason is not None:
            _deadly.append(reason)
    except (Failed, *ERRORS):
        pass
    else:
        graph: GraphProto = inferred.graph
        return graph
    return None


def infer_trial(
    proto: ModelProto, value: Callable[[str], np.ndarray[Any, Any] | None]
) -> GraphProto | None:
    """Infer shapes at sizes that may leave nothing, or less, for what comes later.

    A Slice of a negative size ends the process: each is left out until what it cuts is known to
    have possible sizes.
    """
    cut = {node.output[0]: node.input[0] for node in proto.graph.node if node.op_type == "Slice"}
    safe = {tensor.name for tensor in proto.graph.initializer}
    safe |= {n for node in proto.graph.node if node.op_type == "Shape" for n in node.output}
    for _ in range(_PASSES):
        kept = {result for result, source in cut.items() if source in safe}
        plain = deepcopy(proto)
        _drop_slices(plain.graph, kept)
        inferred = infer_shapes(plain, value)
        if inferred is None:
            return None
        values = (*inferred.input, *inferred.value_info, *inferred.output)
        if any(dim.dim_value < 0 for v in values for dim in v.type.tensor_type.shape.dim):
            break
        safe |= {value.name for value in values if value.type.tensor_type.HasField("shape")}
        if kept == {result for result, source in cut.items() if source in safe}:
            break
    return inferred


def absurd_inside(proto: ModelProto) -> str | None:
    """Return the first tensor of an ordinary-looking model that has no possible size, if any.

    Nor is one possible that is beyond all that the model holds and takes.
    """
    plain = deepcopy(proto)
    _drop_slices(plain.graph)  # which do not survive the negative sizes that are looked for here
    try:
        graph = _inferred(plain).graph
    except ERRORS:
        return None
    given = max([_elements(value) for value in graph.input] + [1])
    given = max([given, *(math.prod(tensor.dims) for tensor in graph.initializer)])
    for value in (*graph.value_info, *graph.output):
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim if d.HasField("dim_value")]
        if absurd_shape(shape) or math.prod(shape) > max(_LARGE, _RATIO * given):
            return f"'{value.name}' of shape {shape}"
    return None


def _inferred(proto: ModelProto) -> ModelProto:
    """Run onnx's inference. To follow sizes, it spells out every vector: not where one is long."""
    graph = proto.graph
    tensors = (*graph.initializer, *(tensor for _, tensor, _ in constants(graph)))
    stated = [to_array(t) for t in tensors if t.data_type in _SIZES and math.prod(t.dims) <= _AXES]
    sizes: list[int] = [math.prod(map(abs, array.ravel().tolist())) for array in stated]
    if max([*sizes, *map(_elements, graph.input), 0]) > LONG:
        plain = _infer_shapes(proto)
        values = (*plain.graph.input, *plain.graph.value_info, *plain.graph.output)
        if any(len(v.type.tensor_type.shape.dim) == 1 and _elements(v) > LONG for v in values):
            return plain
    return _infer_shapes(proto, data_prop=True)


def _elements(value: ValueInfoProto) -> int:
    return math.prod(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)


def _drop_slices(graph: GraphProto, kept: Set[str] = frozenset()) -> None:
    left = [n for n in graph.node if n.op_type != "Slice" or not kept.isdisjoint(n.output)]
    if len(left) < len(graph.node):
        copies = [deepcopy(node) for node in left]
        del graph.node[:]
        graph.node.extend(copies)
    for node in graph.node:
        for inner in carried(node):
            _drop_slices(inner)


CALLS = {"infer": lambda contents: _inferred(ModelProto.FromString(contents)).SerializeToString()}
