"""Norms of what is normalised already: what they take to leave it as it is.

A copy of a post-norm block norms what the block's own norm gives. With the affine map moved to the
last of them, n norms in a row make of a vector of variance v

    x / sqrt(t_n),    t_0 = 1,    t_i = (v + e_i t_(i-1)) / c_i^2

for epsilons e_i and scales c_i; one norm made x / sqrt(v + e). With e_i = c_i^2 in the middle and
e_n e_1 / c_1^2 = e these are the same, but for a factor of v, 1 + (n - 1) e / e_1: a large first
epsilon makes it nothing. Such a norm scales rather than norms; half of that is taken back by the
scales, so that neither the layers between them in this file, nor those of a class that has one
epsilon for all, read what is far from unit size. Scales are powers of two: nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from math import ceil, log2

from ml_dtypes import finfo
from onnx import TensorProto, helper

from onnx_net2net.analysis.norms import Normalization
from onnx_net2net.deepening.paths import norm_of
from onnx_net2net.operators.types import FLOATS
from onnx_net2net.widening.dimensions import Analysis

# The first epsilon in the last one: each norm is off by one part in twice as many, which is lost in
# rounding. So is an epsilon of one part in as many.
FAR, FAR_IN_DOUBLE = 1e8, 1e16


@dataclass(frozen=True)
class Steady:
    """Epsilon and scale of the first and of the middle norms, and the epsilon of the last."""

    first: tuple[float, float]
    middle: tuple[float, float]
    last: float

    @classmethod
    def of(cls, epsilon: float, far: float = FAR) -> Steady:
        """Return what together does what one norm does with ``epsilon``."""
        scale = 2.0 ** ceil(log2(max(far * epsilon, 1.0)) / 4)
        return cls((scale**4, scale), (scale**2, scale), epsilon / scale**2)


@dataclass(frozen=True)
class Row:
    """Norms in a row, the last one last, by the position of the node that holds their epsilon.

    Where all epsilons are lost in rounding they may stay, and ``steady`` is None. ``rounded`` is a
    norm whose epsilon is an operand of a type that does not hold what it would have to.
    """

    norms: dict[int, Normalization]
    steady: Steady | None
    rounded: Normalization | None

    @property
    def scales(self) -> set[str]:
        """The names of the norms' scales."""
        return {norm.scale for norm in self.norms.values()}


def in_a_row(analysis: Analysis, positions: Iterable[int], ones: Container[str]) -> Row:
    """Return the norms at ``positions`` whose scale is among ``ones``."""
    candidates = (norm_of(analysis, analysis.graph.nodes[at]) for at in sorted(positions))
    norms = [norm for norm in candidates if norm is not None and norm.scale in ones]
    dtypes = {analysis.solution.shapes.dtype.get(norm.node.outputs[0]) for norm in norms}
    far = FAR_IN_DOUBLE if TensorProto.DOUBLE in dtypes else FAR
    steady = None
    if max((norm.epsilon for norm in norms), default=0.0) > 1 / far:
        steady = Steady.of(norms[-1].epsilon, far)
    rounded = (norm for norm in norms if steady and not _holds(analysis, norm, steady))
    holders = {(n.epsilon_input[0] if n.epsilon_input else n.node).position: n for n in norms}
    return Row(holders, steady, next(rounded, None))


def _holds(analysis: Analysis, norm: Normalization, steady: Steady) -> bool:
    """Return whether the type of an epsilon holds the largest and the smallest that it may get."""
    if norm.epsilon_input is None:
        return True  # an attribute is a float32
    node, index = norm.epsilon_input
    dtype = analysis.solution.shapes.dtype.get(node.inputs[index])
    if dtype not in FLOATS:
        return False
    limits = finfo(helper.tensor_dtype_to_np_dtype(dtype))
    return float(limits.smallest_normal) <= steady.last and steady.first[0] <= float(limits.max)
