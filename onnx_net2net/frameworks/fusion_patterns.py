"""Patterns of steps, written as the expressions they compute.

    silu = Pattern("Mul(x, Sigmoid(x))")
    found = silu.match(graph, step)          # {"x": "hidden"} and the steps it covers, or None

A call is an operator, a name stands for any tensor (the same one each time), ``(d := ...)`` names
what matched, a number is a constant of that value, ``a | b`` are alternatives. Add and Mul match
in either order.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from onnx_net2net.frameworks.program import Program
from onnx_net2net.frameworks.step import Section, Step

COMMUTE = {"Add", "And", "Mul"}
CLOSE = 1e-5  # relative: constants are rounded to float32


@dataclass
class Match:
    """Tensors by the names of the pattern, and the steps that it covers."""

    names: dict[str, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    def copy(self) -> Match:
        """For an attempt that may fail."""
        return Match(dict(self.names), list(self.steps))


class Surroundings:
    """Who writes and who reads each tensor of a section."""

    def __init__(self, program: Program, section: Section) -> None:
        self.program = program
        self.section = section
        self.producer: dict[str, Step] = {}
        self.readers: dict[str, list[Step]] = defaultdict(list)
        self.results = set(section.outputs)
        for step in section.steps:
            for name in step.outputs:
                self.producer[name] = step
            for name in {*step.inputs, *captured(step)}:
                self.readers[name].append(step)

    def closed(self, found: Match) -> bool:
        """Whether nothing else reads what the covered steps compute on the way."""
        inside = set(map(id, found.steps))
        for step in found.steps[1:]:
            for name in step.outputs:
                if name in self.results or any(id(r) not in inside for r in self.readers[name]):
                    return False
        return True

    def number(self, name: str) -> float | None:
        """The value of a constant with one element."""
        shape = self.program.shapes.of(name)
        if not self.program.is_constant(name) or shape is None or int(np.prod(shape)) != 1:
            return None
        array = self.program.constant(name)
        return None if array is None or array.dtype == object else float(array.reshape(()))


def captured(step: Step) -> Iterator[str]:
    """Names that the bodies of a step read."""
    for body in step.bodies.values():
        yield from body.outputs
        for inner in body.steps:
            yield from inner.inputs
            yield from captured(inner)


class Pattern:
    """One expression; see the top of the file."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = ast.parse(text, mode="eval").body
        roots = self.tree.left if isinstance(self.tree, ast.BinOp) else self.tree
        assert isinstance(roots, ast.Call)
        assert isinstance(roots.func, ast.Name)
        self.root = roots.func.id

    def match(self, around: Surroundings, step: Step) -> Match | None:
        """Whether ``step`` computes this expression and nobody reads what comes on the way."""
        if step.op != self.root or step.domain:
            return None
        for found in self._match(self.tree, step.output, Match(), around):
            if around.closed(found):
                return found
        return None

    def _match(
        self, tree: ast.expr, name: str, found: Match, around: Surroundings
    ) -> Iterator[Match]:
        if isinstance(tree, ast.BinOp):
            yield from self._match(tree.left, name, found, around)
            yield from self._match(tree.right, name, found, around)
        elif isinstance(tree, ast.NamedExpr):
            for inner in self._match(tree.value, name, found, around):
                inner.names[tree.target.id] = name
                yield inner
        elif isinstance(tree, ast.Name):
            if found.names.get(tree.id, name) == name and name:
                inner = found.copy()
                inner.names[tree.id] = name
                yield inner
        elif isinstance(tree, ast.Constant):
            value = around.number(name)
            wanted = float(tree.value)  # type: ignore[arg-type]
            if value is not None and abs(value - wanted) <= CLOSE * max(abs(wanted), 1e-3):
                yield found.copy()
        else:
            assert isinstance(tree, ast.Call), ast.dump(tree)
            yield from self._call(tree, name, found, around)

    def _call(
        self, tree: ast.Call, name: str, found: Match, around: Surroundings
    ) -> Iterator[Match]:
        step = around.producer.get(name)
        assert isinstance(tree.func, ast.Name)
        if step is None or step.domain or step.op != tree.func.id:
            return
        if step.output != name or len(step.inputs) < len(tree.args):
            return
        orders = [list(tree.args)]
        if step.op in COMMUTE and len(tree.args) == 2:
            orders.append(list(reversed(tree.args)))
        for order in orders:
            start = found.copy()
            if step not in start.steps:
                start.steps.append(step)
            yield from self._all(order, list(step.inputs), start, around)

    def _all(
        self, trees: list[ast.expr], names: list[str], found: Match, around: Surroundings
    ) -> Iterator[Match]:
        if not trees:
            yield found
            return
        for inner in self._match(trees[0], names[0], found, around):
            yield from self._all(trees[1:], names[1:], inner, around)
