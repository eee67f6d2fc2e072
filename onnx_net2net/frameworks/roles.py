"""Which weights a user would train, and what a module tree calls them.

    roles(model)["layer1.0.conv1.weight"]       # Role.PARAMETER
    roles(model)["layer1.0.bn1.running_mean"]   # Role.STATISTIC
    paths(model)["functional/up/kernel:0"]      # "functional_up_kernel_0"

PyTorch's exporter writes down what was a parameter and what a buffer; where it did, that
decides. Else the place decides that a weight is read at (``Operator.weights``), and where masks
and tables come in at the same places as weights (``Operator.terms``), what the tensor holds.

Choices, where a file does not say: a single number in arithmetic is a constant (epsilon,
1/sqrt(d)) unless its name is a path in a module or it is added to the one channel of a product; a
vector that scales or shifts a graph input is its normalisation, not learned; a filter of a
convolution is learned, even a blur; a table that holds sines is a constant, any other that is added
is learned; integers are never learned, nor shares that growing put in front of a sum.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum

import numpy as np
from onnx import TensorProto

from onnx_net2net.frameworks.constant_detection import (
    computed,
    counted,
    extended,
    follows_formula,
    triangular,
    uniform,
)
from onnx_net2net.frameworks.function_bodies import lowered
from onnx_net2net.frameworks.paths import unique_paths
from onnx_net2net.model.graph import Graph, Node
from onnx_net2net.model.model import Model
from onnx_net2net.model.weights import Weight
from onnx_net2net.operators.language import Kind
from onnx_net2net.operators.record import Operand
from onnx_net2net.operators.types import FLOATS

__all__ = ["KIND", "PERSISTENT", "Role", "paths", "recorded", "roles"]

PERSISTENT = "pkg.torch.export.graph_signature.InputSpec.persistent"
KIND = "pkg.torch.export.graph_signature.InputSpec.kind"
STATISTICS = re.compile(r"(?:^|[./_])(?:running|moving)_(?:mean|var|variance)(?:$|[^A-Za-z])")
# A path in a module tree, such as only an author's parameter or buffer has.
AUTHORED = re.compile(r"[A-Za-z_]\w*(?:\.\w+)+$")
# What exporters call the tensors that they make themselves.
MADE = re.compile(r"(?:val_\d+|onnx::\w+_\d+|.*/Constant(?:_\d+)?_output_0|const_fold_opt__\d+)$")


class Role(StrEnum):
    """What becomes of a weight in training."""

    PARAMETER = "parameter"  # a user would train it
    STATISTIC = "statistic"  # the running mean or variance of BatchNormalization
    CONSTANT = "constant"  # masks, positions, sizes, epsilons, quantization: stays as it is


def roles(model: Model) -> dict[str, Role]:
    """Return the role of each name in ``model.weights``, by the exporter's word, else by use.

    Found once for a model: some contents are looked at, which a grown model computes anew.
    """
    return dict(model.derived(_roles))


def _roles(model: Model) -> dict[str, Role]:
    judge = _Judge(model)
    return {name: judge.role(name, weight) for name, weight in model.weights.items()}


def paths(model: Model) -> dict[str, str]:
    """Return a dotted path in a module tree for every name in ``model.weights``.

    The name itself where it can be one. Other characters than letters, digits, ``_`` and ``.``
    become ``_``, empty parts go, names that PyTorch's modules take get a ``_``; no path stands
    twice or is a prefix of another. Parameters choose first, then statistics, then constants.
    """
    kinds = roles(model)
    order = list(Role)
    return unique_paths(sorted(kinds, key=lambda name: order.index(kinds[name])))


class _Judge:
    """Follows weights through the graph to the places they are read at."""

    def __init__(self, model: Model) -> None:
        self.model = model = lowered(model)
        self.graph = Graph(model)
        self.said = {name: kind for name, (kind, _) in recorded(model).items()}
        self.said |= {name: "SHARES" for step in model.history for name in step.get("inserted", ())}
        self.initializers = {entry.name for entry in model.proto.graph.initializer}
        values = (*model.proto.graph.value_info, *model.proto.graph.input)
        self.types = {v.name: v.type.tensor_type.elem_type for v in values}
        self.raw = _reachable(self.graph, set(self.graph.inputs), self.graph.derived)

    def role(self, name: str, weight: Weight) -> Role:
        """Return the role of one weight."""
        if weight.dtype not in FLOATS:
            return Role.CONSTANT
        said = self.said.get(name)
        if said == "PARAMETER":
            return Role.PARAMETER
        uses = set(self._uses(name, weight))
        if "statistic" in uses:
            return Role.STATISTIC
        if said is not None or STATISTICS.search(name):
            return Role.CONSTANT
        return Role.PARAMETER if "learned" in uses else Role.CONSTANT

    def _uses(self, name: str, weight: Weight) -> Iterator[str]:
        """Yield what each place makes of the weight, followed through views of it."""
        pending, seen = [(name, True)], {name}
        while pending:
            tensor, plain = pending.pop()
            for node, index in self.graph.consumers.get(tensor, ()):
                followed = self._followed(node, index, tensor)
                use = "" if followed else self._use(node, index, name, weight)
                if plain or use == "learned":  # a mean of weights is no statistic
                    yield use
                view = _is_view(node, index)
                if weight.size == 1 and not (weight.shape and view):
                    continue  # an epsilon, a factor, the number that a tensor is filled with
                pending += [(other, plain and view) for other in followed if other not in seen]
                seen.update(followed)

    def _followed(self, node: Node, index: int, tensor: str) -> list[str]:
        """Return tensors that are this one in another form: views, and what weights compute."""
        if node.links is not None:
            return [link.inner for link in node.links.enter if link.outer == tensor]
        facts = node.facts
        lost = facts.quantizes or not facts.differentiable
        if index in facts.weights or lost or index < 0:
            return []
        pure = all(name in self.graph.derived for name in node.outputs if name)
        if pure or _is_view(node, index):
            return [name for name in node.outputs if name]
        return []

    def _use(self, node: Node, index: int, name: str, weight: Weight) -> str:
        """Return what one place makes of a weight: "learned", "statistic" or nothing."""
        operand = node.facts.weights.get(index)
        if operand is None:
            added = index in node.facts.terms and self._added(node, index, name, weight)
            return "learned" if added else ""
        if operand is Operand.STATISTIC:
            return "statistic"
        if operand is Operand.MATRIX:
            learned = not self._turns_positions(node, index, weight) and not _fixed(weight)
        elif operand is Operand.TABLE:
            learned = len(weight.shape) > 1 and not _fixed(weight)
        elif operand is Operand.AFFINE:
            learned = not (self._made(name) and uniform(weight.array()))
        elif operand is Operand.STATE:
            learned = not uniform(weight.array())
        else:
            learned = True
        return "learned" if learned else ""

    def _made(self, name: str) -> bool:
        """Return whether the exporter made the tensor, rather than the author."""
        return name not in self.initializers or bool(MADE.match(name))

    def _added(self, node: Node, index: int, name: str, weight: Weight) -> bool:
        """Return whether what is added to, or multiplied with, an activation is learned."""
        others = [n for i, n in enumerate(node.inputs) if n and i != index]
        array = weight.array()
        if weight.size == 1:
            single = node.facts.kind is Kind.LINEAR and any(self._single(other) for other in others)
            return single or (bool(AUTHORED.match(name)) and not self._made(name))
        if extended(array) <= 1 and _computes(node):
            if any(other in self.raw for other in others):
                return False
            if self._turns_positions(node, index, weight):
                return False
        return not computed(array)

    def _single(self, name: str) -> bool:
        """Return whether ``name`` is a product with a weight that has one output channel."""
        node = self.graph.producer.get(name)
        if node is None or node.op != "MatMul" or len(node.inputs) < 2:
            return False
        weight = self.model.weights.get(node.inputs[1])
        return weight is not None and weight.shape[-1:] == (1,)

    def _turns_positions(self, node: Node, index: int, weight: Weight) -> bool:
        """Return whether a vector multiplies positions: frequencies, slopes of distances."""
        if sum(size > 1 for size in weight.shape) > 1:
            return False
        others = [n for i, n in enumerate(node.inputs) if n and i != index]
        return any(self._counts(name) for name in others)

    def _counts(self, name: str) -> bool:
        """Return whether a tensor holds integers turned into floats."""
        node = self.graph.producer.get(name)
        while node is not None and node.facts.reshapes:
            if node.op == "Cast" and self._is_integer(node.inputs[0]):
                return True
            node = self.graph.producer.get(node.inputs[0])
        return node is not None and node.op == "Range"

    def _is_integer(self, name: str) -> bool:
        node = self.graph.producer.get(name)
        if node is not None and node.facts.reshapes and node.op != "Cast":
            return self._is_integer(node.inputs[0])
        if node is None:
            if name in self.model.weights:
                return self.model.weights[name].dtype not in FLOATS
            return self._described(name) not in FLOATS
        if node.op == "Cast":
            target: int = next((a.i for a in node.proto.attribute if a.name == "to"), 0)
            return target not in FLOATS
        return node.op not in ("Mul", "Div") and self._described(name) not in FLOATS

    def _described(self, name: str) -> int:
        """Return the element type that the file states for a tensor, FLOAT where it states none."""
        return int(self.types.get(name, TensorProto.FLOAT))


def _is_view(node: Node, index: int) -> bool:
    return node.facts.reshapes and index == 0


def _computes(node: Node) -> bool:
    """Return whether a node is arithmetic, one operand with another."""
    return 0 in node.facts.terms and node.facts.kind is not Kind.MOVE


def _fixed(weight: Weight) -> bool:
    array: np.ndarray = weight.array()
    return follows_formula(array) or triangular(array) or counted(array)


def recorded(model: Model) -> dict[str, tuple[str, bool]]:
    """Return what PyTorch's exporter recorded of weights: kind, and whether a buffer persists."""
    graph = model.proto.graph
    records = {}
    for value in (*graph.initializer, *graph.value_info, *graph.input):
        told = {entry.key: entry.value for entry in value.metadata_props}
        if KIND in told:
            records[value.name] = (told[KIND], told.get(PERSISTENT) == "True")
    return records


def _reachable(graph: Graph, start: set[str], derived: set[str]) -> set[str]:
    """Return graph inputs, their views, and what arithmetic with weights alone makes of them."""
    reached = set(start)
    for node in graph.nodes:
        given = [name for name in node.inputs if name]
        if not node.facts.reshapes and not _computes(node):
            continue
        rest = given[1:] if node.facts.reshapes else given
        if given and given[0] in reached and all(n in reached or n in derived for n in rest):
            reached.update(node.outputs)
    return reached
