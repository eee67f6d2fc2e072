"""onnx's own shape inference, asked for a run of nodes at a time.

One call for a thousand nodes costs what ten calls for one node cost. So the first call is for
all; where it gets stuck (onnx does not evaluate every chain of sizes), what has been evaluated
since is given to the next call, which is for as many nodes as that promises to be worth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError, infer_shapes

from onnx_net2net.graph import Node

Shape = tuple[int, ...]
Array = np.ndarray[Any, Any]
SHORTEST = 4  # nodes; a run of one costs nearly as much


@dataclass
class Known:
    """What is known of tensors by name; ``value`` gives small constants."""

    shape: Mapping[str, Shape]
    dtype: Mapping[str, int]
    value: Callable[[str], Array | None]
    opset: Mapping[str, int]


@dataclass
class Ahead:
    """Decides how many of ``nodes`` to infer at a time: more while it goes well, else fewer."""

    nodes: Sequence[Node]
    known: Known
    _length: int = 0
    _reached: int = field(default=-1)

    def infer(self, index: int) -> Iterator[tuple[str, int, Shape | None]]:
        """Name, type and shape of what node ``index`` and those after it write."""
        if self._reached < 0:
            self._length = len(self.nodes)
        elif index >= self._reached:
            self._length = 2 * self._length
        else:
            self._length = max(SHORTEST, min(self._length, 64) // 2)
        run = []
        for node in self.nodes[index : index + self._length]:
            if node.bodies or node.opaque:
                break  # the walk goes through its bodies first
            run.append(node)
        self._reached = index + len(run)
        yield from infer(run, self.known)


def infer(nodes: Sequence[Node], known: Known) -> Iterator[tuple[str, int, Shape | None]]:
    """Name, type and shape (None where unknown) of what ``nodes`` write."""
    try:
        found = infer_shapes(_model(nodes, known), data_prop=True).graph.value_info
    except (InferenceError, ValidationError, RuntimeError, ValueError):
        if len(nodes) > 1:  # one bad node must not hide the others
            yield from infer(nodes[:1], known)
        return
    for value in found:
        tensor = value.type.tensor_type
        shape: Shape | None = None
        if tensor.HasField("shape"):
            sizes = [d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim]
            shape = None if -1 in sizes else tuple(sizes)
        yield value.name, tensor.elem_type, shape


def _model(nodes: Sequence[Node], known: Known) -> ModelProto:
    """A model of ``nodes`` alone, without metadata and without the contents of weights."""
    model = ModelProto(ir_version=8)
    for domain, version in known.opset.items():
        model.opset_import.add(domain=domain, version=version)
    graph = model.graph
    graph.name = "run"
    seen: set[str] = {""}
    for node in nodes:
        if node.op == "Constant" and node.outputs[0] in known.shape:
            continue
        for name in node.inputs:
            if name not in seen:
                seen.add(name)
                _declare(graph, name, known)
        seen.update(node.outputs)
        _copy(node.proto, graph)
    return model


def _copy(node: NodeProto, graph: GraphProto) -> None:
    graph.node.add(
        op_type=node.op_type,
        domain=node.domain,
        input=node.input,
        output=node.output,
        attribute=node.attribute,
    )


def _declare(graph: GraphProto, name: str, known: Known) -> None:
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
    if shape is None:
        return
    entry = ValueInfoProto(name=name)
    tensor = entry.type.tensor_type
    tensor.elem_type = known.dtype.get(name, TensorProto.FLOAT)
    dims = tensor.shape.dim
    for size in shape:
        dims.add(dim_value=size)
    if not shape:
        tensor.shape.SetInParent()
    graph.input.append(entry)
