"""Run the fuzzer by hand; see the package's docstring."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz import corpus, pool, targets


def main() -> int:
    """0 if nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("first", type=int, nargs="?", default=0)
    parser.add_argument("end", type=int, nargs="?", default=2000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--frameworks", action="store_true", help="to_torch and to_keras, too")
    parser.add_argument(
        "--log", type=Path, help="outcomes that are wrong, and how far it is; goes on from there"
    )
    parser.add_argument("--keep", type=Path, help="write the inputs into this folder, run none")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        pool.serve(given.worker, given.frameworks)
        return 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        models = Path(folder, "corpus")
        corpus.store(models)
        if given.keep:
            return _keep(given, corpus.stored(models))
        return _run(given, models)


def _keep(given: argparse.Namespace, models: corpus.Corpus) -> int:
    given.keep.mkdir(exist_ok=True, parents=True)
    for number in range(given.first, given.end):
        _, kind, story, contents = targets.made(number, models)
        Path(given.keep, f"{number}.onnx").write_bytes(contents)
        print(number, kind, story)
    return 0


def _run(given: argparse.Namespace, models: Path) -> int:
    started, counts, kinds, first = time.monotonic(), Counter[str](), Counter[str](), given.first
    wrong: list[dict[str, Any]] = []
    done: set[int] = set()
    if given.log and given.log.exists():
        for line in given.log.read_text().splitlines():
            said = json.loads(line)
            if "done" in said:
                first = max(first, said["done"])
                counts.update(said["counts"])
            else:
                wrong.append(said)
    log = open(given.log, "a") if given.log else None  # noqa: SIM115
    for outcome in pool.outcomes(range(first, given.end), models, given.jobs, given.frameworks):
        done.add(outcome["seed"])
        counts[outcome.get("wrong", "right")] += 1
        for key in ("calls", "refused"):
            counts[key] += outcome.get(key, 0)
        kinds[outcome.get("kind", "?")] += 1
        if "wrong" in outcome:
            wrong.append(outcome)
            if log:
                print(json.dumps(outcome), file=log, flush=True)
        if log and len(done) % 500 == 0:
            known = {"done": max(done) + 1 - given.jobs, "counts": dict(counts)}
            counts.clear()
            print(json.dumps(known), file=log, flush=True)
    _show(wrong, dict(counts), dict(kinds), time.monotonic() - started)
    return 1 if wrong else 0


def _show(
    wrong: list[dict[str, Any]], counts: dict[str, int], kinds: dict[str, int], seconds: float
) -> None:
    """What is wrong, alike cases in one line, the commonest first."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for outcome in wrong:
        kind, text = outcome["wrong"], outcome.get("text", "")
        detail = outcome["error"] if kind in ("foreign", "wrong") else text[-80:]
        groups.setdefault((kind, outcome["call"], detail), []).append(outcome)
    for (kind, call, detail), found in sorted(groups.items(), key=lambda item: -len(item[1])):
        numbers = ", ".join(str(outcome["seed"]) for outcome in found[:4])
        text = found[0].get("text", "")[-150:]
        print(f"{len(found):5} {kind:8} {call:12} {detail}  [{numbers}]  {text!r}")
    print(f"{seconds:.0f} s; {counts}; {kinds}")


if __name__ == "__main__":
    sys.exit(main())
