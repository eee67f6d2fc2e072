"""k of n layers drawn anew: how much of a trained network has to be kept for it to pay?

The talk's claim: more than half of them slow convergence down very much.
"""

from __future__ import annotations

import random
from functools import partial

import torch
from contest import Contest, Entrant, main, teacher
from data import digits
from growing import Origin, grown, with_random
from networks import Inception
from torch import nn
from training import Start

NETWORK = partial(Inception, 12)
LAYERS = [name for name, m in NETWORK().named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


def reinitialised(origin: Origin, share: float) -> Start:
    """Begin as the trained network, with a share of its layers, and their norms, drawn anew.

    The layers of a smaller share are among those of a larger one.
    """
    start = grown(origin, lambda _, model: model, with_state=False)
    names = random.Random(origin.seed).sample(LAYERS, round(share * len(LAYERS)))
    norms = [name.removesuffix("0") + "1" for name in names if name != "classes"]
    torch.manual_seed(1000 + origin.seed)
    return with_random(start, *names, *norms)


CONTEST = Contest(
    "reinitialised",
    digits,
    {"teacher": teacher(NETWORK)}
    | {
        f"{share:.0%} of {len(LAYERS)} layers": Entrant(partial(reinitialised, share=share))
        for share in (0, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 1)
    },
    steps=1024,
    baseline=f"100% of {len(LAYERS)} layers",
)

if __name__ == "__main__":
    main(CONTEST)
