"""Continual: data that come in four portions, and a network that grows with each.

Beside it, each time, a network of that size from scratch, with four times the steps; and one that
has the last size from the beginning. The work of all portions counts.
"""

from __future__ import annotations

from functools import partial

from contest import Contest, Entrant, main
from data import digits
from growing import Origin, grown, scratch, widened
from networks import Inception
from training import Start

import onnx_net2net as n2n

SIZES = [partial(Inception, width) for width in (6, 9, 12, 16)]
PORTIONS = [partial(digits, share=share) for share in (0.25, 0.5, 0.75, 1.0)]
LONG, SHORT = 2048, 512


def same(_: Origin, model: n2n.Model) -> n2n.Model:
    """Return the model as it is."""
    return model


def chain(name: str, begins: list[partial[Start]], steps: list[int]) -> dict[str, Entrant]:
    """Return an entrant for each portion, of which each begins from the one before."""
    names = [*(f"{name}, portion {n}" for n in range(1, len(begins))), name]
    return {
        here: Entrant(begin, before, count, data=data)
        for here, before, begin, count, data in zip(
            names, [None, *names], begins, steps, PORTIONS, strict=False
        )
    }


RETRAINED = [partial(scratch, build=build) for build in SIZES]
GROWN = [RETRAINED[0], *(partial(widened, build=build) for build in SIZES[1:])]
KEPT = [RETRAINED[-1]] + 3 * [partial(grown, grow=same)]
CONTEST = Contest(
    "continual",
    digits,
    chain("retrained", RETRAINED, 4 * [LONG])
    | chain("grown", GROWN, [LONG, SHORT, SHORT, LONG])
    | chain("kept", KEPT, [LONG, SHORT, SHORT, LONG]),
    steps=LONG,
    baseline="retrained",
)

if __name__ == "__main__":
    main(CONTEST)
