"""Kills commands that write a model with external data, at random moments.

    python -m tests.coverage.kills [kills] [seed]

Each grows a network of two files over another such pair, and is killed between its start and its
end. What is left must be the old pair or the new, whole, and onnxruntime must compute with it what
either computes; nothing else may be left by the run that comes after. Prints a count, and fails for
anything else.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

import onnx_net2net as n2n
from onnx_net2net.verification.verify import run
from tests.console import ROOT

FIXTURE = ROOT / "fixtures" / "resnet.dynamo.onnx"
WIDTHS = (300, 400)


def command(source: Path, target: Path, width: int) -> list[str]:
    """Grow ``source`` over ``target``, unverified."""
    grow = ["widen", str(source), "--node", "conv1", "--width", str(width)]
    return [
        sys.executable, "-m", "onnx_net2net", *grow, "-o", str(target), "--force", "--no-verify",
    ]  # fmt: skip


def seconds(arguments: list[str]) -> float:
    """How long a command takes."""
    started = time.monotonic()
    subprocess.run(arguments, check=True, capture_output=True, cwd=ROOT)
    return time.monotonic() - started


def main(kills: int = 50, seed: int = 0) -> int:
    chance = random.Random(seed)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name) / "in" / "m.onnx", Path(name) / "out" / "m.onnx"
        source.parent.mkdir()
        target.parent.mkdir()
        n2n.grow(FIXTURE, params="5M").save(source, external=True)
        feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 40, 36), np.float32)}
        known = {}
        for width in WIDTHS:
            took = seconds(command(source, target, width))
            model = n2n.load(target)
            known[model.sha256()] = run(target, feeds)["y"]
        for _ in range(kills):
            width = chance.choice(WIDTHS)
            # Most of the time goes into imports and analysis; the writing comes at the end.
            moment = took * chance.choice((chance.random(), chance.uniform(0.8, 1.02)))
            with subprocess.Popen(
                command(source, target, width), stdout=subprocess.DEVNULL, cwd=ROOT
            ) as process:
                try:
                    process.wait(moment)
                except subprocess.TimeoutExpired:
                    process.kill()
            left = sorted(path.name.partition(".")[0] for path in target.parent.iterdir())
            state = "finished" if process.returncode == 0 else "killed"
            state += ", with leftovers" if left != ["m", "m"] else ""
            digest = n2n.load(target).sha256()
            whole = digest in known and np.array_equal(run(target, feeds)["y"], known[digest])
            found[state if whole else "TORN"] += 1
        seconds(command(source, target, WIDTHS[0]))
        tidy = len(list(target.parent.iterdir())) == 2
    for state, count in sorted(found.items()):
        print(f"{count:4} {state}")
    print("tidy after the next run" if tidy else "NOT TIDY after the next run")
    return int(bool(found["TORN"]) or not tidy)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
