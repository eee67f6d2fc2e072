"""Sizes that were found wrong after growth, written into the edited copy of a model."""

from __future__ import annotations

from functools import reduce

import numpy as np
from onnx import helper

from onnx_net2net.analysis.shapes import Shapes
from onnx_net2net.model.editing import Editor
from onnx_net2net.model.graph import Graph, Node
from onnx_net2net.widening.runtime_sizes import Fresh, Kept, NewElement
from onnx_net2net.widening.sizing import Patch, Sizing


def apply(sizing: Sizing, editor: Editor) -> None:
    """Write what :meth:`Sizing.find` found into the edited copy."""
    for node, name in sizing.drops:
        editor.drop_attribute(node, name)
    for change in sizing.attributes:
        editor.set_attribute(change.node, change.name, change.value)
    patches: dict[str, list[Patch]] = {}
    for patch in sizing.patches:
        patches.setdefault(patch.tensor, []).append(patch)
    for tensor, wanted in patches.items():
        _apply(editor, tensor, wanted, sizing.solution.shapes)


def _apply(editor: Editor, tensor: str, patches: list[Patch], shapes: Shapes) -> None:
    graph = editor.graph
    agreed = all(np.array_equal(p.value, patches[0].value) for p in patches)
    if tensor in graph.model.weights and agreed and _only_reader(graph, tensor, patches):
        return editor.set_weight(tensor, patches[0].value)
    made: dict[object, str] = {}
    for patch in patches:
        key = patch.elements or patch.value.tobytes()
        if key not in made:
            made[key] = _replacement(editor, patch, shapes)
        editor.connect(patch.node, patch.index, made[key])
    return None


def _only_reader(graph: Graph, tensor: str, patches: list[Patch]) -> bool:
    return len(graph.consumers[tensor]) == len(patches) and tensor not in graph.results


def _replacement(editor: Editor, patch: Patch, shapes: Shapes) -> str:
    """A tensor that holds the patched sizes: a constant, or its elements put together anew."""
    base = patch.tensor or f"{patch.node.name}_sizes"
    if not patch.elements:
        return editor.add_weight(f"{base}_grown", patch.value)
    build = _Builder(editor, patch.node, base, patch.tensor, shapes)
    pieces = [
        build.piece(run) if isinstance(run, Kept | Fresh) else build.constant(run)
        for run in _runs(patch.elements)
    ]
    return pieces[0] if len(pieces) == 1 else build.node("Concat", pieces, axis=0)


def _runs(elements: tuple[NewElement, ...]) -> list[list[int] | Kept | Fresh]:
    """Consecutive constants together, everything else by itself."""
    found: list[list[int] | Kept | Fresh] = []
    for element in elements:
        if not isinstance(element, int):
            found.append(element)
        elif found and isinstance(found[-1], list):
            found[-1].append(element)
        else:
            found.append([element])
    return found


class _Builder:
    """Inserts the nodes that compute sizes in front of their reader."""

    def __init__(self, editor: Editor, before: Node, base: str, chain: str, shapes: Shapes) -> None:
        self.editor, self.before, self.base = editor, before, base
        self.chain, self.shapes = chain, shapes

    def constant(self, values: list[int]) -> str:
        return self.editor.add_weight(f"{self.base}_size", np.asarray(values, np.int64))

    def node(self, op: str, inputs: list[str], axis: int | None = None) -> str:
        output = self.editor.unique(f"{self.base}_grown")
        proto = helper.make_node(op, inputs, [output], name=output, axis=axis)
        self.editor.insert(self.before, proto)
        return output

    def _joined(self, place: int) -> str | None:
        """The tensor that a Concat put at ``place``, where that is one element."""
        producer = self.editor.graph.producer.get(self.chain)
        if producer is None or producer.op != "Concat" or producer.parent is not None:
            return None
        at = 0
        for name in producer.inputs:
            shape = self.shapes.of(name)
            if shape is None or len(shape) != 1:
                return None
            if at == place and shape[0] == 1:
                return name
            at += shape[0]
        return None

    def piece(self, element: Kept | Fresh) -> str:
        """One element, as a vector of length 1."""
        if isinstance(element, Kept):
            piece = self._joined(element.place)
            if piece is None:
                piece = self.node("Gather", [self.chain, self.constant([element.place])])
            for op, factor in (("Mul", element.numerator), ("Div", element.denominator)):
                if factor != 1:
                    piece = self.node(op, [piece, self.constant([factor])])
            return piece
        parts = [
            self.node("Gather", [self.node("Shape", [tensor]), self.constant([axis])])
            for tensor, axis in element.sources
        ]
        parts += [self.constant([element.factor])] if element.factor != 1 or not parts else []
        return reduce(lambda a, b: self.node("Mul", [a, b]), parts)
