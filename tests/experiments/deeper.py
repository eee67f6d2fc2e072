"""Deeper: an Inception, and then a pair of convolutions more in each module.

The talk's claim: the deeper network gets faster to the same end.
"""

from __future__ import annotations

from functools import partial

import torch
from contest import Contest, Entrant, main, teacher
from data import digits
from growing import Origin, grown, scratch_like, with_random
from networks import Inception
from training import Start

import onnx_net2net as n2n

SMALL = partial(Inception, 12)


def pairs(origin: Origin, model: n2n.Model, *, calibrated: bool = True) -> n2n.Model:
    """Insert a convolution at the end of both branches of 3x3 convolutions of each module."""
    images = origin.data.valid[0][:256].numpy()
    calibration = [{"x": images}] if calibrated else None
    return n2n.deepen(model, ["*.three.1.0", "*.five.2.0"], calibration=calibration)


def random_layers(origin: Origin) -> Start:
    """Begin as the teacher with new convolutions that are random, not identities."""
    model = pairs(origin, origin.model)
    new = {name.rpartition(".")[0] for change in model.changes for name in change.parameters}
    torch.manual_seed(1000 + origin.seed)
    return with_random(origin.start(model), *new)


CONTEST = Contest(
    "deeper",
    digits,
    {
        "teacher": teacher(SMALL),
        "scratch": Entrant(partial(scratch_like, small=SMALL, grow=pairs), None),
        "random layers": Entrant(random_layers),
        "identities": Entrant(partial(grown, grow=pairs)),
        "not calibrated": Entrant(partial(grown, grow=partial(pairs, calibrated=False))),
    },
    steps=4096,
)

if __name__ == "__main__":
    main(CONTEST)
