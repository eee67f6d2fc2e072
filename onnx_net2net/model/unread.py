"""Weights that the network does not read, which the state dict of its author's class has."""

from __future__ import annotations

from onnx_net2net.model.model import Model
from onnx_net2net.model.tensors import graphs

__all__ = ["unread", "without_unread"]


def unread(model: Model) -> set[str]:
    """Return the initializers that no node and no output reads."""
    every = list(graphs(model.proto.graph))
    read = {name for graph in every for node in graph.node for name in node.input}
    read.update(value.name for graph in every for value in (*graph.input, *graph.output))
    return {entry.name for entry in model.proto.graph.initializer} - read


def without_unread(model: Model) -> Model:
    """Return the model without these weights; itself where it has none."""
    names = unread(model)
    if not names:
        return model
    proto = model.editable()
    kept = [entry for entry in proto.graph.initializer if entry.name not in names]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    return model.with_changes(proto, {})
