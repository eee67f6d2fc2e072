"""How wide the dimensions of a network are in a larger one, by the weights that both have.

    found, obstacles = widths(analyse(small), analyse(large), {"fc1.weight": "fc1.weight", ...})

An axis of a weight is made of factors and segments, such as ``((4 16) + (4 16) + (4 16))`` of
queries, keys and values. That of the larger network, ``((6 16) + (6 16) + (6 16))``, says what each
of them becomes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from onnx_net2net.algebra.axes import Atom, Axis, Product, atoms, canonical
from onnx_net2net.algebra.measures import Measure
from onnx_net2net.algebra.sizes import trial
from onnx_net2net.widening.dimensions import Analysis, Dimension, Freedom
from onnx_net2net.widening.request import MOST, TIMES

__all__ = ["Width", "widths"]


@dataclass(frozen=True)
class Width:
    """A dimension of the smaller network, and how wide it is in the larger one."""

    dimension: Dimension
    new: int

    @property
    def grows(self) -> bool:
        """Whether it is wider there."""
        return self.new > self.dimension.width


def widths(
    own: Analysis, other: Analysis, pairs: Mapping[str, str]
) -> tuple[list[Width], list[str]]:
    """Return the widths that differ, as near as can be, and what is in the way of all of them."""
    reading = _Reading(own, other, pairs)
    return list(reading.all()), reading.obstacles


@dataclass
class _Reading:
    """Widths of dimensions, from the shapes of the weights that both networks have."""

    own: Analysis
    other: Analysis
    pairs: Mapping[str, str]
    sizes: dict[Atom, dict[int, str]] = field(default_factory=dict)  # {width: the first site}
    sites: list[tuple[str, int, Axis, Axis]] = field(default_factory=list)
    obstacles: list[str] = field(default_factory=list)

    def all(self) -> Iterator[Width]:
        """Yield the widths that differ; the rest are obstacles."""
        for name, other in self.pairs.items():
            mine, theirs = self.own.solution.axes[name], self.other.solution.axes[other]
            if len(mine) != len(theirs):
                self.obstacles.append(
                    f"'{name}' has {len(mine)} axes, and {len(theirs)} in the larger network"
                )
                continue
            for index, (axis, wide) in enumerate(zip(mine, theirs, strict=True)):
                self.sites.append((name, index, axis, wide))
                self._match(canonical(axis), canonical(wide), f"{name}[{index}]")
        chosen = {atom: next(iter(widths)) for atom, widths in self.sizes.items()}
        for dimension in self.own.dimensions:
            widths = self.sizes.get(dimension.atom, {})
            if len(widths) > 1:
                self.obstacles.append(_clash(dimension, widths))
            elif widths and (new := chosen[dimension.atom]) != dimension.width:
                if (problem := _problem(dimension, new)) is not None:
                    self.obstacles.append(problem)
                yield Width(dimension, _nearest(dimension, new))
        self._check(chosen)

    def _match(self, axis: Axis, wide: Axis, site: str) -> None:
        """Note the widths of the atoms of canonical ``axis``, which is ``wide`` over there."""
        if isinstance(axis, Atom):
            self.sizes.setdefault(axis, {}).setdefault(int(trial(wide.size)), site)
        elif type(axis) is type(wide) and len(_parts(axis)) == len(_parts(wide)):
            for mine, theirs in zip(_parts(axis), _parts(wide), strict=True):
                self._match(mine, theirs, site)

    def _check(self, chosen: Mapping[Atom, int]) -> None:
        """Note the sites that these widths do not give the size of the larger network."""
        clashing = {atom for atom, widths in self.sizes.items() if len(widths) > 1}
        dimensions = self.own.by_atom
        for name, index, axis, wide in self.sites:
            inner = set(atoms(axis))
            if inner & clashing:
                continue
            size = int(trial(wide.size))
            if any(a not in dimensions and chosen.get(a, a.size) != a.size for a in inner):
                reason = "no dimension that can grow lies on it"
            elif _size(axis, chosen) != size:
                reason = f"it is made of {canonical(axis)} here, and of {canonical(wide)} there"
            else:
                continue
            self.obstacles.append(
                f"axis {index} of '{name}' cannot grow from {axis.size} to {size}: {reason}"
            )


def _parts(axis: Axis) -> tuple[Axis, ...]:
    """Return the factors or segments of a canonical axis."""
    if isinstance(axis, Atom):
        return ()
    return axis.factors if isinstance(axis, Product) else axis.segments


def _size(axis: Axis, widths: Mapping[Atom, int]) -> int:
    return int(Measure(lambda free: widths.get(free, int(trial(free.size))), math.prod)(axis))


def _clash(dimension: Dimension, widths: Mapping[int, str]) -> str:
    said = ", ".join(f"{width} at {site}" for width, site in widths.items())
    return f"'{dimension.name}' is one dimension here, of several widths there: {said}"


def _problem(dimension: Dimension, new: int) -> str | None:
    """Say why a dimension cannot become ``new`` wide; None where it can."""
    name, width = dimension.name, dimension.width
    if new < width:
        return f"'{name}' would shrink from {width} to {new}"
    if not dimension.grows:
        return f"'{name}' cannot grow from {width} to {new}: {dimension.reason}"
    if new % dimension.step:
        near = sorted({w for w in (_below(dimension, new), _above(dimension, new)) if w > width})
        offer = " or ".join(map(str, near))
        return (
            f"'{name}' cannot grow from {width} to {new}, which is no multiple of it: "
            f"{dimension.reason}; the nearest are {offer}"
        )
    if new > min(MOST, TIMES * width):
        return f"'{name}' would grow from {width} to {new}, which is beyond all bounds"
    return None


def _nearest(dimension: Dimension, new: int) -> int:
    """Return the width nearest to ``new`` that a dimension may have."""
    if new <= dimension.width or dimension.growth is Freedom.FIXED:
        return dimension.width
    below, above = _below(dimension, new), _above(dimension, new)
    return below if new - below < above - new and below > dimension.width else above


def _below(dimension: Dimension, new: int) -> int:
    return new // dimension.step * dimension.step


def _above(dimension: Dimension, new: int) -> int:
    return -(-new // dimension.step) * dimension.step
