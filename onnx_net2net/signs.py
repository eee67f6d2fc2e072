"""Which tensors are above zero whatever their weights and inputs are: what is safe to divide by.

Signs(graph, known).positive("deviation")     # sqrt(variance + epsilon): True
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from onnx_net2net.graph import Graph, Node

__all__ = ["Signs"]

_POSITIVE = frozenset({"Exp", "Sigmoid", "Softplus"})
_NONNEGATIVE = frozenset({
    "Abs", "ReduceL1", "ReduceL2", "ReduceSumSquare", "Relu", "Softmax", "Sqrt",
})  # fmt: skip
# The sign of what they read first, or of all that they read.
_ALIKE = frozenset({
    "Cast", "Expand", "Flatten", "Identity", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum",
    "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
_TOGETHER = frozenset({"Add", "Div", "Mul", "Sum"})
_DEEP = 24  # nodes; what is further away is not asked


@dataclass
class Signs:
    """What is proved of the signs of tensors; ``known`` gives small constants."""

    graph: Graph
    known: Callable[[str], np.ndarray | None]
    _found: dict[tuple[str, bool], bool] = field(default_factory=dict)

    def positive(self, tensor: str, deep: int = _DEEP) -> bool:
        """Whether every element is above zero. False where that is not proved."""
        return self._proved(tensor, True, deep)

    def nonnegative(self, tensor: str, deep: int = _DEEP) -> bool:
        """Whether no element is below zero. False where that is not proved."""
        return self._proved(tensor, False, deep)

    def _proved(self, tensor: str, strictly: bool, deep: int) -> bool:
        key = tensor, strictly
        if key not in self._found:
            value, node = self.known(tensor), self.graph.producer.get(tensor)
            if value is not None:
                self._found[key] = bool((value > 0 if strictly else value >= 0).all())
            elif node is None or node.domain or node.outputs[0] != tensor or not deep:
                self._found[key] = False
            else:
                prove = self._is_positive if strictly else self._is_nonnegative
                self._found[key] = prove(node, deep - 1)
        return self._found[key]

    def _is_positive(self, node: Node, deep: int) -> bool:
        names = [name for name in node.inputs if name]
        if node.op in _POSITIVE:
            return True
        if node.op in _ALIKE or node.op in ("Sqrt", "Reciprocal", "Pow"):
            return self.positive(names[0], deep)
        if node.op == "Clip":
            return len(node.inputs) > 1 and self.positive(node.inputs[1], deep)
        if node.op not in _TOGETHER and node.op != "Max":
            return False
        above = [self.positive(name, deep) for name in names]
        if node.op in ("Add", "Sum") and any(above):
            return all(self.nonnegative(name, deep) for name in names)
        return all(above) or (node.op == "Max" and any(above))

    def _is_nonnegative(self, node: Node, deep: int) -> bool:
        names = [name for name in node.inputs if name]
        if node.op in _NONNEGATIVE or node.op in _POSITIVE:
            return True
        if node.op == "Mul" and names[0] == names[1]:
            return True
        if node.op == "Pow":
            exponent = self.known(names[1])
            even = exponent is not None and bool((exponent % 2 == 0).all())
            return even or self.nonnegative(names[0], deep)
        if node.op in _ALIKE or node.op == "Reciprocal":
            return self.nonnegative(names[0], deep)
        if node.op in _TOGETHER:
            return all(self.nonnegative(name, deep) for name in names)
        return self._is_positive(node, deep)
