"""Weights that only look shared: equal numbers of which an exporter keeps one tensor.

An exporter gives all batch normalisations of one width the same vector of ones, or stores the zero
biases of a fresh network once. Along an axis on which all elements are equal such a tensor ties
nothing: training would move each use apart. So the analysis works on a model in which each use has
a copy of its own; what an edit leaves as it was is joined again by :func:`join`. What bears
distinct elements (an embedding that is the head, too), or what the file says is one parameter under
several names, stays one.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping

from onnx import ModelProto, NodeProto, TensorProto

from onnx_net2net.model.graph import Copied, parameter_path, scope_path
from onnx_net2net.model.history import TIES
from onnx_net2net.model.model import Model, Weight
from onnx_net2net.model.schemas import schema_of
from onnx_net2net.model.tensors import graphs, nodes
from onnx_net2net.model.unique_names import defined, unique

# Numbers that tell sizes are nobody's parameters, and may be equal as they like.
_SIZES = (TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING)


def untied(model: Model) -> tuple[Model, dict[str, Copied]]:
    """Return ``model`` with a copy of its own for each use of what ties nothing, and all copies."""
    shared = _shared(model)
    if not shared:
        return model, {}
    proto = model.editable()
    taken = set(model.weights).union(*map(defined, graphs(proto.graph)))
    copies: dict[str, Copied] = {}
    own: dict[tuple[str, str], str] = {}  # the copies of modules
    for node in nodes(proto.graph):
        for index, name in enumerate(node.input):
            if name not in shared:
                continue
            module = _module(node, name)
            copy = own.get((name, module)) if module else None
            if copy is None:
                copy = unique(_called(node, index, name, model), taken)
                copies[copy] = Copied(name, shared[name])
            node.input[index] = own[name, module or copy] = copy
    weights: dict[str, Weight] = {}
    for copy, of in copies.items():
        weights[copy] = model.weights[of.original].renamed(copy)
        proto.graph.initializer.append(TensorProto(name=copy))
    return model.with_changes(proto, weights), copies


def _shared(model: Model) -> dict[str, frozenset[int]]:
    """Return what several inputs of nodes read although it ties nothing, and the axes it does tie.

    A module that runs twice has one parameter, so all that it reads by one name is one.
    """
    users: dict[str, set[Hashable]] = {}
    for place, node in enumerate(nodes(model.proto.graph)):
        for index, name in enumerate(node.input):
            if name in model.weights:
                users.setdefault(name, set()).add(_module(node, name) or (place, index))
    try:
        owners = set(json.loads(model.metadata.get(TIES, "{}")).values())
    except (ValueError, AttributeError, TypeError, RecursionError):
        owners = set(model.weights)  # damaged: nobody knows
    shared = {}
    for name, apart in users.items():
        weight = model.weights[name]
        if len(apart) < 2 or weight.dtype in _SIZES or max(weight.shape, default=1) <= 1:
            continue
        if name not in owners and (free := _uniform(weight)):
            long = {axis for axis, size in enumerate(weight.shape) if size > 1}
            shared[name] = frozenset(long - free)
    return shared


def _module(node: NodeProto, name: str) -> str | None:
    """Return the module that reads a weight, if the file says so: its runs read one parameter.

    TorchScript numbers the runs, so that ``block_1.norm`` may be the second one of ``block.norm``.
    """
    path, own = scope_path(node), parameter_path(name)
    if path and own and path != own:
        runs, parts = path.split("."), own.split(".")
        same = len(runs) == len(parts) and all(map(_is_run, runs, parts))
        return own if same else path
    return path


def _is_run(run: str, part: str) -> bool:
    """Return whether ``run`` is ``part``, or numbered behind it."""
    number = run.removeprefix(part)
    return run.startswith(part) and (not number or (number[0] == "_" and number[1:].isdecimal()))


def _uniform(weight: Weight) -> set[int]:
    """Return the axes longer than 1 along which all elements are equal."""
    if not weight.given:
        return set()
    array = weight.array()
    axes = set()
    for axis, size in enumerate(array.shape):
        first = array.take([0], axis)
        line = array[tuple(slice(None) if i == axis else 0 for i in range(array.ndim))]
        if size > 1 and (line == line[0]).all() and bool((array == first).all()):
            axes.add(axis)
    return axes


def _called(node: NodeProto, index: int, name: str, model: Model) -> str:
    """Return the name of a use if it were not shared: as its module's, or by its operand."""
    path, own = scope_path(node), parameter_path(name)
    if path and own:
        return f"{path}.{name.rpartition('.')[2]}"
    base = node.name or next(filter(None, node.output), name)
    schema = schema_of(node, model.opset)
    if schema is None:
        return f"{base}_{index}"
    return f"{base}_{schema.inputs[min(index, len(schema.inputs) - 1)].name}"


def join(
    proto: ModelProto, copies: Mapping[str, Copied], kinds: Mapping[str, Hashable]
) -> dict[str, str]:
    """Let uses whose copies are still the same read one tensor; return the copies' new names.

    ``kinds`` tells what an edit made of copies: those of one kind are equal, those without one are
    the original. Where no use of it is left, the first that was made new takes its name.
    """
    readers = list(nodes(proto.graph))
    read = {name for node in readers for name in node.input}
    read |= {value.name for graph in graphs(proto.graph) for value in graph.output}
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
    for node in readers:
        if not names.keys().isdisjoint(node.input):
            node.input[:] = [names.get(name, name) for name in node.input]
    gone = {copy for copy, name in names.items() if copy != name}
    gone |= {of.original for of in copies.values()} - kept
    entries = proto.graph.initializer
    for index in reversed(range(len(entries))):
        if entries[index].name in gone:
            del entries[index]
    return names
