"""Transformers: a character GPT grown in width, in depth, and in both.

Beside it training from scratch, copies with equal shares (HyperCloning), blocks stacked above each
other (G_stack), and training of nothing but the new blocks (LLaMA-Pro).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from contest import Contest, Entrant, main, teacher
from data import ALPHABET, characters
from growing import Build, Origin, only_new, scratch, shaped, stacked, widened
from networks import GPT
from training import Start

import onnx_net2net as n2n


def gpt(width: int, layers: int, **options: int) -> Build:
    """Return what builds a GPT."""
    return partial(GPT, width, layers, len(ALPHABET), context=64, **options)


def new_blocks(origin: Origin) -> Start:
    """Begin with a copy of each block behind it that adds nothing yet, and train only these."""
    return only_new(origin, n2n.deepen(origin.model, block="h.*"))


def group(name: str, build: Build, **rivals: Entrant) -> dict[str, Entrant]:
    """Return the entrants for one larger network."""
    entrants = {
        "scratch": Entrant(partial(scratch, build=build), None),
        "grown": Entrant(partial(shaped, build=build)),
    } | rivals
    return {f"{name}: {rival}": entrant for rival, entrant in entrants.items()}


SMALL, WIDE, DEEP = gpt(32, 4), gpt(64, 4), gpt(32, 8)
TEACHERS: dict[str, dict[str, Any]] = {
    "teacher": {"steps": 4096, "plateau": 0.0},
    "young teacher": {"steps": 1024, "plateau": 0.0},
    "old teacher": {"steps": 16384},
}
even = partial(widened, build=WIDE, split="even", mapping="round-robin")
CONTEST = Contest(
    "transformer",
    characters,
    {name: teacher(SMALL, **training) for name, training in TEACHERS.items()}
    | group("width x1.5", gpt(48, 4))
    | group(
        "width x2",
        WIDE,
        copies=Entrant(even),
        early=Entrant(partial(shaped, build=WIDE), "young teacher"),
        late=Entrant(partial(shaped, build=WIDE), "old teacher"),
    )
    | group(
        "depth x2",
        DEEP,
        stacked=Entrant(partial(stacked, build=DEEP)),
        new=Entrant(new_blocks),
    )
    | group("both x2", gpt(64, 8)),
    steps=3072,
)

if __name__ == "__main__":
    main(CONTEST)
