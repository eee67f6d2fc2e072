"""Where the tensors of a model are, and whether each holds what it declares.

    for name, holder in constants(proto.graph): ...     # Constant nodes with a numeric value
    check_tensor(tensor, "initializer 'W'")             # raises InvalidModel

A model holds tensors as initializers of its graph, as attributes of nodes (Constant's ``value``
above all), in subgraphs of If, Loop and Scan, and in local functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    helper,
    numpy_helper,
)

from onnx_net2net.errors import InvalidModel
from onnx_net2net.model.schemas import domain_of
from onnx_net2net.model.weights import MOST_AXES, dtype_name, is_possible, raw_size

__all__ = [
    "MOST_NESTED", "attribute_tensors", "carried", "check_data_size", "check_tensor", "clear_data",
    "constants", "data_fields", "fits_field", "graphs", "is_external", "nested_too_deep", "nodes",
    "set_constant", "subgraphs",
]  # fmt: skip

DAMAGED = "the file is damaged; export or download it again"
# Protobuf parses at most 100 messages within one another, three to a graph in a node of a graph.
MOST_NESTED = 30
_DATA_FIELDS = (
    "raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data",
    "uint64_data",
)  # fmt: skip
_KNOWN_TYPES = frozenset(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}
_CONSTANT_VALUES = frozenset({"value", "value_float", "value_floats", "value_int", "value_ints"})
# Elements per entry of the typed field: complex numbers take two, packed types share one.
_PER_ENTRY = {"COMPLEX64": 0.5, "COMPLEX128": 0.5, "UINT4": 2, "INT4": 2, "FLOAT4E2M1": 2,
              "UINT2": 4, "INT2": 4}  # fmt: skip


def is_external(tensor: TensorProto) -> bool:
    """Return whether the tensor's contents lie in another file."""
    return tensor.data_location == TensorProto.EXTERNAL


def data_fields(tensor: TensorProto) -> list[str]:
    """Return the fields that hold contents: none of an empty tensor, or after a lift."""
    filled = [field for field in _DATA_FIELDS[1:] if len(getattr(tensor, field))]
    return ["raw_data", *filled] if tensor.HasField("raw_data") else filled


def clear_data(tensor: TensorProto) -> None:
    """Drop the contents and any reference to another file; name, type and dims stay."""
    for field in (*_DATA_FIELDS, "external_data", "data_location"):
        tensor.ClearField(field)


def fits_field(tensor: TensorProto, field: int) -> bool:
    """Return whether a tensor of this type may hold its contents in that field, given by number."""
    descriptor = TensorProto.DESCRIPTOR.fields_by_number[field]
    return descriptor.name in ("raw_data", helper.tensor_dtype_to_field(tensor.data_type))


def check_header(tensor: TensorProto, where: str) -> None:
    """Raise :class:`InvalidModel` unless dims and type make sense."""
    if any(size < 0 for size in tensor.dims):
        raise InvalidModel(f"{where}: negative size in dims {list(tensor.dims)}", DAMAGED)
    bare = not math.prod(tensor.dims) or len(tensor.dims) > MOST_AXES  # else bytes are missing
    if bare and not is_possible(tensor.dims):
        raise InvalidModel(f"{where}: no tensor has dims {list(tensor.dims)[:8]}", DAMAGED)
    if tensor.data_type not in _KNOWN_TYPES:
        raise InvalidModel(
            f"{where}: unknown data type {tensor.data_type}",
            "upgrade onnx if the model is newer than it, else export the model again",
        )


def check_data_size(tensor: TensorProto, nbytes: int, where: str) -> None:
    """Raise :class:`InvalidModel` unless ``nbytes`` of raw data are what is declared."""
    check_header(tensor, where)
    shape = tuple(tensor.dims)
    wanted = raw_size(tensor.data_type, shape)
    if wanted != nbytes:
        takes = "cannot be raw data" if wanted is None else f"takes {wanted}"
        raise InvalidModel(
            f"{where}: {nbytes} bytes of data, but {dtype_name(tensor.data_type)} {shape} {takes}",
            DAMAGED,
        )


def check_tensor(tensor: TensorProto, where: str) -> None:
    """Raise :class:`InvalidModel` unless the contents within the tensor are what it declares."""
    check_header(tensor, where)
    fields = data_fields(tensor)
    if len(fields) > 1:
        raise InvalidModel(f"{where}: contents given twice, as {' and '.join(fields)}", DAMAGED)
    if fields == ["raw_data"]:
        check_data_size(tensor, len(tensor.raw_data), where)
        return
    shape, name = tuple(tensor.dims), dtype_name(tensor.data_type)
    field = helper.tensor_dtype_to_field(tensor.data_type)
    wanted = math.ceil(math.prod(shape) / _PER_ENTRY.get(name, 1))
    if len(getattr(tensor, field)) != wanted or fields not in ([], [field]):
        held = "nothing" if not fields else f"{len(getattr(tensor, fields[0]))} in {fields[0]}"
        raise InvalidModel(
            f"{where}: holds {held}, but {name} {shape} takes {wanted} in {field}", DAMAGED
        )


def subgraphs(graph: GraphProto | FunctionProto, depth: int = MOST_NESTED) -> Iterator[GraphProto]:
    """Yield the graphs within the nodes of a graph, at any depth up to :data:`MOST_NESTED`."""
    for node in graph.node:
        for inner in carried(node):
            if not depth:
                raise nested_too_deep()
            yield inner
            yield from subgraphs(inner, depth - 1)


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield a graph, then those within its nodes."""
    yield graph
    yield from subgraphs(graph)


def nodes(graph: GraphProto | FunctionProto, depth: int = MOST_NESTED) -> Iterator[NodeProto]:
    """Yield the nodes of a graph, each followed by those of the graphs within it."""
    for node in graph.node:
        yield node
        for inner in carried(node):
            if not depth:
                raise nested_too_deep()
            yield from nodes(inner, depth - 1)


def nested_too_deep() -> InvalidModel:
    """Return the error for more than :data:`MOST_NESTED` graphs within one another."""
    problem = f"its If, Loop and Scan are nested over {MOST_NESTED} deep"
    return InvalidModel(problem, "export the model with fewer of them within one another")


def carried(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs that a node itself carries, of whatever operator."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def constants(graph: GraphProto) -> Iterator[tuple[str, TensorProto, NodeProto]]:
    """Yield the Constant nodes of one graph with a numeric value: output name, value, node."""
    for node in graph.node:
        if node.op_type != "Constant" or domain_of(node):
            continue
        if len(node.output) == 1 and len(node.attribute) == 1:
            tensor = _constant_value(node.attribute[0])
            if tensor is not None:
                yield node.output[0], tensor, node


def _constant_value(attribute: AttributeProto) -> TensorProto | None:
    """Return the value of a Constant node as a tensor; ``None`` for strings and sparse tensors."""
    if attribute.name not in _CONSTANT_VALUES:
        return None
    if attribute.type == AttributeProto.TENSOR:
        return None if attribute.t.data_type == TensorProto.STRING else attribute.t
    if attribute.type in (AttributeProto.FLOAT, AttributeProto.FLOATS):
        dtype: type = np.float32
    elif attribute.type in (AttributeProto.INT, AttributeProto.INTS):
        dtype = np.int64
    else:
        return None
    return numpy_helper.from_array(np.array(helper.get_attribute_value(attribute), dtype))


def set_constant(node: NodeProto, tensor: TensorProto) -> None:
    """Give a Constant node another value."""
    del node.attribute[:]
    node.attribute.append(AttributeProto(name="value", type=AttributeProto.TENSOR, t=tensor))


def attribute_tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor of the model that is not an initializer of its main graph."""
    yield from _sparse_parts(proto.graph.sparse_initializer)
    for holder in (proto.graph, *proto.functions):
        yield from _node_tensors(holder.node)
        for inner in subgraphs(holder):
            yield from inner.initializer
            yield from _sparse_parts(inner.sparse_initializer)
            yield from _node_tensors(inner.node)


def _node_tensors(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                yield from _sparse_parts([attribute.sparse_tensor])
            yield from _sparse_parts(attribute.sparse_tensors)


def _sparse_parts(tensors: Iterable[SparseTensorProto]) -> Iterator[TensorProto]:
    for tensor in tensors:
        yield tensor.values
        yield tensor.indices
