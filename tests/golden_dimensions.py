"""The golden table of all fixtures: which dimensions there are, how they may grow, and why not.

python -m tests.golden_dimensions            # what differs from the golden file
python -m tests.golden_dimensions --write    # writes it anew: review the difference
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

from onnx_net2net.model.model import load
from onnx_net2net.widening.dimensions import Dimension, inspect

ROOT = Path(__file__).parent.parent
FIXTURES = sorted((ROOT / "fixtures").glob("*.onnx"))
GOLDEN = ROOT / "tests" / "golden" / "dimensions.txt"


def table(dimensions: list[Dimension]) -> list[str]:
    """One line a dimension: name, width, growth, and the reason where it is not free."""
    return [
        f"  {d.name} | {d.width} | {d.growth}" + (f" | {d.reason}" if d.reason else "")
        for d in dimensions
    ]


def read() -> dict[str, list[str]]:
    """The golden tables by file name."""
    found: dict[str, list[str]] = {}
    for line in GOLDEN.read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):
            name, found[line] = line, []
        else:
            found[name].append(line)
    return found


def main() -> int:
    """Print the difference, or write the file."""
    now = [line for p in FIXTURES for line in (p.name, *table(inspect(load(p))))]
    if "--write" in sys.argv:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text("\n".join(now) + "\n", encoding="utf-8")
        return 0
    before = GOLDEN.read_text(encoding="utf-8").splitlines()
    difference = list(difflib.unified_diff(before, now, "golden", "now", lineterm="", n=0))
    print("\n".join(difference))
    return int(bool(difference))


if __name__ == "__main__":
    sys.exit(main())
