"""Grow every fixture everywhere at once, deepen it, and import the result into the frameworks.

    python tests/coverage/grown_imports.py torch
    python tests/coverage/grown_imports.py keras

Each import is compared with onnxruntime on random inputs. Prints what is not right, and a count.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from imports import WAYS

import onnx_net2net as n2n
from onnx_net2net.verification.precision import has_bfloat16

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"


def grown(model: n2n.Model) -> Iterator[tuple[str, n2n.Model]]:
    """``model`` wider wherever it can be, and with copies of its blocks."""
    free = [d for d in n2n.inspect(model) if d.growth != "fixed"]
    widths = {d.name: d.width * 2 if d.growth == "multiple" else d.width + 3 for d in free}
    if widths:
        yield "wider", n2n.widen(model, widths)
    names = [block.name for block in n2n.blocks(model) if block.exact]
    if names:
        yield "deeper", n2n.deepen(model, block=names)


def main() -> None:
    """Go through the fixtures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("way", choices=("keras", "torch"))
    way = parser.parse_args().way
    counts: Counter[str] = Counter()
    for path in sorted(FIXTURES.glob("*.onnx")):
        model = n2n.load(path)
        if has_bfloat16(model):  # onnxruntime cannot run it on a CPU
            continue
        for kind, larger in grown(model):
            try:
                found = WAYS[way](larger)
            except n2n.Refused as refusal:
                found = {"verdict": "refused", "problem": str(refusal)}
            except RuntimeError as error:  # what Keras makes of a refusal while it runs
                found = {"verdict": "stopped", "problem": str(error)}
            counts[f"{kind} {found['verdict']}"] += 1
            if found["verdict"] != "right":
                print(f"{path.name} {kind}: {found}"[:400], flush=True)
    print(dict(sorted(counts.items())))


if __name__ == "__main__":
    main()
