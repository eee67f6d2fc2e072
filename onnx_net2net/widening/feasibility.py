"""A rehearsal of growth, on sizes alone: what a dimension promises must not be refused later.

Whether every size that a graph repeats can be brought up to date is known only by trying.
All growable dimensions are grown at once, without touching a weight; only where that fails are
they tried one by one, to find the one that cannot.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from onnx_net2net.algebra.axes import Atom, Pin
from onnx_net2net.analysis.solver import Solution
from onnx_net2net.errors import Refused
from onnx_net2net.widening.growth import Growth
from onnx_net2net.widening.sizing import Sizing


def rehearse(solution: Solution, free: Iterable[Atom]) -> dict[Atom, Pin]:
    """Return the atoms of ``free`` whose growth would be refused, and why."""
    wanted = list(free)
    if _refusal(solution, wanted) is None:
        return {}
    failing = {a: pin for a in wanted if (pin := _refusal(solution, [a])) is not None}
    if not failing:  # each can grow, but not all together: promise none that meets those before
        kept: list[Atom] = []
        for atom in wanted:
            pin = _refusal(solution, [*kept, atom])
            if pin is None:
                kept.append(atom)
            else:
                failing[atom] = pin
    return failing


def _refusal(solution: Solution, wanted: list[Atom]) -> Pin | None:
    """Say why these cannot grow together to twice their width and one more; None if they can."""
    sources = {atom: np.arange(2 * atom.size + 1) % atom.size for atom in wanted}
    try:
        Sizing(solution, Growth(sources)).find()
    except Refused as refusal:
        return Pin(refusal.node, refusal.reason, refusal.remedy)
    return None
