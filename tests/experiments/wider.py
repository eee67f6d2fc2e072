"""Wider: an Inception with channels times sqrt(0.3), widened to the full width.

The talk's claim: three to four times faster than training the full network from scratch.
"""

from __future__ import annotations

from functools import partial

from contest import Contest, Contestant, Teacher, main
from data import digits
from growing import padded, scratch, widened
from networks import Inception

from onnx_net2net.step import Split

FULL = partial(Inception, 16)
SMALL = partial(Inception, 9)  # sqrt(0.3) of 16

CONTESTANTS = {
    "scratch": Contestant(partial(scratch, build=FULL), None),
    "even": Contestant(partial(widened, build=FULL, split="even")),
    "noise 5 %": Contestant(partial(widened, build=FULL, split="noise", noise=0.05)),
    "project": Contestant(partial(widened, build=FULL)),
}
if "fresh" in set(Split):
    CONTESTANTS["fresh"] = Contestant(partial(widened, build=FULL, split="fresh"))
    CONTESTANTS["random padding"] = Contestant(partial(padded, build=FULL))
CONTEST = Contest("wider", digits, {"teacher": Teacher(SMALL, steps=8192)}, CONTESTANTS, steps=2048)

if __name__ == "__main__":
    main(CONTEST)
