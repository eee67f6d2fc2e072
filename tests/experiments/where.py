"""Where to grow: as many parameters more, in widths, in the MLPs, in depth, or as gradients say.

Gradients choose the half of the MLPs from whose new units most is to be learnt.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from contest import Contest, Entrant, main, teacher
from data import characters
from gradients import bypasses
from growing import Grow, Origin, grown, scratch_like
from transformer import gpt

import onnx_net2net as n2n

SMALL = gpt(32, 4)
PLACES: dict[str, dict[str, Any]] = {
    "all widths": {"prefer": "width"},
    "MLPs": {"prefer": "width", "keep": ["token", "*.query*", "*.value*"]},
    "depth": {"prefer": "depth"},
    "both": {"prefer": "balanced"},
}


def twice(origin: Origin, model: n2n.Model, **place: Any) -> n2n.Model:
    """Grow to twice the parameters."""
    return n2n.grow(model, params="2x", multiple_of=1, seed=origin.seed, **place)


def steepest(origin: Origin, model: n2n.Model) -> n2n.Model:
    """Grow the MLPs that would learn most from more units to twice the parameters."""
    slopes = [gradient.norm().item() for gradient in bypasses(origin, SMALL)]
    others = sorted(range(len(slopes)), key=slopes.__getitem__)[: len(slopes) // 2]
    keep = [*PLACES["MLPs"]["keep"], *(f"h.{block}.up" for block in others)]
    return twice(origin, model, prefer="width", keep=keep)


GROWTHS: dict[str, Grow] = {name: partial(twice, **place) for name, place in PLACES.items()}
GROWTHS["MLPs by gradient"] = steepest
CONTEST = Contest(
    "where",
    characters,
    {
        "teacher": teacher(SMALL, steps=4096, plateau=0.0),
        "scratch": Entrant(partial(scratch_like, small=SMALL, grow=GROWTHS["both"]), None),
    }
    | {name: Entrant(partial(grown, grow=growth)) for name, growth in GROWTHS.items()},
    steps=2048,
)

if __name__ == "__main__":
    main(CONTEST)
