"""Run every experiment, and write what README says of them.

    python tests/experiments/everything.py             takes hours; what is there is not run again
    python tests/experiments/everything.py --readme    README's picture and numbers alone

Every number in README's part about training comes from ``results``, by way of the rows below.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

from report import AT_ONCE, Results, compared, draw_growth

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
BEGIN, END = "<!-- tests/experiments/everything.py -->\n", "<!-- end -->\n"
PICTURE = ("transformer", "both x2: scratch", "both x2: grown")
# What README shows: who is compared with whoever began from nothing, by experiment.
ROWS = {
    "transformer": {
        "width x1.5: grown": "GPT, width x1.5",
        "width x2: grown": "GPT, width x2",
        "width x2: early": "the same, grown early",
        "width x2: late": "the same, grown late",
        "width x2: copies": "the same, equal shares (HyperCloning)",
        "depth x2: grown": "GPT, depth x2",
        "depth x2: stacked": "the same, stacked (G_stack, not exact)",
        "depth x2: new": "the same, only new blocks trained (LLaMA-Pro)",
        "both x2: grown": "GPT, width and depth x2",
    },
    "wider": {
        "project": "Inception, channels x1.8",
        "fresh": "the same, fresh units",
        "even": "the same, equal shares",
        "random padding": "the same, random padding (not exact)",
    },
    "where": {
        "all widths": "GPT, twice the parameters, in all widths",
        "MLPs": "the same, in MLPs",
        "depth": "the same, in depth",
        "both": "the same, in both",
        "MLPs by gradient": "the same, in the MLPs whose gradient asks for it",
    },
    "units": {
        "project": "GPT, MLPs x2",
        "fresh": "the same, fresh units",
        "even": "the same, equal shares",
        "GradMax": "the same, the gradient's units (GradMax)",
    },
    "optimizer": {
        "grown": "GPT, width x2, with the rate of the smaller one",
        "grown, rate / 2": "the same, with half of it",
        "fresh, rate / 2": "the same, without the optimizer's state",
    },
    "symmetry": {
        "SGD, dropout 0: project": "Perceptron, one layer x3, SGD",
        "SGD, dropout 0: noise 1 %": "the same, equal shares and noise of 1 %",
        "SGD, dropout 0: even": "the same, equal shares",
        "Adam, dropout 0: project": "Perceptron, one layer x3, Adam",
        "Adam, dropout 0: noise 1 %": "the same, equal shares and noise of 1 %",
        "Adam, dropout 0: even": "the same, equal shares",
        "Adam, dropout 0.3: project": "Perceptron, one layer x3, Adam and dropout",
        "Adam, dropout 0.3: even": "the same, equal shares",
    },
    "deeper": {
        "identities": "Inception, a pair of convolutions more a module",
        "not calibrated": "the same, without norms",
        "random layers": "the same, random layers (not exact)",
    },
    "both": {"wider and deeper": "Inception, channels x1.8 and such pairs"},
    "continual": {"grown": "Inception, grown with each portion of data"},
    "limits": {
        "factor 1.125: teacher of 1024 steps": "GPT, width x1.1, grown after 1,024 steps",
        "factor 2: teacher of 128 steps": "GPT, width x2, grown after 128 steps",
        "factor 2: teacher of 1024 steps": "the same, grown after 1,024 steps",
        "factor 2: teacher of 16384 steps": "the same, grown after 16,384 steps",
        "factor 4: teacher of 128 steps": "GPT, width x4, grown after 128 steps",
        "factor 4: teacher of 1024 steps": "the same, grown after 1,024 steps",
        "factor 4: teacher of 16384 steps": "the same, grown after 16,384 steps",
    },
}
EXPERIMENTS = (
    *("transformer", "wider", "deeper", "both", "optimizer", "symmetry", "limits", "where"),
    *("units", "continual", "distillation", "reinitialised"),
)


def results(folder: Path = HERE) -> dict[str, Results]:
    """Return the results that are there, by experiment."""
    paths = ((name, folder / "results" / f"{name}.json") for name in EXPERIMENTS)
    return {name: json.loads(path.read_text()) for name, path in paths if path.exists()}


def section(known: dict[str, Results]) -> str:
    """Return README's table of the experiments."""
    lines = [
        "| | loss from scratch | loss grown | steps to the former | work | with the teacher's |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    shown = [(e, name, title) for e in ROWS if e in known for name, title in ROWS[e].items()]
    for experiment, name, title in shown:
        result = known[experiment]["entrants"][name]
        ratios = map(_text, compared(result))
        losses = result["target"], result["loss at the end"][0]
        cells = [f"[{title}](tests/experiments/results/{experiment}.png)"]
        cells += [*(f"{loss:.3f}" for loss in losses), *ratios]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _text(ratio: tuple[float, float] | None) -> str:
    if ratio is None:
        return "not reached"
    if ratio is AT_ONCE:
        return "at once"
    return f"÷ {ratio[0]:.1f}" if ratio[0] >= 1 else f"x {1 / ratio[0]:.1f}"


def written(text: str, known: dict[str, Results]) -> str:
    """Return README with the table between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + section(known) + END + after


def main() -> None:
    parser = argparse.ArgumentParser(description="All experiments, and what README says of them.")
    parser.add_argument("--readme", action="store_true", help="from the results that are there")
    parser.add_argument("--smoke", action="store_true", help="show that everything runs")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each [2]")
    parser.add_argument("--folder", type=Path, default=HERE, help="of pieces and results")
    options = parser.parse_args()
    options.plot = False
    for name in () if options.readme else EXPERIMENTS:
        contest: Any = importlib.import_module("contest")
        contest.conduct(importlib.import_module(name).CONTEST, options)
    if not options.smoke:
        known = results(options.folder)
        experiment, *pair = PICTURE
        if experiment in known:
            draw_growth(known[experiment], *pair, options.folder / "results" / "growing.png")
        README.write_text(written(README.read_text(encoding="utf-8"), known), encoding="utf-8")


if __name__ == "__main__":
    main()
