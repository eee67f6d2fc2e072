"""onnx's own shape inference, asked for a run of nodes at a time.

A call costs as much as a few nodes in it. So the first one is for many; where it gets stuck
(onnx does not evaluate every chain of sizes), what has been evaluated since is given to the next,
which is for a few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper

from onnx_net2net.model.graph import Node
from onnx_net2net.model.hazards import absurd_shape
from onnx_net2net.model.native import infer_shapes

Shape = tuple[int, ...]
Partial = tuple[int | None, ...]  # None: a size that onnx does not know
Array = np.ndarray[Any, Any]
RUN = 24  # nodes; shorter ones cost more calls, longer ones are cut short more often
MOST = 1000  # nodes; a longer run would not stay in the processor's caches


@dataclass
class Known:
    """What is known of tensors by name: stored weights, and of others what has been found."""

    stored: Mapping[str, TensorProto]
    shape: Mapping[str, Shape]
    dtype: Mapping[str, int]
    value: Callable[[str], Array | None]  # of small constants
    opset: Mapping[str, int]
    stuck: set[int]  # positions of nodes at which inference got stuck; a later walk stops there


class Ahead:
    """Decides how many of ``nodes`` to infer at a time."""

    def __init__(self, nodes: Sequence[Node], known: Known) -> None:
        self.nodes, self.known = nodes, known
        self._again = bool(known.stuck)
        self._stop = -1
        self._length = MOST

    def infer(self, index: int) -> Iterator[tuple[str, int, Partial | None]]:
        """Yield name, type and shape of what node ``index`` and those after it write."""
        stuck = self.known.stuck
        if index < self._stop:
            stuck.add(self.nodes[index].position)
            self._length = MOST if self._again else RUN
        run: list[Node] = []
        for position in range(index, min(index + self._length, len(self.nodes))):
            node = self.nodes[position]
            unknown = node.bodies or node.opaque or node.domain
            if unknown or (run and self._again and node.position in stuck):
                break  # onnx knows no more behind it than what the walk finds out first
            if run and node.op == "Slice":
                break  # onnx does not survive one of a negative size: what it cuts is seen first
            run.append(node)
        self._stop = index + len(run)
        return infer(run, self.known)


def infer(nodes: Sequence[Node], known: Known) -> Iterator[tuple[str, int, Partial | None]]:
    """Yield name, type and shape (None where unknown) of what ``nodes`` write."""
    inferred = infer_shapes(_model(nodes, known), known.value)
    if inferred is None:
        if len(nodes) > 1:  # one bad node must not hide the others
            yield from infer(nodes[:1], known)
        return
    for value in inferred.value_info:
        tensor = value.type.tensor_type
        shape: Partial | None = None
        if tensor.HasField("shape"):
            dims = tensor.shape.dim
            shape = tuple([d.dim_value for d in dims])
            if 0 in shape:
                shape = tuple([d.dim_value if d.HasField("dim_value") else None for d in dims])
            if absurd_shape(n for n in shape if n is not None):
                return  # what follows from it is absurd, too
        yield value.name, tensor.elem_type, shape


def _model(nodes: Sequence[Node], known: Known) -> ModelProto:
    """Return a model of ``nodes`` alone, without metadata and without the contents of weights."""
    model = ModelProto(ir_version=8)
    for domain, version in known.opset.items():
        model.opset_import.add(domain=domain, version=version)
    graph = model.graph
    graph.name = "run"
    seen: set[str] = {""}
    # A Constant may be large; as a weight it is known already.
    active = [n for n in nodes if n.op != "Constant" or n.outputs[0] not in known.shape]
    for node in active:
        for name in node.inputs:
            if name not in seen:
                seen.add(name)
                _declare(graph, name, known)
        seen.update(node.outputs)
    # Copied as a whole and then cleared: much faster than field by field.
    graph.node.extend([node.proto for node in active])
    for copy in graph.node:
        copy.ClearField("metadata_props")
    return model


def _declare(graph: GraphProto, name: str, known: Known) -> None:
    """Add what is known of a tensor: a weight, a small constant, or a shape."""
    stored = known.stored.get(name)
    if stored is not None:
        graph.initializer.append(stored)
        return
    value = known.value(name)
    if value is not None:
        graph.initializer.append(
            TensorProto(
                name=name,
                data_type=helper.np_dtype_to_tensor_dtype(value.dtype),
                dims=value.shape,
                raw_data=value.tobytes(),
            )
        )
        return
    shape = known.shape.get(name)
    if shape is None or absurd_shape(shape):
        return
    tensor = graph.input.add(name=name).type.tensor_type
    tensor.elem_type = known.dtype.get(name, TensorProto.FLOAT)
    tensor.shape.SetInParent()
    dims = tensor.shape.dim
    for size in shape:
        dims.add(dim_value=size)
