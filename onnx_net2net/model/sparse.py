"""Sparse tensors: dense while a model is in hand, sparse again when it is written.

    lifted = densify(proto)                     # in place: no sparse tensor is left
    proto, lifted = sparsify(proto, lifted)     # a copy with those that were sparse

onnxruntime makes them dense as well, so to everybody else they are weights like any other. What
was sparse is remembered in the tensor's metadata, under a key that no file can know, and so follows
the tensor wherever its entry is copied to.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Mapping
from copy import deepcopy

import numpy as np
from onnx import (
    AttributeProto,
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
from onnx_net2net.model.tensors import DAMAGED, check_header, check_tensor, graphs
from onnx_net2net.model.weights import Computed, Weight, raw_size

__all__ = ["densify", "sparsify"]

_WAS_SPARSE = f"onnx_net2net.sparse.{secrets.token_hex(8)}"
_LINEAR, _COORDINATES = "linear", "coordinates"
# A few bytes can stand for more zeros than any memory holds. Networks are pruned to some percent.
_FREE, _MOST_PER_BYTE, _MOST = 256 << 20, 100, 2**31 - 1


def densify(proto: ModelProto) -> dict[str, Weight]:
    """Make the sparse tensors of a model dense; return the contents of its initializers by name.

    For a model without local functions and external data. Raises :class:`InvalidModel`.
    """
    _check_sizes(proto)
    lifted: dict[str, Weight] = {}
    for graph in graphs(proto.graph):
        taken = {entry.name for entry in graph.initializer}
        for tensor in graph.sparse_initializer:
            name = tensor.values.name
            if not name or name in taken:
                raise InvalidModel(f"two initializers named {name!r}, one sparse", DAMAGED)
            taken.add(name)
            contents = _dense(tensor, f"sparse initializer {name!r}")
            entry = graph.initializer.add()
            entry.CopyFrom(_marked(tensor))
            if graph is proto.graph:
                lifted[name] = contents
            else:
                entry.raw_data = bytes(contents.payload())
        del graph.sparse_initializer[:]
        for node, attribute in _sparse_constants(graph):
            contents = _dense(attribute.sparse_tensor, f"Constant {node.output[0]!r}")
            value = _marked(attribute.sparse_tensor)
            value.raw_data = bytes(contents.payload())
            attribute.CopyFrom(AttributeProto(name="value", type=AttributeProto.TENSOR, t=value))
    return lifted


def _sparse_constants(graph: GraphProto) -> Iterator[tuple[NodeProto, AttributeProto]]:
    for node in graph.node:
        if node.op_type == "Constant" and not domain_of(node) and node.output:
            for attribute in node.attribute:
                if attribute.name == "sparse_value" and attribute.HasField("sparse_tensor"):
                    yield node, attribute


def _check_sizes(proto: ModelProto) -> None:
    """Raise unless all sparse tensors together take a sensible amount of memory."""
    total, stored = 0, 0
    for graph in graphs(proto.graph):
        constants = (attribute.sparse_tensor for _, attribute in _sparse_constants(graph))
        for tensor in (*graph.sparse_initializer, *constants):
            where = f"sparse tensor {tensor.values.name!r}"
            check_header(TensorProto(dims=tensor.dims, data_type=tensor.values.data_type), where)
            size = raw_size(tensor.values.data_type, tuple(tensor.dims))
            if size is None:
                raise InvalidModel(f"{where}: holds no numbers", "export the model again")
            total += size
            stored += tensor.ByteSize()
    if total > min(_MOST, _FREE + _MOST_PER_BYTE * stored):
        raise InvalidModel(
            f"its sparse tensors take {total >> 20} MiB when they are dense, for {stored} bytes",
            "export the model with dense weights",
        )


def _marked(tensor: SparseTensorProto) -> TensorProto:
    """Return an entry for the dense tensor, without contents."""
    values = tensor.values
    entry = TensorProto(name=values.name, data_type=values.data_type, dims=tensor.dims)
    form = _LINEAR if len(tensor.indices.dims) == 1 else _COORDINATES
    entry.metadata_props.add(key=_WAS_SPARSE, value=form)
    return entry


def _dense(sparse: SparseTensorProto, where: str) -> Weight:
    """Return the contents of a sparse tensor, kept as they are and made dense when read."""
    tensor = deepcopy(sparse)
    shape, dtype = tuple(tensor.dims), tensor.values.data_type
    places = _places(tensor, where)

    def contents() -> np.ndarray:
        values = numpy_helper.to_array(tensor.values)
        array = np.zeros(math.prod(shape), values.dtype)
        array[places] = values
        return array.reshape(shape)

    return Computed(tensor.values.name, dtype, shape, contents)


def _places(tensor: SparseTensorProto, where: str) -> np.ndarray:
    """Return where the values lie in the flattened tensor, each in a place of its own."""
    check_tensor(tensor.values, where)
    check_tensor(tensor.indices, where)
    shape, size = tuple(tensor.dims), math.prod(tensor.dims)
    count = math.prod(tensor.values.dims)
    forms = {(count,): (size,), (count, len(shape)): shape}
    bounds = forms.get(tuple(tensor.indices.dims))
    if len(tensor.values.dims) != 1 or tensor.indices.data_type != TensorProto.INT64 or not bounds:
        raise InvalidModel(f"{where}: its indices do not fit its values", DAMAGED)
    indices = numpy_helper.to_array(tensor.indices).reshape(count, len(bounds))
    if (indices < 0).any() or (indices >= bounds).any():
        raise InvalidModel(f"{where}: an index is outside of {list(shape)}", DAMAGED)
    strides = [math.prod(bounds[i + 1 :]) for i in range(len(bounds))]
    places = indices @ np.array(strides, np.int64)
    if len(np.unique(places)) < count:
        raise InvalidModel(f"{where}: two values in one place", DAMAGED)
    return places


def sparsify(
    proto: ModelProto, lifted: Mapping[str, Weight]
) -> tuple[ModelProto, Mapping[str, Weight]]:
    """Return the model as it is written: a copy in which what was sparse is so, if anything was.

    ``lifted`` holds contents that are not in ``proto``; those of sparse tensors are in the copy.
    """
    if not any(
        any(map(_form, graph.initializer)) or any(_form(a.t) for a in _dense_constants(graph))
        for graph in graphs(proto.graph)
    ):
        return proto, lifted
    proto, kept = deepcopy(proto), dict(lifted)
    for graph in graphs(proto.graph):
        dense = list(graph.initializer)
        del graph.initializer[:]
        for entry in dense:
            form = _form(entry)
            if form is None:
                graph.initializer.append(entry)
                continue
            weight = kept.pop(entry.name, None) if graph is proto.graph else None
            array = numpy_helper.to_array(entry) if weight is None else weight.array()
            graph.sparse_initializer.append(_encoded(entry.name, array, form))
        for attribute in _dense_constants(graph):
            form = _form(attribute.t)
            if form is not None:
                value = _encoded(attribute.t.name, numpy_helper.to_array(attribute.t), form)
                attribute.CopyFrom(helper.make_attribute("sparse_value", value))
    return proto, kept


def _dense_constants(graph: GraphProto) -> Iterator[AttributeProto]:
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (a for a in node.attribute if a.type == AttributeProto.TENSOR)


def _form(tensor: TensorProto) -> str | None:
    """Return how the tensor's indices were written, None if it was dense."""
    forms: Iterator[str] = (e.value for e in tensor.metadata_props if e.key == _WAS_SPARSE)
    return next(forms, None)


def _encoded(name: str, array: np.ndarray, form: str) -> SparseTensorProto:
    """Return a sparse tensor, its indices in ascending order."""
    flat = np.ascontiguousarray(array).reshape(-1)
    # By bits: -0.0 is a value, too.
    filled = flat.view(np.uint8).reshape(flat.size, flat.itemsize).any(axis=1)
    places = np.flatnonzero(filled)
    indices = places.astype(np.int64)
    if form == _COORDINATES:
        indices = np.stack(np.unravel_index(places, array.shape), axis=1).astype(np.int64)
    return helper.make_sparse_tensor(
        numpy_helper.from_array(flat[places], name),
        numpy_helper.from_array(indices, f"{name}_indices"),
        list(array.shape),
    )
