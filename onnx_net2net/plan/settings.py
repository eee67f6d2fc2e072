"""Settings of a class of transformers that reach a budget of parameters.

    choose_settings(checkpoint, "2x")     # {"n_embd": 1024, "n_head": 16, "n_layer": 24}

Which setting is a width and which a length is found by trial: the class is built with each of them
doubled, without weights. Widths grow by one factor together with the number of heads, so that
heads keep their size and a hidden size stays a multiple of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.plan.budget import PREFERENCES, TOLERANCE, goal
from onnx_net2net.widening.dimensions import Dimension, analyse

if TYPE_CHECKING:
    from onnx_net2net.frameworks.torch.checkpoint import Checkpoint

__all__ = ["choose_settings", "counts_heads", "is_size"]

_HEADS = re.compile(r"(^|_)heads?$")  # n_head, num_key_value_heads
_TIMES = 16
_COARSE = 0.15  # how far off the nearest settings may be: a layer of a small network is much of it
_MULTIPLE, _WIDE = 8, 64  # what keeps hardware busy, and from which width on

Shapes = Mapping[str, tuple[int, ...]]
Value = int | list[int]


def choose_settings(
    source: Checkpoint,
    params: str | int,
    *,
    prefer: str = "balanced",
    multiple_of: int | None = None,
) -> dict[str, Value]:
    """Return the settings with which the class has as many parameters as ``params`` says.

    ``params`` is a factor such as "2x" or a number such as "25M", reached within 2 %,
    or as near as whole layers and heads allow. With ``prefer`` "width" or "depth" only widths or
    only lengths grow where that suffices. Widths are multiples of ``multiple_of``, by default of 8
    where they are 64 and more.

    Raises UsageError for a budget that makes no sense, Refused where no settings come near.
    """
    if prefer not in PREFERENCES:
        problem = f"there is no preference '{prefer}'"
        raise UsageError(problem, f"one of {', '.join(PREFERENCES)}")
    search = _SettingsSearch(source, multiple_of)
    wanted = goal("parameters", params, search.count({}))
    candidates = list(search.candidates(wanted.target))
    if not candidates:
        reason = "no setting of its configuration makes it wider or deeper"
        raise Refused(str(source.folder), reason, "give the settings: --set hidden_size=1024")
    met = [c for c in candidates if wanted.met(c.cost)]
    if met:
        return min(met, key=lambda c: c.distance(prefer)).settings
    near = min(candidates, key=lambda c: abs(wanted.off(c.cost)))
    if abs(wanted.off(near.cost)) > _COARSE:
        reason = f"no settings come near {wanted.target:,} parameters"
        said = " ".join(f"--set {name}={value}" for name, value in near.settings.items())
        raise Refused(str(source.folder), reason, f"the nearest are {near.cost:,}, with {said}")
    return near.settings


@dataclass(frozen=True)
class _Candidate:
    settings: dict[str, Value]
    wider: float
    deeper: float
    cost: int

    def distance(self, prefer: str) -> float:
        """Return how far the factors are from what is preferred."""
        width, depth = math.log(self.wider), math.log(self.deeper)
        return {"width": depth, "depth": width}.get(prefer, abs(width - depth))


class _SettingsSearch:
    """The settings of one checkpoint that grow, and what the network has with other ones."""

    def __init__(self, source: Checkpoint, multiple_of: int | None) -> None:
        self.source = source
        self.multiple_of = multiple_of
        self.shapes = _shapes(source)
        self.dimensions: dict[tuple[str, int], list[Dimension]] = {}
        self.by_multiples = False  # some width grows to multiples of itself only
        for dimension in analyse(source.model).dimensions:
            for site in dimension.sites:
                self.dimensions.setdefault(site, []).append(dimension)

    def count(self, changes: Mapping[str, Value]) -> int:
        """Return the number of parameters with other settings."""
        module = self.source.with_settings(changes).module if changes else self.source.module
        return sum(parameter.numel() for parameter in module.parameters())

    @cached_property
    def sizes(self) -> dict[str, Value]:
        """Return the settings that are whole numbers, or lists of these."""
        return {
            name: value
            for name, value in self.source.config.to_dict().items()
            if name in self.source.settings and is_size(name, value)
        }

    @cached_property
    def heads(self) -> dict[str, int]:
        """Return the settings that count heads."""
        return {n: v for n, v in self.sizes.items() if counts_heads(n) and isinstance(v, int)}

    @cached_property
    def _kinds(self) -> dict[str, list[str]]:
        """Return the names of settings that are widths, and of those that are lengths."""
        kinds: dict[str, list[str]] = {"width": [], "length": []}
        for name, value in self.sizes.items():
            try:
                shapes = _shapes(self.source.with_settings({name: _times(value, 2)}))
            except (UsageError, Refused):
                continue
            changed = [n for n in self.shapes.keys() & shapes.keys() if self.shapes[n] != shapes[n]]
            if shapes.keys() > self.shapes.keys() and not changed:
                kinds["length"].append(name)
            elif shapes.keys() == self.shapes.keys() and "head" not in name:
                touched = self._touched(changed, shapes)  # heads keep their size
                if touched and all(any(d.grows for d in axis) for axis in touched):
                    kinds["width"].append(name)
                    self.by_multiples |= any(d.step > 1 for axis in touched for d in axis)
        return kinds

    def _touched(self, changed: list[str], shapes: Shapes) -> list[list[Dimension]]:
        """Return the dimensions on each axis of a weight that a setting makes larger."""
        sites = (
            (name, axis)
            for name in changed
            for axis, (old, new) in enumerate(zip(self.shapes[name], shapes[name], strict=True))
            if old != new and name in self.source.model.weights
        )
        return [self.dimensions.get(site, []) for site in sites]

    def candidates(self, target: int) -> Iterator[_Candidate]:
        """Yield what each factor of the widths leaves for the lengths."""
        for factor in self._factors():
            widths = self._widths(factor)
            if widths is None:
                continue
            try:
                base = self.count(widths)
            except (UsageError, Refused):
                continue
            if base > (1 + TOLERANCE) * target:
                break
            yield from self._deeper(widths, factor, base, target)

    def _deeper(
        self, widths: dict[str, Value], factor: Fraction, base: int, target: int
    ) -> Iterator[_Candidate]:
        if widths:
            yield _Candidate(widths, float(factor), 1.0, base)
        names = self._kinds["length"]
        if not names:
            return
        once = self.count(widths | self._lengths(1))
        if once == base:
            return
        near = (target - base) / (once - base)
        for more in {math.floor(near), math.ceil(near)} - {0}:
            lengths = self._lengths(more)
            if 0 < more <= _TIMES * 64:
                total = sum(_sum(self.sizes[name]) for name in names)
                deeper = sum(_sum(lengths[name]) for name in names) / total
                cost = base + more * (once - base)
                yield _Candidate(widths | lengths, float(factor), deeper, cost)

    def _lengths(self, more: int) -> dict[str, Value]:
        """Return the lengths with ``more`` layers in each series."""
        return {
            name: value + more if isinstance(value, int) else [*value[:-1], value[-1] + more]
            for name, value in ((name, self.sizes[name]) for name in self._kinds["length"])
        }

    def _factors(self) -> Iterator[Fraction]:
        """Yield the factors of the widths, 1 first: whole numbers of heads where there are any."""
        unit = math.gcd(*self.heads.values()) if self.heads else 16
        if not self._kinds["width"]:
            unit = 1
        for count in range(unit, _TIMES * unit + 1):
            yield Fraction(count, unit)
            if not self._kinds["width"]:
                return

    def _widths(self, factor: Fraction) -> dict[str, Value] | None:
        """Return all widths and heads times a factor; None where one would be no whole number."""
        if factor == 1:
            return {}
        if self.by_multiples and factor.denominator != 1:
            return None
        values: dict[str, Value] = {}
        for name in (*self._kinds["width"], *self.heads):
            old = self.sizes[name]
            new = [factor * item for item in (old if isinstance(old, list) else [old])]
            if any(item.denominator != 1 or not self._fits(name, int(item)) for item in new):
                return None
            values[name] = list(map(int, new)) if isinstance(old, list) else int(new[0])
        return values

    def _fits(self, name: str, width: int) -> bool:
        if name in self.heads:
            return True
        by = self.multiple_of or (_MULTIPLE if width >= _WIDE else 1)
        return width % by == 0


def is_size(name: str, value: Any) -> bool:
    """Return whether a setting is a whole number, or a list of these, and stands for no token."""
    numbers = value if isinstance(value, list) else [value]
    return not name.endswith("_id") and bool(numbers) and all(map(_whole, numbers))


def counts_heads(name: str) -> bool:
    """Return whether a setting says how many heads there are, which shapes need not show."""
    return bool(_HEADS.search(name))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _times(value: Value, factor: int) -> Value:
    return [item * factor for item in value] if isinstance(value, list) else value * factor


def _sum(value: Value) -> int:
    return sum(value) if isinstance(value, list) else value


def _shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    return {n: tuple(p.shape) for n, p in checkpoint.module.named_parameters()}
