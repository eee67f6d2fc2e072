"""Weights that only look shared: equal numbers of which an exporter keeps one tensor.

An exporter gives all batch normalisations of one width the same vector of ones, or stores the zero
biases of a fresh network once. Along an axis on which all entries are equal such a tensor ties
nothing: training would move each use apart. So the analysis works on a model in which each use has
a copy of its own; what an edit leaves as it was is joined again by :func:`join`. What bears
distinct entries (an embedding that is the head, too), or what the file says is one parameter under
several names, stays one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterator, Mapping

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from onnx_net2net.model.graph import Copied, parameter_path, scope_path
from onnx_net2net.model.history import TIES
from onnx_net2net.model.model import Model, Weight
from onnx_net2net.model.tensors import carried

# Numbers that tell sizes are nobody's parameters, and may be equal as they like.
_SIZES = (TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING)


def untied(model: Model) -> tuple[Model, dict[str, Copied]]:
    """``model`` with a copy of its own for each use of what ties nothing, and all copies."""
    shared = _shared(model)
    if not shared:
        return model, {}
    proto = model.editable()
    taken = set(_names(proto.graph)) | model.weights.keys()
    copies: dict[str, Copied] = {}
    own: dict[tuple[str, str], str] = {}  # the copies of modules
    for node in _nodes(proto.graph):
        for index, name in enumerate(node.input):
            if name not in shared:
                continue
            module = _module(node, name)
            copy = own.get((name, module)) if module else None
            if copy is None:
                copy = _unique(_called(node, index, name, model), taken)
                copies[copy] = Copied(name, shared[name])
            node.input[index] = own[name, module or copy] = copy
    weights: dict[str, Weight] = {}
    for copy, of in copies.items():
        weights[copy] = model.weights[of.original].renamed(copy)
        proto.graph.initializer.append(TensorProto(name=copy))
    return model.with_changes(proto, weights), copies


def _shared(model: Model) -> dict[str, frozenset[int]]:
    """What several inputs of nodes read although it ties nothing, and the axes that it does tie.

    A module that runs twice has one parameter, so all that it reads by one name is one.
    """
    users: dict[str, set[Hashable]] = {}
    for place, node in enumerate(_nodes(model.proto.graph)):
        for index, name in enumerate(node.input):
            if name in model.weights:
                users.setdefault(name, set()).add(_module(node, name) or (place, index))
    owners = _owners(model)
    found = {}
    for name, apart in users.items():
        weight = model.weights[name]
        if len(apart) < 2 or weight.dtype in _SIZES or max(weight.shape, default=1) <= 1:
            continue
        if name not in owners and (free := _uniform(weight)):
            long = {axis for axis, size in enumerate(weight.shape) if size > 1}
            found[name] = frozenset(long - free)
    return found


def _module(node: NodeProto, name: str) -> str | None:
    """The module that reads a weight, if the file says so: all of its runs read one parameter.

    TorchScript numbers the runs, so that ``block_1.norm`` may be the second one of ``block.norm``.
    """
    path, own = scope_path(node), parameter_path(name)
    runs = r"\.".join(re.escape(part) + r"(_\d+)?" for part in own.split(".")) if own else ""
    return own if path and own and re.fullmatch(runs, path) else path


def _owners(model: Model) -> set[str]:
    """The initializers that the file says are one parameter under several names."""
    try:
        return set(json.loads(model.metadata.get(TIES, "{}")).values())
    except (ValueError, AttributeError, TypeError, RecursionError):
        return set(model.weights)  # damaged: nobody knows


def _uniform(weight: Weight) -> set[int]:
    """The axes longer than 1 along which all entries are equal."""
    if not weight.given:
        return set()
    array = weight.array()
    found = set()
    for axis, size in enumerate(array.shape):
        first = array.take([0], axis)
        line = array[tuple(slice(None) if i == axis else 0 for i in range(array.ndim))]
        if size > 1 and (line == line[0]).all() and bool((array == first).all()):
            found.add(axis)
    return found


def _called(node: NodeProto, index: int, name: str, model: Model) -> str:
    """What a use would be called if it were not shared: as its module's, or by its operand."""
    path, own = scope_path(node), parameter_path(name)
    if path and own:
        return f"{path}.{name.rpartition('.')[2]}"
    base = node.name or next(filter(None, node.output), name)
    version = model.opset.get(node.domain, 1)
    if onnx.defs.has(node.op_type, version, node.domain):
        formal = onnx.defs.get_schema(node.op_type, version, node.domain).inputs
        return f"{base}_{formal[min(index, len(formal) - 1)].name}"
    return f"{base}_{index}"


def join(
    proto: ModelProto, copies: Mapping[str, Copied], kinds: Mapping[str, Hashable]
) -> dict[str, str]:
    """Let uses whose copies are still the same read one tensor; what became of the copies' names.

    ``kinds`` tells what an edit made of copies: those of one kind are equal, those without one are
    the original. Where no use of it is left, the first that was made new takes its name.
    """
    nodes = list(_nodes(proto.graph))
    read = {name for node in nodes for name in node.input} | _results(proto.graph)
    names: dict[str, str] = {}
    heads: dict[tuple[str, Hashable], str] = {}
    kept = {of.original for copy, of in copies.items() if copy in read and copy not in kinds}
    kept |= {of.original for of in copies.values()} & read
    for copy, of in copies.items():
        if copy not in kinds or copy not in read:
            names[copy] = of.original
        else:
            head = copy if of.original in kept else of.original
            kept.add(of.original)
            names[copy] = heads.setdefault((of.original, kinds[copy]), head)
    for node in nodes:
        if not names.keys().isdisjoint(node.input):
            node.input[:] = [names.get(name, name) for name in node.input]
    gone = {copy for copy, name in names.items() if copy != name}
    gone |= {of.original for of in copies.values()} - kept
    entries = proto.graph.initializer
    for index in reversed(range(len(entries))):
        if entries[index].name in gone:
            del entries[index]
    return names


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of all graphs inside it."""
    for node in graph.node:
        yield node
        for body in carried(node):
            yield from _nodes(body)


def _results(graph: GraphProto) -> set[str]:
    """What a graph and all graphs inside it give."""
    found = {value.name for value in graph.output}
    for node in graph.node:
        for body in carried(node):
            found |= _results(body)
    return found


def _names(graph: GraphProto) -> Iterator[str]:
    """The names of all tensors of a graph and of all graphs inside it."""
    for entry in (*graph.input, *graph.initializer):
        yield entry.name
    for node in graph.node:
        yield from node.output
        for body in carried(node):
            yield from _names(body)


def _unique(name: str, taken: set[str]) -> str:
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    taken.add(found)
    return found
