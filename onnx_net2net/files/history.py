"""What was done to a model, step by step, in its own metadata.

for step in read(model.proto):
    step["operation"], step["parent"], step["version"]
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from onnx import ModelProto

from onnx_net2net.errors import InvalidModel

__all__ = ["HISTORY", "TIES", "VARIANCE", "append", "parse", "read"]

# Keys in the model's metadata.
HISTORY = "onnx_net2net.history"
TIES = "onnx_net2net.ties"  # {another name of a parameter: its initializer}
VARIANCE = "onnx_net2net.variance"  # "population": what BatchNormalization's moves towards

# What each kind of change tells: of a dimension, of a block, of a layer.
_CHANGES = ({"dimension", "old", "new"}, {"block", "copies"}, {"init", "after"})


def read(proto: ModelProto) -> list[dict[str, Any]]:
    """The recorded steps, oldest first. Raises InvalidModel where they cannot be read."""
    past = next((e.value for e in proto.metadata_props if e.key == HISTORY), None)
    return [] if past is None else parse(past)


def parse(text: str) -> list[dict[str, Any]]:
    """The steps in a history's text. Raises InvalidModel."""
    try:
        steps = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        steps = None
    if not isinstance(steps, list) or not all(_is_step(step) for step in steps):
        raise InvalidModel(
            f"metadata {HISTORY!r} is not a list of steps in JSON",
            "take the file that this program wrote, or remove the entry",
        )
    return steps


def _no_number(text: str) -> None:
    raise ValueError(text)  # NaN and infinity are Python's, not JSON's


def _is_step(step: object) -> bool:
    """Whether it says what was done, to which model and by whom, and what that changed."""
    if not isinstance(step, dict):
        return False
    told = all(isinstance(step.get(key), str) for key in ("operation", "parent", "version"))
    changes = step.get("changes", [])
    return told and isinstance(changes, list) and all(_is_change(change) for change in changes)


def _is_change(change: object) -> bool:
    return isinstance(change, dict) and any(keys <= change.keys() for keys in _CHANGES)


def append(proto: ModelProto, operation: str, parent: str, details: Mapping[str, Any]) -> None:
    """Add one step to the metadata; ``parent`` is the digest of the model it was done to."""
    from onnx_net2net import __version__

    steps = read(proto)
    step = {"operation": operation, "parent": parent, "version": __version__, **details}
    entry = next((e for e in proto.metadata_props if e.key == HISTORY), None)
    if entry is None:
        entry = proto.metadata_props.add(key=HISTORY)
    entry.value = json.dumps([*steps, step], separators=(",", ":"))
