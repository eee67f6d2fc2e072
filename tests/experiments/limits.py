"""Limits: when growing does not pay, by how far it goes and how long the teacher was trained."""

from __future__ import annotations

from functools import partial

from contest import Contest, Contestant, Teacher, main
from data import characters
from growing import scratch, shaped
from transformer import gpt

LARGER = {1.25: gpt(40, 4), 2: gpt(64, 4), 3: gpt(96, 4)}
TEACHERS = {f"teacher of {n} steps": Teacher(gpt(32, 4), n, plateau=0.0) for n in (64, 512, 4096)}


def group(factor: float) -> dict[str, Contestant]:
    """Return the contestants for one larger network."""
    scratched = Contestant(partial(scratch, build=LARGER[factor]), None)
    grown = partial(shaped, build=LARGER[factor])
    entrants = {"scratch": scratched} | {name: Contestant(grown, name) for name in TEACHERS}
    return {f"factor {factor:g}: {name}": entrant for name, entrant in entrants.items()}


CONTEST = Contest(
    "limits",
    characters,
    TEACHERS,
    {name: entrant for factor in LARGER for name, entrant in group(factor).items()},
    steps=1024,
)

if __name__ == "__main__":
    main(CONTEST)
