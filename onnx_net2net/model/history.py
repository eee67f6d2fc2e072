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

__all__ = ["HISTORY", "TIES", "append", "parse", "read"]

# Keys in the model's metadata.
HISTORY = "onnx_net2net.history"
TIES = "onnx_net2net.ties"  # {another name of a parameter: its initializer}

# What an entry says, whoever made it. Arguments are checked where they are used again.
_STEP: dict[str, type] = {"operation": str, "parent": str, "version": str}
# What each kind of change tells at least, by a key that only it has.
_CHANGES: dict[str, dict[str, type]] = {
    "dimension": {"dimension": str, "old": int, "new": int},
    "block": {"block": str, "copies": int},
    "after": {"after": str, "init": str},
}


def read(proto: ModelProto) -> list[dict[str, Any]]:
    """Return the recorded steps, oldest first. Raises InvalidModel where they cannot be read."""
    text = next((e.value for e in proto.metadata_props if e.key == HISTORY), None)
    return [] if text is None else parse(text)


def parse(text: str) -> list[dict[str, Any]]:
    """Return the steps in a history's text. Raises InvalidModel."""
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
    """Return whether it says what was done, to which model and by whom, and what that changed."""
    if not _fits(step, _STEP):
        return False
    assert isinstance(step, dict)
    changes, inserted = step.get("changes", []), step.get("inserted", [])
    if not isinstance(changes, list) or not isinstance(inserted, list):
        return False
    for change in changes:
        if not isinstance(change, dict):
            return False
        kinds = next((kinds for key, kinds in _CHANGES.items() if key in change), None)
        if kinds is None or not _fits(change, kinds):
            return False
    return all(isinstance(name, str) for name in inserted)


def _fits(entry: object, kinds: Mapping[str, type]) -> bool:
    """Return whether all that is needed is there; true and false are no numbers."""
    return isinstance(entry, dict) and all(type(entry.get(k)) is t for k, t in kinds.items())


def append(proto: ModelProto, operation: str, parent: str, details: Mapping[str, Any]) -> None:
    """Add one step to the metadata; ``parent`` is the digest of the model it was done to."""
    from onnx_net2net import __version__

    steps = read(proto)
    step = {"operation": operation, "parent": parent, "version": __version__, **details}
    entry = next((e for e in proto.metadata_props if e.key == HISTORY), None)
    if entry is None:
        entry = proto.metadata_props.add(key=HISTORY)
    entry.value = json.dumps([*steps, step], separators=(",", ":"))
