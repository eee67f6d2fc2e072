"""Copies of a block whose units cancel in pairs, so that none of their matrices is zero.

    W h  with  h = (u, u)  and  W = (R, -R)        vanishes, and so do no gradients

Units of the dimension that a last projection sums over are made equal, as in widening: all that
writes them is gathered. In the projection the last of each group takes what makes the group's sum
zero. The shapes stay, so the parameters still load into the author's class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_net2net.algebra.axes import Atom, atoms
from onnx_net2net.algebra.expansion import Index
from onnx_net2net.deepening.paths import trained_behind
from onnx_net2net.deepening.segments import Block
from onnx_net2net.errors import Refused
from onnx_net2net.widening.dimensions import Analysis
from onnx_net2net.widening.growth import Growth

_LAST = "use --zero last, which is exact"


@dataclass
class Cancelling:
    """What the weights of a copy hold: ``projections`` sum over the given axis."""

    analysis: Analysis
    growth: Growth
    projections: dict[str, int]

    def array(self, name: str, array: np.ndarray) -> np.ndarray:
        """Return the contents of a weight of the copy, from those in the block."""
        axes = self.analysis.solution.axes.get(name) or []
        for at, axis in enumerate(axes):
            if self.growth.touches(axis) and self.projections.get(name) != at:
                array = np.take(array, self.growth.source(axis), at)
        if name in self.projections:
            at = self.projections[name]
            array = _cancelled(array, at, self.growth.source(axes[at]))
        return np.ascontiguousarray(array)


def cancelling(analysis: Analysis, block: Block) -> Cancelling:
    """Return how a copy of ``block`` vanishes by cancellation. Raises Refused where it cannot."""
    sources: dict[Atom, Index] = {}
    projections: dict[str, int] = {}
    for name, value in block.values:
        summed = None if value else _summed_units(analysis, block, name)
        if summed is not None:
            projections[name], free = summed
            sources[free] = _paired(int(free.size))
    weights = analysis.graph.model.weights
    branches = [n for n, v in block.values if not v and len(weights[n].shape) > 1]
    missing = [name for name in branches if name not in projections]
    if missing or not projections:
        what = f"'{missing[0]}'" if missing else "a norm's scale"
        reason = f"what makes it vanish, {what}, sums over no units of its own that could cancel"
        raise Refused(block.name, reason, _LAST)
    return Cancelling(analysis, Growth(sources), projections)


def _summed_units(analysis: Analysis, block: Block, name: str) -> tuple[int, Atom] | None:
    """Return the axis of a projection that is summed over, and the dimension on it whose units can
    be made equal within the block.
    """
    solution = analysis.solution
    nodes = [solution.graph.nodes[at] for at in block.positions]
    readers = [node for node in nodes if name in trained_behind(analysis, node.inputs)]
    if len(readers) != 1 or readers[0].position not in solution.applied:
        return None
    applied = solution.applied[readers[0].position]
    summed = {
        free
        for contracted in applied.pattern.contracted
        if contracted in applied.env
        for free in atoms(applied.env[contracted])
    }
    for at, axis in enumerate(solution.axes.get(name, [])):
        for free in atoms(axis):
            if free in summed and free.size > 1 and _is_internal(analysis, block, free):
                return at, free
    return None


def _is_internal(analysis: Analysis, block: Block, free: Atom) -> bool:
    """Return whether all that carries a dimension within a block is computed or copied there."""
    solution = analysis.solution
    dimension = analysis.by_atom.get(free)
    if dimension is None or not dimension.grows:
        return False
    inside = {o for at in block.positions for o in solution.graph.nodes[at].outputs}
    for at in block.positions:
        for name in solution.graph.nodes[at].inputs:
            if name in inside or not any(free in atoms(a) for a in solution.axes.get(name, [])):
                continue
            trained = set(trained_behind(analysis, [name]))
            if not trained or not trained <= set(block.parameters):
                return False
    return True


def _paired(size: int) -> Index:
    """Put units in twos, the last three together where their number is odd.

    >>> _paired(5)
    array([0, 1, 0, 1, 1])
    """
    half = size // 2
    return np.minimum(np.arange(size), 2 * half - 1) % half


def _cancelled(array: np.ndarray, axis: int, source: Index) -> np.ndarray:
    """Return ``array`` with sums of zero over the positions of ``axis`` that hold the same unit."""
    moved = np.moveaxis(array, axis, 0).copy()
    for unit in np.unique(source):
        *others, last = np.flatnonzero(source == unit)
        moved[last] = -moved[others].sum(0, dtype=moved.dtype)
    return np.moveaxis(moved, 0, axis)
