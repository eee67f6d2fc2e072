"""Names of tensors made unique in the whole model, bodies of If, Loop and Scan included.

ONNX lets two branches use one name for two tensors. The analysis knows tensors by name, so it
works on a model in which the second of them is called otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx import GraphProto

from onnx_net2net.model.model import Model
from onnx_net2net.model.subgraphs import has_subgraph
from onnx_net2net.model.tensors import carried


def with_unique_names(model: Model) -> Model:
    """``model`` with tensors of bodies renamed where a name is taken; itself if none is."""
    graph = model.proto.graph
    if not any(has_subgraph(node) for node in graph.node) or not _clashes(graph):
        return model
    proto = model.editable()
    _Renaming(proto.graph).bodies(proto.graph, {})
    return model.with_changes(proto, {})


def _clashes(graph: GraphProto) -> bool:
    seen: set[str] = set()
    for scope in _all(graph):
        names = _defined(scope)
        if not seen.isdisjoint(names):
            return True
        seen |= names
    return False


def _all(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for body in carried(node):
            yield from _all(body)


def _defined(graph: GraphProto) -> set[str]:
    names = {value.name for value in graph.input} | {t.name for t in graph.initializer}
    names.update(name for node in graph.node for name in node.output)
    return names - {""}


class _Renaming:
    """Walks the bodies in order and renames what is defined a second time."""

    def __init__(self, graph: GraphProto) -> None:
        self.all = {name for scope in _all(graph) for name in _defined(scope)}
        self.seen = _defined(graph)

    def bodies(self, graph: GraphProto, outer: Mapping[str, str]) -> None:
        """Rename in the bodies of ``graph``'s nodes, where ``outer`` says what is called anew."""
        for node in graph.node:
            for body in carried(node):
                defined = _defined(body)
                new = {name: self._fresh(name) for name in sorted(defined & self.seen)}
                self.seen |= defined
                inner = {k: v for k, v in outer.items() if k not in defined} | new
                _rename(body, inner)
                self.bodies(body, inner)

    def _fresh(self, name: str) -> str:
        count = 2
        while f"{name}_{count}" in self.all:
            count += 1
        self.all.add(f"{name}_{count}")
        return f"{name}_{count}"


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    if not names:
        return
    for entry in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        entry.name = names.get(entry.name, entry.name)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = names.get(annotation.tensor_name, annotation.tensor_name)
    for node in graph.node:
        for side in (node.input, node.output):
            for index, name in enumerate(side):
                if name in names:
                    side[index] = names[name]
