"""Units: MLPs of twice the width, by copies that part, by random units, and by the gradient's.

Random units and GradMax' begin with one side at zero: weights that read them, or incoming ones.
"""

from __future__ import annotations

from functools import partial

from contest import Contest, Entrant, main, teacher
from data import characters
from gradients import gradmax
from growing import scratch, widened
from transformer import gpt

SMALL, LARGE = gpt(32, 4, mlp=1), gpt(32, 4, mlp=2)
CONTEST = Contest(
    "units",
    characters,
    {
        "teacher": teacher(SMALL, steps=4096, plateau=0.0),
        "scratch": Entrant(partial(scratch, build=LARGE), None),
        "project": Entrant(partial(widened, build=LARGE)),
        "even": Entrant(partial(widened, build=LARGE, split="even")),
        "fresh": Entrant(partial(widened, build=LARGE, split="fresh")),
        "GradMax": Entrant(partial(gradmax, small=SMALL, build=LARGE)),
    },
    steps=2048,
)

if __name__ == "__main__":
    main(CONTEST)
