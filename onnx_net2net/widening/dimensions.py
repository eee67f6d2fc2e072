"""Named dimensions of a model: their widths, how they may grow, and what they touch.

>>> for dimension in inspect(model):
...     print(dimension.name, dimension.width, dimension.growth)
conv1 64 any
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from math import prod

from onnx import TensorProto

from onnx_net2net.algebra.axes import Atom, Axis, Pin, Sum, atoms, canonical, pin
from onnx_net2net.algebra.measures import Measure
from onnx_net2net.algebra.sizes import AT_RUN_TIME, trial
from onnx_net2net.analysis.folding import foldable
from onnx_net2net.analysis.norms import Normalization, normalizations
from onnx_net2net.analysis.solver import Applied, Solution, solve
from onnx_net2net.model.graph import Graph, Node, parameter_path, scope_path
from onnx_net2net.model.model import AnyModel, Model, load
from onnx_net2net.model.sequences import without_sequences
from onnx_net2net.model.unique_names import with_unique_names
from onnx_net2net.model.untying import untied
from onnx_net2net.operators.language import AS_OFTEN, Reduction
from onnx_net2net.operators.types import FLOATS
from onnx_net2net.widening.contraction import FOLD, Contraction, contractions, obstacle
from onnx_net2net.widening.feasibility import rehearse
from onnx_net2net.widening.padding import NotPaddable, Padding, plan
from onnx_net2net.widening.parts import part_names


class Freedom(StrEnum):
    """How a dimension may grow."""

    ANY = "any"  # to every larger width
    MULTIPLE = "multiple"  # to every multiple of its width
    FIXED = "fixed"


@dataclass(eq=False)
class Dimension:
    """A set of axes that resize together.

    ``width`` is in units; ``growth`` is "any" (every larger width), "multiple" (every multiple
    of the width) or "fixed", and ``reason`` says why it is not "any". ``sites`` are the
    (initializer, axis) pairs it lies on, ``elements`` the number of weight elements there.
    """

    name: str
    width: int
    growth: Freedom
    reason: str | None
    remedy: str | None
    sites: list[tuple[str, int]]
    nodes: list[str]
    writers: list[str]
    readers: list[str]
    elements: int
    atom: Atom = field(repr=False)
    uses: dict[str, str] = field(repr=False)  # copies that get their own, and of which initializer

    @property
    def grows(self) -> bool:
        """Return whether it may have any larger width."""
        return self.growth is not Freedom.FIXED

    @property
    def step(self) -> int:
        """Return what every width that it may have is a multiple of."""
        return self.width if self.growth is Freedom.MULTIPLE else 1


@dataclass
class Analysis:
    """A solved model with its dimensions. ``solution`` may be of a plainer form of ``model``."""

    model: Model
    solution: Solution
    dimensions: list[Dimension]
    by_name: dict[str, Dimension]
    by_atom: dict[Atom, Dimension]
    norms: dict[int, Normalization]  # by the positions of the nodes that compute one
    paddings: dict[Atom, Padding]

    @property
    def graph(self) -> Graph:
        """Return the graph that was solved."""
        return self.solution.graph


def inspect(model: AnyModel) -> list[Dimension]:
    """Return all dimensions on which weights lie, in graph order."""
    return analyse(load(model)).dimensions


def analyse(model: Model) -> Analysis:
    """Solve ``model`` once; later calls reuse the result."""
    return model.derived(_analyse)


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause the cyclic garbage collector, which would scan the growing graph time and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@uncollected()
def _analyse(model: Model) -> Analysis:
    untied_model, copies = untied(with_unique_names(without_sequences(model)))
    solution = solve(Graph(untied_model, copies))
    multiples = _constrain(solution)
    survey = _survey(solution)
    for free in survey.sites:
        if free.size == 0:
            pin(free, Pin(None, "it is empty: there is no unit to copy"))
        elif not free.pins and not isinstance(free.size, int):
            pin(free, Pin(None, f"its size, {free.size}, {AT_RUN_TIME}"))
    for free, why in rehearse(solution, (a for a in survey.sites if not a.pins)).items():
        pin(free, why)
    norms = normalizations(solution)
    paddings = _paddings(solution, survey, multiples, norms)
    dimensions = _named(solution, survey, multiples)
    return Analysis(
        model,
        solution,
        dimensions,
        {d.name: d for d in dimensions},
        {d.atom: d for d in dimensions},
        norms,
        paddings,
    )


def _paddings(
    solution: Solution,
    survey: _Survey,
    multiples: dict[Atom, Pin],
    norms: Mapping[int, Normalization],
) -> dict[Atom, Padding]:
    """Return how atoms are padded, which lifts the restriction of ``multiples`` where it works.

    Of several nodes that are one norm it spares the operators that shares would insert.
    """
    paddings: dict[Atom, Padding] = {}
    decomposed = (free for n in norms.values() if n.epsilon_input for free in atoms(n.axis))
    for free in dict.fromkeys((*multiples, *decomposed)):
        if free.pins or free not in survey.sites:
            continue
        try:
            padding = plan(solution, norms, free, survey.applied[free])
        except NotPaddable as problem:
            if (why := multiples.get(free)) is not None:
                reason = f"{why.reason}; padding would not be exact: {problem}"
                multiples[free] = Pin(why.node, reason, why.remedy)
            continue
        if free in multiples or not padding.idle:
            paddings[free] = padding
            multiples.pop(free, None)
    return paddings


def _constrain(solution: Solution) -> dict[Atom, Pin]:
    """Pin what cannot be shared; return the atoms that grow by multiples only, and why."""
    symbols = Measure(lambda free: not isinstance(free.size, int), sum)
    for contraction in contractions(solution):
        problem = obstacle(solution, contraction) or _unsteady(solution, contraction, symbols)
        if problem is not None:
            reason, remedy = problem
            pin(contraction.axis, Pin(contraction.applied.node.label, reason, remedy))
    multiples: dict[Atom, Pin] = {}
    for applied in solution.applied.values():
        for name in applied.rule.normalised:
            if name.endswith("*"):
                axes = [axis for key, axis in applied.env.items() if key.startswith(name[:-1])]
            else:
                axes = [applied.env[name]] if name in applied.env else []
            for axis in axes:
                _normalise(solution, applied, canonical(axis), multiples)
    return multiples


def _unsteady(
    solution: Solution, contraction: Contraction, symbols: Measure
) -> tuple[str, None] | None:
    """Say why shares cannot lie along an axis: a part of it is as long as the inputs are."""
    if contraction.reduce in AS_OFTEN or all(free.pins for free in atoms(contraction.axis)):
        return None
    node = contraction.applied.node
    sides = [solution.axes[node.inputs[index]][axis] for index, axis in contraction.places]
    if not any(symbols(side) and len(atoms(side)) > 1 for side in sides):
        return None
    return "it is summed over together with what is known at run time only", None


def _normalise(
    solution: Solution, applied: Applied, axis: Axis, multiples: dict[Atom, Pin]
) -> None:
    """Restrict an axis that a node normalises over to multiples, or pin it."""
    label = applied.node.label
    if applied.node.inputs[0] in solution.graph.derived:
        reason = "the weights themselves are normalised in the graph (weight standardisation)"
        return pin(axis, Pin(label, reason, FOLD))
    if isinstance(axis, Sum) and len({tuple(atoms(s)) for s in axis.segments}) > 1:
        # Copies must be equally frequent over the whole; one segment cannot grow by itself.
        return pin(axis, Pin(label, "normalises over several dimensions together"))
    why = Pin(label, "is normalised over it, so all units must be copied equally often")
    for free in atoms(axis):
        multiples.setdefault(free, why)
    return None


@dataclass
class _Survey:
    """Who touches which atom."""

    sites: dict[Atom, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))
    writers: dict[Atom, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    readers: dict[Atom, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    # What the node that writes it first is called, and which part of its axis the atom is, if one.
    names: dict[Atom, tuple[str, int | None]] = field(default_factory=dict)
    merged: dict[Axis, None] = field(default_factory=dict)  # axes of several, that matrices write
    applied: dict[Atom, list[Applied]] = field(default_factory=lambda: defaultdict(list))
    _atoms: dict[Axis, tuple[Atom, ...]] = field(default_factory=dict)

    def met(self, applied: Applied) -> set[Atom]:
        """Return the atoms that a node touches and on which weights lie."""
        return {free for axis in set(_touched(applied).values()) for free in self.atoms(axis)}

    def atoms(self, axis: Axis) -> tuple[Atom, ...]:
        """Return the atoms of ``axis`` on which weights lie."""
        if axis not in self._atoms:
            members = dict.fromkeys(atoms(axis))
            self._atoms[axis] = tuple(free for free in members if free in self.sites)
        return self._atoms[axis]


def _touched(applied: Applied) -> dict[str, Axis]:
    """Return the axes of a node by their names, but for those that it only cuts off."""
    reduce, axes = applied.rule.reduce, applied.env
    if Reduction.UNREAD not in reduce.values():
        return axes
    return {name: axis for name, axis in axes.items() if reduce.get(name) != Reduction.UNREAD}


def _survey(solution: Solution) -> _Survey:
    """Note for every atom on which weights lie the nodes that touch, write and read it."""
    survey = _Survey()
    for name in solution.graph.model.weights:
        for index, axis in enumerate(solution.axes.get(name, ())):
            for free in dict.fromkeys(atoms(axis)):
                survey.sites[free].append((name, index))
    for applied in solution.applied.values():
        _survey_node(solution, applied, survey)
    return survey


def _survey_node(solution: Solution, applied: Applied, survey: _Survey) -> None:
    """Note the atoms that a node touches, and the names that it lends them."""
    met = survey.met(applied)
    if not met:
        return
    node, name = applied.node, applied.node.name
    for free in met:
        survey.applied[free].append(applied)
    touched = _touched(applied)
    for contracted in applied.pattern.contracted:
        for free in survey.atoms(touched[contracted]) if contracted in touched else ():
            survey.readers[free][name] = None
    if node.outputs and node.outputs[0] in solution.graph.derived:
        return
    for axis in written(solution, applied):
        members = list(dict.fromkeys(atoms(axis)))
        for free in members:
            survey.writers[free][name] = None
        whole = canonical(axis)  # an atom, else a width of the node is not one of the dimension
        if not isinstance(whole, Atom) and applied.pattern.contracted:
            survey.merged[whole] = None
        if survey.names.keys() >= set(members):
            continue
        base = title(solution, applied)
        for position, free in enumerate(members):
            survey.names.setdefault(free, (base, None if free is whole else position))


def written(solution: Solution, applied: Applied) -> list[Axis]:
    """Return the output axes that weights give: rows of a matrix, filters of a convolution."""
    node, derived = applied.node, solution.graph.derived
    if derived.isdisjoint(node.inputs):
        return []
    given: set[int] = set()
    for operand, axes in zip(node.inputs, applied.pattern.output_axes, strict=False):
        if operand in derived:
            given.update(axes)
    if not given:
        return []
    written = solution.axes.get(node.outputs[0], [])
    return [written[i] for i in sorted(given) if i < len(written) and written[i].size != 1]


def title(solution: Solution, applied: Applied) -> str:
    """Return what people call this node: its weight's module path, its own, or its name.

    A weight that several nodes read (a tied embedding) bears the name of one of them only.
    """
    node, graph = applied.node, solution.graph
    own = module_path(node)
    for operand in node.inputs[1:2] + node.inputs[:1] + node.inputs[2:]:
        path = parameter_path(operand) if operand in graph.model.weights else None
        if path and (own is None or len(graph.consumers[operand]) == 1):
            return path
    return own or node.name


def module_path(node: Node) -> str | None:
    """Return the module that PyTorch's exporters say this node came from."""
    return scope_path(node.proto)


def _named(solution: Solution, survey: _Survey, multiples: dict[Atom, Pin]) -> list[Dimension]:
    weights = solution.graph.model.weights
    order = dict.fromkeys(survey.names) | dict.fromkeys(survey.sites)
    members = [free for free in order if survey.sites.get(free)]
    names = _names(solution, survey, members, multiples)
    folds = {solution.graph.nodes[at].label for at in foldable(solution.graph)}
    dimensions = []
    for free in members:
        sites = list(dict.fromkeys(_site(solution, place) for place in survey.sites[free]))
        growth, why = _growth(free, multiples)
        if growth is Freedom.FIXED and all(_holds_sizes(solution, name) for name, _ in sites):
            continue
        helps = why is not None and why.node in folds and weights[sites[0][0]].dtype in FLOATS
        dimensions.append(
            Dimension(
                name=names[free],
                width=int(trial(free.size)),
                growth=growth,
                reason=None if why is None else f"{why.node or ''} {why.reason}".strip(),
                remedy=(why.remedy if why is not None else None) or (FOLD if helps else None),
                sites=sites,
                nodes=list(dict.fromkeys(a.node.name for a in survey.applied[free])),
                writers=list(survey.writers[free]),
                readers=list(survey.readers[free]),
                elements=sum(prod(weights[w].shape) for w in {s[0] for s in sites}),
                atom=free,
                uses={n: _site(solution, (n, a))[0] for n, a in survey.sites[free]},
            )
        )
    return dimensions


def _holds_sizes(solution: Solution, weight: str) -> bool:
    """Return whether a weight is a few whole numbers: sizes, axes, positions."""
    dtype = solution.graph.model.weights[weight].dtype
    return dtype == TensorProto.INT64 and weight in solution.shapes.stored.value


def _names(
    solution: Solution, survey: _Survey, members: list[Atom], multiples: dict[Atom, Pin]
) -> dict[Atom, str]:
    """Return unique names; what can grow chooses first: an LSTM's units before its directions."""
    taken: set[str] = set()
    names: dict[Atom, str] = {}
    parts = part_names(solution, survey.merged)
    for free in sorted(members, key=lambda free: _growth(free, multiples)[0] is Freedom.FIXED):
        weight, axis = _site(solution, survey.sites[free][0])
        base, part = survey.names.get(free) or (f"{weight}[{axis}]", None)
        if part is not None:
            base = f"{base}:{parts.get(free, part)}"
        count = 1
        names[free] = base
        while names[free] in taken:
            count += 1
            names[free] = f"{base}#{count}"
        taken.add(names[free])
    return names


def _site(solution: Solution, place: tuple[str, int]) -> tuple[str, int]:
    """Return where the file has what the analysis may have as a copy."""
    name, axis = place
    copied = solution.graph.copies.get(name)
    return (name, axis) if copied is None else (copied.original, axis)


def _growth(free: Atom, multiples: dict[Atom, Pin]) -> tuple[Freedom, Pin | None]:
    """Return how a dimension may grow, and why not to any width."""
    if free.pins:
        return Freedom.FIXED, free.pins[0]
    if free.size == 0:
        return Freedom.FIXED, Pin(None, "has no unit that could be copied")
    if free in multiples:
        return Freedom.MULTIPLE, multiples[free]
    return Freedom.ANY, None


def growable(dimensions: Iterable[Dimension]) -> list[Dimension]:
    """Return those that may grow."""
    return [d for d in dimensions if d.grows]
