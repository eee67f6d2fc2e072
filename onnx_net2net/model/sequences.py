"""Lists of tensors, as PyTorch's exporter writes ``torch.split``, turned into plain operators.

    SplitToSequence -> SequenceAt(0), SequenceAt(1), ...    becomes    Split

Axes are properties of tensors, and a list of tensors has none. Where a list is only cut and
indexed at constant places it is the same as Split (or Gather, where single entries are taken).
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial

import numpy as np
from onnx import NodeProto, TensorProto, helper

from onnx_net2net.model.model import Computed, Model


def without_sequences(model: Model) -> Model:
    """``model`` with lists replaced where that is possible; itself if there is nothing to do."""
    graph = model.proto.graph
    cuts = [node for node in graph.node if node.op_type == "SplitToSequence" and node.output]
    if not cuts:
        return model
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    outputs = {value.name for value in graph.output}
    replacement: dict[int, list[NodeProto]] = {}
    added: dict[str, np.ndarray] = {}
    for cut in cuts:
        taken = readers[cut.output[0]]
        if cut.output[0] in outputs or any(n.op_type != "SequenceAt" for n in taken):
            continue
        new = _plain(model, cut, taken, added)
        if new is not None:
            replacement[id(cut)] = new
            replacement.update((id(node), []) for node in taken)
    return _replaced(model, replacement, added) if replacement else model


def _plain(
    model: Model, cut: NodeProto, taken: list[NodeProto], added: dict[str, np.ndarray]
) -> list[NodeProto] | None:
    places = [_number(model, node.input[1]) for node in taken]
    if any(place is None for place in places):
        return None
    given = {a.name: a.i for a in cut.attribute}
    axis = given.get("axis", 0)
    if len(cut.input) > 1 and cut.input[1]:
        sizes = model.weights.get(cut.input[1])
        if sizes is None:
            return None
        if not sizes.shape:  # parts of one size: cut them out singly, however many there are
            return _slices(cut, axis, int(sizes.array()), taken, places, added)  # type: ignore[arg-type]
        return _split(cut, axis, sizes.shape[0], taken, places)  # type: ignore[arg-type]
    if given.get("keepdims", 1):
        return None
    nodes = []
    for node, place in zip(taken, places, strict=True):
        index = f"{node.output[0]}_index"
        added[index] = np.asarray(place, np.int64)
        nodes.append(
            helper.make_node(
                "Gather", [cut.input[0], index], [node.output[0]], name=node.name, axis=axis
            )
        )
    return nodes


def _split(
    cut: NodeProto, axis: int, count: int, taken: list[NodeProto], places: list[int]
) -> list[NodeProto] | None:
    """One Split; a part that is taken twice goes through Identity."""
    outputs = [f"{cut.output[0]}_{i}" for i in range(count)]
    identities = []
    seen: set[int] = set()
    for node, place in zip(taken, places, strict=True):
        if not -count <= place < count:
            return None
        if place % count in seen:
            part = outputs[place % count]
            identities.append(helper.make_node("Identity", [part], node.output, name=node.name))
        else:
            seen.add(place % count)
            outputs[place % count] = node.output[0]
    split = helper.make_node("Split", list(cut.input), outputs, name=cut.name, axis=axis)
    split.metadata_props.extend(cut.metadata_props)
    return [split, *identities]


def _slices(
    cut: NodeProto,
    axis: int,
    size: int,
    taken: list[NodeProto],
    places: list[int],
    added: dict[str, np.ndarray],
) -> list[NodeProto] | None:
    if any(place < 0 for place in places):
        return None
    nodes = []
    for node, place in zip(taken, places, strict=True):
        bounds = [f"{node.output[0]}_{what}" for what in ("starts", "ends", "axes")]
        for name, value in zip(bounds, (place * size, place * size + size, axis), strict=True):
            added[name] = np.asarray([value], np.int64)
        nodes.append(
            helper.make_node("Slice", [cut.input[0], *bounds], [node.output[0]], name=node.name)
        )
    return nodes


def _number(model: Model, name: str) -> int | None:
    weight = model.weights.get(name)
    return int(weight.array().reshape(())) if weight is not None and weight.nbytes == 8 else None


def _replaced(
    model: Model, replacement: dict[int, list[NodeProto]], added: dict[str, np.ndarray]
) -> Model:
    source = model.proto.graph.node
    proto = model.editable()
    del proto.graph.node[:]
    for node in source:
        proto.graph.node.extend(replacement.get(id(node), [node]))
    weights = {}
    for name, array in added.items():
        proto.graph.initializer.append(
            TensorProto(name=name, data_type=TensorProto.INT64, dims=array.shape)
        )
        weights[name] = Computed(name, TensorProto.INT64, array.shape, partial(np.copy, array))
    return model.with_changes(proto, weights)
