"""Compare the forms of operators in forms.py with onnxruntime, and count.

python -m tests.backend.differential torch                  # every form of every family
python -m tests.backend.differential torch pooling --one-in 7
python -m tests.backend.differential keras --one-in 30 --open-sizes
"""

from __future__ import annotations

import argparse
from collections import Counter

from tests.backend import forms_layers, forms_moves, forms_numbers, forms_windows
from tests.backend.forms import FAMILIES, forms
from tests.backend.outcome import expected, outcome
from tests.backend.runners import RUNNERS

TABLES = (forms_layers, forms_moves, forms_numbers, forms_windows)  # each notes its families


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("framework", choices=RUNNERS)
    parser.add_argument("families", nargs="*", default=list(FAMILIES))
    parser.add_argument("--one-in", type=int, default=1)
    parser.add_argument("--open-sizes", action="store_true", help="write down no size of an input")
    parser.add_argument("--shown", type=int, default=10)
    given = parser.parse_args()
    for family in given.families:
        counts: Counter[str] = Counter()
        for case in forms(family, one_in=given.one_in, open_sizes=given.open_sizes):
            if expected(case) is None:
                counts["not run"] += 1
                continue
            result = outcome(case, RUNNERS[given.framework])
            counts[result.word] += 1
            if result.word != "right" and counts[result.word] <= given.shown:
                print(f"{case.name}: {str(result)[:300]}", flush=True)
        print(family, dict(sorted(counts.items())), flush=True)


if __name__ == "__main__":
    main()
