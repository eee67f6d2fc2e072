"""Names through copies of numbered blocks, held against lists that really got longer."""

from __future__ import annotations

import random
from typing import Any

import pytest

import onnx_net2net as n2n
from onnx_net2net.frameworks.lineage import Lineage


def name(index: int) -> str:
    return f"h.{index}.weight"


def copied(
    blocks: list[str], counts: list[int], mark: str = ""
) -> tuple[list[str], dict[str, Any]]:
    """``blocks`` with copies behind each, and the step as deepening records it: later ones first.

    A block is called by how it came about: "1" was there, "1'0" is its first copy (with a mark).
    """
    changes: list[dict[str, Any]] = []
    for at in reversed(range(len(blocks))):
        count = counts[at]
        if not count:
            continue
        moved = {name(i): name(i + count) for i in range(at + 1, len(blocks))}
        for change in changes:
            change["sources"] = {moved[n]: moved[o] for n, o in change["sources"].items()}
        sources = {name(at + i): name(at) for i in range(1, count + 1)}
        changes.append({"block": f"h.{at}", "renames": moved, "sources": sources})
        new = [f"{blocks[at]}'{mark}{i}" for i in range(count)]
        blocks = [*blocks[: at + 1], *new, *blocks[at + 1 :]]
    return blocks, {"operation": "deepen", "changes": changes}


@pytest.mark.parametrize("seed", range(20))
def test_names_are_followed_through_any_copies(seed: int) -> None:
    rng = random.Random(seed)
    first = [str(i) for i in range(rng.randint(1, 4))]
    blocks, steps = first, []
    for mark in "abc"[: rng.randint(1, 3)]:
        blocks, step = copied(blocks, [rng.randint(0, 2) for _ in blocks], mark)
        steps.append(step)
    lineage = Lineage(steps)
    for index, block in enumerate(first):
        assert lineage.follow(name(index)) == (name(blocks.index(block)), [])
    for index, block in enumerate(blocks):
        assert lineage.former(name(index)) == (name(first.index(block)) if block in first else None)
        if block not in first:
            source = block.rpartition("'")[0]
            assert lineage.copied[name(index)] == name(blocks.index(source))
    assert set(lineage.touched()) <= set(map(name, range(len(first))))
    assert lineage.former("stem.weight") == "stem.weight"


def test_layers_that_were_inserted_move_with_what_they_stand_behind() -> None:
    _, copies = copied(["0", "1"], [1, 0])
    told = {"after": "h.1", "init": "residual", "parameters": ["h.2.new.weight"]}
    together = {"operation": "deepen", "changes": [told, *copies["changes"]]}
    assert Lineage([together]).inserted == {"h.2.new.weight": "h.2"}
    first = {"operation": "deepen", "changes": [told | {"parameters": ["h.1.new.weight"]}]}
    copies["changes"][0]["renames"]["h.1.new.weight"] = "h.2.new.weight"
    for steps in ([first, copies], [together]):
        lineage = Lineage(steps)
        assert lineage.inserted == {"h.2.new.weight": "h.2"}
        assert lineage.former("h.2.new.weight") is None


@pytest.mark.parametrize("changes", [None, [{}], [{"block": "a"}], [{"after": "a", "init": "b"}]])
def test_histories_that_do_not_tell_are_refused(changes: Any) -> None:
    with pytest.raises(n2n.InvalidModel, match="which parameters are new"):
        Lineage([{"operation": "deepen", "changes": changes}])
