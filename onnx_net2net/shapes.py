"""Sizes and small values of every tensor, for one choice of the dynamic dimensions.

Symbolic input dimensions are bound to distinct sizes, onnx infers shapes, and the small
integer chains that onnx leaves open are evaluated here; both go on until nothing new is known.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper, shape_inference

from onnx_net2net.graph import Graph, Node
from onnx_net2net.values import Array, evaluate, small

Shape = tuple[int, ...]
# Sizes to try for dynamic dimensions: mutually prime where the network lets them be, then
# multiples that windows, strides and patches accept.
CANDIDATES = ((5, 7, 11, 13, 17, 19, 23, 29), (32, 96, 160, 224), (224, 448), (1,))
MOST_SCALES = 16  # elements; a longer float vector is a weight, not a parameter
# A rule may know the shapes of operators that onnx does not (other domains).
Contrib = Callable[[Node, int, list[Shape | None], list[Array | None]], list[Shape] | None]


@dataclass
class Shapes:
    """What is known of every tensor under ``binding``."""

    graph: Graph
    binding: dict[str, int]
    shape: dict[str, Shape] = field(default_factory=dict)
    dtype: dict[str, int] = field(default_factory=dict)
    value: dict[str, Array] = field(default_factory=dict)  # small constants and what they compute
    scales: dict[str, Array] = field(default_factory=dict)  # small float weights, e.g. Resize's
    computed: set[int] = field(default_factory=set)  # positions of nodes that only compute sizes
    unknown: int = 0

    def of(self, name: str) -> Shape | None:
        """The shape of a tensor, or None where it is unknown."""
        return self.shape.get(name)

    def known(self, name: str) -> Array | None:
        """A small constant that an operator may read as a parameter, or None."""
        found = self.value.get(name)
        return self.scales.get(name) if found is None else found


def infer(graph: Graph, contrib: Contrib) -> Shapes:
    """Shapes under the first candidate sizes for which everything is known (else the best)."""
    best: Shapes | None = None
    for sizes in CANDIDATES:
        found = infer_with(graph, bind(graph, sizes), contrib)
        if best is None or found.unknown < best.unknown:
            best = found
        if not found.unknown or not found.binding:
            break
    assert best is not None
    return best


def bind(graph: Graph, sizes: tuple[int, ...]) -> dict[str, int]:
    """A size for every symbolic dimension of the inputs, distinct while ``sizes`` last."""
    binding: dict[str, int] = {}
    for value in graph.model.proto.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            key = _symbol(value.name, axis, dim)
            if key and key not in binding and key.isidentifier():
                binding[key] = sizes[len(binding) % len(sizes)]
    return binding


def _symbol(name: str, axis: int, dim: onnx.TensorShapeProto.Dimension) -> str | None:
    if dim.HasField("dim_value") and dim.dim_value > 0:
        return None
    return dim.dim_param or f"{name}_{axis}".replace(".", "_").replace(":", "_")


def _size(key: str, binding: Mapping[str, int]) -> int | None:
    """The size of a symbol, or of an expression of symbols such as ``past + 1``."""
    if key in binding:
        return binding[key]
    try:
        return _arithmetic(ast.parse(key, mode="eval").body, binding)
    except (SyntaxError, KeyError, ZeroDivisionError):
        return None


ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.floordiv,
}


def _arithmetic(tree: ast.expr, binding: Mapping[str, int]) -> int:
    if isinstance(tree, ast.BinOp) and type(tree.op) in ARITHMETIC:
        left, right = _arithmetic(tree.left, binding), _arithmetic(tree.right, binding)
        return ARITHMETIC[type(tree.op)](left, right)
    if isinstance(tree, ast.Constant) and isinstance(tree.value, int):
        return tree.value
    if isinstance(tree, ast.Name):
        return binding[tree.id]
    raise KeyError(ast.dump(tree))


def infer_with(graph: Graph, binding: dict[str, int], contrib: Contrib) -> Shapes:
    """Shapes for these sizes of the symbolic dimensions."""
    shapes = Shapes(graph, binding)
    for name, weight in graph.model.weights.items():
        shapes.shape[name], shapes.dtype[name] = weight.shape, weight.dtype
        if weight.nbytes <= 8 * 4096:
            array = weight.array()
            if small(array) or (array.size <= 64 and array.dtype.kind in "iub"):
                shapes.value[name] = array
            elif array.size <= MOST_SCALES:
                shapes.scales[name] = array
    typed = _by_onnx(graph, binding)
    for info in typed:
        _record(shapes, info)
    _values(shapes, contrib)
    return shapes


def _record(shapes: Shapes, info: ValueInfoProto) -> None:
    if info.name in shapes.graph.model.weights:
        return
    tensor = info.type.tensor_type
    if tensor.elem_type:
        shapes.dtype[info.name] = tensor.elem_type
    if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
        shapes.shape[info.name] = tuple(d.dim_value for d in tensor.shape.dim)


def _by_onnx(graph: Graph, binding: dict[str, int]) -> Iterator[ValueInfoProto]:
    """What onnx's own inference finds, on a copy without weights, metadata or old shapes."""
    source = graph.model.proto
    bare = onnx.ModelProto(ir_version=max(source.ir_version, 4))
    bare.opset_import.extend(source.opset_import)
    # onnxruntime's optimiser uses its own domain without importing it.
    missing = {node.domain for node in graph.nodes} - {o.domain for o in source.opset_import}
    bare.opset_import.extend(helper.make_opsetid(domain, 1) for domain in missing - {""})
    bare.graph.name = "shapes"
    for value in source.graph.input:
        bare.graph.input.append(_bound(value, binding, graph))
    bare.graph.output.extend(ValueInfoProto(name=v.name) for v in source.graph.output)
    listed = {v.name for v in source.graph.input}  # IR 3 repeats weights as inputs
    for tensor in source.graph.initializer:
        weight = graph.model.weights.get(tensor.name)
        if weight is not None and weight.nbytes <= 1024 and weight.dtype in INTEGERS:
            bare.graph.initializer.append(numpy_helper.from_array(weight.array(), tensor.name))
        elif tensor.name not in listed:
            bare.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    for node in source.graph.node:
        bare.graph.node.append(_bare(node))
    try:
        found = shape_inference.infer_shapes(bare, data_prop=True).graph
    except FAILURES:
        yield from bare.graph.input
        return
    yield from found.input
    yield from found.value_info
    yield from found.output


FAILURES = (shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError)
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
INTEGERS = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)


def _bare(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.ClearField("metadata_props")
    copy.ClearField("doc_string")
    if copy.op_type == "Constant":
        for attribute in copy.attribute:
            if attribute.name == "value" and len(attribute.t.raw_data) > 1024:
                attribute.t.ClearField("raw_data")
    return copy


def _bound(value: ValueInfoProto, binding: dict[str, int], graph: Graph) -> ValueInfoProto:
    copy = ValueInfoProto()
    copy.CopyFrom(value)
    for axis, dim in enumerate(copy.type.tensor_type.shape.dim):
        key = _symbol(value.name, axis, dim)
        size = key and _size(key, binding)
        if size:
            dim.dim_value = size
    return copy


def _values(shapes: Shapes, contrib: Contrib) -> None:
    """One pass in order: evaluate size chains, and infer what onnx left open."""
    graph = shapes.graph
    opset = graph.model.opset.get("", 1)
    for node in graph.nodes:
        if node.op == "Constant" and not node.domain:
            continue  # a weight, already known
        outputs = _value_of(shapes, node, opset)
        if outputs is not None:
            shapes.computed.add(node.position)
            for name, array in zip(node.outputs, outputs, strict=False):
                shapes.value[name] = array
                shapes.shape[name] = array.shape
        elif any(o and o not in shapes.shape for o in node.outputs):
            _fill(shapes, node, contrib)
            shapes.unknown += any(o and o not in shapes.shape for o in node.outputs)


def _value_of(shapes: Shapes, node: Node, opset: int) -> list[Array] | None:
    if node.op in ("Shape", "Size") and not node.domain:
        shape = shapes.shape.get(node.inputs[0])
        return None if shape is None else [shape_value(node.proto, shape)]
    values = [shapes.value.get(name) if name else None for name in node.inputs]
    if not values or any(v is None and n for v, n in zip(values, node.inputs, strict=True)):
        return None
    return evaluate(node.proto, values, opset)


def shape_value(node: NodeProto, shape: Shape) -> Array:
    """What Shape or Size yields for a tensor of ``shape``."""
    if node.op_type == "Size":
        return np.asarray(np.prod(shape, dtype=np.int64))
    given = {a.name: a.i for a in node.attribute}
    return np.asarray(shape[given.get("start", 0) : given.get("end", len(shape))], np.int64)


def _fill(shapes: Shapes, node: Node, contrib: Contrib) -> None:
    given = [shapes.shape.get(name) if name else None for name in node.inputs]
    if any(shape is None for shape, name in zip(given, node.inputs, strict=True) if name):
        return  # what follows from an unknown shape is unknown
    values = [shapes.known(name) if name else None for name in node.inputs]
    found: Sequence[Shape | None] | None = _infer_node(shapes, node, given)
    if found is None:
        found = contrib(node, shapes.graph.model.opset.get(node.domain, 1), given, values)
    for name, shape in zip(node.outputs, found or (), strict=False):
        if name and name not in shapes.shape and shape is not None:
            shapes.shape[name] = shape
    # Operators of other domains give floats if they read any, else what they read first.
    types = [shapes.dtype[name] for name in node.inputs if name in shapes.dtype]
    chosen = next((t for t in types if t in FLOATS), types[0] if types else None)
    for name in node.outputs:
        if name and name not in shapes.dtype and chosen is not None:
            shapes.dtype[name] = chosen


def _infer_node(
    shapes: Shapes, node: Node, given: list[Shape | None]
) -> list[Shape | None] | None:
    """onnx's inference for this node alone, with the values that it could not see before."""
    if node.domain:
        return None
    version = shapes.graph.model.opset.get("", 1)
    types = {
        name: helper.make_tensor_type_proto(shapes.dtype.get(name, TensorProto.FLOAT), shape)
        for name, shape in zip(node.inputs, given, strict=True)
        if name
    }
    data = {
        name: numpy_helper.from_array(np.ascontiguousarray(value), name)
        for name in node.inputs
        if name and (value := shapes.known(name)) is not None
    }
    try:
        schema = onnx.defs.get_schema(node.op, version, "")
        found = shape_inference.infer_node_outputs(
            schema, _bare(node.proto), types, data, opset_imports=[helper.make_opsetid("", version)]
        )
    except (*FAILURES, onnx.defs.SchemaError, ValueError):
        return None
    result: list[Shape | None] = []
    for name in node.outputs:
        tensor = found[name].tensor_type if name in found else None
        if tensor is not None and tensor.elem_type:
            shapes.dtype[name] = tensor.elem_type
        dims = tensor.shape.dim if tensor is not None and tensor.HasField("shape") else None
        known = dims is not None and all(d.HasField("dim_value") for d in dims)
        result.append(tuple(d.dim_value for d in dims) if known and dims is not None else None)
    return result if any(s is not None for s in result) else None

