"""Growing into the shape of a larger network: the difference of two analyses, by name, as a plan.

    plan = difference(small, large)
    grown = follow(small, plan).model
    check_like(grown, large)            # every parameter has its name and its shape

Only names and shapes of the larger network are read. What belongs together for its author, such
as hidden = heads x size, is right by construction: the larger network says each factor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from onnx_net2net.deepening.numbered_blocks import Series
from onnx_net2net.errors import Refused
from onnx_net2net.model.graph import Graph
from onnx_net2net.model.model import AnyModel, Model, load, load_shape
from onnx_net2net.operators.types import FLOATS
from onnx_net2net.plan.lengths import Length, lengths, moved
from onnx_net2net.plan.pairing import original, paired_weights
from onnx_net2net.plan.plans import Plan
from onnx_net2net.plan.steps import follow
from onnx_net2net.plan.widths import Width, widths
from onnx_net2net.step import Deepen, Step, Widen
from onnx_net2net.widening.dimensions import Analysis, analyse

# Names that exporters make up for constants, and count.
_MADE_UP = re.compile(r"val_\d+(_\d+)*|.*::.*|/.*|t?\d+")
_SHOWN = 3


@dataclass
class ShapeDifference:
    """What makes the smaller network as large as the other: widths, lengths, and obstacles."""

    widths: list[Width] = field(default_factory=list)
    lengths: list[Length] = field(default_factory=list)
    obstacles: list[str] = field(default_factory=list)

    def plan(self, seed: int = 0) -> Plan:
        """Return the steps: widths before copies, whose names are then those of the smaller
        network, but behind copies that make other layers wider.
        """
        steps: list[Step] = []
        new = {width.dimension.name: width.new for width in self.widths if width.grows}
        first, copies = (
            {n: count for length in self.lengths if length.beside is beside
             for n, count in length.copies.items()}
            for beside in (True, False)
        )  # fmt: skip
        if first:
            steps.append(Deepen(block=first, seed=seed))
        if new:
            steps.append(Widen(widths=new, seed=seed))
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


def difference(small: AnyModel, large: AnyModel, seed: int = 0) -> Plan:
    """Return the plan by which ``small`` gets the names and shapes of ``large``, whose weights may
    be missing.

    Raises :class:`Unreachable`, which names all obstacles, where none leads there.
    """
    return compare(load(small), load_shape(large)).plan(seed)


def compare(small: Model, large: Model) -> ShapeDifference:
    """Return widths and lengths of ``large`` in terms of ``small``.

    Raises :class:`Unreachable`, which names all obstacles, where no plan leads there.
    """
    own, other = analyse(small), analyse(large)
    result = ShapeDifference()
    result.lengths = lengths(Series(own), Series(other), result.obstacles)
    if any(length.beside for length in result.lengths):
        first = [length for length in result.lengths if length.beside]
        deeper = follow(small, ShapeDifference(lengths=first).plan()).model
        rest = compare(deeper, large)
        return ShapeDifference(rest.widths, [*first, *rest.lengths])
    names = _names(own, other, result.lengths)
    pairs = dict(_weights(own, other, names, result.lengths))
    missing = [name for name in parameters(own) if name not in names]
    unknown = _unknown(other, names, result.lengths)
    unnamed = any(_is_unnamed(own, name) for name in own.solution.axes)
    if not result.obstacles and (missing or unknown or unnamed):
        places = _places(small, other, result)
        pairs = places | pairs
        known = dict(_anonymous(own.graph, other.graph, places))
        missing = [name for name in missing if name not in known]
        unknown = [name for name in unknown if name not in known.values()]
    for only, where in ((missing, "smaller"), (unknown, "larger")):
        if only:
            result.obstacles.append(f"only the {where} network has {_few(only)}")
    result.widths, in_the_way = widths(own, other, pairs)
    result.obstacles += in_the_way
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
        and not _MADE_UP.fullmatch(name)
        and (weight.size > 1 or "." in name)
    ]


def _names(own: Analysis, other: Analysis, lengths: Sequence[Length]) -> dict[str, str]:
    """Return what each parameter is called in the larger network, if it has that name."""
    theirs = set(parameters(other))
    names = {name: moved(name, lengths) for name in parameters(own)}
    return {name: new for name, new in names.items() if new in theirs}


def _unknown(other: Analysis, names: Mapping[str, str], lengths: Sequence[Length]) -> list[str]:
    """Return the parameters of the larger network that are neither named here nor copied."""
    copied = tuple(f"{member}." for length in lengths for member in length.added)
    known = set(names.values())
    return [n for n in parameters(other) if n not in known and not n.startswith(copied)]


def _weights(
    own: Analysis, other: Analysis, names: Mapping[str, str], lengths: Sequence[Length]
) -> Iterator[tuple[str, str]]:
    """Yield the weights of both solved graphs: each use of a shared one has a copy there."""
    known = other.solution.axes
    copies = {copy.original: name for name, copy in other.graph.copies.items()}
    for name in own.solution.axes:
        new = names.get(original(own.graph, name))
        if new is not None:
            same = moved(name, lengths) if name in own.graph.copies else new
            if same in known:
                yield name, same
            elif new in copies:
                yield name, copies[new]


def _places(small: Model, other: Analysis, result: ShapeDifference) -> dict[str, str]:
    """Return the weights at the same places of both networks, once they are equally long.

    Exporters give transposed weights no names, and keep one of several equal ones.
    """
    steps = tuple(step for step in result.plan().steps if isinstance(step, Deepen))
    pairs = paired_weights(analyse(follow(small, Plan(steps)).model).graph, other.graph)
    weights = ((n, w) for n, w in analyse(small).graph.model.weights.items() if w.dtype in FLOATS)
    names = ((name, moved(name, result.lengths)) for name, _ in weights)
    return {name: pairs[new] for name, new in names if new in pairs}


def _anonymous(own: Graph, other: Graph, places: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what files call the weights at the same places, if one of them has no own name there:
    it was made up, or stands for several.
    """
    for name, new in places.items():
        ends = original(own, name), original(other, new)
        shared = name in own.copies or new in other.copies
        if shared or any(map(_MADE_UP.fullmatch, ends)):
            yield ends


def _is_unnamed(analysis: Analysis, name: str) -> bool:
    weight = analysis.model.weights.get(name)
    floats = weight is not None and weight.dtype in FLOATS and weight.size > 1
    return floats and name not in analysis.graph.copies and bool(_MADE_UP.fullmatch(name))


def _few(names: list[str]) -> str:
    kind = "parameter" if len(names) == 1 else "parameters"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{kind} {', '.join(repr(name) for name in names[:_SHOWN])}{more}"


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
    graphs = analyse(grown).graph, analyse(large).graph
    pairs = paired_weights(*graphs)
    at_places = {name for ends in _anonymous(*graphs, pairs) for name in ends}
    alone = (own.keys() ^ other.keys()) - at_places
    wrong = [f"'{name}' is in one of them only" for name in sorted(alone)]
    for name, new in {**pairs, **{name: name for name in own.keys() & other.keys()}}.items():
        mine, theirs = graphs[0].model.weights.get(name), graphs[1].model.weights.get(new)
        if mine and theirs and mine.dtype in FLOATS and mine.shape != theirs.shape:
            wrong.append(f"'{name}' became {mine.shape}, and is {theirs.shape} in the larger one")
    if wrong:
        reason = f"the grown network is not of the larger one's shape: {'; '.join(wrong)}"
        raise Refused(None, reason, "this is a defect: please report it with both models")
