"""Turn the results of the coverage test into tables.

python tests/coverage/table.py /big/disk --out tests/coverage/RESULTS.md
python tests/coverage/table.py /big/disk --summary     # the short table of README
python tests/coverage/table.py /big/disk --causes      # failures and pins grouped by cause
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

Row = dict[str, Any]
SUITES = ("classification", "segmentation", "video", "timm", "transformers")
LIBRARIES = ("torch", "torchvision", "timm", "transformers")
PACKAGES = (*LIBRARIES, "onnx", "onnxruntime", "onnxruntime-gpu", "numpy")


def read(directory: Path) -> tuple[list[Row], list[Row]]:
    """Export records and growth results."""
    exports = []
    for suite in SUITES:
        exports += [json.loads(p.read_text()) for p in sorted((directory / suite).glob("*.json"))]
    results = [json.loads(p.read_text()) for p in sorted((directory / "results").glob("*/*.json"))]
    return exports, results


def label(row: Row) -> str:
    """Unique name of an exported file."""
    return f"{row['suite']}/{row['name']} ({row['exporter']})"


def share(row: Row) -> float:
    """Share of weight elements that lie on a growable dimension."""
    return row.get("reached", 0) / max(1, row.get("elements", 1))


def verdicts(row: Row) -> dict[str, int]:
    """Trials by verdict; `noticed` are those that gave no network, or none that loads."""
    counts = {"right": 0, "refused": 0, "noticed": 0, "wrong": 0}
    for trial in row["trials"].values():
        verdict = trial["verdict"]
        counts["noticed" if verdict in ("rejected", "crashed") else verdict] += 1
    return counts


def settled(row: Row) -> bool:
    """Whether something grew and nothing failed."""
    counts = verdicts(row)
    clean = not row.get("failure") and not row.get("stopped")
    return clean and counts["right"] > 0 and counts["right"] == sum(counts.values())


def machine() -> str:
    """Processor and versions, one line."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    cores = f"{os.cpu_count()} cores of {platform.machine()}"
    return f"{cores}, Python {platform.python_version()}, " + ", ".join(found)


def _summary_row(title: str, exports: list[Row], rows: list[Row]) -> str:
    exported = sum(e["ok"] for e in exports)
    shares = [share(r) for r in rows]
    counts = {
        v: sum(verdicts(r)[v] for r in rows) for v in ("right", "refused", "noticed", "wrong")
    }
    middle = f"{median(shares):.3f}" if shares else "-"
    wide = sum(s >= 0.95 for s in shares)
    cells = [title, f"{exported}/{len(exports)}", len(rows), sum(settled(r) for r in rows), middle]
    cells += [f"{wide}/{len(rows)}", *counts.values()]
    return "| " + " | ".join(str(c) for c in cells) + " |"


def summary(exports: list[Row], results: list[Row]) -> str:
    """One line for each suite and exporter."""
    lines = [
        "| suite, exporter | exported | tested | all right | share, median | share >= 0.95 "
        "| right | refused | rejected | wrong |",
        "| --- " + "| ---: " * 9 + "|",
    ]

    def pick(rows: list[Row], suite: str, exporter: str) -> list[Row]:
        return [r for r in rows if r["suite"] == suite and r["exporter"] == exporter]

    exporters = sorted({e["exporter"] for e in exports})
    for suite in SUITES:
        for exporter in exporters:
            group = pick(exports, suite, exporter)
            if group:
                title = f"{suite}, {exporter}"
                lines.append(_summary_row(title, group, pick(results, suite, exporter)))
    lines.append(_summary_row("**all**", exports, results))
    return "\n".join(lines)


def details(results: list[Row]) -> str:
    """One line for each network and exporter."""
    lines = [
        "| network | exporter | M parameters | nodes | share | any | multiple | fixed | right "
        "| refused | rejected | wrong | analysis, ms | |",
        "| --- | --- " + "| ---: " * 11 + "| --- |",
    ]
    order = {suite: i for i, suite in enumerate(SUITES)}
    for row in sorted(results, key=lambda r: (order[r["suite"]], r["name"], r["exporter"])):
        growth = row.get("growth", {})
        note = str(row.get("failure") or row.get("stopped") or "").replace("|", "/")[:80]
        cells = [f"{row['suite']}/{row['name']}", row["exporter"]]
        cells += [f"{row['parameters'] / 1e6:.1f}", row["nodes"], f"{share(row):.3f}"]
        cells += [growth.get(g, "-") for g in ("any", "multiple", "fixed")]
        cells += verdicts(row).values()
        cells += [f"{row.get('inspect_seconds', 0) * 1000:.0f}", note]
        lines.append("| " + " | ".join(str(c) for c in cells) + " |")
    return "\n".join(lines)


def not_exported(exports: list[Row]) -> str:
    """What PyTorch's exporters could not write, and why."""
    failed = [e for e in exports if not e["ok"]]
    if not failed:
        return "Every network was exported."
    lines = ["| network | exporter | error |", "| --- | --- | --- |"]
    for row in sorted(failed, key=label):
        error = row["error"].replace("|", "/")[:160]
        lines.append(f"| {row['suite']}/{row['name']} | {row['exporter']} | {error} |")
    return "\n".join(lines)


def document(exports: list[Row], results: list[Row]) -> str:
    """The whole of RESULTS.md."""
    engines = len({r["engine"] for r in results})
    return f"""# Coverage of torchvision, timm and transformers

Written by `tests/coverage/table.py`; made by `export.py`, `transformers_export.py` and `run.py`
beside it. Weights are random. Networks of `transformers` are small, without a head: their hidden
size is that of their output, and stays. Share: weight elements on at least one growable
dimension, of all. Trials: up to four dimensions grown alone, then all at once; "refused" is a
broken promise of `inspect`, "rejected" a graph that was not written or that onnxruntime did not
load, "wrong" one that computes something else.

Machine: {machine()}. The
results come from {engines} states of the engine (`run.py --stale` brings all to the present one).

{summary(exports, results)}

## Networks

{details(results)}

## Not exported by PyTorch

{not_exported(exports)}
"""


# --- causes ---------------------------------------------------------------------------------


def normalise(message: str) -> str:
    """The message without names and numbers, so that equal causes look equal."""
    message = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`", "'_'", message)
    message = re.sub(r"\b[\w/.:]*[/_:.]\w[\w/.:]*", "_", message)
    return re.sub(r"\d+", "N", re.sub(r"\s+", " ", message))[:240]


def failures(results: list[Row]) -> list[tuple[str, str, str]]:
    """(verdict, message, place) of everything that did not go right."""
    found = []
    for row in results:
        place = label(row)
        if row.get("failure"):
            found.append(("analysis failed", row["failure"], f"{place} {row['traceback'][-3:]}"))
        if row.get("stopped"):
            running = f"{place} in {row.get('running', 'the analysis')}"
            found.append(("stopped", row["stopped"], running))
        for name, trial in row["trials"].items():
            if trial["verdict"] == "right":
                continue
            message = trial.get("message") or "outputs differ"
            detail = {k: trial[k] for k in ("widths", "growth", "node", "outputs") if k in trial}
            detail["where"] = [t.strip() for t in trial.get("traceback", [])[-4:-1]]
            found.append((trial["verdict"], message, f"{place} dimension `{name}`: {detail}"))
    return found


def _grouped(
    items: Iterable[Any], key: Callable[[Any], Any], size: Callable[[list[Any]], float]
) -> list[tuple[Any, list[Any]]]:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return sorted(groups.items(), key=lambda pair: -size(pair[1]))


def causes(results: list[Row], examples: int = 5) -> str:
    """Failures by cause, then the reasons that pin most weight elements."""
    lines = ["# Coverage: failures by cause", "", f"{len(results)} files examined.", ""]
    groups = _grouped(failures(results), lambda f: (f[0], normalise(f[1])), len)
    for (verdict, _), members in groups:
        networks = {place.split(" (")[0] for _, _, place in members}
        lines += [f"## {verdict}: {len(members)} times in {len(networks)} networks", ""]
        lines += ["```", members[0][1], "```", ""]
        lines += [f"- {place[:700]}" for _, _, place in members[:examples]]
        lines += [f"- also: {', '.join(sorted(networks))[:1500]}", ""]
    lines += ["# Fixed dimensions of networks with share < 0.95, by reason", ""]
    pins = [(r, d) for r in results if share(r) < 0.95 for d in r.get("fixed", [])]
    shares: Callable[[list[Any]], float] = lambda group: sum(  # noqa: E731
        d["elements"] / max(1, r["elements"]) for r, d in group
    )
    for reason, members in _grouped(pins, lambda m: normalise(str(m[1]["reason"])), shares)[:60]:
        networks = {label(r) for r, _ in members}
        lines += [
            f"## {reason}",
            f"{len(networks)} files, pinned share summed {shares(members):.2f}",
        ]
        for row, dim in sorted(members, key=lambda m: -m[1]["elements"])[:examples]:
            part = dim["elements"] / max(1, row["elements"])
            head = f"- {label(row)} share {share(row):.3f}; `{dim['name']}` width {dim['width']}"
            lines.append(f"{head} ({part:.1%}): {str(dim['reason'])[:400]}")
        lines.append("")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse the command line and print or write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--out", type=Path, help="write here instead of printing")
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--causes", action="store_true")
    options = parser.parse_args()
    exports, results = read(options.directory)
    if options.summary:
        text = summary(exports, results)
    elif options.causes:
        text = causes(results)
    else:
        text = document(exports, results)
    if options.out:
        options.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
