"""Symmetry: how soon do the copies of a widened layer part, and does it matter?

The layer's rank is the effective one of its activations (Roy and Vetterli, 2007): a layer of copies
that never part keeps the rank that it had before.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from contest import Contest, Entrant, main
from data import Data, digits
from growing import Build, Origin, scratch, widen
from networks import Perceptron
from training import Point, Start

import onnx_net2net as n2n

SPLITS: dict[str, dict[str, Any]] = {
    "project": {"split": "project"},
    "noise 1 %": {"split": "noise", "noise": 0.01},
    "noise 5 %": {"split": "noise", "noise": 0.05},
    "noise 20 %": {"split": "noise", "noise": 0.2},
    "even": {"split": "even"},
    "fresh": {"split": "fresh"},
}
OPTIMIZERS = {
    "SGD": partial(torch.optim.SGD, momentum=0.9),
    "Adam": torch.optim.Adam,
}


def rank(module: torch.nn.Module, data: Data) -> Point:
    """Return the exponential of the entropy of the singular values, squared, of what it says."""
    with torch.no_grad():
        hidden = F.relu(module.hidden(F.relu(module.first(data.valid[0].flatten(1))))).double()
    energy = torch.linalg.svdvals(hidden - hidden.mean(0)) ** 2
    share = energy / energy.sum()
    return {"rank": torch.special.entr(share).sum().exp().item()}


def begun(origin: Origin, build: Build, optimizer: str, split: str | None = None) -> Start:
    """Begin from nothing, or as the teacher with a layer of copies, in the author's class."""
    start = scratch(origin, build)
    start.optimizer = OPTIMIZERS[optimizer]
    if split:
        model = widen(origin, origin.model, build, **SPLITS[split])
        start.module.load_state_dict(n2n.state_dict(model))
        start.state = partial(origin.grown_state, model)
    return start


def group(optimizer: str, dropout: float) -> dict[str, Entrant]:
    """Return the teacher and the others of one optimizer."""
    small, large = (partial(Perceptron, width, dropout) for width in (32, 96))
    title = f"{optimizer}, dropout {dropout:g}"
    begin = partial(begun, optimizer=optimizer)
    entrants = {
        "teacher": Entrant(partial(begin, build=small), None, steps=8192, plateau=0.03),
        "scratch": Entrant(partial(begin, build=large), None),
    }
    for split in SPLITS:
        start = partial(begin, build=large, split=split)
        entrants[split] = Entrant(start, f"{title}: teacher")
    return {f"{title}: {name}": entrant for name, entrant in entrants.items()}


CONTEST = Contest(
    "symmetry",
    digits,
    {
        name: entrant
        for optimizer in OPTIMIZERS
        for dropout in (0.0, 0.3)
        for name, entrant in group(optimizer, dropout).items()
    },
    steps=4096,
    rate=0.01,
    watch=rank,
)

if __name__ == "__main__":
    main(CONTEST)
