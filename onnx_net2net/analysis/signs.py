"""Which tensors are above zero whatever their weights and inputs are: what is safe to divide by.

Signs(graph, known).positive("deviation")     # sqrt(variance + epsilon): True
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

import numpy as np

from onnx_net2net.model.graph import Graph
from onnx_net2net.operators.language import Op

__all__ = ["Signs"]

_DEPTH = 24  # nodes; what is further away is not asked


@dataclass
class Signs:
    """What is proved of the signs of tensors; ``known`` gives small constants."""

    graph: Graph
    known: Callable[[str], np.ndarray | None]
    _bounds: dict[str, float] = field(default_factory=dict)

    def positive(self, tensor: str) -> bool:
        """Return whether every element is above zero, False where that is not proved."""
        return self.lower_bound(tensor) > 0

    def nonnegative(self, tensor: str) -> bool:
        """Return whether no element is below zero, False where that is not proved."""
        return self.lower_bound(tensor) >= 0

    def lower_bound(self, tensor: str, depth: int = _DEPTH) -> float:
        """Return a number that no element is below; -inf where none is proved."""
        if tensor not in self._bounds:
            value, node = self.known(tensor), self.graph.producer.get(tensor)
            bound = -inf
            if value is not None:
                bound = float(value.min()) if value.size else -inf
            elif node is not None and (rule := node.facts.lower_bound) and depth:
                bounds = [self.lower_bound(name, depth - 1) for name in node.inputs if name]
                if bounds and node.outputs[0] == tensor:
                    values = tuple([self.known(name) if name else None for name in node.inputs])
                    bound = rule(Op(node.proto, 1, (), (), values), bounds)
            self._bounds[tensor] = bound if bound > -inf else -inf  # noqa: FURB136 (NaN is no bound)
        return self._bounds[tensor]
