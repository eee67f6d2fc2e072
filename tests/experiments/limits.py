"""Limits: when growing does not pay, by how far it goes and how long the teacher was trained."""

from __future__ import annotations

from functools import partial

from contest import Contest, Entrant, main, teacher
from data import characters
from growing import scratch, shaped
from transformer import gpt

LARGER = {1.125: gpt(36, 4), 2: gpt(64, 4), 4: gpt(128, 4)}
TEACHERS = {f"teacher of {n} steps": teacher(gpt(32, 4), n, plateau=0.0) for n in (128, 1024)}
TEACHERS["teacher of 16384 steps"] = teacher(gpt(32, 4), 16384)


def group(factor: float) -> dict[str, Entrant]:
    """Return the entrants for one larger network."""
    scratched = Entrant(partial(scratch, build=LARGER[factor]), None)
    grown = partial(shaped, build=LARGER[factor])
    entrants = {"scratch": scratched} | {name: Entrant(grown, name) for name in TEACHERS}
    return {f"factor {factor:g}: {name}": entrant for name, entrant in entrants.items()}


CONTEST = Contest(
    "limits",
    characters,
    TEACHERS | {name: entrant for factor in LARGER for name, entrant in group(factor).items()},
    steps=1024,
)

if __name__ == "__main__":
    main(CONTEST)
