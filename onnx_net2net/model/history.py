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
_ABSENT = type(None)
_SETTINGS = {
    "count", "copies", "every", "init", "kernel", "norm", "renumber", "seed", "spread", "zero",
}  # fmt: skip
_NEEDED = {
    "widen": {"changes", "mapping", "noise", "seed", "split"},
    "deepen": {"after", "block", "changes", *_SETTINGS},
}
_STEP: dict[str, tuple[type, ...]] = {
    "after": (list,), "block": (dict,), "calibrated": (bool,), "changes": (list,), "copies": (int,),
    "count": (int,), "every": (int,), "init": (str,), "inserted": (list,),
    "kernel": (int, list, _ABSENT), "maps": (dict,), "mapping": (str,), "noise": (int, float),
    "norm": (bool, _ABSENT), "operation": (str,), "parent": (str,), "renumber": (bool,),
    "seed": (int,), "split": (str,), "spread": (bool,), "version": (str,), "zero": (str,),
}  # fmt: skip
_CHANGE: dict[str, tuple[type, ...]] = {
    "after": (str,), "block": (str,), "copies": (int,), "dimension": (str,), "init": (str,),
    "new": (int,), "old": (int,), "parameters": (list,), "source": (str,), "tensor": (str,),
    "training": (bool,),
}  # fmt: skip
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
    needed = _NEEDED.get(str(step.get("operation")), set()) | {"operation", "parent", "version"}
    if not needed <= step.keys() or not _fits(step, _STEP):
        return False
    return all(_is_change(change) for change in step.get("changes", ()))


def _is_change(change: object) -> bool:
    if not isinstance(change, dict) or not any(keys <= change.keys() for keys in _CHANGES):
        return False
    return _fits(change, _CHANGE)


def _fits(entry: Mapping[str, Any], kinds: Mapping[str, tuple[type, ...]]) -> bool:
    """Whether all values that are there are of their kinds; true and false are no numbers."""
    for key, value in entry.items():
        allowed = kinds.get(key, (object,))
        if not isinstance(value, allowed) or (type(value) is bool and bool not in allowed):
            return key not in kinds
    return all(isinstance(name, str) for name in entry.get("inserted", ()))


def append(proto: ModelProto, operation: str, parent: str, details: Mapping[str, Any]) -> None:
    """Add one step to the metadata; ``parent`` is the digest of the model it was done to."""
    from onnx_net2net import __version__

    steps = read(proto)
    step = {"operation": operation, "parent": parent, "version": __version__, **details}
    entry = next((e for e in proto.metadata_props if e.key == HISTORY), None)
    if entry is None:
        entry = proto.metadata_props.add(key=HISTORY)
    entry.value = json.dumps([*steps, step], separators=(",", ":"))
