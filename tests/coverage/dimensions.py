"""Tabulate the dimensions of exported networks, compare two tables, grow a sample.

    python tests/coverage/dimensions.py table /big/disk > now.txt
    python tests/coverage/dimensions.py compare before.txt now.txt
    python tests/coverage/dimensions.py grow /big/disk > grown.txt

PYTHONPATH says which state of the engine is measured. A table has a line for each network, then
one for each of its dimensions: name, width, growth, where it lies, its share of the weights, and
why it is not free. ``compare`` matches dimensions by name, else by the first weight they lie on,
and exits with 1 where one became worse.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, NamedTuple

from run import growable_share, odd_width, one_trial

import onnx_net2net as n2n

RANK = {"fixed": 0, "multiple": 1, "any": 2}
LIMIT = 300  # seconds for a network

# ---- the table -----------------------------------------------------------------------------------


def networks(folder: Path, only: str, largest: float = float("inf")) -> Iterator[tuple[str, Path]]:
    """Yield the label and path of each exported network, the smallest first."""
    for path in sorted(folder.glob("*/*.onnx"), key=lambda p: p.stat().st_size):
        label = f"{path.parent.name}/{path.stem}"
        if re.search(only, label) and path.stat().st_size <= largest:
            yield label, path


def rows(path: Path) -> Iterator[str]:
    """Yield the facts about a network, then a line for each dimension."""
    seconds = []
    for _ in range(2):  # the better of two: the first also warms what the network needs
        model = n2n.load(path)
        start = time.process_time()
        dimensions = n2n.inspect(model)
        seconds.append(time.process_time() - start)
        if seconds[0] > 5:
            break
    reached, total = growable_share(model, dimensions)
    nodes = len(model.proto.graph.node)
    cost = 1e3 * min(seconds) / max(1, nodes)
    yield f"nodes {nodes}, share {reached / max(1, total):.4f}, {cost:.3f} ms a node"
    for d in dimensions:
        name, axis = min(d.sites) if d.sites else ("", 0)
        where = f"{len(d.sites)} from {name}[{axis}]"
        line = f"  {d.name} | {d.width} | {d.growth} | {where} | {d.elements / max(1, total):.4f}"
        yield f"{line} | {one_line(d.reason)}" if d.reason else line


def one_line(text: str) -> str:
    """Return ``text`` without line breaks."""
    return " ".join(text.split())


def write_table(folder: Path, only: str) -> None:
    """Print the table of all networks below ``folder``."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {LIMIT} s")

    signal.signal(signal.SIGALRM, stop)
    for label, path in networks(folder, only):
        signal.alarm(LIMIT)
        try:
            facts, *lines = rows(path)
        # A crash of the analysis is this network's result.
        except Exception as error:
            facts, lines = one_line(f"{type(error).__name__}: {error}")[:400], []
        finally:
            signal.alarm(0)
        print("\n".join([f"{label}: {facts}", *lines]), flush=True)


# ---- two tables ----------------------------------------------------------------------------------


class Line(NamedTuple):
    """A dimension as its table has it."""

    name: str
    width: int
    growth: str
    where: str
    share: float
    reason: str

    def __str__(self) -> str:
        """Return what a reader needs to see."""
        reason = f" | {self.reason}" if self.reason else ""
        return f"{self.name} | {self.width} | {self.growth} | {self.where} | {self.share}{reason}"


class Table(NamedTuple):
    """A network's facts and its dimensions by name."""

    facts: str
    lines: dict[str, Line]

    def number(self, pattern: str) -> float:
        """Return the number in the facts that ``pattern`` shows."""
        match = re.search(pattern, self.facts)
        return float(match[1]) if match else float("nan")


def read(path: Path) -> dict[str, Table]:
    """Return the tables by network."""
    tables: dict[str, Table] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        if not text.startswith("  "):
            label, _, facts = text.partition(": ")
            tables[label] = Table(facts, {})
        else:
            name, width, growth, where, share, *reason = text.strip().split(" | ", 5)
            line = Line(name, int(width), growth, where, float(share), "".join(reason))
            tables[label].lines[name] = line
    return tables


def pairs(old: Table, new: Table) -> Iterator[tuple[Line | None, Line | None]]:
    """Yield each dimension before and after, None where it has no match."""
    before, after = dict(old.lines), dict(new.lines)
    for name in list(before):
        if name in after:
            yield before.pop(name), after.pop(name)
    places = {line.where.partition(" from ")[2]: line for line in after.values()}
    for line in before.values():
        match = places.pop(line.where.partition(" from ")[2], None)
        yield line, match
    for line in places.values():
        yield None, line


def verdict(old: Line | None, new: Line | None) -> str:
    """Return whether ``new`` is better than ``old``, by how it may grow and in which steps."""
    if old is None:
        return "new"
    if new is None:
        return "gone" if RANK[old.growth] else "dropped"  # what was fixed is no loss
    if RANK[old.growth] != RANK[new.growth]:
        return "better" if RANK[new.growth] > RANK[old.growth] else "worse"
    if old.width != new.width:
        return "width"
    if old.where != new.where:
        return "sites"
    if old.name != new.name:
        return "renamed"
    return "equal" if old.reason == new.reason else "reason"


def compare(old: dict[str, Table], new: dict[str, Table], show: set[str]) -> int:
    """Print what differs, and the shares and times of each network; return 1 if any is worse."""
    total: Counter[str] = Counter()
    shared = [label for label in old if label in new]
    for label in shared:
        before, after = old[label], new[label]
        judged = [(verdict(*pair), *pair) for pair in pairs(before, after)]
        counts = Counter(kind for kind, *_ in judged)
        total += counts
        shares = [t.number(r"share ([\d.]+)") for t in (before, after)]
        times = [t.number(r"([\d.]+) ms a node") for t in (before, after)]
        print(
            f"{label}: share {shares[0]:.4f} -> {shares[1]:.4f}, "
            f"{times[0]:.3f} -> {times[1]:.3f} ms a node, {dict(sorted(counts.items()))}"
        )
        if not before.lines or not after.lines:
            print(f"    - {before.facts}\n    + {after.facts}")
        fixed = [line for line in after.lines.values() if line.growth == "fixed"]
        if fixed and shares[1] < 0.95:
            print(f"    largest fixed: {max(fixed, key=lambda line: line.share)}")
        for kind, line, other in judged:
            if kind in show:
                print(f"  {kind}\n    - {line}\n    + {other}")
    for label in sorted(old.keys() ^ new.keys()):
        print(f"{label}: only {'before' if label in old else 'after'}")
    for name, tables in (("before", old), ("after", new)):
        nodes = sum(tables[label].number(r"nodes (\d+)") for label in shared)
        spent = sum(
            t.number(r"nodes (\d+)") * t.number(r"([\d.]+) ms a node")
            for t in (tables[label] for label in shared)
        )
        reached = [tables[label].number(r"share ([\d.]+)") for label in shared]
        full = sum(share >= 0.95 for share in reached)
        print(
            f"{name}: {len(shared)} networks, {full} with a share >= 0.95, mean share "
            f"{sum(reached) / len(reached):.4f}, {nodes:.0f} nodes, {spent / nodes:.4f} ms a node"
        )
    print(dict(sorted(total.items())))
    return int(bool(total["worse"] or total["gone"]))


# ---- a sample grown ------------------------------------------------------------------------------


def widths(dimension: n2n.Dimension) -> tuple[int, int]:
    """Return a width close to the present one and a large one, awkward where they may be."""
    if RANK[dimension.growth] == 1:
        return 2 * dimension.width, 3 * dimension.width
    return odd_width(dimension, 1.2), odd_width(dimension, 2.3)


def grow(folder: Path, only: str, largest: float, count: int) -> None:
    """Grow ``count`` dimensions of each network to two widths each; print every verdict."""
    total: Counter[str] = Counter()
    for label, path in networks(folder, only, largest):
        model = n2n.load(path)
        growable = [d for d in n2n.inspect(model) if RANK[d.growth]]
        random = Random(zlib.crc32(label.encode()))
        for d in random.sample(growable, min(count, len(growable))):
            for width in widths(d):
                result: dict[str, Any] = one_trial(model, path, {d.name: width})
                total[result["verdict"]] += 1
                message = one_line(result.get("message", ""))
                print(f"{label} | {d.name} | {d.width} -> {width} | {result['verdict']} {message}")
                if "traceback" in result or "outputs" in result:
                    kept = {k: result[k] for k in ("traceback", "outputs") if k in result}
                    print(f"  {json.dumps(kept)}")
                sys.stdout.flush()
    print(dict(sorted(total.items())))


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("table", "grow"):
        command = commands.add_parser(name)
        command.add_argument("folder", type=Path)
        command.add_argument("--only", default="", help="regular expression for suite/model")
    command.add_argument("--largest", type=float, default=100, help="megabytes of a file")
    command.add_argument("--count", type=int, default=2, help="dimensions of a network")
    command = commands.add_parser("compare")
    command.add_argument("before", type=Path)
    command.add_argument("after", type=Path)
    kinds = ["better", "worse", "gone", "new", "width", "sites", "renamed", "reason", "dropped"]
    command.add_argument("--show", nargs="+", choices=kinds, default=kinds[:5])
    options = parser.parse_args()
    if options.command == "table":
        write_table(options.folder, options.only)
    elif options.command == "grow":
        grow(options.folder, options.only, options.largest * 1e6, options.count)
    else:
        return compare(read(options.before), read(options.after), set(options.show))
    return 0


if __name__ == "__main__":
    sys.exit(main())
