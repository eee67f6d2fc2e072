"""Wider: an Inception with channels times sqrt(0.3), widened to the full width.

The talk's claim: three to four times faster than training the full network from scratch.
"""

from __future__ import annotations

from functools import partial

from contest import Contest, Entrant, main, teacher
from data import digits
from growing import padded, scratch, widened
from networks import Inception

FULL = partial(Inception, 16)
SMALL = partial(Inception, 9)  # sqrt(0.3) of 16

ENTRANTS = {
    "teacher": teacher(SMALL),
    "scratch": Entrant(partial(scratch, build=FULL), None),
    "even": Entrant(partial(widened, build=FULL, split="even")),
    "noise 5 %": Entrant(partial(widened, build=FULL, split="noise", noise=0.05)),
    "project": Entrant(partial(widened, build=FULL)),
    "fresh": Entrant(partial(widened, build=FULL, split="fresh")),
    "random padding": Entrant(partial(padded, build=FULL)),
}
CONTEST = Contest("wider", digits, ENTRANTS, steps=4096)

if __name__ == "__main__":
    main(CONTEST)
