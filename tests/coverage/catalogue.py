"""Which networks the coverage test exports, and in which order.

    python tests/coverage/catalogue.py OUT.json

Every classification, segmentation, video and detection model of torchvision, and of timm one model
of each family: of the models that one module `timm.models.<family>` defines, the one with the
fewest parameters. Models are built on the "meta" device, so nothing is allocated or downloaded.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from itertools import zip_longest
from pathlib import Path
from typing import Any

import detection
import timm
import torch
import torchvision
from timm.models import _registry as timm_registry

Entry = dict[str, Any]
TORCHVISION = {
    "classification": torchvision.models,
    "segmentation": torchvision.models.segmentation,
    "video": torchvision.models.video,
    "detection": torchvision.models.detection,
}
# Without this, the Inception models spend minutes on SciPy's truncated normal.
PLAIN_INIT = {"googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}}


def build(suite: str, name: str) -> torch.nn.Module:
    """The network with random weights, in evaluation mode."""
    if suite == "timm":
        return timm.create_model(name, pretrained=False).eval()
    if suite == "detection":
        return detection.build(name)
    options: dict[str, Any] = dict(PLAIN_INIT.get(name, {}))
    if suite == "segmentation":
        options["weights_backbone"] = None
    return torchvision.models.get_model(name, weights=None, **options).eval()


def _count(name: str) -> int | None:
    """Number of parameters, or None where the model cannot be built without memory."""
    try:
        with torch.device("meta"):
            return sum(p.numel() for p in build("timm", name).parameters())
    except (RuntimeError, NotImplementedError, ValueError, TypeError, AssertionError) as error:
        print(f"timm/{name}: {type(error).__name__}: {error}", file=sys.stderr)
        return None


def torchvision_models() -> list[Entry]:
    """All of torchvision, smallest first within each suite."""
    entries = []
    for suite, module in TORCHVISION.items():
        for name in torchvision.models.list_models(module=module):
            family = re.match(r"[a-z]+", name)
            weights = torchvision.models.get_model_weights(name)
            entries.append(
                {
                    "suite": suite,
                    "name": name,
                    "family": family[0] if family else name,
                    # Published with the weights' description; nothing is built or fetched.
                    "parameters": weights.DEFAULT.meta["num_params"],
                }
            )
    return sorted(entries, key=lambda e: e["parameters"])


def timm_models() -> list[Entry]:
    """One model of each timm family: the one with the fewest parameters."""
    smallest: dict[str, Entry] = {}
    for name in timm.list_models():
        # timm's own test models are no architectures that anybody trains.
        if name.startswith("test_"):
            continue
        family = timm_registry._model_to_module[name]
        count = _count(name)
        if count is None:
            continue
        best = smallest.get(family)
        if best is None or count < best["parameters"]:
            smallest[family] = {
                "suite": "timm", "name": name, "family": family, "parameters": count,
            }  # fmt: skip
    return sorted(smallest.values(), key=lambda e: e["parameters"])


def ordered(entries: list[Entry]) -> list[Entry]:
    """A broad sample first: one small model of each family, the suites taking turns."""
    first: dict[str, list[Entry]] = {"classification": [], "timm": [], "other": []}
    later: list[Entry] = []
    seen: set[tuple[str, str]] = set()
    for entry in entries:
        key = (entry["suite"], entry["family"])
        if key in seen:
            later.append(entry)
            continue
        seen.add(key)
        suite = entry["suite"]
        first[suite if suite in first else "other"].append(entry)
    turns = zip_longest(first["classification"], first["timm"], first["other"])
    return [entry for turn in turns for entry in turn if entry is not None] + later


def main() -> None:
    """Write the ordered list as JSON."""
    warnings.filterwarnings("ignore")
    entries = torchvision_models() + timm_models()
    Path(sys.argv[1]).write_text(json.dumps(ordered(entries), indent=1) + "\n")


if __name__ == "__main__":
    main()
