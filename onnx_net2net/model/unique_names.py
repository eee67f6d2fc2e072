"""Names of tensors made unique in the whole model, bodies of If, Loop and Scan included.

ONNX lets two branches use one name for two tensors. The analysis knows tensors by name, so it
works on a model in which the second of them is called otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx import GraphProto

from onnx_net2net.model.model import Model
from onnx_net2net.model.subgraphs import has_subgraph
from onnx_net2net.model.tensors import carried, graphs

__all__ = ["defined", "unique", "with_unique_names"]


def with_unique_names(model: Model) -> Model:
    """Rename tensors of bodies whose name is taken; return the model itself if none is."""
    if not any(map(has_subgraph, model.proto.graph.node)):
        return model
    scopes = [defined(graph) for graph in graphs(model.proto.graph)]
    names = set().union(*scopes)
    if len(names) == sum(map(len, scopes)):
        return model
    proto = model.editable()
    _rename_bodies(proto.graph, {}, scopes[0], names)
    return model.with_changes(proto, {})


def defined(graph: GraphProto) -> set[str]:
    """Return the names of the tensors that a graph itself defines."""
    names = {value.name for value in graph.input} | {t.name for t in graph.initializer}
    names.update(name for node in graph.node for name in node.output)
    return names - {""}


def unique(name: str, taken: set[str]) -> str:
    """Return ``name``, or ``name_2`` ... where it is ``taken``; it is so from now on."""
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}_{count}"
    taken.add(free)
    return free


def _rename_bodies(
    graph: GraphProto, outer: Mapping[str, str], seen: set[str], taken: set[str]
) -> None:
    """Rename what the bodies of ``graph``'s nodes define a second time, in order.

    ``outer`` maps the names of tensors around them that were renamed; ``seen`` are those defined
    up to here, ``taken`` those of the whole model.
    """
    for node in graph.node:
        for body in carried(node):
            own = defined(body)
            new = {name: unique(name, taken) for name in sorted(own & seen)}
            seen |= own
            names = {k: v for k, v in outer.items() if k not in own} | new
            for entry in (*body.input, *body.output, *body.value_info, *body.initializer):
                entry.name = names.get(entry.name, entry.name)
            for annotation in body.quantization_annotation:
                annotation.tensor_name = names.get(annotation.tensor_name, annotation.tensor_name)
            for reader in body.node if names else ():
                for side in (reader.input, reader.output):
                    side[:] = [names.get(name, name) for name in side]
            _rename_bodies(body, names, seen, taken)
