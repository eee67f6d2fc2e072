"""Rules and algebra applied to a whole graph, once, in order: the axes of every tensor.

The solver knows axes and knows no operator. What a rule cannot explain is pinned with the
node and the reason, and the analysis goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnx_net2net.algebra.axes import ONE, Axis, Pin, atom, canonical, pin, product, total, unify
from onnx_net2net.algebra.sizes import AT_RUN_TIME, AnySize, Undecided
from onnx_net2net.analysis.rule_shapes import RuleSizes, measure, remaining
from onnx_net2net.analysis.shapes import Shapes, infer
from onnx_net2net.model.graph import Graph, Node
from onnx_net2net.model.subgraphs import Link, captured
from onnx_net2net.operators import lookup
from onnx_net2net.operators.broadcast import repeated
from onnx_net2net.operators.language import Op, Pattern, Rule, Unsupported, expand, ranks
from onnx_net2net.operators.notation import Group, Spec, Term

Env = dict[str, Axis]


@dataclass(slots=True, eq=False)
class Applied:
    """A rule at work: which axis each of its names stands for at this node."""

    node: Node
    rule: Rule
    pattern: Pattern
    env: Env


@dataclass
class Solution:
    """The axes of every tensor, and what each node demands of them."""

    graph: Graph
    shapes: Shapes
    axes: dict[str, list[Axis]] = field(default_factory=dict)
    applied: dict[int, Applied] = field(default_factory=dict)  # by node position
    barriers: dict[int, str] = field(default_factory=dict)  # nodes no rule explains, and why
    tied: dict[tuple[str, int], Axis] = field(default_factory=dict)  # of weights that are copied

    def of(self, name: str) -> list[Axis] | None:
        """Return the axes of a tensor (new, pinned unless a weight's, where none are known yet)."""
        known = self.axes.get(name)
        if known is None:
            sizes = self.shapes.sizes_of(name)
            if sizes is None:
                return None
            known = self.axes[name] = [atom(n) for n in sizes]
            if name not in self.graph.model.weights:
                reason = Pin(None, f"'{name}' is computed from sizes")
                for axis in known:
                    pin(axis, reason)
        return known


class _Misfit(Exception):
    """A tensor does not fit the rule that its node gave."""


def solve(graph: Graph) -> Solution:
    """Unify the axes of the whole graph."""
    solution = Solution(graph, infer(graph))
    for name in graph.inputs:
        solution.axes[name] = [atom(size) for size in solution.shapes.sizes_of(name) or ()]
        _pin_interface(solution, name, "input")
    for value in (v for n in graph.nodes for body in n.bodies for v in body.proto.input):
        sizes = solution.shapes.sizes_of(value.name)
        if sizes is not None:
            solution.axes[value.name] = [atom(size) for size in sizes]
    for node in graph.nodes:
        if not node.stores and node.position not in solution.shapes.computed:
            _visit(solution, node)
    for name in graph.outputs:
        _pin_interface(solution, name, "output")
    return solution


INTERFACE = "its inputs and outputs keep their shape; grow one of the dimensions between them"


def _pin_interface(solution: Solution, name: str, side: str) -> None:
    for index, axis in enumerate(solution.of(name) or []):
        pin(axis, Pin(None, f"axis {index} of the network's {side} '{name}'", INTERFACE))


def _visit(solution: Solution, node: Node) -> None:
    """Apply the rule of one node; where there is none, pin what it touches."""
    if node.opaque:
        return _barrier(solution, node, node.opaque)
    if node.links is not None:
        return _tie(solution, node)
    shapes, rule = solution.shapes, None
    if not shapes.unsteady.isdisjoint(node.inputs):
        changing = min(shapes.unsteady.intersection(node.inputs))
        return _barrier(solution, node, f"the state '{changing}' changes its shape")
    try:
        rule, pattern = _rule(shapes, node)
        _apply(solution, Applied(node, rule, pattern, {}))
    except (Unsupported, Undecided) as problem:
        _barrier(solution, node, str(problem))
    except _Misfit as problem:
        _barrier(solution, node, f"{problem} (rule: {rule.pattern if rule else ''})")
    return None


def _rule(shapes: Shapes, node: Node) -> tuple[Rule, Pattern]:
    """Return the rule of a node, and its pattern for the ranks of what it reads and writes."""
    known = shapes.by_rule.get(node.position)
    if isinstance(known, RuleSizes):
        return known.rule, known.pattern
    if known is not None:
        raise Unsupported(known)
    op = Op(
        node.proto,
        shapes.graph.model.opset.get(node.domain, 1),
        tuple([shapes.shape.get(n) for n in node.inputs]),
        tuple([shapes.shape.get(n) for n in node.outputs]),
        tuple([shapes.known(n) for n in node.inputs]),
    )
    rule = lookup(op)
    for name in node.inputs:
        if name and shapes.of(name) is None:
            raise Unsupported(f"the shape of its input '{name}' is unknown")
    return rule, expand(rule.pattern, ranks(op.shapes), ranks(op.outputs))


def _apply(solution: Solution, applied: Applied) -> None:
    """Make the axes around a node what its rule says. Raise Unsupported or _Misfit."""
    node, rule, pattern, env = applied.node, applied.rule, applied.pattern, applied.env
    for name, spec, plain in zip(node.inputs, pattern.inputs, pattern.plain, strict=False):
        if not name:
            continue
        axes = solution.axes.get(name) or _first_read(solution, name, spec, env)
        if spec is None:
            for axis in axes:
                pin(axis, Pin(node.label, f"reads all of '{name}'"))
            continue
        for term, axis in zip(spec, axes, strict=True):
            # Nearly always a new name, or one that stands for this very axis.
            if not plain or env.setdefault(term, axis) is not axis:  # type: ignore[arg-type]
                _match(term, axis, applied)
    if any(node.outputs[len(pattern.outputs) :]):
        raise Unsupported(f"its rule does not describe output {len(pattern.outputs)}")
    for name, spec in zip(node.outputs, pattern.outputs, strict=False):
        if name:
            _assign(solution, name, spec, env, rule.sizes)
    for name, reason in rule.fixed.items():
        for key in env if name.endswith("*") else (name,):
            if key in env and (key == name or key.startswith(name[:-1])):
                pin(env[key], Pin(node.label, reason))
    solution.applied[node.position] = applied


def _first_read(solution: Solution, name: str, spec: Spec | None, env: Env) -> list[Axis]:
    """Return the axes of a tensor that no node wrote; a weight takes those its reader knows."""
    shape = solution.shapes.of(name)
    if spec is None or shape is None or name not in solution.graph.model.weights:
        return solution.of(name) or []
    axes: list[Axis] = []
    for term, size in zip(spec, shape, strict=True):
        known = env.get(term) if isinstance(term, str) else None
        axes.append(known if known is not None and known.size == size else atom(size))
    solution.axes[name] = axes
    if copied := solution.graph.copies.get(name):
        for index in copied.tied:
            one = solution.tied.setdefault((copied.original, index), axes[index])
            unify(one, axes[index], Pin(None, f"axes of '{copied.original}' do not fit"))
    return axes


def _match(term: Term, axis: Axis, applied: Applied) -> None:
    """Let ``term`` stand for ``axis``."""
    env, rule = applied.env, applied.rule
    if isinstance(term, str):
        name = term.lstrip("~")
        known = env.setdefault(name, axis) if name != "1" else ONE
        if known is axis:
            return
        if name == "1":
            if axis.size != 1:
                raise _Misfit(f"an axis of size {axis.size} should have size 1")
            return
        if name in applied.pattern.broadcast and known.size != axis.size:
            env[name] = _repeated(known, axis, applied.node)
            return
        if isinstance(axis.size, int) and not isinstance(known.size, int):
            env[name] = axis  # the node fails where they differ
    else:
        built = _build(term, env, rule.sizes, axis.size)
        if built is None or built.size != axis.size:
            raise _Misfit(f"an axis of size {axis.size} does not fit")
        known = built
    if canonical(known) is not canonical(axis):
        unify(known, axis, Pin(applied.node.label, f"axes do not fit: {rule.pattern}"))


def _repeated(one: Axis, other: Axis, node: Node) -> Axis:
    """Return the axis that two operands share, either of which is repeated if it has size 1."""
    if 1 in (one.size, other.size):
        return other if one.size == 1 else one
    shared = one
    if not isinstance(one.size, int) or not isinstance(other.size, int):
        shared = atom(repeated(one.size, other.size))
    why = Pin(node.label, f"whether it is as long as what it meets, or 1, {AT_RUN_TIME}")
    for axis in (one, other, shared):
        pin(axis, why)
    return shared


def _build(term: Term, env: Env, sizes: Mapping[str, AnySize], size: AnySize | None) -> Axis | None:
    """Return the axis that ``term`` stands for; open names become atoms if ``size`` says theirs."""
    if isinstance(term, str):
        name = term.lstrip("~")
        if name not in env:
            known = sizes.get(name, 1 if name == "1" else size)
            if known is None:
                return None
            env[name] = atom(known)
        return env[name]

    def size_of(name: str) -> AnySize | None:
        return env[name].size if name in env else 1 if name == "1" else sizes.get(name)

    known_sizes = [measure(part, size_of) for part in term.terms]
    if known_sizes.count(None) > 1:
        return None
    missing = None if size is None else remaining(term, size, known_sizes)
    parts = []
    for item, part_size in zip(term.terms, known_sizes, strict=True):
        built = _build(item, env, sizes, missing if part_size is None else part_size)
        if built is None:
            return None
        parts.append(built)
    return product(*parts) if isinstance(term, Group) else total(*parts)


def axis_of(term: Term, env: Env, sizes: Mapping[str, AnySize]) -> Axis | None:
    """Return what ``term`` stands for once a rule has been applied (None: nothing)."""
    return _build(term, env, sizes, None)


def _assign(
    solution: Solution, name: str, spec: Spec | None, env: Env, sizes: Mapping[str, AnySize]
) -> None:
    """Give a tensor that a node writes the axes that its rule says."""
    shape = solution.shapes.sizes_of(name)
    if spec is None:
        raise Unsupported(f"the shape of its output '{name}' is unknown")
    axes: list[Axis] = []
    for index, term in enumerate(spec):
        size = None if shape is None else shape[index]
        axis = env.get(term) if isinstance(term, str) else None
        if axis is None:
            axis = _build(term, env, sizes, size)
        if axis is None or (size is not None and axis.size != size):
            raise _Misfit(f"axis {index} of '{name}' does not fit")
        axes.append(axis)
    solution.axes[name] = axes


def _barrier(solution: Solution, node: Node, reason: str) -> None:
    """Pin everything this node touches: it is never taken for elementwise."""
    if node.position in solution.shapes.dead and solution.graph.derived.isdisjoint(node.inputs):
        return  # it never runs, so what it makes of its inputs does not matter
    why = Pin(node.label, reason)
    solution.barriers[node.position] = reason
    for name in node.outputs:  # before anything else would explain them
        solution.axes.setdefault(
            name, [atom(size) for size in solution.shapes.sizes_of(name) or ()]
        )
    for name in (*node.inputs, *node.outputs, *sorted(captured(node.proto))):
        if name:
            _pin_all(solution, name, why)


def _pin_all(solution: Solution, name: str, why: Pin) -> None:
    for axis in solution.of(name) or ():
        pin(axis, why)


def _tie(solution: Solution, node: Node) -> None:
    """Make the tensors of a body and those of the node around it the same."""
    assert node.links is not None
    label = node.label
    for name in node.links.pinned:
        _pin_all(solution, name, Pin(label, "controls whether and how often its body runs"))
    why = Pin(label, "axes of its body do not fit those outside")
    for link in (*node.links.enter, *node.links.carry):
        _join(solution, node, link, why)
    taken = solution.shapes.taken.get(node.position)
    for link in node.links.leave:
        if taken is not None and link.body != taken:
            continue
        shape, inner = solution.shapes.sizes_of(link.outer), solution.of(link.inner)
        if shape is not None and inner is not None and link.outer not in solution.axes:
            walked = atom(shape[link.axis]) if link.axis is not None else ONE
            outer = link.with_axis(inner, walked)
            if tuple(axis.size for axis in outer) == shape:
                pin(walked, Pin(label, "its body runs along it"))
                solution.axes[link.outer] = outer
                continue
        _join(solution, node, link, why)


def _join(solution: Solution, node: Node, link: Link, why: Pin) -> None:
    """Make the axes of a tensor outside a body and of one inside the same."""
    outer, inner = solution.of(link.outer), solution.of(link.inner)
    if outer is None or inner is None:
        reason = f"the shape of '{link.inner}' in its body is unknown or changes"
        solution.barriers[node.position] = reason
    elif len(outer) == len(inner) + (link.axis is not None):
        if link.axis is not None:
            pin(outer[link.axis], Pin(node.label, "its body runs along it"))
        for a, b in zip(link.without(outer), inner, strict=True):
            unify(a, b, why)
        return
    else:
        reason = why.reason
    for name in (link.outer, link.inner):
        _pin_all(solution, name, Pin(node.label, reason))
