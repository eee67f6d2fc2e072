"""Grow the exported networks of the coverage test and let onnxruntime judge.

    python tests/coverage/run.py /big/disk                 # everything without a result yet
    python tests/coverage/run.py /big/disk --redo --only timm/vit
    python tests/coverage/run.py /big/disk --stale         # again, where the engine has changed

For each exported file: analyse it, count the weight elements that lie on a growable dimension,
grow a few dimensions one at a time and all of them at once, and compare every result with the
original. Results go to DIR/results as JSON; `table.py` makes the tables.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import subprocess
import sys
import time
import traceback
import zlib
from pathlib import Path
from typing import Any

ENGINE = Path(__file__).resolve().parents[2] / "onnx_net2net"
LARGEST = 1_000_000_000  # bytes of a network grown everywhere at once


# --- one network, in a child process --------------------------------------------------------


def growable_share(model: Any, dims: list[Any]) -> tuple[int, int]:
    """Weight elements on a growable dimension, and all weight elements."""
    growable = {name for dim in dims if dim.growth != "fixed" for name, _ in dim.sites}
    total = reached = 0
    for name, weight in model.weights.items():
        # Integer tensors are shapes and indices; int8/uint8 (2, 3) may be quantised weights.
        if weight.dtype in (2, 3, 1, 10, 11, 16):
            elements = math.prod(weight.shape)
            total += elements
            reached += elements if name in growable else 0
    return reached, total


def odd_width(dim: Any, factor: float) -> int:
    """An awkward admissible width, about `factor` times the present one."""
    if dim.growth == "multiple":
        return dim.width * 2
    return dim.width + (max(1, round(dim.width * (factor - 1))) | 1)


def choose_trials(dims: list[Any], count: int, seed: int) -> dict[str, dict[str, int]]:
    """Name of the trial -> widths: a few dimensions alone, then every one at once."""
    growable = sorted((d for d in dims if d.growth != "fixed"), key=lambda d: -d.elements)
    if not growable:
        return {}
    rest = growable[1:]
    chosen = growable[:1] + random.Random(seed).sample(rest, min(count - 1, len(rest)))
    trials = {dim.name: {dim.name: odd_width(dim, 1.2)} for dim in chosen}
    trials["all at once"] = {dim.name: odd_width(dim, 1.25) for dim in growable}
    return trials


def describe_report(report: Any) -> dict[str, Any]:
    """What verify found, for the failing outputs only."""
    failing = [output for output in report.outputs if not output.equivalent]
    fields = ("name", "max_abs", "max_rel", "tolerance", "noise", "problem")
    rows = [{f: getattr(o, f, None) for f in fields} for o in failing]
    return {"outputs": json.loads(json.dumps(rows, default=float))}


def one_trial(model: Any, path: Path, widths: dict[str, int]) -> dict[str, Any]:
    """Grow, compare, give the verdict."""
    import onnx_net2net as n2n

    start = time.monotonic()
    result: dict[str, Any] = {}
    try:
        grown = n2n.widen(model, widths, seed=0)
        result["widen_seconds"] = round(time.monotonic() - start, 2)
    except n2n.Refused as refusal:
        return {"verdict": "refused", "node": refusal.node, "message": str(refusal)[:600]}
    # Any other exception of the engine is a finding, not an end of the run.
    except Exception as error:
        tail = traceback.format_exc().splitlines()[-7:]
        return {"verdict": "crashed", "message": _message(error), "traceback": tail}
    size = sum(weight.nbytes for weight in grown.weights.values())
    if len(widths) > 1 and size > LARGEST:
        return {"verdict": "skipped", "message": "too large to run here"}
    try:
        report = n2n.verify(path, grown, seeds=1, provider="cpu")
    # onnxruntime's exceptions share no base class below Exception.
    except Exception as error:
        return {**result, "verdict": "rejected", "message": _message(error)}
    result["seconds"] = round(time.monotonic() - start, 2)
    if report.equivalent:
        return {**result, "verdict": "right"}
    details = describe_report(report)
    # A graph that does not load or run is noticed at once; a different function is not.
    verdict = "wrong" if details["outputs"] else "rejected"
    problems = [*report.problems, *(str(o["problem"]) for o in details["outputs"])]
    message = "; ".join(problems or ["nothing was compared"])[:900]
    return {**result, **details, "verdict": verdict, "message": message}


def _message(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip()[:600]


def examine(path: Path, out: Path, count: int) -> None:
    """Analyse and grow one exported file; the result is written again after every trial."""
    import onnx_net2net as n2n

    record = json.loads(path.with_suffix(".json").read_text())
    result: dict[str, Any] = {**record, "engine": engine_digest(), "trials": {}, "done": False}

    def write() -> None:
        temporary = out.with_suffix(".part")
        temporary.write_text(json.dumps(result, indent=1) + "\n")
        temporary.rename(out)

    try:
        start = time.perf_counter()
        model = n2n.load(path)
        result["load_seconds"] = round(time.perf_counter() - start, 3)
        start = time.perf_counter()
        dims = n2n.inspect(model)
        result["inspect_seconds"] = round(time.perf_counter() - start, 3)
    # A crash of the analysis is this network's result.
    except Exception as error:
        tail = traceback.format_exc().splitlines()[-9:]
        result |= {"failure": _message(error), "traceback": tail, "done": True}
        write()
        return
    result["reached"], result["elements"] = growable_share(model, dims)
    result["growth"] = {g: sum(d.growth == g for d in dims) for g in ("any", "multiple", "fixed")}
    fixed = sorted((d for d in dims if d.growth == "fixed"), key=lambda d: -d.elements)
    result["fixed"] = [
        {"name": d.name, "width": d.width, "elements": d.elements, "reason": d.reason}
        for d in fixed[:20]
    ]
    trials = choose_trials(dims, count, zlib.crc32(path.name.encode()))
    write()
    for name, widths in trials.items():
        result["running"] = name
        write()
        shown = widths if len(widths) == 1 else len(widths)
        growth = {d.growth for d in dims if d.name in widths}
        entry = {"widths": shown, "growth": sorted(growth), **one_trial(model, path, widths)}
        if entry["verdict"] == "skipped":
            result["skipped"] = name
        else:
            result["trials"][name] = entry
    result.pop("running", None)
    result["done"] = True
    write()


# --- the sweep ------------------------------------------------------------------------------


def engine_digest() -> str:
    """Changes whenever a source file of the engine does."""
    digest = hashlib.sha256()
    for source in sorted(ENGINE.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def is_due(out: Path, options: argparse.Namespace, digest: str) -> bool:
    """Whether this network has no result, or one that no longer counts."""
    if options.redo or not out.exists():
        return True
    previous = json.loads(out.read_text())
    if previous["engine"] == digest:
        return not previous.get("done") and not previous.get("stopped")
    if options.failing:
        verdicts = {trial["verdict"] for trial in previous["trials"].values()}
        return bool(previous.get("failure") or previous.get("stopped") or verdicts - {"right"})
    return bool(options.stale)


def run_one(path: Path, out: Path, options: argparse.Namespace) -> str:
    """One network in its own process; returns a line for the log."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--one", str(path), str(out)]
    command += ["--trials", str(options.trials)]
    stopped = ""
    try:
        done = subprocess.run(command, timeout=options.timeout, capture_output=True, text=True)
        if done.returncode:
            stopped = f"exit {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"
    except subprocess.TimeoutExpired:
        stopped = f"more than {options.timeout:.0f} s"
    if not out.exists():
        record = json.loads(path.with_suffix(".json").read_text())
        out.write_text(json.dumps({**record, "engine": engine_digest(), "trials": {}}, indent=1))
    result = json.loads(out.read_text())
    if stopped:
        result["stopped"] = stopped
        out.write_text(json.dumps(result, indent=1) + "\n")
    verdicts = [trial["verdict"] for trial in result["trials"].values()]
    share = result.get("reached", 0) / max(1, result.get("elements", 1))
    summary = {v: verdicts.count(v) for v in sorted(set(verdicts))}
    return f"share {share:.3f} {summary} {result.get('failure', '')} {stopped}".strip()


def sweep(options: argparse.Namespace) -> None:
    """Every exported file, smallest first."""
    records = sorted(options.directory.glob("*/*.json"))
    jobs = []
    for record_path in records:
        record = json.loads(record_path.read_text())
        model = record_path.with_suffix(".onnx")
        label = f"{record.get('suite')}/{record_path.stem}"
        wanted = options.only in label and options.suite in ("", record.get("suite"))
        if record.get("ok") and wanted and model.exists():
            jobs.append((record["parameters"], label, model))
    digest = engine_digest()
    end = time.monotonic() + options.minutes * 60
    for _, label, model in sorted(jobs):
        if time.monotonic() > end:
            break
        out = options.directory / "results" / model.parent.name / f"{model.stem}.json"
        if is_due(out, options, digest):
            print(label, run_one(model, out, options), flush=True)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, nargs="?")
    parser.add_argument("--one", nargs=2, type=Path, metavar=("MODEL", "OUT"))
    parser.add_argument("--only", default="", help="substring of suite/model.exporter")
    parser.add_argument("--suite", default="")
    parser.add_argument("--redo", action="store_true", help="everything again")
    parser.add_argument("--stale", action="store_true", help="again where the engine changed")
    parser.add_argument(
        "--failing",
        action="store_true",
        help="again where not all was right and the engine changed",
    )
    parser.add_argument("--trials", type=int, default=4, help="single dimensions per network")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds per network")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no more after")
    options = parser.parse_args()
    if options.one:
        examine(options.one[0].resolve(), options.one[1], options.trials)
    elif options.directory:
        sweep(options)
    else:
        parser.error("give the directory that export.py wrote to")


if __name__ == "__main__":
    main()
