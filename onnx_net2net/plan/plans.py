"""Plans: steps of growth as TOML, read, checked and written.

    [[step]]
    operation = "widen"
    widths = { conv1 = 96, "layer3.0.conv1" = 320 }

    [[step]]
    operation = "deepen"
    block = ["layer3.*"]
    copies = 2
    spread = true

Keys are the arguments of :func:`onnx_net2net.widen` and :func:`onnx_net2net.deepen`. In place of
``widths`` there can be ``factor`` with ``names`` or ``all = true``, as on the command line; and
``calibrate`` names files with inputs, from the plan's folder. ``fold = true`` on top computes
first what the graph computes from weights alone.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from onnx_net2net.errors import UsageError

__all__ = ["Plan", "Step", "exact", "parse", "read", "text"]

_EXAMPLE = 'for example: [[step]], operation = "widen", widths = { conv1 = 96 }'
Check = tuple[Callable[[Any], bool], str]
_SMALLEST = 1e-100  # numbers below it, and above its inverse, are none that anybody means
_DIGITS = 200


@dataclass(frozen=True)
class Step:
    """One step: "widen" or "deepen", and its checked arguments. ``place`` is how errors name it."""

    operation: str
    arguments: Mapping[str, Any]
    place: str = ""


@dataclass(frozen=True)
class Plan:
    """Steps in order. ``folder`` is what paths in it start from."""

    steps: tuple[Step, ...]
    fold: bool = False
    folder: Path = Path()

    @property
    def exact(self) -> bool:
        """Whether no step adds noise."""
        return all(step.arguments.get("split") != "noise" for step in self.steps)

    def seen_from(self, folder: Path) -> Plan:
        """The same plan, to lie in another folder."""
        return replace(self, steps=tuple(self._moved(step, folder) for step in self.steps))

    def _moved(self, step: Step, folder: Path) -> Step:
        if "calibrate" not in step.arguments:
            return step
        given = step.arguments["calibrate"]
        paths = [self.folder / path for path in ([given] if isinstance(given, str) else given)]
        start = folder.resolve()
        moved = [Path(os.path.relpath(path.resolve(), start)).as_posix() for path in paths]
        return replace(step, arguments={**step.arguments, "calibrate": moved})


def read(path: Path) -> Plan:
    """The plan in a file. Raises UsageError naming the place of what is wrong in it."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=exact)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}", "check the path") from None
    except ValueError as error:  # no TOML, no UTF-8, no number
        raise UsageError(f"{path}: not TOML: {error}", _EXAMPLE) from None
    except RecursionError:
        raise UsageError(f"{path}: tables or lists nested too deep", _EXAMPLE) from None
    return parse(values, str(path), path.parent)


def exact(text: str) -> Fraction:
    """An exact number: 1.1 of 10 is 11, which binary fractions do not know.

    Raises ValueError for none, and for one that no size has: 1e999999999 alone would take hours.
    """
    rough = float(text)
    if not (rough == 0 or _SMALLEST < abs(rough) < 1 / _SMALLEST) or len(text) > _DIGITS:
        raise ValueError(f"{text[:_DIGITS]} is out of range")
    return Fraction(text) if rough else Fraction(0)


def parse(
    values: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    where: str = "plan",
    folder: Path = Path(),
) -> Plan:
    """The plan that ``values`` are, as TOML has them; or a list of steps."""
    if not isinstance(values, Mapping):
        values = {"step": list(values)}
    _known(values, ("step", "fold"), where)
    if not isinstance(values.get("fold", False), bool):
        raise UsageError(f"{where}: key 'fold': {_shown(values['fold'])} is not true or false")
    steps = values.get("step")
    if not isinstance(steps, list) or not all(isinstance(step, Mapping) for step in steps):
        raise UsageError(f"{where}: 'step' is not a list of steps", _EXAMPLE)
    if not steps:
        raise UsageError(f"{where}: there are no steps in it", _EXAMPLE)
    found = [_step(step, f"{where}: step {number}") for number, step in enumerate(steps, 1)]
    return Plan(tuple(found), values.get("fold", False), folder)


def _step(values: Mapping[str, Any], where: str) -> Step:
    operation = values.get("operation")
    if not isinstance(operation, str) or operation not in _KEYS:
        problem = "has no operation" if operation is None else f"unknown operation {operation!r}"
        raise UsageError(f"{where}: {problem}", 'operation = "widen" or operation = "deepen"')
    where = f"{where} ({operation})"
    keys = _KEYS[operation]
    arguments = {key: value for key, value in values.items() if key != "operation"}
    _known(arguments, keys, where)
    for key, value in arguments.items():
        holds, kind = keys[key]
        if not holds(value):
            raise UsageError(f"{where}: key '{key}': {_shown(value)} is not {kind}")
    (_check_widen if operation == "widen" else _check_deepen)(arguments, where)
    return Step(operation, arguments, where)


def _check_widen(given: Mapping[str, Any], where: str) -> None:
    if ("widths" in given) == ("factor" in given):
        both = "widths" in given
        problem = "'widths' and 'factor' exclude each other" if both else "nothing to grow"
        raise UsageError(f"{where}: {problem}", "give widths, or a factor with names")
    scaled = [key for key in ("names", "all") if given.get(key)]
    if "widths" in given and scaled:
        raise UsageError(f"{where}: key '{scaled[0]}' goes with 'factor' only", "leave it away")
    if "factor" in given and len(scaled) != 1:
        raise UsageError(f"{where}: 'factor' needs names, or all = true", 'names = ["layer2.*"]')


def _check_deepen(given: Mapping[str, Any], where: str) -> None:
    if not given.get("after") and not given.get("block"):
        raise UsageError(f"{where}: nothing to deepen", "name layers (after) or blocks (block)")
    if isinstance(given.get("block"), Mapping):
        for key in ("copies", "every", "spread"):
            if key in given:
                problem = f"{where}: key '{key}' does not go with copies by block"
                raise UsageError(problem, "leave it away, or give a list of blocks")


def _known(values: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    """UsageError for a key that is none of ``keys``."""
    for key in values:
        if key not in keys:
            close = difflib.get_close_matches(str(key), list(keys), n=1)
            help_ = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(keys)}"
            raise UsageError(f"{where}: unknown key '{key}'", help_)


def _shown(value: Any) -> str:
    try:
        text = str(float(value)) if isinstance(value, Fraction) else repr(value)
    except (ValueError, OverflowError):  # Python writes no number of more than 4,300 digits
        text = "a number beyond all bounds"
    return text if len(text) <= _DIGITS else f"{text[:_DIGITS]} ..."


# What values are ---------------------------------------------------------------------------------


def _number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _names(value: Any) -> bool:
    found = [value] if isinstance(value, str) else value
    return isinstance(found, list | tuple) and all(isinstance(v, str) and v for v in found)


def _counts(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(map(_positive, value.values()))


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _real(value: Any) -> bool:
    real = _number(value) or isinstance(value, float | Fraction)
    return real and abs(value) < 1 / _SMALLEST  # neither NaN nor infinite


def _window(value: Any) -> bool:
    sizes = value if isinstance(value, list | tuple) else [value]
    return bool(sizes) and all(map(_positive, sizes))


def _one_of(*known: str) -> Check:
    return lambda value: isinstance(value, str) and value in known, f"one of {', '.join(known)}"


_NAMES: Check = (_names, "a name or a list of names")
_POSITIVE: Check = (_positive, "a whole number from 1 up")
_FLAG: Check = (lambda value: isinstance(value, bool), "true or false")
_SEED: Check = (lambda value: _number(value) and value >= 0, "a whole number from 0 up")
_KEYS: dict[str, dict[str, Check]] = {
    "widen": {
        "widths": (_counts, "a table of widths by name, such as { conv1 = 96 }"),
        "factor": (lambda value: _real(value) and value > 1, "a number above 1"),
        "names": _NAMES,
        "all": _FLAG,
        "split": _one_of("project", "even", "noise"),
        "noise": (lambda value: _real(value) and 0 < value < 1, "a number between 0 and 1"),
        "mapping": _one_of("random", "round-robin"),
        "seed": _SEED,
    },
    "deepen": {
        "after": _NAMES,
        "block": (
            lambda value: _names(value) or _counts(value),
            "a name, a list of names, or a table of copies by name",
        ),
        "copies": _POSITIVE,
        "every": _POSITIVE,
        "spread": _FLAG,
        "renumber": _FLAG,
        "zero": _one_of("last", "cancel"),
        "init": _one_of("auto", "identity", "residual", "factor"),
        "count": _POSITIVE,
        "kernel": (_window, "a whole number from 1 up, or a list of such"),
        "norm": _FLAG,
        "calibrate": _NAMES,
        "seed": _SEED,
    },
}


# Writing -----------------------------------------------------------------------------------------


def text(plan: Plan, comment: str = "") -> str:
    """The plan as TOML, tables of widths and of copies behind the other keys of their step."""
    lines = [f"# {line}" for line in comment.splitlines()]
    if plan.fold:
        lines.append("fold = true")
    for step in plan.steps:
        lines += ["", "[[step]]", f"operation = {_quoted(step.operation)}"]
        plain = {k: v for k, v in step.arguments.items() if not isinstance(v, Mapping)}
        lines += [f"{key} = {_value(value)}" for key, value in plain.items()]
        for key, table in step.arguments.items():
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
