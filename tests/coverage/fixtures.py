"""Every fixture at every width, split and mapping that the tests thin out: run by hand.

    python -m tests.coverage.fixtures                  # all fixtures
    python -m tests.coverage.fixtures resnet llama     # those whose names begin so

Each growable dimension grows by 1, by 3, to more than twice and more than three times its width
(or to 2 and 3 times it), under "project" and "even" and both mappings; then all at once, and
once more. One line a fixture; the exit status is 1 if anything was wrong or refused.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import product
from typing import Any

from onnx_net2net.errors import Net2NetError
from onnx_net2net.model.model import load
from onnx_net2net.widening.dimensions import Dimension
from onnx_net2net.widening.widen import widen
from tests.golden_dimensions import FIXTURES
from tests.judging import Subject, everything

Trial = tuple[dict[str, int], dict[str, Any]]


def widths_of(dimension: Dimension) -> list[int]:
    """Widths that it promises."""
    width = dimension.width
    if dimension.growth == "multiple":
        return [2 * width, 3 * width]
    return [width + 1, width + 3, 2 * width + 1, 3 * width + 2]


def trials(subject: Subject) -> Iterator[Trial]:
    """Widths and options of every trial."""
    ways = list(product(("project", "even"), ("random", "round-robin")))
    for dimension in subject.growable:
        for turn, width in enumerate(widths_of(dimension)):
            split, mapping = ways[turn % len(ways)]
            yield {dimension.name: width}, {"split": split, "mapping": mapping, "seed": turn}
    for turn, (split, mapping) in enumerate(ways if subject.growable else ()):
        widths = everything(subject.dimensions, turn % 3)
        yield widths, {"split": split, "mapping": mapping, "seed": turn}


def wrong(subject: Subject, widths: dict[str, int], options: dict[str, Any]) -> str:
    """What is wrong with this growth, or nothing."""
    try:
        report = subject.judge(widen(subject.model, widths, **options))
    except Net2NetError as problem:
        return f"{type(problem).__name__}: {problem}"
    return "" if report else report.verdict


def main(beginnings: list[str]) -> int:
    """Run all trials; print what is wrong and a line for each fixture."""
    failures = total = 0
    for path in FIXTURES:
        if beginnings and not path.name.startswith(tuple(beginnings)):
            continue
        started = time.monotonic()
        subject = Subject(load(path))
        bad = done = 0
        for widths, options in trials(subject):
            problem = wrong(subject, widths, options)
            done += 1
            if problem:
                bad += 1
                print(f"  {widths} {options}: {problem}", flush=True)
        seconds = time.monotonic() - started
        print(f"{path.name}: {done - bad} of {done} right ({seconds:.1f} s)", flush=True)
        failures, total = failures + bad, total + done
    print(f"{total - failures} of {total} trials right")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
