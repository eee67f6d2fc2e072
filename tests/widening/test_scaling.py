"""Time grows as the network does: chains, fans, residuals, shared dimensions, cut and joined ones.

Each network is built of ``n`` equal parts, and of twice as many. Ratios only: machines differ.
``benchmarks/scaling.py`` does the same up to 10,000.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import time
from collections.abc import Callable
from functools import cache
from itertools import product

import pytest

import onnx_net2net as n2n
from tests.long_networks import NETWORKS

PARTS = 80
MOST = 2.6  # times the time for half as many; 2 would be linear, 4 quadratic
TRIES = 4  # where one is not enough, the least time of some counts: others compete
FRAMES = 100  # beside those that are there already; every network has more parts


made = cache(lambda name, parts: NETWORKS[name](parts))


def seconds(call: Callable[[n2n.Model], object], parts: int, name: str) -> float:
    """The processor time of one call."""
    model = n2n.load(made(name, parts))
    started = time.process_time()
    call(model)
    return time.process_time() - started


def grow(model: n2n.Model) -> None:
    """Make all that may grow twice as wide."""
    growing = [d for d in n2n.inspect(model) if d.growth != "fixed"]
    if growing:
        n2n.widen(model, {d.name: 2 * d.width for d in growing})


def deepen(model: n2n.Model) -> None:
    """Copy all blocks, those behind each of them making room for its copy."""
    blocks = [block.name for block in n2n.blocks(model) if block.exact]
    if blocks:
        n2n.deepen(model, block=blocks)


def spend(model: n2n.Model) -> None:
    """Reach three times the operations, where these networks can be grown so far."""
    with contextlib.suppress(n2n.Refused):
        n2n.grow(model, flops="3x")


CASES = [
    *product([n2n.costs, n2n.blocks, grow, deepen], sorted(NETWORKS)),
    *product([spend], ["joined", "numbered", "residual"]),
]


@pytest.mark.parametrize(
    ("call", "name"), CASES, ids=lambda value: getattr(value, "__name__", value)
)
def test_time_grows_with_the_network(name: str, call: Callable[[n2n.Model], object]) -> None:
    seconds(call, 20, name)
    one = two = float("inf")
    for _ in range(TRIES):
        one, two = min(one, seconds(call, PARTS, name)), min(two, seconds(call, 2 * PARTS, name))
        if two <= MOST * one + 0.01:
            return
    pytest.fail(f"{two:.3f} s against {one:.3f} s")


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_nothing_recurses(name: str) -> None:
    """A part more takes no frame more."""
    grow(n2n.load(made(name, 20)))  # everything is imported
    model, limit = n2n.load(made(name, 2 * PARTS)), sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + FRAMES)
    try:
        grow(model)
        n2n.blocks(model)
    finally:
        sys.setrecursionlimit(limit)
