"""Sizes that were found wrong after growth, written into the edited copy of a model."""

from __future__ import annotations

from functools import reduce
from itertools import groupby

import numpy as np
from onnx import helper

from onnx_net2net.analysis.shapes import Shapes
from onnx_net2net.model.editing import Editor
from onnx_net2net.model.graph import Node
from onnx_net2net.widening.runtime_sizes import Fresh, Kept, NewElement
from onnx_net2net.widening.sizing import Patch, Sizing


def apply(sizing: Sizing, editor: Editor) -> None:
    """Write what :meth:`Sizing.find` found into the edited copy."""
    for node, name in sizing.drops:
        editor.drop_attribute(node, name)
    for change in sizing.attributes:
        editor.set_attribute(change.node, change.name, change.value)
    by_tensor: dict[str, list[Patch]] = {}
    for patch in sizing.patches:
        by_tensor.setdefault(patch.tensor, []).append(patch)
    for tensor, patches in by_tensor.items():
        _apply(editor, tensor, patches, sizing.solution.shapes)


def _apply(editor: Editor, tensor: str, patches: list[Patch], shapes: Shapes) -> None:
    """Let all that shall read other sizes than ``tensor`` do so: in place, if nobody else does."""
    graph = editor.graph
    agreed = all(np.array_equal(p.value, patches[0].value) for p in patches)
    stored = tensor in graph.model.weights and tensor not in graph.results
    if stored and agreed and len(graph.consumers[tensor]) == len(patches):
        return editor.set_weight(tensor, patches[0].value)
    made: dict[object, str] = {}
    for patch in patches:
        key = patch.elements or patch.value.tobytes()
        if key not in made:
            base = patch.tensor or f"{patch.node.name}_sizes"
            if patch.elements:
                made[key] = _Builder(editor, patch.node, base, tensor, shapes).build(patch.elements)
            else:
                made[key] = editor.add_weight(f"{base}_grown", patch.value)
        editor.connect(patch.node, patch.index, made[key])
    return None


class _Builder:
    """Inserts the nodes that compute sizes in front of their reader."""

    def __init__(self, editor: Editor, before: Node, base: str, chain: str, shapes: Shapes) -> None:
        self.editor, self.before, self.base = editor, before, base
        self.chain, self.shapes = chain, shapes

    def build(self, elements: tuple[NewElement, ...]) -> str:
        """Return a tensor of these elements; consecutive constants are one piece of it."""
        pieces: list[str] = []
        for constant, run in groupby(elements, lambda element: isinstance(element, int)):
            if constant:
                pieces.append(self.constant([n for n in run if isinstance(n, int)]))
            else:
                pieces += [self.piece(element) for element in run if not isinstance(element, int)]
        return pieces[0] if len(pieces) == 1 else self.node("Concat", pieces, axis=0)

    def constant(self, values: list[int]) -> str:
        """Return a new constant vector."""
        return self.editor.add_weight(f"{self.base}_size", np.asarray(values, np.int64))

    def node(self, op: str, inputs: list[str], axis: int | None = None) -> str:
        """Insert a node; return its output."""
        output = self.editor.unique(f"{self.base}_grown")
        proto = helper.make_node(op, inputs, [output], name=output, axis=axis)
        self.editor.insert(self.before, proto)
        return output

    def _joined(self, place: int) -> str | None:
        """Return the tensor that a Concat put at ``place``, where that is one element."""
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
        """Return one element as a vector of length 1."""
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
