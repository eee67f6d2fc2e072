"""Both: wider and deeper than the standard network, from the standard network.

The talk's claim: growing explores networks beyond the original, at less than their whole cost.
"""

from __future__ import annotations

from functools import partial

from contest import Contest, Entrant, main, teacher
from data import digits
from deeper import pairs
from growing import Origin, grown, scratch_like, widen
from networks import Inception

import onnx_net2net as n2n

STANDARD, WIDE = partial(Inception, 9), partial(Inception, 16)


def wider_and_deeper(origin: Origin, model: n2n.Model) -> n2n.Model:
    """Widen a network, and insert a pair of convolutions into each of its modules."""
    return pairs(origin, widen(origin, model, WIDE))


CONTEST = Contest(
    "both",
    digits,
    {
        "teacher": teacher(STANDARD),
        "scratch": Entrant(partial(scratch_like, small=STANDARD, grow=wider_and_deeper), None),
        "wider and deeper": Entrant(partial(grown, grow=wider_and_deeper)),
    },
    steps=4096,
)

if __name__ == "__main__":
    main(CONTEST)
