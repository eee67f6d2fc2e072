"""Run the backend tests through an import and count what becomes of them.

python -m tests.backend torch                     # all, with a table at the end
python -m tests.backend keras resize pool         # those whose name holds one of the words
python -m tests.backend torch --update            # write tests/backend/refused_torch.txt anew
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

from tests.backend.cases import by_name
from tests.backend.growing import between_products, growths
from tests.backend.outcome import outcome
from tests.backend.runners import RUNNERS


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("framework", choices=[*RUNNERS, "grow"])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--part", default="0/1", help="k/n: every n-th case, from k on")
    given = parser.parse_args()
    start, step = map(int, given.part.split("/"))
    names = [n for n in by_name() if not given.words or any(w in n for w in given.words)]
    if given.framework == "grow":
        _grow(names[start::step])
        return
    counts: dict[str, Counter[str]] = {"plain": Counter(), "weights": Counter()}
    refused = []
    for name in names[start::step]:
        began = time.monotonic()
        result = outcome(by_name()[name], RUNNERS[given.framework])
        counts["weights" if name.endswith("/weights") else "plain"][result.word] += 1
        seconds = time.monotonic() - began
        if result.word not in ("right", "stated") or seconds > 5:
            print(f"{name}: {result}" + (f" ({seconds:.0f} s)" if seconds > 5 else ""), flush=True)
        if result.word == "refused":
            refused.append(f"{name}: {result.why}\n")
    for kind, words in counts.items():
        print(kind, dict(sorted(words.items())))
    if given.update:
        path = Path(__file__).parent / f"refused_{given.framework}.txt"
        path.write_text("".join(refused), "utf-8")


def _grow(names: list[str]) -> None:
    """Widen the cases, as they are and between products, and count what becomes of it."""
    counts: dict[str, Counter[str]] = {"as they are": Counter(), "between products": Counter()}
    for name in names:
        case = by_name()[name]
        for kind, models in zip(counts, ([case], between_products(case)), strict=True):
            for model in models:
                for widths, result in growths(model):
                    counts[kind][result.word] += 1
                    if result.word != "right":
                        print(f"{model.name} {widths}: {str(result)[:300]}", flush=True)
    for kind, words in counts.items():
        print(kind, dict(sorted(words.items())))


if __name__ == "__main__":
    main()
