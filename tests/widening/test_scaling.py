"""Time grows as the network does: chains, fans, residuals, shared dimensions, cut and joined ones.

Each network is built of ``n`` equal parts, and of twice as many. Ratios only: machines differ.
``benchmarks/scaling.py`` does the same up to 10,000.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import pytest

import onnx_net2net as n2n
from tests.long_networks import NETWORKS

PARTS = 300
MOST = 3  # times the time for half as many; 2 would be linear, 4 quadratic


def seconds(call: Callable[[n2n.Model], object], parts: int, name: str) -> float:
    """The least time of some runs: others compete for the processor."""
    least = float("inf")
    for _ in range(3):
        model = n2n.load(NETWORKS[name](parts))
        started = time.process_time()
        call(model)
        least = min(least, time.process_time() - started)
    return least


def grow(model: n2n.Model) -> None:
    """Make all that may grow twice as wide."""
    growing = [d for d in n2n.inspect(model) if d.growth != "fixed"]
    if growing:
        n2n.widen(model, {d.name: 2 * d.width for d in growing})


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("call", [n2n.costs, n2n.blocks, grow], ids=lambda c: c.__name__)
def test_time_grows_with_the_network(name: str, call: Callable[[n2n.Model], object]) -> None:
    seconds(call, 20, name)
    one, two = (seconds(call, parts, name) for parts in (PARTS, 2 * PARTS))
    assert two <= MOST * one + 0.02, f"{two:.3f} s against {one:.3f} s"


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_nothing_recurses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part more takes no frame more: Python's limit is left where it is."""
    assert sys.getrecursionlimit() <= 1000
    model = n2n.load(NETWORKS[name](1200))
    growing = [d for d in n2n.inspect(model) if d.growth != "fixed"]
    if growing:
        n2n.widen(model, {growing[0].name: 2 * growing[0].width})
    n2n.blocks(model)
