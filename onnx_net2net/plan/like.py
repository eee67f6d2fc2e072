"""Growing into the shape of a larger network: the difference of two analyses, by name, as a plan.

    plan = difference(small, large)
    grown = follow(small, plan).model
    check_like(grown, large)            # every parameter has its name and its shape

Only names and shapes of the larger network are read. What belongs together for its author, such
as hidden = heads x size, is right by construction: the larger network says each factor.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from onnx_net2net.algebra.axes import Atom, Axis, Product, Sum, atoms, canonical
from onnx_net2net.algebra.measures import Measure
from onnx_net2net.deepening.numbered_blocks import Series
from onnx_net2net.errors import Refused
from onnx_net2net.model.graph import parameter_path
from onnx_net2net.model.model import Model
from onnx_net2net.operators.types import FLOATS
from onnx_net2net.plan.lengths import Length, lengths, moved
from onnx_net2net.plan.pairing import original, paired_weights
from onnx_net2net.plan.plans import Plan
from onnx_net2net.plan.steps import follow
from onnx_net2net.step import Deepen, Step, Widen
from onnx_net2net.widening.dimensions import Analysis, Dimension, Freedom, analyse
from onnx_net2net.widening.request import MOST, TIMES

# Names that exporters make up for constants, and count.
_MADE_UP = re.compile(r"val_\d+|.*::.*|/.*|t?\d+")
_SHOWN = 3


@dataclass(frozen=True)
class Width:
    """A dimension of the smaller network, and how wide it is in the larger one."""

    dimension: Dimension
    new: int

    @property
    def grows(self) -> bool:
        """Whether it is wider there."""
        return self.new > self.dimension.width


@dataclass
class Difference:
    """What makes the smaller network as large as the other: widths, lengths, and obstacles."""

    widths: list[Width] = field(default_factory=list)
    lengths: list[Length] = field(default_factory=list)
    obstacles: list[str] = field(default_factory=list)

    def plan(self, seed: int = 0) -> Plan:
        """Return the steps, widths first: the names are then those of the smaller network."""
        steps: list[Step] = []
        widths = {width.dimension.name: width.new for width in self.widths if width.grows}
        copies = {name: n for length in self.lengths for name, n in length.copies.items() if n}
        if widths:
            steps.append(Widen(widths=widths, seed=seed))
        if copies:
            steps.append(Deepen(block=copies, seed=seed))
        return Plan(tuple(steps))


class Unreachable(Refused):
    """The smaller network cannot become the larger one: all ``obstacles``, and the nearest plan."""

    def __init__(self, obstacles: list[str], nearest: Plan) -> None:
        self.obstacles = obstacles
        self.plan = nearest
        several = f"{len(obstacles)} obstacles" if len(obstacles) > 1 else "an obstacle"
        lines = "".join(f"\n  - {obstacle}" for obstacle in obstacles)
        reason = f"it cannot grow into the larger network, for {several}:{lines}"
        super().__init__(None, reason, _offer(nearest))


def difference(small: Model, large: Model, seed: int = 0) -> Plan:
    """Return the plan by which ``small`` gets the names and shapes of ``large``.

    Raises :class:`Unreachable`, which names all obstacles, where none leads there.
    """
    return compare(small, large).plan(seed)


def compare(small: Model, large: Model) -> Difference:
    """Return widths and lengths of ``large`` in terms of ``small``.

    Raises :class:`Unreachable`, which names all obstacles, where no plan leads there.
    """
    own, other = analyse(small), analyse(large)
    result = Difference()
    result.lengths = lengths(Series(own), Series(other), result.obstacles)
    names = _paired(own, other, result)
    pairs = dict(_weights(own, other, names, result.lengths))
    if not result.obstacles:
        pairs = _unnamed(small, other, result) | pairs
    _Widths(own, other, pairs).into(result)
    if result.obstacles:
        raise Unreachable(result.obstacles, result.plan())
    return result


def parameters(analysis: Analysis) -> list[str]:
    """Return the initializers that training changes, as far as a file can tell."""
    model = analysis.model
    graph = analysis.graph
    used = {copy.original for copy in graph.copies.values()} | graph.consumers.keys()
    return [
        name
        for name, weight in model.weights.items()
        if name in used
        and weight.dtype in FLOATS
        and (parameter_path(name) or (weight.size > 1 and not _MADE_UP.fullmatch(name)))
    ]


def _paired(own: Analysis, other: Analysis, result: Difference) -> dict[str, str]:
    """Return what each parameter is called in the larger network; note those of one network."""
    theirs = parameters(other)
    left = dict.fromkeys(theirs)
    names: dict[str, str] = {}
    missing: list[str] = []
    for name in parameters(own):
        new = moved(name, result.lengths)
        if new in left:
            names[name] = new
            del left[new]
        else:
            missing.append(name)
    copied = [prefix for length in result.lengths for prefix in length.added]
    unknown = [n for n in left if not any(n.startswith(prefix + ".") for prefix in copied)]
    for only, where in ((missing, "smaller"), (unknown, "larger")):
        if only:
            result.obstacles.append(f"only the {where} network has {_few(only)}")
    return names


def _weights(
    own: Analysis, other: Analysis, names: Mapping[str, str], lengths: Sequence[Length]
) -> Iterator[tuple[str, str]]:
    """Yield the weights of both solved graphs: each use of a shared one has a copy there."""
    known = other.solution.axes
    copies = {copy.original: name for name, copy in other.graph.copies.items()}
    for name in own.graph.model.weights:
        copied = name in own.graph.copies
        new = names.get(original(own.graph, name))
        if new is not None and name in own.solution.axes:
            same = moved(name, lengths) if copied else new
            if (same := same if same in known else copies.get(new)) is not None:
                yield name, same


def _unnamed(small: Model, other: Analysis, result: Difference) -> dict[str, str]:
    """Return the weights at the same places of both networks, once they are equally long: those
    that an exporter transposed have no names of their own.
    """
    own = analyse(small)
    lacking = {name for name in own.solution.axes if _is_unnamed(own, name)}
    if not lacking:
        return {}
    steps = tuple(step for step in result.plan().steps if isinstance(step, Deepen))
    deep = analyse(follow(small, Plan(steps)).model)
    pairs = paired_weights(deep.graph, other.graph)
    return {name: pairs[name] for name in lacking if name in pairs}


def _is_unnamed(analysis: Analysis, name: str) -> bool:
    weight = analysis.model.weights.get(name)
    floats = weight is not None and weight.dtype in FLOATS and weight.size > 1
    return floats and name not in analysis.graph.copies and bool(_MADE_UP.fullmatch(name))


def _few(names: list[str]) -> str:
    kind = "parameter" if len(names) == 1 else "parameters"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{kind} {', '.join(repr(name) for name in names[:_SHOWN])}{more}"


@dataclass
class _Widths:
    """Widths of dimensions, from the shapes of the weights that both networks have."""

    own: Analysis
    other: Analysis
    pairs: Mapping[str, str]
    sizes: dict[Atom, dict[int, str]] = field(default_factory=dict)  # {width: the first site}
    sites: list[tuple[str, int, Axis, Axis]] = field(default_factory=list)

    def into(self, result: Difference) -> None:
        """Note the widths that differ, and the obstacles."""
        for name, new in self.pairs.items():
            mine, theirs = self.own.solution.axes[name], self.other.solution.axes[new]
            if len(mine) != len(theirs):
                problem = f"'{name}' has {len(mine)} axes, and {len(theirs)} in the larger network"
                result.obstacles.append(problem)
                continue
            for index, (axis, wide) in enumerate(zip(mine, theirs, strict=True)):
                self.sites.append((name, index, axis, wide))
                self._match(canonical(axis), canonical(wide), f"{name}[{index}]")
        self._solve()
        chosen = {atom: next(iter(widths)) for atom, widths in self.sizes.items()}
        for dimension in self.own.dimensions:
            widths = self.sizes.get(dimension.atom, {})
            if len(widths) > 1:
                result.obstacles.append(_clash(dimension, widths))
                chosen[dimension.atom] = dimension.width
            elif widths and (new := chosen[dimension.atom]) != dimension.width:
                problem = _problem(dimension, new)
                if problem is not None:
                    result.obstacles.append(problem)
                result.widths.append(Width(dimension, nearest(dimension, new)))
        self._check(chosen, result)

    def _match(self, axis: Axis, wide: Axis, site: str) -> None:
        """Note the widths of the atoms of canonical ``axis``, which is ``wide`` over there."""
        if isinstance(axis, Atom):
            self.sizes.setdefault(axis, {}).setdefault(int(wide.size), site)
        elif isinstance(axis, Product) and isinstance(wide, Product):
            if len(axis.factors) == len(wide.factors):
                for mine, theirs in zip(axis.factors, wide.factors, strict=True):
                    self._match(mine, theirs, site)
        elif isinstance(axis, Sum) and isinstance(wide, Sum):
            mine, theirs = axis.segments, wide.segments
            if len(mine) == len(theirs):
                for part, other in zip(mine, theirs, strict=True):
                    self._match(part, other, site)

    def _solve(self) -> None:
        """Find the one width that a site leaves open, where its parts do not tell it."""
        for name, index, axis, wide in self.sites:
            size = int(wide.size)
            open_ = [a for a in dict.fromkeys(atoms(axis)) if a not in self.sizes]
            if len(open_) != 1:
                continue
            known = {atom: next(iter(widths)) for atom, widths in self.sizes.items()}
            base, more = (_size(axis, {**known, open_[0]: n}) for n in (0, 1))
            if more > base and size > base and (size - base) % (more - base) == 0:
                width = (size - base) // (more - base)
                self.sizes[open_[0]] = {width: f"{name}[{index}]"}

    def _check(self, chosen: Mapping[Atom, int], result: Difference) -> None:
        """Note the sites that these widths do not give the size of the larger network."""
        clashing = {atom for atom, widths in self.sizes.items() if len(widths) > 1}
        dimensions = self.own.by_atom
        for name, index, axis, wide in self.sites:
            inner = set(atoms(axis))
            if inner & clashing:
                continue
            size = int(wide.size)
            if any(a not in dimensions and chosen.get(a, a.size) != a.size for a in inner):
                reason = "no dimension that can grow lies on it"
            elif _size(axis, chosen) != size:
                reason = f"it is made of {canonical(axis)} here, and of {canonical(wide)} there"
            else:
                continue
            result.obstacles.append(
                f"axis {index} of '{name}' cannot grow from {axis.size} to {size}: {reason}"
            )


def _size(axis: Axis, widths: Mapping[Atom, int]) -> int:
    return int(Measure(lambda free: widths.get(free, free.size), math.prod)(axis))


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


def nearest(dimension: Dimension, new: int) -> int:
    """Return the width nearest to ``new`` that a dimension may have."""
    if new <= dimension.width or dimension.growth is Freedom.FIXED:
        return dimension.width
    below, above = _below(dimension, new), _above(dimension, new)
    return below if new - below < above - new and below > dimension.width else above


def _below(dimension: Dimension, new: int) -> int:
    return new // dimension.step * dimension.step


def _above(dimension: Dimension, new: int) -> int:
    return -(-new // dimension.step) * dimension.step


def _offer(plan: Plan) -> str | None:
    """Say what can be done instead."""
    parts: list[str] = []
    for step in plan.steps:
        if isinstance(step, Widen) and step.widths:
            parts += [f"{name} = {width}" for name, width in step.widths.items()]
        elif isinstance(step, Deepen) and isinstance(step.block, Mapping):
            parts += [f"{n} x {name}" for name, n in step.block.items()]
    if not parts:
        return None
    return f"the nearest that can be reached: {', '.join(parts)}"


def check_like(grown: Model, large: Model) -> None:
    """Raise Refused unless every parameter of both has the same name and shape."""
    own, other = ({n: m.weights[n] for n in parameters(analyse(m))} for m in (grown, large))
    steps = (name for entry in grown.history for name in entry.get("inserted", ()))
    if inserted := sorted(own.keys() & set(steps)):
        reason = f"it takes operators that the larger network does not have, with {_few(inserted)}"
        raise Refused(None, reason, "choose a larger network in which less grows at once")
    wrong = [f"'{name}' is in one of them only" for name in sorted(own.keys() ^ other.keys())]
    for name in sorted(own.keys() & other.keys()):
        shapes = own[name].shape, other[name].shape
        if shapes[0] != shapes[1]:
            wrong.append(f"'{name}' became {shapes[0]}, and is {shapes[1]} in the larger one")
    pairs = paired_weights(analyse(grown).graph, analyse(large).graph)
    for name, new in pairs.items():
        if name not in own and new not in other:
            mine, theirs = (
                analyse(m).graph.model.weights[n] for m, n in ((grown, name), (large, new))
            )
            if mine.shape != theirs.shape and mine.dtype in FLOATS:
                wrong.append(
                    f"'{name}' became {mine.shape}, and is {theirs.shape} in the larger one"
                )
    if wrong:
        reason = f"the grown network is not of the larger one's shape: {'; '.join(wrong)}"
        raise Refused(None, reason, "this is a defect: please report it with both models")
