"""Where to grow: the same number of parameters, spent on widths, on the MLPs alone, or on depth."""

from __future__ import annotations

from functools import partial
from typing import Any

from contest import Contest, Entrant, main, teacher
from data import characters
from growing import Origin, grown, scratch_like
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


GROWTHS = {name: partial(twice, **place) for name, place in PLACES.items()}
CONTEST = Contest(
    "where",
    characters,
    {
        "teacher": teacher(SMALL),
        "scratch": Entrant(partial(scratch_like, small=SMALL, grow=GROWTHS["both"]), None),
    }
    | {name: Entrant(partial(grown, grow=growth)) for name, growth in GROWTHS.items()},
    steps=2048,
)

if __name__ == "__main__":
    main(CONTEST)
