"""Lists of tensors, as PyTorch's exporter writes ``torch.split``, turned into plain operators.

    SplitToSequence -> SequenceAt(0), SequenceAt(1), ...    becomes    Split

Axes are properties of tensors, and a list of tensors has none. Where a list is only cut and
indexed at constant places it is the same as Split (or Gather, where single slices are taken).
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial

import numpy as np
from onnx import NodeProto, TensorProto, helper

from onnx_net2net.model.model import Computed, Model


def without_sequences(model: Model) -> Model:
    """Replace lists where that is possible; return the model itself if there is nothing to do."""
    source = model.proto.graph
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in source.node:
        for name in node.input:
            readers[name].append(node)
    outputs = {value.name for value in source.output}
    replacement: dict[int, list[NodeProto]] = {}
    added: dict[str, np.ndarray] = {}
    for cut in source.node:
        if cut.op_type != "SplitToSequence" or not cut.output or cut.output[0] in outputs:
            continue
        taken = readers[cut.output[0]]
        if any(node.op_type != "SequenceAt" for node in taken):
            continue
        plain = _plain(model, cut, taken, added)
        if plain is not None:
            replacement[id(cut)] = plain
            replacement.update((id(node), []) for node in taken)
    if not replacement:
        return model
    proto = model.editable()
    del proto.graph.node[:]
    for node in source.node:
        proto.graph.node.extend(replacement.get(id(node), [node]))
    weights = {}
    for name, array in added.items():
        proto.graph.initializer.append(
            TensorProto(name=name, data_type=TensorProto.INT64, dims=array.shape)
        )
        weights[name] = Computed(name, TensorProto.INT64, array.shape, partial(np.copy, array))
    return model.with_changes(proto, weights)


def _plain(
    model: Model, cut: NodeProto, taken: list[NodeProto], added: dict[str, np.ndarray]
) -> list[NodeProto] | None:
    """Return nodes that do what a cut and its readers do, None where there are none.

    Constants that they read are ``added``.
    """
    places: list[tuple[NodeProto, int]] = []
    for node in taken:
        position = model.weights.get(node.input[1])
        if position is None or position.nbytes != 8:
            return None
        places.append((node, int(position.array().reshape(()))))
    attributes = {a.name: a.i for a in cut.attribute}
    axis = attributes.get("axis", 0)
    if len(cut.input) > 1 and cut.input[1]:
        sizes = model.weights.get(cut.input[1])
        if sizes is None:
            return None
        if not sizes.shape:  # parts of one size: cut them out singly, however many there are
            return _slices(cut, axis, int(sizes.array()), places, added)
        return _split(cut, axis, sizes.shape[0], places)
    if attributes.get("keepdims", 1):
        return None
    nodes = []
    for node, place in places:
        index = f"{node.output[0]}_index"
        added[index] = np.asarray(place, np.int64)
        nodes.append(
            helper.make_node(
                "Gather", [cut.input[0], index], [node.output[0]], name=node.name, axis=axis
            )
        )
    return nodes


def _split(
    cut: NodeProto, axis: int, count: int, places: list[tuple[NodeProto, int]]
) -> list[NodeProto] | None:
    """Return one Split; a part that is taken twice goes through Identity."""
    outputs = [f"{cut.output[0]}_{i}" for i in range(count)]
    identities = []
    seen: set[int] = set()
    for node, place in places:
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
    places: list[tuple[NodeProto, int]],
    added: dict[str, np.ndarray],
) -> list[NodeProto] | None:
    """Return one Slice for each part of ``size`` that is taken."""
    if any(place < 0 for _, place in places):
        return None
    nodes = []
    for node, place in places:
        bounds = [f"{node.output[0]}_{what}" for what in ("starts", "ends", "axes")]
        for name, value in zip(bounds, (place * size, place * size + size, axis), strict=True):
            added[name] = np.asarray([value], np.int64)
        nodes.append(
            helper.make_node("Slice", [cut.input[0], *bounds], [node.output[0]], name=node.name)
        )
    return nodes
