"""What is reported of trainings is what their points say."""

from __future__ import annotations

from typing import Any

import pytest
from everything import README, results, written
from report import AT_ONCE, compared, spent, summary, table


def training(seed: int, flops: float, losses: dict[int, float]) -> dict[str, Any]:
    """Return a piece, as a contest writes it down."""
    return {
        "settings": {"seed": seed, "rate": 0.01, "warmup": 5},
        "parameters": 10,
        "flops": flops,
        "seconds": 1.0,
        "points": [
            {"step": step, "test loss": loss, "test accuracy": 0.5} for step, loss in losses.items()
        ],
    }


PIECES = {
    "teacher": [training(seed, 3.0, {0: 9.0, 100: 3.0}) for seed in (1, 2)],
    "scratch": [training(seed, 10.0, {0: 9.0, 100: 4.0, 400: 2.0}) for seed in (1, 2)],
    "grown": [
        training(1, 10.0, {0: 3.0, 25: 3.0, 100: 1.0, 400: 0.5}),
        training(2, 10.0, {0: 3.0, 25: 2.0, 100: 1.0, 400: 0.5}),
    ],
    "worse": [training(seed, 10.0, {0: 3.0, 25: 3.0, 100: 3.0, 400: 2.5}) for seed in (1, 2)],
    "at once": [training(seed, 5.0, {0: 1.5, 100: 1.4, 400: 1.3}) for seed in (1, 2)],
}
TEACHERS = dict.fromkeys(PIECES, "teacher") | {"teacher": None, "scratch": None}


def test_steps_and_work_until_the_loss_of_the_baseline() -> None:
    entrants = summary("example", PIECES, TEACHERS, "scratch")["entrants"]
    grown, worse, at_once = (entrants[name] for name in ("grown", "worse", "at once"))
    assert entrants["scratch"]["fewer steps"] == [1.0, 0.0]
    assert "fewer steps" not in entrants["teacher"]
    # The mean loss is 2.5 after 25 steps and 1.0 after 100: a third of the way, by its logarithm.
    # The seeds are there after 50 and 25 steps.
    assert grown["steps"] == round(25 * 4 ** (1 / 3)) == 40
    assert grown["fewer steps"] == pytest.approx([400 / 39.685, 5.6569], abs=1e-3)
    # 4,000 operations against 397, and 300 of the teacher's with them.
    assert grown["less work"] == grown["fewer steps"]
    assert grown["less work with the teacher's"][0] == pytest.approx(4000 / 696.85, abs=1e-3)
    assert worse["steps"] is worse["fewer steps"] is None
    assert at_once["steps"] == 1
    assert at_once["less work with the teacher's"][0] == pytest.approx(4000 / 305, abs=1e-3)


def test_the_mean_may_reach_what_a_seed_does_not() -> None:
    pieces = PIECES | {"grown": [PIECES["grown"][0], PIECES["worse"][1]]}
    grown = summary("example", pieces, TEACHERS, "scratch")["entrants"]["grown"]
    assert grown["fewer steps"] == [pytest.approx(4.0), None]


def test_what_is_there_from_the_start_is_said_so() -> None:
    entrants = summary("example", PIECES, TEACHERS, "scratch")["entrants"]
    steps, work, counted = compared(entrants["at once"])
    assert steps is work is AT_ONCE
    assert counted == entrants["at once"]["less work with the teacher's"]
    assert compared(entrants["worse"]) == [None, None, None]
    assert entrants["scratch"]["steps to the teacher's loss"] == 200  # of 3.0, by logarithm


def test_teachers_of_teachers_cost_as_well() -> None:
    pieces = {"first": PIECES["teacher"], "second": PIECES["scratch"], "third": PIECES["grown"]}
    teachers = {"first": None, "second": "first", "third": "second"}
    assert spent("first", pieces, teachers) == [0, 0]
    assert spent("third", pieces, teachers) == [300 + 4000] * 2


def test_groups_have_baselines_of_their_own() -> None:
    pieces = {"teacher": PIECES["teacher"]}
    pieces |= {f"easy: {name}": PIECES[name] for name in ("scratch", "grown")}
    pieces |= {"hard: scratch": PIECES["grown"], "hard: grown": PIECES["worse"]}
    teachers = {name: "teacher" if "grown" in name else None for name in pieces}
    entrants = summary("example", pieces, teachers, "scratch")["entrants"]
    assert entrants["easy: grown"]["target"] == 2.0
    assert entrants["hard: grown"]["target"] == 0.5


def test_the_table_has_a_line_for_each() -> None:
    lines = table(summary("example", PIECES, TEACHERS, "scratch")).splitlines()
    assert len(lines) == 2 + len(PIECES)
    assert [line.count("|") for line in lines] == [9] * len(lines)
    assert lines[4].endswith("| 5.74 ± 1.61 |")
    assert lines[5].endswith("| - | - | - |")


def test_readme_says_what_was_measured() -> None:
    text = README.read_text(encoding="utf-8")
    assert written(text, results()) == text
