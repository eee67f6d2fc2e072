"""Seconds of processor time for networks of 100 to 20,000 nodes.

    python tests/benchmarks/scaling.py [network ...]

One row a call. The last columns tell how many times longer each step took than the one before, by
how many times more nodes there are: 1.0 is linear. ``numbered`` has blocks that deepen can copy.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import onnx_net2net as n2n
from tests.long_networks import NETWORKS

NODES = (100, 300, 1000, 3000, 10_000, 20_000)


def deepen(model: n2n.Model) -> n2n.Model:
    """Copy every block once."""
    return n2n.deepen(model, block=[block.name for block in n2n.blocks(model) if block.exact])


def widen(model: n2n.Model) -> n2n.Model:
    """Double all that can grow."""
    return n2n.widen(model, factor=2, all=True)


def grow(model: n2n.Model) -> n2n.Model:
    """Reach three times the parameters."""
    return n2n.grow(model, params="3x")


def write(model: n2n.Model) -> None:
    """Save what is widened, and read it again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        widen(model).save(path)
        n2n.load(path)


def verify(model: n2n.Model) -> n2n.Report:
    """Compare with itself."""
    return n2n.verify(model, model)


CALLS: tuple[Callable[[n2n.Model], Any], ...] = (
    n2n.inspect, n2n.costs, n2n.blocks, deepen, widen, grow, write, verify,
)  # fmt: skip


def main(names: list[str]) -> None:
    """A line for each network and call."""
    print(f"{'':20}" + "".join(f"{nodes:>8,}" for nodes in NODES))
    for name in names or ["numbered"]:
        parts = len(NETWORKS[name](11).graph.node) - len(NETWORKS[name](10).graph.node) or 1
        protos = [NETWORKS[name](nodes // parts) for nodes in NODES]
        for call in CALLS:
            print(f"{name + ' ' + call.__name__:20}", end="", flush=True)
            call(n2n.load(NETWORKS[name](2)))  # imports are no part of it
            seconds = []
            for proto in protos:
                model = n2n.load(proto)  # a fresh one: nothing is known of it
                started = time.process_time()
                call(model)
                seconds.append(time.process_time() - started)
                print(f"{seconds[-1]:8.2f}", end="", flush=True)
            steps = zip(pairwise(seconds), pairwise(NODES), strict=True)
            print("  ", *(f"{b / a / (n / m):.1f}" for (a, b), (m, n) in steps))


if __name__ == "__main__":
    main(sys.argv[1:])
