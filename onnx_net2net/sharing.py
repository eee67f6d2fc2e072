"""All that a growth does to keep its contractions: splits, scales and inserted operators.

Contractions against weights split the weights. Others scale an operand by shares: weights that
write it absorb the scale where they can, else an operator is put in front of the contraction.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

from onnx_net2net.absorption import absorb
from onnx_net2net.contraction import Rescale, Site, distribute, term_at
from onnx_net2net.dimensions import Analysis
from onnx_net2net.expansion import PAD, multiplicity
from onnx_net2net.growth import Growth
from onnx_net2net.padding import Padding

Vector = np.ndarray


@dataclass(frozen=True)
class Insertion:
    """``op`` with ``vector`` along the operand's axis, in front of a contraction."""

    rescale: Rescale
    op: str
    vector: Vector


@dataclass
class Sharing:
    """``splits`` are weights that share; ``scaled`` tensors and weights are multiplied."""

    splits: set[Site]
    paddings: list[Padding]
    scaled: dict[Site, Vector] = field(default_factory=dict)
    insertions: list[Insertion] = field(default_factory=list)


def share(analysis: Analysis, growth: Growth, seed: int, split: str) -> Sharing:
    """Decide how every contraction over a grown dimension stays exact."""
    splits, rescales = distribute(analysis.solution, growth.atoms)
    sharing = Sharing(splits, [p for a, p in analysis.paddings.items() if growth.padded(a)])
    for rescale in rescales:
        found = _insertion(sharing, growth, rescale, seed, split)
        if found is None:
            continue
        if not rescale.contraction.reduce and found.vector.all():
            taken = sharing.splits | sharing.scaled.keys()
            absorbed = absorb(analysis.solution, growth, rescale, found.vector, taken)
            if absorbed is not None:
                sharing.scaled |= absorbed.scaled
                continue
        sharing.insertions.append(found)
    return sharing


def _insertion(
    sharing: Sharing, growth: Growth, rescale: Rescale, seed: int, split: str
) -> Insertion | None:
    contraction = rescale.contraction
    applied, name = contraction.applied, contraction.name
    source = growth.source(contraction.axis)
    pads = (source == PAD).any()
    if contraction.reduce == "mean" and not pads and len(set(multiplicity(source).tolist())) == 1:
        return None
    seeds = [seed, zlib.crc32(applied.node.name.encode()), rescale.axis]
    chosen = "even" if contraction.reduce else split
    vector = growth.vector(term_at(rescale), name, applied.env, seeds, chosen)
    zero = any(applied.node.inputs[rescale.index] in p.zero for p in sharing.paddings)
    if (vector[vector != 0] == 1).all() and (not pads or zero):
        return None  # nothing is copied, and pads add nothing
    op, vector = _operation(contraction.reduce, vector, contraction.axis.size, len(source))
    return Insertion(rescale, op, vector)


def _operation(reduce: str, vector: Vector, old: int, new: int) -> tuple[str, Vector]:
    """What to do to the summands so that copies count once."""
    if reduce == "mean":
        return "Mul", vector * (new / old)
    if reduce in ("l2", "sumsquare"):
        return "Mul", np.sqrt(vector)
    if reduce == "logsumexp":
        return "Add", np.log(vector)
    return "Mul", vector
