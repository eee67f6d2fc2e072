"""Compare variants of operators with onnxruntime: thousands, by hand.

python -m tests.coverage.variants keras 1000                  # of each family
python -m tests.coverage.variants torch 300 resize pool --seed 7
"""

from __future__ import annotations

import argparse
from collections import Counter

from tests.backend.outcome import expected, outcome
from tests.backend.runners import RUNNERS
from tests.backend.variants import FAMILIES, variants


def main() -> None:
    """Run what the command line says, and print what is not right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("framework", choices=RUNNERS)
    parser.add_argument("count", type=int)
    parser.add_argument("families", nargs="*", metavar="family", help=", ".join(FAMILIES))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    total: Counter[str] = Counter()
    for family in given.families or FAMILIES:
        words: Counter[str] = Counter()
        for case in variants(family, given.count, given.seed):
            if expected(case) is None:
                continue
            result = outcome(case, RUNNERS[given.framework])
            words[result.word] += 1
            if result.word != "right":
                print(f"  {case.name}: {result}"[:400], flush=True)
        print(family, dict(words), flush=True)
        total += words
    print(dict(total))


if __name__ == "__main__":
    main()
