"""What no layer of Keras computes, as one layer that walks its nodes while it runs.

    values, problems = region(builder, "mask")       # all nodes that "mask" still needs

The layer takes what the builder has made already, holds no weights, and gives besides what was
asked for all that other nodes will read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import GraphProto, ModelProto, ValueInfoProto, helper, numpy_helper

from onnx_net2net.errors import Refused
from onnx_net2net.frameworks.keras.arranged import Arranged
from onnx_net2net.frameworks.keras.layer import GraphLayer, encoded
from onnx_net2net.frameworks.keras.values import dtype_of
from onnx_net2net.frameworks.keras.written_layers import written
from onnx_net2net.model.graph import Node
from onnx_net2net.model.subgraphs import captured
from onnx_net2net.model.tensors import subgraphs

if TYPE_CHECKING:
    from onnx_net2net.frameworks.keras.builder import Builder

__all__ = ["RefusedTensor", "region"]


class RefusedTensor(LookupError):
    """A tensor that a refused node would have made."""


def region(builder: Builder, name: str) -> tuple[dict[str, Any], list[Refused]]:
    """Return what the layer makes, by name (None where it is refused), and why it is."""
    nodes, borders = _closure(builder, name)
    outputs = [name, *_read_outside(builder, nodes, name)]
    nothing = dict.fromkeys(outputs)
    try:
        inputs = {border: builder.symbolic(border) for border in borders}
    except RefusedTensor:
        return nothing, []
    if not inputs:
        inputs = {f"{name}/first": builder.inputs[0]}
    given = {border: value.stored() for border, value in inputs.items()}
    proto = _model(builder, nodes, given, outputs)
    tensors, title = list(given.values()), builder.name(f"{name.removesuffix('_output_0')}_nodes")
    layer = GraphLayer(encoded(proto), name=title)
    layer.refusals = []
    layer.compute_output_spec(tensors)
    problems, layer.refusals = layer.refusals, None
    if problems:
        return nothing, problems
    kind = written(layer.program, tensors, title, draws=layer.seed_generator is not None)
    results = (layer if kind is None else kind(name=title))(tensors)
    return dict(zip(outputs, map(Arranged.plain, results), strict=True)), []


def _closure(builder: Builder, name: str) -> tuple[list[Node], list[str]]:
    """Return the nodes that are left of what ``name`` needs, in order, and what they take.

    A node of which something is made already computes it again.
    """
    graph, pending = builder.program.graph, [name]
    nodes: dict[int, Node] = {}
    borders: dict[str, None] = {}
    while pending:
        node = graph.producer[pending.pop()]
        if node.position in nodes:
            continue
        nodes[node.position] = node
        inner = captured(node.proto) if node.bodies or node.opaque else ()
        for source in filter(None, (*node.inputs, *inner)):
            if builder.is_made(source):
                borders[source] = None
            elif source in graph.producer and builder.constant(source) is None:
                pending.append(source)
    left = [nodes[position] for position in sorted(nodes)]
    again = {n for node in left for n in node.outputs}
    return left, [border for border in borders if border not in again]


def _read_outside(builder: Builder, nodes: list[Node], name: str) -> list[str]:
    """Return the other tensors of these nodes that more is made of than sizes."""
    own = {node.position for node in nodes}
    graph = builder.program.graph
    made = [n for node in nodes for n in node.outputs if n and n != name]
    return [
        n
        for n in made
        if n not in builder.values
        and not builder.is_size(n)
        and (
            n in graph.outputs
            or any(
                _outermost(reader).position not in own for reader, _ in graph.consumers.get(n, ())
            )
        )
    ]


def _outermost(node: Node) -> Node:
    while node.parent is not None:
        node = node.parent
    return node


def _model(
    builder: Builder, nodes: list[Node], given: dict[str, Any], outputs: list[str]
) -> ModelProto:
    """Return the nodes as a model of their own, with the constants that they read."""
    program = builder.program
    graph = GraphProto(name="region")
    graph.node.extend(node.proto for node in nodes)
    read = {n for node in nodes for n in node.inputs if n}
    made = {n for node in nodes for n in node.outputs}
    for inner in subgraphs(graph):
        read |= {n for node in inner.node for n in node.input if n}
        read |= {value.name for value in inner.output}
        made |= {n for node in inner.node for n in node.output}
        made |= {value.name for value in (*inner.input, *inner.initializer)}
    for constant in sorted(read - made - given.keys()):
        array = builder.constant(constant)
        if array is not None:
            graph.initializer.append(numpy_helper.from_array(np.asarray(array), constant))
    graph.input.extend(_described(builder, n, value) for n, value in given.items())
    graph.output.extend(ValueInfoProto(name=n) for n in outputs)
    opsets = [helper.make_opsetid(domain, number) for domain, number in program.opset.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _described(builder: Builder, name: str, value: Any) -> ValueInfoProto:
    """Return an input's type and shape, with the names of sizes that the file gives."""
    known = builder.program.dims(name) or [None] * len(value.shape)
    if len(known) != len(value.shape):
        known = [None] * len(value.shape)
    shape = [
        mine if mine is not None else own for mine, own in zip(value.shape, known, strict=True)
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype_of(value)))
    return helper.make_tensor_value_info(name, kind, shape)
