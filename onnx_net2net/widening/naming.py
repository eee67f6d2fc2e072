"""What a user may call a dimension. The first of these that the network has is meant:

1. a dimension, by the name that `inspect` gives it: `conv1`, or `attn:heads` of a merged axis
2. a module path: what the weights of its nodes write, those of modules inside it included
3. a parameter: what the nodes that read it write with it
4. a node: what its weights write, else what passes through it
5. a tensor: its own channels; inputs and outputs of the network keep theirs and are refused
6. the beginning of node names: `block1` of `model/block1/conv/Conv2D`

A name means one dimension. Where several could grow at a place, they are listed. Names with ``*``,
``?`` or ``[`` that are none of these are patterns: they mean every dimension that they match.
"""

from __future__ import annotations

import difflib
from bisect import bisect_left
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from itertools import islice
from math import prod

from onnx_net2net.algebra.axes import Axis, atoms, canonical
from onnx_net2net.algebra.measures import Measure
from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.model.graph import Graph, Node, parameter_path
from onnx_net2net.widening.dimensions import (
    Analysis,
    Dimension,
    growable,
    module_path,
    written,
)

_MARKS = "*?["  # of a pattern
_CLOSE = 24  # names that are tried for a hint
_HINT = "'onnx-net2net inspect MODEL' lists the dimensions"


def resolve(analysis: Analysis, name: str, width: int) -> tuple[Dimension, int]:
    """Return the dimension that ``name`` means, and its width once that place is ``width`` wide.

    Raises UsageError for an unknown name and for one that means several dimensions, Refused where
    none can grow, or where the axis is made of several and ``width`` does not say which shall.
    """
    if name in analysis.by_name:
        return analysis.by_name[name], width
    axes = {canonical(axis): axis for axis in axes_at(analysis, name)}
    free = {top: growable(members_of(analysis, axis)) for top, axis in axes.items()}
    single = {d for dimensions in free.values() for d in dimensions}
    if len(single) > 1 and sum(map(bool, free.values())) > 1:
        several = [d for d in analysis.dimensions if d in single]
        widths = ", ".join(f"'{d.name}' ({d.width})" for d in several)
        above = {d: d.step * max(-(-width // d.step), d.width // d.step + 1) for d in several}
        offers = "; ".join(f"--dim '{d.name}' --width {nearest}" for d, nearest in above.items())
        raise UsageError(f"'{name}' holds several dimensions: {widths}", f"name one: {offers}")
    if len(single) == 1 and (free.get(atom := next(iter(single)).atom)):
        return analysis.by_atom[atom], width
    top = next((top for top, dimensions in free.items() if dimensions), next(iter(axes)))
    return _composite(analysis, name, axes[top], width)


def matching(analysis: Analysis, name: str) -> list[Dimension]:
    """Return the dimensions that a name or a pattern means, in graph order; they may be fixed.

    Raises UsageError where there is none.
    """
    if name in analysis.by_name:
        return [analysis.by_name[name]]
    if not is_pattern(analysis, name):
        members = {d for axis in axes_at(analysis, name) for d in members_of(analysis, axis)}
        return [d for d in analysis.dimensions if d in members]
    levels: tuple[Callable[[Dimension], Iterable[str]], ...] = (
        lambda d: (d.name,),
        lambda d: d.writers,
        lambda d: (p for n in (d.name, *d.writers) for p in _containers(n)),
    )
    for names in levels:
        matched = [d for d in analysis.dimensions if any(fnmatchcase(n, name) for n in names(d))]
        if matched:
            return matched
    raise UsageError(f"no dimension matches '{name}'", near(name, _names(analysis), analysis))


def growing(analysis: Analysis, name: str) -> list[Dimension]:
    """Return the dimensions that a name or pattern means and that can grow. Refused if none can."""
    named = matching(analysis, name)
    if not (chosen := growable(named)):
        raise Refused(name, f"it cannot grow: {named[0].reason}", named[0].remedy)
    return chosen


def is_pattern(analysis: Analysis, name: str) -> bool:
    """Return whether ``name`` is a pattern, and nothing is called so."""
    marked = any(mark in name for mark in _MARKS) and name not in analysis.by_name
    return marked and _axes_called(analysis, name) is None


def axes_at(analysis: Analysis, name: str) -> list[Axis]:
    """Return the axes that ``name`` may mean: at least one.

    Raises UsageError for an unknown name, Refused for one on whose axes no weights lie.
    """
    called_so = _axes_called(analysis, name)
    if called_so is None:
        problem = f"there is no node, tensor, parameter or module '{name}'"
        raise UsageError(problem, near(name, _names(analysis), analysis))
    axes = [axis for axis in called_so if members_of(analysis, axis)]
    if not axes:
        barriers, producer = analysis.solution.barriers, analysis.graph.producer
        nodes = called(analysis.graph, name) or ([producer[name]] if name in producer else [])
        why = next((barriers[n.position] for n in nodes if n.position in barriers), None)
        raise Refused(name, f"it cannot grow: {why or 'no weights lie on its axes'}", _HINT)
    return axes


def _axes_called(analysis: Analysis, name: str) -> list[Axis] | None:
    """Return the axes at what is called ``name``, None where nothing is. See the module."""
    graph, weights = analysis.graph, analysis.graph.model.weights
    if nodes := inside(graph, name):
        exact = [n for n in nodes if name in _modules(graph, n)]
        return _written(analysis, nodes) or _passing(analysis, exact or nodes)
    if name in weights:
        own = [axis for axis in analysis.solution.axes.get(name, []) if axis.size != 1]
        return _written(analysis, [n for n, _ in graph.consumers.get(name, ())]) or own
    named = [n for n in graph.nodes if name and name == n.proto.name]
    if named:
        return _written(analysis, named) or _passing(analysis, named)
    if name in (*graph.inputs, *graph.outputs):
        side = "input" if name in graph.inputs else "output"
        raise Refused(
            name,
            f"it is an {side} of the network and keeps its shape",
            "grow one of the dimensions between inputs and outputs",
        )
    if name in graph.producer:
        return list(analysis.solution.axes.get(name, []))
    nodes = begun(graph, name)
    return (_written(analysis, nodes) or _passing(analysis, nodes)) if nodes else None


def called(graph: Graph, name: str) -> list[Node]:
    """Return the nodes of that name, in a module of that path, or with a parameter of that name."""
    return [
        n
        for n in graph.nodes
        if name == n.proto.name
        or name in _modules(graph, n)
        or (name in graph.model.weights and name in n.inputs)
    ]


def inside(graph: Graph, name: str) -> list[Node]:
    """Return the nodes in a module of that path, or in modules inside it."""
    return [n for n in graph.nodes if any(within(path, name) for path in _modules(graph, n))]


def begun(graph: Graph, name: str) -> list[Node]:
    """Return the nodes whose names begin so."""
    return [n for n in graph.nodes if name in _containers(n.proto.name)]


def _modules(graph: Graph, node: Node) -> set[str]:
    """Return the module paths that a node and its parameters say."""
    paths = {parameter_path(i) for i in node.inputs if i in graph.model.weights}
    return {path for path in (*paths, module_path(node)) if path}


def within(path: str, name: str) -> bool:
    """Return whether a path is ``name``, or of something inside it."""
    return path == name or path.startswith(name + ".")


def _containers(name: str) -> list[str]:
    """List what a name says that it is inside of: ``a.b.c`` of ``a`` and ``a.b``, paths with ``/``
    also without what they begin with.
    """
    parts = name.strip("/").split("/")
    ends = range(1, len(parts))
    last = parts[-1].split(".")
    modules = [".".join(last[:i]) for i in range(1, len(last))]
    return ["/".join(parts[i:j]) for j in ends for i in range(j)] + modules


def _written(analysis: Analysis, nodes: list[Node]) -> list[Axis]:
    """Return the last axis that the weights of each node write.

    Nodes that prepare weights are left out, unless there are no others.
    """
    solution = analysis.solution
    by_use: dict[bool, list[Axis]] = {False: [], True: []}
    for node in nodes:
        if node.position in solution.applied:
            axes = written(solution, solution.applied[node.position])
            prepares = bool(node.outputs) and node.outputs[0] in solution.graph.derived
            by_use[prepares] += axes[-1:]
    return by_use[False] or by_use[True]


def _passing(analysis: Analysis, nodes: list[Node]) -> list[Axis]:
    """Return the axes of what nodes write."""
    outputs = (node.outputs[0] for node in nodes if node.outputs)
    return [axis for name in outputs for axis in analysis.solution.axes.get(name, [])]


def members_of(analysis: Analysis, axis: Axis) -> list[Dimension]:
    """Return the dimensions that an axis is made of."""
    free = dict.fromkeys(atoms(axis))
    return [analysis.by_atom[a] for a in free if a in analysis.by_atom]


def _composite(analysis: Analysis, name: str, axis: Axis, width: int) -> tuple[Dimension, int]:
    """Return one member and the width at which ``axis`` is ``width`` wide.

    Raises Refused unless just one can grow, and some width of it will do.
    """
    members = members_of(analysis, axis)
    free = growable(members)
    if len(free) == 1 and (own := _solve(axis, free[0], width)) is not None:
        return free[0], own
    if not free:
        first = members[0]
        raise Refused(name, f"it cannot grow: {first.reason}", first.remedy)
    made_of = ", ".join(f"'{d.name}' ({d.width}, {d.growth})" for d in members)
    offers = []
    for dimension in free:
        own = _solve(axis, dimension, width)
        if own is None or own < dimension.width:
            own = _smallest(axis, dimension, width)
        total = _total(axis, dimension, own)
        offers.append(f"--dim '{dimension.name}' --width {own} gives {total}")
    raise Refused(
        name,
        f"its axis of width {axis.size} is {canonical(axis)}, made of {made_of}",
        "name the dimension instead: " + "; ".join(offers),
    )


def _solve(axis: Axis, dimension: Dimension, width: int) -> int | None:
    """Return the width of ``dimension`` at which ``axis`` is ``width`` wide, if there is one."""
    base = _total(axis, dimension, 0)
    step = _total(axis, dimension, 1) - base
    return (width - base) // step if step and (width - base) % step == 0 else None


def _smallest(axis: Axis, dimension: Dimension, width: int) -> int:
    """Return the smallest new width of ``dimension`` that makes ``axis`` so wide, or wider."""
    step = dimension.step
    first = dimension.width // step + 1
    widths = range(step * first, step * max(first, -(-width // step)), step)
    place = bisect_left(widths, width, key=lambda own: _total(axis, dimension, own))
    return step * (first + place)


def _total(axis: Axis, dimension: Dimension, width: int) -> int:
    """Return how wide ``axis`` is where ``dimension`` is ``width`` wide."""
    return int(Measure(lambda a: width if a is dimension.atom else a.size, prod)(axis))


def _names(analysis: Analysis) -> dict[str, None]:
    """Return all that :func:`resolve` knows, dimensions first."""
    graph = analysis.graph
    known = dict.fromkeys(analysis.by_name)
    for node in graph.nodes:
        known |= dict.fromkeys((node.proto.name, *_modules(graph, node), *node.outputs[:1]))
    known.pop("", None)
    return known


def near(
    name: str, known: Iterable[str], analysis: Analysis | None = None, listed: str = _HINT
) -> str:
    """Return what may have been meant: another name, which works where ``analysis`` is given."""
    close = difflib.get_close_matches(name, [n for n in known if n != name], _CLOSE, cutoff=0.6)
    works = (other for other in close if analysis is None or _works(analysis, other))
    if hints := list(islice(works, 3)):
        return "did you mean " + " or ".join(f"'{hint}'" for hint in hints) + "?"
    return listed


def _works(analysis: Analysis, name: str) -> bool:
    """Return whether a name means a dimension that grows."""
    try:
        dimension, _ = resolve(analysis, name, 1)
    except (Refused, UsageError):
        return False
    return dimension.grows
