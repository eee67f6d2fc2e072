"""Plans: steps of growth as TOML, read and written.

    [[step]]
    operation = "widen"
    widths = { conv1 = 96, "layer3.0.conv1" = 320 }

    [[step]]
    operation = "deepen"
    block = ["layer3.*"]
    copies = 2
    spread = true

Keys are the arguments of :func:`onnx_net2net.widen` and :func:`onnx_net2net.deepen`, all declared
in :mod:`onnx_net2net.step`. In place of ``widths`` there can be ``factor`` with ``names`` or
``all = true``, as on the command line; and ``calibrate`` names files with inputs, from the plan's
folder. ``fold = true`` on top, or a step "fold", computes what the graph computes from weights
alone.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnx_net2net.errors import UsageError
from onnx_net2net.step import Deepen, Step, check_keys, exact_number, listed, parse_step, shown

__all__ = ["Plan", "parse", "read", "text"]

_EXAMPLE = 'for example: [[step]], operation = "widen", widths = { conv1 = 96 }'


@dataclass(frozen=True)
class Plan:
    """Steps in order. ``folder`` is what paths in it start from, ``where`` how errors name it."""

    steps: tuple[Step, ...]
    fold: bool = False
    folder: Path = Path()
    where: str = ""

    @property
    def exact(self) -> bool:
        """Whether no step adds noise."""
        return all(step.exact for step in self.steps)

    def place(self, index: int) -> str:
        """Return how errors name a step."""
        number = f"step {index + 1} ({self.steps[index].operation})"
        return f"{self.where}: {number}" if self.where else number

    def seen_from(self, folder: Path) -> Plan:
        """Return the same plan, to lie in another folder."""
        return replace(self, steps=tuple(self._moved(s, folder) for s in self.steps))

    def _moved(self, step: Step, folder: Path) -> Step:
        if not isinstance(step, Deepen) or not step.calibrate:
            return step
        paths = [(self.folder / path).resolve() for path in listed(step.calibrate)]
        start = folder.resolve()
        return replace(
            step, calibrate=[Path(os.path.relpath(path, start)).as_posix() for path in paths]
        )


def read(path: Path) -> Plan:
    """Return the plan in a file. Raises UsageError naming the place of what is wrong in it."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=exact_number)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}", "check the path") from None
    except ValueError as error:  # no TOML, no UTF-8, no number
        raise UsageError(f"{path}: not TOML: {error}", _EXAMPLE) from None
    except RecursionError:
        raise UsageError(f"{path}: tables or lists nested too deep", _EXAMPLE) from None
    return parse(values, str(path), path.parent)


def parse(
    values: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    where: str = "plan",
    folder: Path = Path(),
) -> Plan:
    """Return the plan that ``values`` are, as TOML has them; or a list of steps."""
    if not isinstance(values, Mapping):
        values = {"step": list(values)}
    check_keys(values, ("step", "fold"), where)
    if not isinstance(values.get("fold", False), bool):
        raise UsageError(f"{where}: fold: {shown(values['fold'])} is not true or false", _EXAMPLE)
    steps = values.get("step")
    if not isinstance(steps, list) or not all(isinstance(step, Mapping) for step in steps):
        raise UsageError(f"{where}: 'step' is not a list of steps", _EXAMPLE)
    if not steps:
        raise UsageError(f"{where}: there are no steps in it", _EXAMPLE)
    parsed = [parse_step(values, f"{where}: step {n}") for n, values in enumerate(steps, 1)]
    return Plan(tuple(parsed), values.get("fold", False), folder, where)


def text(plan: Plan, comment: str = "") -> str:
    """Return the plan as TOML, tables behind the other keys of their step."""
    lines = [f"# {line}" for line in comment.splitlines()]
    if plan.fold:
        lines.append("fold = true")
    for step in plan.steps:
        lines += ["", "[[step]]", f"operation = {_quoted(step.operation)}"]
        arguments = step.written()
        plain = {k: v for k, v in arguments.items() if not isinstance(v, Mapping)}
        lines += [f"{key} = {_value(value)}" for key, value in plain.items()]
        for key, table in arguments.items():
            if isinstance(table, Mapping):
                lines += ["", f"[step.{key}]"]
                lines += [f"{_quoted(name)} = {_value(value)}" for name, value in table.items()]
    return "\n".join(lines).lstrip("\n") + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return repr(value) if isinstance(value, int) else repr(float(value))


def _quoted(value: str) -> str:
    # JSON's strings are TOML's, but for one control character that JSON leaves as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
