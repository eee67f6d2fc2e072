"""Turn what imports.py found into tables.

python tests/coverage/imports_table.py /big/disk --out tests/coverage/IMPORTS.md
python tests/coverage/imports_table.py /big/disk --summary     # the short table of README
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

WAYS = ("torch", "keras", "deepen")
VERDICTS = ("right", "refused", "stopped", "crashed", "wrong")

Found = dict[str, dict[str, dict[str, Any]]]  # way -> suite/network.exporter -> result


def read(directory: Path) -> Found:
    """All results, by way and file."""
    found: Found = {}
    for way in WAYS:
        paths = sorted((directory / "imports" / way).glob("*/*.json"))
        found[way] = {f"{p.parent.name}/{p.stem}": json.loads(p.read_text()) for p in paths}
    return found


def networks(results: dict[str, dict[str, Any]]) -> set[str]:
    """The networks, whatever exported them."""
    return {name.rpartition(".")[0] for name in results}


def summary(found: Found) -> str:
    """One line for each way."""
    lines = [
        f"| | networks | files | {' | '.join(VERDICTS)} |",
        f"| --- | ---: | ---: {'| ---: ' * len(VERDICTS)}|",
    ]
    titles = {
        "torch": "as PyTorch modules",
        "keras": "as Keras models",
        "deepen": "all blocks copied, layers inserted",
    }
    for way, results in found.items():
        if results:
            counts = Counter(result["verdict"] for result in results.values())
            cells = [titles[way], len(networks(results)), len(results)]
            cells += [counts[verdict] for verdict in VERDICTS]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def own_layers(found: Found) -> str:
    """How many Keras models need no layer of ours, as far as that was looked at."""
    rows = [row for row in found["keras"].values() if "alone" in row]
    if not rows:
        return ""
    alone, shares = sum(not row["alone"] for row in rows), [row["held"] for row in rows]
    return (
        f"Of {len(rows)} Keras models that were saved, {alone} load in a process without this "
        f"program. Of weights, layers of Keras compute with {sum(shares) / len(shares):.1%} in the "
        f"mean of the networks, and with {min(shares):.1%} in the worst.\n\n"
    )


def details(found: Found) -> str:
    """One line for each file."""
    lines = [
        "| network | torch | keras | deepened | blocks | exact | places | |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for name in sorted({name for results in found.values() for name in results}):
        rows = {way: found[way].get(name, {}) for way in WAYS}
        cells = [name, *(rows[way].get("verdict", "") for way in WAYS)]
        cells += [rows["deepen"].get(key, "") for key in ("blocks", "exact", "places")]
        problems = [f"{way}: {row['problem']}" for way, row in rows.items() if row.get("problem")]
        problems += [f"not copied: {reason}" for reason in rows["deepen"].get("reasons", ())]
        cells.append("; ".join(problems).replace("|", "/").replace("\n", " ")[:160])
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def document(found: Found) -> str:
    """The whole of IMPORTS.md."""
    return f"""# Imports, blocks and layers: torchvision, timm, transformers

Written by `tests/coverage/imports_table.py`; made by `imports.py` beside it, from files of up to
600 MB. "right": one random input gives what onnxruntime gives, by the tolerance of `verify`;
"refused": operators without a translation, named; "stopped": more than the time limit. Deepened:
all blocks that can be copied exactly are copied, at once; then layers are inserted at up to 24
places, at once. "exact" blocks are those copied, of all "blocks" found.

{summary(found)}

{own_layers(found)}{details(found)}
"""


def main() -> None:
    """Parse the command line and print or write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--out", type=Path, help="write here instead of printing")
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    found = read(options.directory)
    text = summary(found) if options.summary else document(found)
    if options.out:
        options.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
