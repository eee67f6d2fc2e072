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
    """The atoms of ``free`` whose growth would be refused, and why."""
    wanted = list(free)
    if _refusal(solution, wanted) is None:
        return {}
    found = {atom: _refusal(solution, [atom]) for atom in wanted}
    failing = {atom: pin for atom, pin in found.items() if pin is not None}
    if not failing:  # each can grow, but not all together: promise none that meets the others
        return _jointly(solution, wanted)
    return failing


def _jointly(solution: Solution, wanted: list[Atom]) -> dict[Atom, Pin]:
    """Drop dimensions, last first, until the rest can grow together."""
    failing: dict[Atom, Pin] = {}
    kept: list[Atom] = []
    for atom in wanted:
        refusal = _refusal(solution, [*kept, atom])
        if refusal is None:
            kept.append(atom)
        else:
            failing[atom] = refusal
    return failing


def _refusal(solution: Solution, wanted: list[Atom]) -> Pin | None:
    """Why these cannot grow together to twice their width and a bit, or None."""
    sources = {atom: np.arange(2 * atom.size + 1) % atom.size for atom in wanted}
    try:
        Sizing(solution, Growth(sources)).find()
    except Refused as refusal:
        return Pin(refusal.node, refusal.reason, refusal.remedy)
    return None
