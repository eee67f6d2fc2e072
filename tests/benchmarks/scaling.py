"""Seconds for networks of 1,250 to 10,000 equal parts: ``python tests/benchmarks/scaling.py``.

The last column tells how many times longer each doubling took: 2 is linear, 4 quadratic.
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import onnx_net2net as n2n
from tests.long_networks import NETWORKS

PARTS = (1250, 2500, 5000, 10_000)


def main(names: list[str]) -> None:
    """A line for each network and call."""
    print(f"{'':24}" + "".join(f"{parts:>10,}" for parts in PARTS))
    for name in names or sorted(NETWORKS):
        models = [n2n.load(NETWORKS[name](parts)) for parts in PARTS]
        for call in (n2n.inspect, n2n.costs, n2n.blocks):
            print(f"{name + ' ' + call.__name__:24}", end="")
            seconds = []
            for model in models:
                started = time.process_time()
                call(model)
                seconds.append(time.process_time() - started)
                print(f"{seconds[-1]:10.2f}", end="", flush=True)
            print("  ", *(f"{two / one:.1f}" for one, two in pairwise(seconds)))


if __name__ == "__main__":
    main(sys.argv[1:])
