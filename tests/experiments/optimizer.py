"""Optimizer: a character GPT of twice the width, and what Adam knows when it begins.

None of the rates is searched: they are the teacher's, or its part. What is judged beside the
average of the weights are the last weights, whose loss shows how much the first steps disturb.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from contest import Contest, Entrant, main, teacher
from data import Data, characters
from growing import scratch, widened
from torch import nn
from training import Point
from transformer import gpt


def last_weights(module: nn.Module, data: Data) -> Point:
    """Return the loss of a network as it is, on the test set."""
    inputs, targets = data.test
    with torch.no_grad():
        return {
            "last loss": F.cross_entropy(module(inputs).flatten(0, -2), targets.flatten()).item()
        }


WIDE = gpt(64, 4)
entrant = partial(partial, widened, build=WIDE)
CONTEST = Contest(
    "optimizer",
    characters,
    {
        "teacher": teacher(gpt(32, 4), steps=4096, plateau=0.0),
        "scratch": Entrant(partial(scratch, build=WIDE), None),
        "grown": Entrant(entrant(), factor=1.0),
        "grown, rate / 2": Entrant(entrant(), factor=0.5),
        "fresh": Entrant(entrant(with_state=False), factor=1.0),
        "fresh, rate / 2": Entrant(entrant(with_state=False), factor=0.5),
        "fresh, warm-up": Entrant(entrant(with_state=False), factor=1.0, warmup=100),
    },
    steps=2048,
    watch=last_weights,
)

if __name__ == "__main__":
    main(CONTEST)
