"""Which tensors are above zero whatever their weights and inputs are: what is safe to divide by.

Signs(graph, known).positive("deviation")     # sqrt(variance + epsilon): True
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

import numpy as np

from onnx_net2net.model.graph import Graph, Node
from onnx_net2net.operators.language import Op

__all__ = ["Signs"]

_DEEP = 24  # nodes; what is further away is not asked


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
            elif node is not None and node.facts.lower_bound and node.outputs[0] == tensor and deep:
                found = self._bound(node, [self.least(n, deep - 1) for n in node.inputs if n])
            self._found[tensor] = found if found > -inf else -inf  # noqa: FURB136 (NaN is no bound)
        return self._found[tensor]

    def _bound(self, node: Node, given: list[float]) -> float:
        """The least that a node gives, by the least of each of its operands."""
        values = tuple([self.known(name) if name else None for name in node.inputs])
        op, lower_bound = Op(node.proto, 1, (), (), values), node.facts.lower_bound
        return lower_bound(op, given) if lower_bound and given else -inf
