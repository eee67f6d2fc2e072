"""Which tensors are above zero whatever their weights and inputs are: what is safe to divide by.

Signs(graph, known).positive("deviation")     # sqrt(variance + epsilon): True
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import floor, inf, prod, sqrt

import numpy as np
from onnx import TensorProto

from onnx_net2net.model.graph import Graph, Node
from onnx_net2net.operators.language import Op

__all__ = ["Signs"]

# Some are above zero, but for what is too small to be told from it.
_NONNEGATIVE = frozenset({
    "Abs", "Exp", "ReduceL1", "ReduceL2", "ReduceSumSquare", "Relu", "Sigmoid", "Softmax",
    "Softplus",
})  # fmt: skip
# No less than the least of what they read first.
_ALIKE = frozenset({
    "Expand", "Flatten", "Identity", "ReduceMax", "ReduceMean", "ReduceMin", "Reshape", "Slice",
    "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
_WIDE = (TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.FLOAT)
_DEEP = 24  # nodes; what is further away is not asked
_TINY = 6e-8  # less than this is zero in half precision


@dataclass
class Signs:
    """What is proved of the signs of tensors; ``known`` gives small constants."""

    graph: Graph
    known: Callable[[str], np.ndarray | None]
    _found: dict[str, float] = field(default_factory=dict)

    def positive(self, tensor: str) -> bool:
        """Whether every element is above zero. False where that is not proved."""
        return self.least(tensor) > 0

    def nonnegative(self, tensor: str) -> bool:
        """Whether no element is below zero. False where that is not proved."""
        return self.least(tensor) >= 0

    def least(self, tensor: str, deep: int = _DEEP) -> float:
        """A number that no element is below; -inf where none is proved."""
        if tensor not in self._found:
            value, node = self.known(tensor), self.graph.producer.get(tensor)
            found = -inf
            if value is not None:
                found = float(value.min()) if value.size else -inf
            elif node is not None and not node.domain and node.outputs[0] == tensor and deep:
                found = self._bound(node, [self.least(n, deep - 1) for n in node.inputs if n])
            self._found[tensor] = found if found > -inf else -inf  # NaN is no bound
        return self._found[tensor]

    def _bound(self, node: Node, given: list[float]) -> float:
        """The least that a node gives, by the least of each of its operands."""
        op, nonnegative = node.op, min(given, default=-inf) >= 0
        if op in _NONNEGATIVE:
            return max(given[0], 0.0) if op in ("Abs", "Relu") else 0.0
        if op in _ALIKE or (op == "ReduceSum" and given[0] >= 0):
            return given[0]
        if op == "Clip" and len(node.inputs) == len(given) > 1:
            return min([max(given[:2]), *given[2:]])
        if op in ("Add", "Sum"):
            return sum(given)
        if op in ("Max", "Min"):
            return max(given) if op == "Max" else min(given)
        if op == "Mul":
            square = node.inputs[0] == node.inputs[1]
            return _told(prod(given)) if nonnegative else 0.0 if square else -inf
        if op in ("Div", "Reciprocal"):
            return 0.0 if nonnegative else -inf
        if op == "Sqrt":
            return sqrt(given[0]) if nonnegative else -inf
        if op == "Pow":
            return self._power(self.known(node.inputs[1]), given[0])
        return _cast(node, given[0]) if op == "Cast" else -inf

    def _power(self, exponent: np.ndarray | None, least: float) -> float:
        if exponent is not None and least > 0 and (exponent >= 0).all():
            return _told(min(least ** float(e) for e in exponent.flat))
        even = exponent is not None and bool((exponent % 2 == 0).all())
        return 0.0 if even or least >= 0 else -inf


def _told(least: float) -> float:
    """A bound of what is computed: zero if it is too small to be told from it."""
    return least if least >= _TINY else min(least, 0.0)


def _cast(node: Node, least: float) -> float:
    to = Op(node.proto, 1, (), (), ()).attr("to")
    if to in _WIDE or least == -inf:
        return least
    return _told(least) if to == TensorProto.FLOAT16 else float(floor(least))
