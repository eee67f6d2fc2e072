"""What came of an experiment: numbers as JSON, a table, and a picture.

Steps and operations are those until the baseline's final loss is reached, for the first time, by
the mean of all seeds on the test set; how many times fewer, with and without what the teacher cost.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Piece = dict[str, Any]
Results = dict[str, Any]


def write(path: Path, value: Any) -> None:
    """Write JSON so that there is all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, separators=(",", ":")) + "\n")
    part.replace(path)


def environment() -> dict[str, Any]:
    """Return what the numbers depend on beside seeds."""
    packages = ("torch", "numpy", "onnx", "onnxruntime", "scikit-learn")
    installed = {d.metadata["Name"] for d in importlib.metadata.distributions()}
    versions = {p: importlib.metadata.version(p) for p in packages if p in installed}
    machine = f"{platform.machine()}, {_processor()}, one thread a process"
    return {"machine": machine, "versions": {"python": platform.python_version()} | versions}


def _processor() -> str:
    """Return the name of the processor, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")


def summary(
    experiment: str,
    pieces: Mapping[str, list[Piece]],
    teachers: Mapping[str, str | None],
    baseline: str,
) -> Results:
    """Return everything that is reported, from all pieces with the seeds to report.

    ``teachers`` are those of the entrants. Entrants of one group, which is what stands in front of
    a colon, are compared with the ``baseline`` of the group.
    """
    entrants = {}
    for name, runs in pieces.items():
        group = name.rpartition(": ")[0]
        rival = f"{group}: {baseline}" if group else baseline
        before = spent(name, pieces, teachers)
        entrants[name] = {
            "group": group,
            "teacher": teachers[name],
            "parameters": runs[0]["parameters"],
            "training FLOPs of a step": runs[0]["flops"],
            "teachers' FLOPs": _short(mean(before)),
            "rate": runs[0]["settings"]["rate"],
            "warm-up": runs[0]["settings"]["warmup"],
            "loss at the start": _spread(run["points"][0]["test loss"] for run in runs),
            "loss at the end": _spread(run["points"][-1]["test loss"] for run in runs),
            "accuracy at the end": _spread(run["points"][-1]["test accuracy"] for run in runs),
            "runs": [_run(run) for run in runs],
        }
        if rival in pieces and name not in teachers.values():
            compared = _compared(runs, before, pieces[rival], spent(rival, pieces, teachers))
            entrants[name] |= compared
            taught = next((t for n, t in teachers.items() if t and n.startswith(group)), None)
            if taught:
                steps = _reached(_average(runs), _end(pieces[taught]))
                entrants[name]["steps to the teacher's loss"] = steps and round(steps)
    return {"experiment": experiment} | environment() | {"entrants": entrants}


def spent(
    name: str, pieces: Mapping[str, list[Piece]], teachers: Mapping[str, str | None]
) -> list[float]:
    """Return what the teachers of each run cost, and theirs."""
    total = [0.0] * len(pieces[name])
    while teacher := teachers[name]:
        total = [t + cost(run) for t, run in zip(total, pieces[teacher], strict=True)]
        name = teacher
    return total


def cost(run: Piece) -> float:
    """Return the operations of a whole training."""
    return run["flops"] * run["points"][-1]["step"]


def _run(run: Piece) -> Results:
    """Return one training by columns."""
    names = run["points"][0]
    columns = {name: [_short(point[name]) for point in run["points"]] for name in names}
    return {"seed": run["settings"]["seed"], "seconds": run["seconds"]} | columns


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _spread(values: Iterable[float]) -> list[float]:
    """Return mean and standard deviation over seeds."""
    values = list(values)
    return [_short(mean(values)), _short(stdev(values) if len(values) > 1 else 0.0)]


def _compared(
    runs: list[Piece], before: list[float], rival: list[Piece], rivals_before: list[float]
) -> Results:
    """Return how many times the steps and operations of the baseline the entrants are worth.

    Both are counted until the mean of the test losses is what the baseline's is at its end; None
    stands for a loss that is not reached. ``before`` is what teachers cost. The spread is that of
    single seeds, if each of them reaches it.
    """
    target = _end(rival)
    steps = _reached(_average(rival), target) or 0.0
    work, whole = steps * rival[0]["flops"], mean(rivals_before)

    def ratios(run: Piece, before: float) -> tuple[float | None, ...]:
        own = _reached(run, target)
        if own is None:
            return None, None, None
        spend = own * run["flops"]
        return steps / own, work / spend, (work + whole) / (spend + before)

    own = _reached(_average(runs), target)
    result: Results = {"target": _short(target), "baseline's steps": round(steps)}
    result["steps"] = own and round(own)
    names = ("fewer steps", "less work", "less work with the teacher's")
    single = map(ratios, runs, before)
    for name, ratio, *seeds in zip(
        names, ratios(_average(runs), mean(before)), *single, strict=True
    ):
        spread = None if None in seeds else _spread(seeds)[1]
        result[name] = ratio and [_short(ratio), spread]
    return result


def _average(runs: list[Piece]) -> Piece:
    """Return the mean of the test losses of all seeds as if it were one training."""
    points = [
        {"step": points[0]["step"], "test loss": mean(point["test loss"] for point in points)}
        for points in zip(*(run["points"] for run in runs), strict=False)
    ]
    return {"flops": runs[0]["flops"], "points": points}


def _end(runs: list[Piece]) -> float:
    """Return the test loss at the end, on average over seeds."""
    return mean(run["points"][-1]["test loss"] for run in runs)


def _reached(run: Piece, target: float) -> float | None:
    """Return after how many steps, at least one, a loss is reached for the first time."""
    points = run["points"]
    for before, after in pairwise([points[0], *points]):
        if after["test loss"] <= target:
            if before["step"] == 0:
                return max(1.0, after["step"])
            high, low = before["test loss"], after["test loss"]
            part = (high - target) / (high - low)
            return before["step"] * (after["step"] / before["step"]) ** part
    return None


AT_ONCE = (math.inf, 0.0)


def compared(result: Results) -> list[Any]:
    """Return how many times fewer steps and work an entrant took: mean and spread, or None.

    AT_ONCE stands for a loss that it began with; what its teachers cost is compared all the same.
    """
    steps, work, counted = (
        result.get(key) for key in ("fewer steps", "less work", "less work with the teacher's")
    )
    if (result.get("steps") or math.inf) <= 1:
        steps = work = AT_ONCE
    return [steps, work, counted]


def table(results: Results) -> str:
    """Return the results as Markdown."""
    lines = [
        "| | rate, warm-up | start | end | steps to the teacher's | "
        "fewer steps | less work | teacher's counted |",
        "| --- |" + " ---: |" * 7,
    ]
    for name, result in results["entrants"].items():
        losses = ("{:.3f} ± {:.3f}".format(*result[f"loss at the {at}"]) for at in ("start", "end"))
        ratios = map(_text, compared(result))
        rate = f"{result['rate']:g}, {result['warm-up']}"
        steps = str(result.get("steps to the teacher's loss") or "-")
        lines.append(f"| {' | '.join([name, rate, *losses, steps, *ratios])} |")
    return "\n".join(lines)


def _text(ratio: Any) -> str:
    if ratio is None or ratio is AT_ONCE:
        return "at once" if ratio else "-"
    times, spread = ratio
    return f"{times:.2f}" if spread is None else f"{times:.2f} ± {spread:.2f}"


def plot(results: Results, path: Path) -> None:
    """Draw the test loss against steps and against all work, a row for each group."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    entrants = results["entrants"]
    teachers = {result["teacher"] for result in entrants.values()}
    groups = sorted({r["group"] for name, r in entrants.items() if name not in teachers})
    figure, axes = pyplot.subplots(
        len(groups), 2, figsize=(11, 4 * len(groups)), squeeze=False, layout="constrained"
    )
    for row, group in zip(axes, groups, strict=True):
        for name, result in entrants.items():
            if result["group"] == group and name not in teachers:
                label = name.removeprefix(f"{group}: ")
                _draw(row[0], label, result, by_work=False)
                _draw(row[1], label, result, by_work=True)
        row[0].set(title=group or results["experiment"], xlabel="steps", ylabel="test loss")
        row[1].set(title="teacher's work counted", xlabel="floating-point operations")
        for axis in row:
            axis.set(xscale="log", yscale="log")
            axis.grid(alpha=0.3, which="both")
        row[0].legend(fontsize="small")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw(axis: Any, label: str, result: Results, *, by_work: bool) -> None:
    """Draw one entrant's mean, and the range of its seeds."""
    runs, first = result["runs"], 1 - by_work * (result["teacher"] is not None)
    steps = runs[0]["step"][first:]
    flops = result["training FLOPs of a step"]
    places = [result["teachers' FLOPs"] + flops * step for step in steps] if by_work else steps
    losses = [run["test loss"][first:] for run in runs]
    middle = [mean(values) for values in zip(*losses, strict=True)]
    low, high = ([pick(values) for values in zip(*losses, strict=True)] for pick in (min, max))
    (line,) = axis.plot(places, middle, label=label)
    axis.fill_between(places, low, high, color=line.get_color(), alpha=0.2)


def draw_growth(results: Results, scratch: str, grown: str, path: Path) -> None:
    """Draw the test loss against all work: of a teacher, its growth, and a start from nothing."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    entrants = results["entrants"]
    figure, axis = pyplot.subplots(figsize=(8, 4.2), layout="constrained")
    for name, label in (
        (scratch, "the larger network, from scratch"),
        (entrants[grown]["teacher"], "the smaller network"),
        (grown, "grown from it"),
    ):
        _draw(axis, label, entrants[name], by_work=True)
    low, high = entrants[grown]["loss at the end"][0], entrants[grown]["loss at the start"][0]
    axis.set(xlabel="floating-point operations of training", ylabel="test loss")
    axis.set_ylim(low - (high - low) / 4, high + 4 * (high - low))
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
