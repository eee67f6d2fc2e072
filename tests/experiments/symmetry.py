"""Symmetry: how soon do the copies of a widened layer part, and does it matter?

The layer's rank is the effective one of its weights (Roy and Vetterli, 2007): a layer of copies
that never part keeps the rank that it had before.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from contest import Contest, Contestant, Teacher, main
from data import Data, digits
from growing import Build, Origin, scratch, widen
from networks import Perceptron
from training import Point, Start

import onnx_net2net as n2n
from onnx_net2net.step import Split

SPLITS: dict[str, dict[str, Any]] = {
    "project": {"split": "project"},
    "noise 1 %": {"split": "noise", "noise": 0.01},
    "noise 5 %": {"split": "noise", "noise": 0.05},
    "noise 20 %": {"split": "noise", "noise": 0.2},
    "even": {"split": "even"},
}
if "fresh" in set(Split):
    SPLITS["fresh"] = {"split": "fresh"}
OPTIMIZERS = {
    "SGD": partial(torch.optim.SGD, momentum=0.9),
    "Adam": torch.optim.Adam,
}


def rank(module: torch.nn.Module, data: Data) -> Point:
    """Return the exponential of the entropy of the layer's singular values, squared."""
    energy = torch.linalg.svdvals(module.hidden.weight.detach().double()) ** 2
    share = energy / energy.sum()
    return {"rank": torch.special.entr(share).sum().exp().item()}


def begun(origin: Origin, build: Build, optimizer: str, split: str | None = None) -> Start:
    """Begin from nothing, or as the teacher with a layer of copies, in the author's class."""
    start = scratch(origin, build)
    start.optimizer = OPTIMIZERS[optimizer]
    if split:
        model = widen(origin, origin.model, build, **SPLITS[split])
        start.module.load_state_dict(n2n.state_dict(model))
        start.state = partial(n2n.grow_optimizer, origin.state, model)
    return start


def group(optimizer: str, dropout: float) -> tuple[Teacher, dict[str, Contestant]]:
    """Return the teacher and the contestants of one optimizer."""
    small, large = (partial(Perceptron, width, dropout) for width in (32, 96))
    title = f"{optimizer}, dropout {dropout:g}"
    begin = partial(begun, optimizer=optimizer)
    teacher = Teacher(small, steps=8192, begin=partial(begin, build=small))
    contestants = {"scratch": Contestant(partial(begin, build=large), None)}
    for split in SPLITS:
        start = partial(begin, build=large, split=split)
        contestants[split] = Contestant(start, f"teacher, {title}")
    return teacher, {f"{title}: {name}": entrant for name, entrant in contestants.items()}


GROUPS = {
    f"teacher, {optimizer}, dropout {dropout:g}": group(optimizer, dropout)
    for optimizer in OPTIMIZERS
    for dropout in (0.0, 0.3)
}
CONTEST = Contest(
    "symmetry",
    digits,
    {name: teacher for name, (teacher, _) in GROUPS.items()},
    {name: c for _, contestants in GROUPS.values() for name, c in contestants.items()},
    steps=4096,
    rate=0.01,
    watch=rank,
)

if __name__ == "__main__":
    main(CONTEST)
