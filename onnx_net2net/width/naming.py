"""Names that people know: a node, a tensor, a parameter or a module path, to its dimension."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from onnx_net2net.algebra.axes import Axis, atoms, canonical, size_after
from onnx_net2net.analysis.graph import Node
from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.width.dimensions import Analysis, Dimension, module_path, parameter_path, written


def resolve(analysis: Analysis, name: str, width: int) -> tuple[Dimension, int]:
    """The dimension that ``name`` means, and its width once that place is ``width`` wide.

    Raises UsageError for an unknown name, Refused where the axis is made of several dimensions
    and ``width`` does not say which shall grow.
    """
    found = analysis.by_name.get(name)
    if found is not None:
        return found, width
    axis = channel_axis(analysis, name)
    members = members_of(analysis, axis)
    if len(members) == 1 and canonical(axis) is members[0].atom:
        return members[0], width
    return _composite(analysis, name, axis, members, width)


def channel_axis(analysis: Analysis, name: str) -> Axis:
    """The channel axis at the place that ``name`` means. Raises UsageError for an unknown name."""
    axes = list(_candidates(analysis, name))
    if not axes:
        problem = f"there is no node, tensor, parameter or module '{name}'"
        raise UsageError(problem, _near(analysis, name))
    distinct = {str(canonical(a)) + str([id(x) for x in atoms(a)]): a for a in axes}
    for axis in distinct.values():
        if any(d.growth != "fixed" for d in members_of(analysis, axis)):
            return axis
    return axes[0]


def _candidates(analysis: Analysis, name: str) -> Iterator[Axis]:
    """Axes that ``name`` may mean, best first: what its weights write, then what passes there."""
    solution, graph = analysis.solution, analysis.solution.graph
    called = [n for n in graph.nodes if n.position in solution.applied and _called(n, name)]
    passing: list[Axis] = []
    for node in called:
        axes = written(solution, solution.applied[node.position])
        if axes:
            yield axes[-1]
        elif node.outputs:
            passing += solution.axes.get(node.outputs[0], [])
    if name in graph.model.weights:
        yield from (a for a in solution.axes.get(name, []) if a.size > 1)
    yield from (a for a in passing if any(x in analysis.by_atom for x in atoms(a)))


def _called(node: Node, name: str) -> bool:
    if name in (node.proto.name, *node.outputs):
        return True
    if any(i == name or parameter_path(i) == name for i in node.inputs):
        return True
    return module_path(node) == name


def members_of(analysis: Analysis, axis: Axis) -> list[Dimension]:
    """The dimensions that an axis is made of."""
    free = dict.fromkeys(atoms(axis))
    return [analysis.by_atom[a] for a in free if a in analysis.by_atom]


def _composite(
    analysis: Analysis, name: str, axis: Axis, members: list[Dimension], width: int
) -> tuple[Dimension, int]:
    """One member whose growth alone gives ``width``, if there is just one that can grow."""
    growing = [d for d in members if d.growth != "fixed"]
    if len(growing) == 1 and (found := _solve(axis, growing[0], width)) is not None:
        return growing[0], found
    if not growing:
        fixed = members[0] if members else None
        reason = fixed.reason if fixed and fixed.reason else "its axis carries no weights"
        raise Refused(name, f"it cannot grow: {reason}", fixed.remedy if fixed else None)
    made_of = ", ".join(f"'{d.name}' ({d.width}, {d.growth})" for d in members)
    raise Refused(
        name,
        f"its axis of width {axis.size} is {canonical(axis)}, made of {made_of}",
        "name the dimension instead: " + "; ".join(_offers(axis, growing, width)),
    )


def _solve(axis: Axis, dimension: Dimension, width: int) -> int | None:
    """The width of ``dimension`` at which ``axis`` is ``width`` wide, if there is one."""

    def at(size: int) -> int:
        return size_after(axis, lambda a: size if a is dimension.atom else a.size)

    base, step = at(0), at(1) - at(0)
    return (width - base) // step if step and (width - base) % step == 0 else None


def _offers(axis: Axis, growing: list[Dimension], width: int) -> Iterator[str]:
    for dimension in growing:
        exact = _solve(axis, dimension, width)
        if exact is not None and exact >= dimension.width:
            yield f"--dim '{dimension.name}' --width {exact} gives {width}"
        else:
            above = next(w for w in _widths(dimension) if _total(axis, dimension, w) >= width)
            total = _total(axis, dimension, above)
            yield f"--dim '{dimension.name}' --width {above} gives {total}"


def _widths(dimension: Dimension) -> Iterator[int]:
    step = dimension.width if dimension.growth == "multiple" else 1
    width = dimension.width + step
    while True:
        yield width
        width += step


def _total(axis: Axis, dimension: Dimension, width: int) -> int:
    return size_after(axis, lambda a: width if a is dimension.atom else a.size)


def _near(analysis: Analysis, name: str) -> str:
    known = set(analysis.by_name)
    for node in analysis.solution.graph.nodes:
        known.update(filter(None, (node.proto.name, module_path(node), *node.outputs[:1])))
    known.update(filter(None, map(parameter_path, analysis.solution.graph.model.weights)))
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
    return "'onnx-net2net inspect MODEL' lists the dimensions"
