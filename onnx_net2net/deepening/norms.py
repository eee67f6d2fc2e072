"""Norms of what is normalised already: what they take to leave it as it is.

A copy of a post-norm block norms what the block's own norm gives. With the affine map moved to the
last of them, n norms in a row make of a vector of variance v

    x / sqrt(t_n),    t_0 = 1,    t_i = (v + e_i t_(i-1)) / c_i^2

for epsilons e_i and scales c_i; one norm made x / sqrt(v + e). With e_i = c_i^2 in the middle and
e_n e_1 / c_1^2 = e these are the same, but for a factor of v, 1 + (n - 1) e / e_1: a large first
epsilon makes it nothing. Such a norm scales rather than norms; half of that is taken back by the
scales, so that neither the layers between them in this file, nor those of a class that has one
epsilon for all, read what is far from unit size.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

from onnx_net2net.deepening.paths import norm_of
from onnx_net2net.widening.dimensions import Analysis

SMALL = 1e-8  # an epsilon that is lost in rounding
_FAR = 1e8  # the first epsilon, in the last one: each norm is off by a part in 2e8


@dataclass(frozen=True)
class Steady:
    """Epsilon and scale of the first and of the middle norms, and the epsilon of the last."""

    first: tuple[float, float]
    middle: tuple[float, float]
    last: float

    @classmethod
    def of(cls, epsilon: float) -> Steady:
        """What together does what one norm does with ``epsilon``."""
        scale = max(1.0, (_FAR * epsilon) ** 0.25)
        return cls((scale**4, scale), (scale**2, scale), epsilon / scale**2)


@dataclass(frozen=True)
class Row:
    """Norms in a row, the last one last: {position of the node: its scale}. Where all epsilons are
    lost in rounding they may stay, and ``steady`` is None.
    """

    scales: dict[int, str]
    steady: Steady | None


def in_a_row(analysis: Analysis, positions: Iterable[int], ones: Container[str]) -> Row:
    """The fused norms at ``positions`` whose scale is among ``ones``."""
    scales, epsilons = {}, []
    for at in sorted(positions):
        node = analysis.graph.nodes[at]
        norm = norm_of(analysis, node)
        if norm is not None and node.inputs[norm.scale] in ones:
            scales[at] = node.inputs[norm.scale]
            epsilons.append(norm.epsilon_of(node.proto))
    lost = max(epsilons, default=0.0) <= SMALL
    return Row(scales, None if lost else Steady.of(epsilons[-1]))
