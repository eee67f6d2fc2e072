"""All that a growth does to keep its contractions: splits, scales and inserted operators.

Contractions against weights split the weights. Others scale an operand by shares: weights that
write it absorb the scale where they can, else an operator is put in front of the contraction.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

from onnx_net2net.algebra.axes import atoms
from onnx_net2net.algebra.expansion import PAD, multiplicity
from onnx_net2net.errors import Refused
from onnx_net2net.operators.language import Reduction
from onnx_net2net.step import Widen
from onnx_net2net.widening.absorption import absorb
from onnx_net2net.widening.contraction import (
    Contraction,
    Rescale,
    Site,
    contractions,
    distribute,
    term_at,
)
from onnx_net2net.widening.dimensions import Analysis
from onnx_net2net.widening.growth import Growth
from onnx_net2net.widening.padding import Padding

Vector = np.ndarray
PROJECT = "use --split project"


@dataclass(frozen=True)
class OperandScale:
    """``op`` with ``vector`` along the operand's axis, in front of a contraction."""

    rescale: Rescale
    op: str
    vector: Vector


@dataclass
class Sharing:
    """``splits`` are weights that share; ``scaled`` tensors and weights are multiplied.

    ``received`` tells of writers whose copies do not get equal parts of the old gradient: factors
    to those parts.
    """

    splits: set[Site]
    paddings: list[Padding]
    scaled: dict[Site, Vector] = field(default_factory=dict)
    insertions: list[OperandScale] = field(default_factory=list)
    received: dict[Site, Vector] = field(default_factory=dict)


def share(analysis: Analysis, growth: Growth, step: Widen) -> Sharing:
    """Decide how every contraction over a grown dimension stays exact."""
    _check_fresh(analysis, growth)
    splits, rescales = distribute(analysis.solution, growth.atoms)
    sharing = Sharing(splits, [p for a, p in analysis.paddings.items() if growth.padded(a)])
    normed = {position for padding in sharing.paddings for position in padding.nodes()}
    for rescale in rescales:
        if rescale.contraction.applied.node.position in normed:
            continue  # its epsilon and its scale change instead
        insertion = _insertion(sharing, growth, rescale, step)
        if insertion is None:
            continue
        pads = (growth.drawn(rescale.contraction.axis) == PAD).any()
        if not rescale.contraction.reduce and not pads:
            taken = sharing.splits | sharing.scaled.keys()
            absorbed = absorb(analysis.solution, growth, rescale, insertion.vector, taken)
            whole = rescale if absorbed is not None else None
            _receive(analysis, growth, rescale, step, sharing, whole)
            if absorbed is not None:
                sharing.scaled |= absorbed.scaled
                continue
            if _fresh(growth, rescale.contraction):
                reason = "no weight of its own keeps fresh units out of it until they are trained"
                raise Refused(rescale.contraction.applied.node.label, reason, PROJECT)
        sharing.insertions.append(insertion)
    return sharing


def _check_fresh(analysis: Analysis, growth: Growth) -> None:
    """Raise Refused where an extreme of units is taken, which has no weight that can be zero."""
    for contraction in contractions(analysis.solution) if growth.models else ():
        extreme = contraction.reduce in (Reduction.MAX, Reduction.LOGSUMEXP)
        if extreme and _fresh(growth, contraction):
            reason = "it takes an extreme over units, which a fresh one may exceed"
            raise Refused(contraction.applied.node.label, reason, PROJECT)


def _fresh(growth: Growth, contraction: Contraction) -> bool:
    return not growth.models.keys().isdisjoint(atoms(contraction.axis))


def _receive(
    analysis: Analysis,
    growth: Growth,
    rescale: Rescale,
    step: Widen,
    sharing: Sharing,
    whole: Rescale | None,
) -> None:
    """Note how gradients of the operands' writers differ from equal parts for all copies.

    The sum over j of (s_j a_j) b_j gives each copy b_j the part s_j of the gradient of b. The
    scaled operand's own writers get s_j too where an operator scales it, and all of it where they
    scale themselves (``whole``). The way to the writers is the one that a scale would take.
    """
    contraction = rescale.contraction
    applied = contraction.applied
    for index, axis in contraction.places:
        other = Rescale(contraction, index, axis)
        # The same shares, laid out as this operand has its axis: grouped keys repeat no head.
        term, seeds = term_at(other), _seeds(rescale, step.seed)
        vectors = (
            growth.vector(term, contraction.name, applied.env, seeds, amplitude)
            for amplitude in (0.0, step.parts)
        )
        ways = [absorb(analysis.solution, growth, other, vector, set()) for vector in vectors]
        if ways[0] is None or ways[1] is None:
            continue
        for site, equal in ways[0].scaled.items():
            own = whole is not None and index == whole.index
            parts = np.ones(1) if own else ways[1].scaled.get(site, equal)
            ratio = np.divide(parts, equal, out=np.ones_like(equal), where=equal != 0)
            ratio = np.nan_to_num(ratio, nan=1.0)
            sharing.received[site] = sharing.received.get(site, 1.0) * ratio


def _seeds(rescale: Rescale, seed: int) -> list[int]:
    """Return what the shares of an operand are drawn by."""
    name = rescale.contraction.applied.node.name
    return [seed, zlib.crc32(name.encode()), rescale.axis]


def _insertion(
    sharing: Sharing, growth: Growth, rescale: Rescale, step: Widen
) -> OperandScale | None:
    """Return what to do to the summands so that copies count once; None where they do anyway."""
    contraction = rescale.contraction
    applied, name = contraction.applied, contraction.name
    source = growth.source(contraction.axis)
    pads = (source == PAD).any()
    if (
        contraction.reduce == Reduction.MEAN
        and not pads
        and len(set(multiplicity(source).tolist())) == 1
    ):
        return None
    amplitude = 0.0 if contraction.reduce else step.parts
    seeds = _seeds(rescale, step.seed)
    vector = growth.vector(term_at(rescale), name, applied.env, seeds, amplitude)
    zero = any(applied.node.inputs[rescale.index] in p.zero for p in sharing.paddings)
    if (vector[vector != 0] == 1).all() and (not pads or zero):
        return None  # nothing is copied, and pads add nothing
    op, vector = _operation(contraction.reduce, vector, int(contraction.axis.size), len(source))
    return OperandScale(rescale, op, vector)


def _operation(reduce: str, vector: Vector, old: int, new: int) -> tuple[str, Vector]:
    """Return the operator, and its operand, that lets shares of summands count as shares."""
    if reduce == Reduction.MEAN:
        return "Mul", vector * (new / old)
    if reduce in (Reduction.L2, Reduction.SUMSQUARE):
        return "Mul", np.sqrt(vector)
    if reduce == Reduction.LOGSUMEXP:
        return "Add", np.log(vector)
    return "Mul", vector
