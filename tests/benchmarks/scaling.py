"""Seconds of processor time for networks of 100 to 20,000 nodes, and of 1,000 to 100,000 weights.

    python tests/benchmarks/scaling.py [--most NODES] [network ...] [initializers]

Prints Markdown. The last column tells how many times longer the largest network takes than the one
before it, by how many times larger it is: 1.0 is linear. ``numbered`` has blocks that deepen can
copy; ``initializers`` has little but weights. Without names, those two.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx

sys.path.insert(0, str(Path(__file__).parents[2]))

import onnx_net2net as n2n
from tests.long_networks import NETWORKS
from tests.networks import Net

NODES = (100, 300, 1000, 3000, 10_000, 20_000)
WEIGHTS = (1000, 3000, 10_000, 30_000, 100_000)


def initializers(weights: int) -> onnx.ModelProto:
    """One vector after another, added to what a layer writes and another one reads."""
    net = Net()
    x = net("MatMul", net.input("batch", 7), net.weight(7, 9))
    for _ in range(weights - 2):
        x = net("Add", x, net.weight(9, low=-0.01, high=0.01))
    return net.model(net("MatMul", x, net.weight(9, 3)))


def deepen(model: n2n.Model) -> n2n.Model:
    """Copy every block once."""
    return n2n.deepen(model, block=[block.name for block in n2n.blocks(model) if block.exact])


def widen(model: n2n.Model) -> n2n.Model:
    """Double all that can grow."""
    return n2n.widen(model, factor=2, all=True)


def grow(model: n2n.Model) -> n2n.Model:
    """Reach three times the parameters."""
    return n2n.grow(model, params="3x")


def verify(model: n2n.Model) -> n2n.Report:
    """Compare with itself."""
    return n2n.verify(model, model)


def load(model: n2n.Model) -> n2n.Model:
    """Read its file again."""
    return n2n.load(model.path)


def save(model: n2n.Model) -> None:
    """Write it to another file."""
    model.save(model.path.with_suffix(".copy"))


CALLS: tuple[Callable[[n2n.Model], Any], ...] = (
    load, n2n.inspect, n2n.costs, n2n.blocks, deepen, widen, grow, save, verify,
)  # fmt: skip
OF_WEIGHTS: tuple[Callable[[n2n.Model], Any], ...] = (load, n2n.inspect, widen, save)


def seconds(call: Callable[[n2n.Model], Any], path: Path) -> float:
    """Processor time of one call on a model of which nothing is known yet."""
    model = n2n.load(path)
    started = time.process_time()
    call(model)
    return time.process_time() - started


def table(
    name: str, make: Callable[[int], onnx.ModelProto], calls: Sequence[Callable[..., Any]],
    sizes: Sequence[int],
) -> None:  # fmt: skip
    """Print a row for each call, a column for each size."""
    print(f"| {name} |" + "".join(f" {size:,} |" for size in sizes) + " last step |")
    print("| --- |" + " ---: |" * (len(sizes) + 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        times: dict[str, list[float]] = {call.__name__: [] for call in calls}
        onnx.save(make(30), path)
        for call in calls:
            call(n2n.load(path))  # imports are no part of it
        for size in sizes:
            onnx.save(make(size), path)
            for call in calls:
                times[call.__name__].append(seconds(call, path))
    for call_name, row in times.items():
        step = row[-1] / row[-2] / (sizes[-1] / sizes[-2])
        print(f"| {call_name} |" + "".join(f" {t:.2f} |" for t in row) + f" {step:.1f} |")
    print()


def main() -> None:
    """Print a table for each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument(
        "--most", type=int, default=max(WEIGHTS), help="nodes or weights, from 3000"
    )
    options = parser.parse_args()
    for name in options.names or ["numbered", "initializers"]:
        if name == "initializers":
            table("weights", initializers, OF_WEIGHTS, [n for n in WEIGHTS if n <= options.most])
            continue
        build = NETWORKS[name]
        parts = len(build(11).graph.node) - len(build(10).graph.node) or 1
        sizes = [n for n in NODES if n <= options.most]
        table("nodes", lambda nodes, b=build, p=parts: b(max(1, nodes // p)), CALLS, sizes)


if __name__ == "__main__":
    main()
