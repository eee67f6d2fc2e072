"""Patterns of nodes, written as the expressions they compute.

    silu = FusionPattern("Mul(x, Sigmoid(x))")
    match = silu.match(surroundings, node)   # {"x": "hidden"} and the nodes it covers, or None

A call is an operator, a name stands for any tensor (the same one each time), ``(d := ...)`` names
what matched, a number is a constant of that value, ``a | b`` are alternatives. Operators that
commute match in either order.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from onnx import helper

from onnx_net2net.analysis.shapes import Shapes
from onnx_net2net.model.graph import Graph, Node

CLOSE = 1e-5  # relative: constants are rounded to float32
# Attributes that whoever builds on a match looks at. A node that states another is not matched.
CONSIDERED: dict[str, set[str]] = {
    "Cast": {"to"},
    "DequantizeLinear": {"axis", "block_size", "output_dtype"},
    "HardSigmoid": {"alpha", "beta"},
    "QuantizeLinear": {"axis", "block_size", "output_dtype", "precision", "saturate"},
    "ReduceMean": {"axes", "keepdims", "noop_with_empty_axes"},
    "Softmax": {"axis"},
}


@dataclass
class Match:
    """Tensors by the names of the pattern, and the nodes that it covers, the last one first."""

    names: dict[str, str] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)

    def copy(self) -> Match:
        """Return a copy, for an attempt that may fail."""
        return Match(dict(self.names), list(self.nodes))


def attributes_of(node: Node) -> dict[str, Any]:
    """Return what a node states, by name."""
    return {a.name: helper.get_attribute_value(a) for a in node.proto.attribute}


@dataclass(eq=False)
class Surroundings:
    """A graph as patterns see it.

    ``constant`` returns the contents of a tensor that is one, ``is_weight`` whether it is trained.
    """

    graph: Graph
    shapes: Shapes
    constant: Callable[[str], np.ndarray[Any, Any] | None]
    is_weight: Callable[[str], bool]

    @cached_property
    def by_operator(self) -> dict[str, list[Node]]:
        """The nodes of ONNX's own domain by operator, the last one first."""
        nodes: dict[str, list[Node]] = {}
        for node in reversed(self.graph.nodes):
            if not node.domain and node.outputs:
                nodes.setdefault(node.op, []).append(node)
        return nodes

    def rank(self, name: str) -> int | None:
        """Return how many axes a tensor has, None where that is not known."""
        shape = self.shapes.of(name)
        return None if shape is None else len(shape)

    def number(self, name: str) -> float | None:
        """Return the value of a constant with one element, whatever type it is cast to."""
        node = self.graph.producer.get(name)
        if node is not None and node.op == "CastLike" and not node.domain:
            name = node.inputs[0]
        shape = self.shapes.of(name)
        if shape is None or prod(shape) != 1:
            return None
        array = self.constant(name)
        if array is None or array.size != 1 or array.dtype.kind in "OSU":
            return None
        return float(array.reshape(()))

    def closed(self, match: Match) -> bool:
        """Return whether nothing else reads what the covered nodes compute on the way."""
        inside = {node.position for node in match.nodes}
        return all(
            name not in self.graph.results
            and all(r.position in inside for r, _ in self.graph.consumers.get(name, ()))
            for node in match.nodes[1:]
            for name in node.outputs
            if name
        )


def _operators(tree: ast.expr) -> set[str] | None:
    """Return the operators that may compute an expression; None where it may be any tensor."""
    if isinstance(tree, ast.BinOp):
        left, right = _operators(tree.left), _operators(tree.right)
        return None if left is None or right is None else left | right
    if isinstance(tree, ast.NamedExpr):
        return _operators(tree.value)
    if isinstance(tree, ast.Call):
        assert isinstance(tree.func, ast.Name)
        return {tree.func.id}
    return None


def _needed(tree: ast.expr) -> set[str]:
    """Return the operators without which nothing computes an expression."""
    if isinstance(tree, ast.BinOp):
        return _needed(tree.left) & _needed(tree.right)
    if isinstance(tree, ast.NamedExpr):
        return _needed(tree.value)
    if isinstance(tree, ast.Call):
        assert isinstance(tree.func, ast.Name)
        return {tree.func.id}.union(*map(_needed, tree.args))
    return set()


class FusionPattern:
    """One expression, parsed once a graph has its outermost operator; see the top of the file."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.root = text.partition("(")[0]

    @cached_property
    def tree(self) -> ast.Call:
        """The expression, parsed."""
        tree = ast.parse(self.text, mode="eval").body
        assert isinstance(tree, ast.Call), self.text
        return tree

    @cached_property
    def _required(self) -> set[str]:
        """The operators without which nothing computes it."""
        return _needed(self.tree)

    @cached_property
    def _producers(self) -> list[set[str]]:
        """For each operand the operators that may compute it: most nodes are no match for these."""
        return [ops for arg in self.tree.args if (ops := _operators(arg)) is not None]

    def may_match(self, operators: Collection[str]) -> bool:
        """Return whether a graph of these operators may compute it."""
        return self.root in operators and self._required.issubset(operators)

    def match(self, around: Surroundings, node: Node) -> Match | None:
        """Return how ``node`` computes this expression; None if it does not, or not alone."""
        producers = (around.graph.producer.get(name) for name in node.inputs)
        given = {producer.op for producer in producers if producer is not None}
        if any(ops.isdisjoint(given) for ops in self._producers):
            return None
        for match in self._match(self.tree, node.outputs[0], Match(), around):
            if around.closed(match):
                return match
        return None

    def _match(
        self, tree: ast.expr, name: str, match: Match, around: Surroundings
    ) -> Iterator[Match]:
        """Yield ``match`` in every way in which tensor ``name`` is the expression ``tree``."""
        if isinstance(tree, ast.BinOp):
            yield from self._match(tree.left, name, match, around)
            yield from self._match(tree.right, name, match, around)
        elif isinstance(tree, ast.NamedExpr):
            for inner in self._match(tree.value, name, match, around):
                inner.names[tree.target.id] = name
                yield inner
        elif isinstance(tree, ast.Name):
            if match.names.get(tree.id, name) == name and name:
                inner = match.copy()
                inner.names[tree.id] = name
                yield inner
        elif isinstance(tree, ast.Constant | ast.UnaryOp):
            value = around.number(name)
            wanted = float(ast.literal_eval(tree))
            if value is not None and abs(value - wanted) <= CLOSE * max(abs(wanted), 1e-3):
                yield match.copy()
        else:
            assert isinstance(tree, ast.Call), ast.dump(tree)
            yield from self._call(tree, name, match, around)

    def _call(
        self, tree: ast.Call, name: str, match: Match, around: Surroundings
    ) -> Iterator[Match]:
        """Yield ``match`` in every way in which a node of the operator computes ``name``."""
        node = around.graph.producer.get(name)
        assert isinstance(tree.func, ast.Name)
        if node is None or node.domain or node.op != tree.func.id:
            return
        if node.outputs[0] != name or len(node.inputs) < len(tree.args):
            return
        if match.nodes and node.parent is not match.nodes[0].parent:
            return
        if not {a.name for a in node.proto.attribute} <= CONSIDERED.get(node.op, set()):
            return
        orders = [list(tree.args)]
        if node.facts.commutes:
            if len(node.inputs) != len(tree.args):
                return  # Max of three is no Max of two
            orders.append(list(reversed(tree.args)))
        for order in orders:
            start = match.copy()
            if node not in start.nodes:
                start.nodes.append(node)
            yield from self._all(order, list(node.inputs), start, around)

    def _all(
        self, trees: list[ast.expr], names: list[str], match: Match, around: Surroundings
    ) -> Iterator[Match]:
        """Yield ``match`` in every way in which each tensor is the expression at its place."""
        if not trees:
            yield match
            return
        for inner in self._match(trees[0], names[0], match, around):
            yield from self._all(trees[1:], names[1:], inner, around)
