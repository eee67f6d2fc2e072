"""Grown weights in the graph of the larger network, which derives numbers from its own sizes.

    settled = settle(grown, large)
    settled.model                   # the larger network's graph, and the grown weights
    settled.epsilons                # what its norms must be set to, which settled.model has
    settled.scales                  # what its weights make up for

A class computes 1 / sqrt(head size), epsilons and tables anew for a larger size; the grown network
keeps those of the smaller one. Both graphs are walked side by side, from their outputs back. A
number by which an activation is multiplied is made up for by the weights that write it; an epsilon
is told, or made up for likewise; whatever else differs is refused.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from ml_dtypes import finfo
from onnx import AttributeProto, NodeProto, TensorProto, helper

from onnx_net2net.algebra.sizes import trial
from onnx_net2net.analysis.norms import Normalization
from onnx_net2net.errors import Refused
from onnx_net2net.model.editing import set_attribute
from onnx_net2net.model.graph import Node, parameter_path
from onnx_net2net.model.model import AnyModel, Computed, Model, Weight, load, load_shape
from onnx_net2net.model.weights import Absent
from onnx_net2net.operators.language import Kind
from onnx_net2net.operators.types import FLOATS
from onnx_net2net.plan.like import parameters
from onnx_net2net.plan.norm_inputs import factors_for
from onnx_net2net.plan.pairing import Walk, original
from onnx_net2net.plan.zeros import zero_tensors
from onnx_net2net.widening.absorption import absorb
from onnx_net2net.widening.contraction import Contraction, Rescale
from onnx_net2net.widening.dimensions import Analysis, analyse, module_path
from onnx_net2net.widening.growth import Growth
from onnx_net2net.widening.naming import members_of

__all__ = ["NormEpsilon", "Scale", "Settled", "settle"]

_UNITS = 8  # in the last place: two ways to compute 1 / sqrt(size) differ by so little
_RTOL = 1e-6  # of attributes, which are float32
_SHOWN = 5


@dataclass(frozen=True)
class NormEpsilon:
    """A norm of the larger network whose epsilon must be ``new``: the path of its module."""

    path: str
    node: str
    old: float
    new: float


@dataclass(frozen=True)
class Scale:
    """A factor at a node, in both networks, and the weights that make up for the difference."""

    path: str
    node: str
    grown: float
    large: float
    weights: tuple[str, ...]


@dataclass
class Settled:
    """The larger network's graph with the grown weights; it computes what the grown one does.

    ``factors`` are what weights were multiplied by, along which axes.
    """

    model: Model
    epsilons: list[NormEpsilon]
    scales: list[Scale]
    factors: dict[str, list[tuple[int, np.ndarray]]]


def settle(
    grown: AnyModel,
    large: AnyModel,
    stored: Collection[str] | None = None,
    *,
    keep_epsilons: bool = False,
) -> Settled:
    """Return ``large`` with the weights of ``grown``, which has its names and shapes.

    ``stored`` names the initializers that get grown weights: those that are stored for a class,
    which computes its other tables anew; None stands for parameters and all tables. Others keep
    what they hold, or, where that is absent, what they held before growth. With ``keep_epsilons``
    the larger network's epsilons stay where weights can make up for all of them. Raises Refused,
    naming every difference, where the larger network would compute something else.
    """
    grown, large = load(grown), load_shape(large)
    other = analyse(large)
    named = set(parameters(other))
    tables = {n for n, w in large.weights.items() if w.dtype in FLOATS and w.size > 1}
    kept = named | tables if stored is None else set(stored)
    walk = _Settling(analyse(grown), other, kept, named)
    walk.run()
    if walk.problems and (zeros := _zeros(grown)):
        walk = _Settling(analyse(grown), other, kept, named, zeros)
        walk.run()
    if keep_epsilons:
        walk.keep_epsilons()
    settled = walk.model()
    if walk.problems:
        problems = list(dict.fromkeys(walk.problems))
        lines = [f"\n  - {problem}" for problem in problems[:_SHOWN]]
        more = len(problems) - len(lines)
        raise Refused(
            None,
            "the larger network would not compute the same with the grown weights:"
            f"{''.join(lines)}{f' and {more} more' if more else ''}",
            "build the larger network so that these agree: more heads, say, and not larger ones",
        )
    return Settled(settled, walk.epsilons, walk.scales, walk.factors)


@dataclass
class _Settling:
    """Both graphs side by side: ``own`` is the grown network, ``other`` the larger one."""

    own: Analysis
    other: Analysis
    stored: set[str]
    named: set[str]  # parameters, which have their own names in both
    zeros: set[str] = field(default_factory=set)  # of copies, which may compute it otherwise
    epsilons: list[NormEpsilon] = field(default_factory=list)
    scales: list[Scale] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _weights: dict[str, str] = field(default_factory=dict)  # {of the larger: of the grown}
    factors: dict[str, list[tuple[int, np.ndarray]]] = field(default_factory=dict)
    _edits: list[tuple[Node, int | str, float]] = field(default_factory=list)
    _inputs: dict[Normalization, float] = field(default_factory=dict)  # that epsilons ask for

    def run(self) -> None:
        """Compare everything that the outputs are computed from."""
        walk = Walk(self.own.graph, self.other.graph, self._is_constant, self.problems)
        for first, second in walk.nodes():
            self._attributes(first, second)

    def _is_constant(self, first: Node, node: Node, index: int) -> bool:
        """Compare an operand that is a weight or a number; return whether it is one."""
        mine, theirs = first.inputs[index], node.inputs[index]
        own, other = original(self.own.graph, mine), original(self.other.graph, theirs)
        if other in self.stored:
            wanted = other if other in self.named else self._weights.setdefault(other, own)
            if own not in self.own.model.weights or own != wanted:
                self.problems.append(f"{node.label} reads '{other}' in place of '{own}'")
            return True
        vanish = mine in self._vanishing[0] and theirs in self._vanishing[1]
        if vanish or self._sized_alike(first, node, index):
            return True
        if isinstance(self.other.model.weights.get(other), Absent):
            self._keep(node, own, other)
            return True
        same = self._same_inputs
        before, after = _value(self.own, mine, same), _value(self.other, theirs, same)
        if before is None or after is None:
            held = mine in self.own.graph.model.weights, theirs in self.other.graph.model.weights
            if any(held):
                self.problems.append(f"{node.label} reads '{other}' in place of '{own}'")
            return any(held)
        if not _is_float(before) or not _is_float(after):
            if not np.array_equal(before, after):
                self.problems.append(f"{node.label} reads {_few(after)} in place of {_few(before)}")
        elif before.size != after.size or not _close(before, after):
            self._number(node, index, before, after)
        return True

    @cached_property
    def _vanishing(self) -> tuple[set[str], set[str]]:
        """The tensors of each network that are zero, whatever it is given."""
        zeros = self.zeros & self.stored
        return zero_tensors(self.own, zeros), zero_tensors(self.other, zeros)

    def _sized_alike(self, first: Node, node: Node, index: int) -> bool:
        """Return whether an operand is a shape that gives the same, however it is computed."""
        if node.op != "Reshape" or index != 1 or not self._same_inputs:
            return False
        shape = self.own.solution.shapes.of(first.outputs[0])
        return shape is not None and shape == self.other.solution.shapes.of(node.outputs[0])

    @cached_property
    def _same_inputs(self) -> bool:
        """Whether sizes of both networks were tried on inputs of the same sizes: exporters may
        name those anew.
        """
        own, other = self.own.solution.shapes, self.other.solution.shapes
        sizes = (
            [shapes.of(name) for name in graph.inputs]
            for shapes, graph in ((own, self.own.graph), (other, self.other.graph))
        )
        return own.binding == other.binding or operator.eq(*sizes)

    def _keep(self, node: Node, own: str, other: str) -> None:
        """Take a constant that the larger network lacks from the grown one, if it did not grow."""
        weight = self.own.model.weights.get(own)
        if weight is None or own in _touched(self.own.model):
            problem = f"{node.label} reads '{other}', which depends on a size that grew"
            self.problems.append(problem)
        else:
            self._weights[other] = own

    def _number(self, node: Node, index: int, before: np.ndarray, after: np.ndarray) -> None:
        """Settle that an operand of ``node`` holds another number in the larger network."""
        norm = self.other.norms.get(node.position)
        if norm is not None and norm.epsilon_input == (node, index):
            return self._epsilon(node, index, float(after.flat[0]), float(before.flat[0]))
        divides = node.facts.singular == index
        if (divides or node.facts.kind is Kind.PRODUCT) and before.size == after.size:
            with np.errstate(divide="ignore", invalid="ignore"):
                ratios = (after / before if divides else before / after).ravel()
            same = np.isfinite(ratios).all() and _close(ratios, ratios[:1])
            if same and self._scale(node, 1 - index, float(ratios[0]), before, after):
                return None
        problem = f"{node.label} reads {_few(after)} in place of {_few(before)}"
        self.problems.append(_at(node, problem))
        return None

    def _attributes(self, first: Node, second: Node) -> None:
        """Compare the attributes of two nodes."""
        mine, theirs = ({a.name: a for a in node.proto.attribute} for node in (first, second))
        applied = self.other.solution.applied.get(second.position)
        rule = None if applied is None else applied.rule
        for name in sorted(mine.keys() | theirs.keys()):
            before, after = (_number_of(table.get(name)) for table in (mine, theirs))
            if rule is not None and name in rule.freeze and after is None:
                after = float(rule.freeze[name])
            if name in mine and name in theirs and mine[name].type == AttributeProto.GRAPH:
                continue  # bodies are walked
            if before is None or after is None:
                if mine.get(name) != theirs.get(name):
                    self.problems.append(f"{second.label} has another {name}")
            elif np.isclose(before, after, _RTOL, 0):
                continue
            elif name == "epsilon" and rule is not None and rule.norm is not None:
                self._epsilon(second, name, after, before)
            elif (
                rule is None
                or name not in rule.freeze
                or not self._inner_scale(second, rule.rescale.values(), before, after)
            ):
                problem = f"{second.label} has {name} {after:.7g} in place of {before:.7g}"
                self.problems.append(_at(second, problem))

    def _inner_scale(
        self, node: Node, operands: Collection[int], before: float, after: float
    ) -> bool:
        """Make up for a scale within an operator, which is linear in one of its operands."""
        numbers = np.array(before), np.array(after)
        return any(self._scale(node, index, before / after, *numbers) for index in operands)

    def _epsilon(self, node: Node, place: int | str, old: float, new: float) -> None:
        norm = self.other.norms.get(node.position)
        own = "" if norm is None else original(self.other.graph, norm.scale)
        path = parameter_path(own) or module_path(node) or own.rpartition("/")[0] or node.name
        self.epsilons.append(NormEpsilon(path, node.name, old, new))
        self._edits.append((node, place, new))
        if norm is not None and min(old, new) > 0:
            self._inputs[norm] = math.sqrt(old / new)

    def keep_epsilons(self) -> None:
        """Let weights make up for epsilons: vectors so much larger in front of norms."""
        if not self.epsilons or len(self._inputs) < len(self.epsilons):
            return
        factors = factors_for(self.other, self._inputs, self.stored)
        if factors is None:
            return
        for name, factor in factors.items():
            length = self.other.model.weights[name].shape[0]
            self.factors.setdefault(name, []).append((0, np.full(length, factor)))
        names = tuple(factors)
        self.scales += [Scale(e.path, e.node, e.new, e.old, names) for e in self.epsilons]
        self.epsilons, self._edits = [], []

    def _scale(
        self, node: Node, index: int, ratio: float, before: np.ndarray, after: np.ndarray
    ) -> bool:
        """Let weights give operand ``index`` of a node times ``ratio``; return whether they can."""
        solution = self.other.solution
        tensor, applied = node.inputs[index], solution.applied.get(node.position)
        if applied is None:
            return False
        for axis, units in enumerate(solution.axes.get(tensor, ())):
            if not members_of(self.other, units):
                continue
            place = Rescale(Contraction(applied, "", (), ""), index, axis)
            vector = np.full(int(trial(units.size)), ratio)
            absorbed = absorb(solution, Growth({}), place, vector, set())
            scaled = {} if absorbed is None else absorbed.scaled
            sites = {
                site: factor
                for site, factor in scaled.items()
                if site[0] in self.other.graph.model.weights and (factor != 1).any()
            }
            if sites and all(name in self.stored for name, _ in sites):
                for (name, along), factor in sites.items():
                    self.factors.setdefault(name, []).append((along, factor))
                names = tuple(dict.fromkeys(name for name, _ in sites))
                numbers = float(before.flat[0]), float(after.flat[0])
                path = module_path(node) or node.name
                self.scales.append(Scale(path, node.name, *numbers, names))
                return True
        return False

    def model(self) -> Model:
        """Return the larger network with the grown weights and epsilons."""
        large, grown = self.other.model, self.own.model
        proto = large.editable()
        weights: dict[str, Weight] = {}
        for name in (self.stored & self.named) | self._weights.keys():
            own = grown.weights.get(self._weights.get(name, name))
            there = large.weights.get(name)
            if own is None or there is None or own.shape != there.shape:
                shapes = [None if weight is None else weight.shape for weight in (own, there)]
                self.problems.append(f"'{name}' is {shapes[1]}, and {shapes[0]} once grown")
            else:
                weights[name] = self._scaled(own.renamed(name), there.dtype)
        nodes = {name: node for node in proto.graph.node for name in node.output}
        for number, (node, place, value) in enumerate(self._edits):
            target: NodeProto | None = nodes.get(node.outputs[0])
            if target is None:
                self.problems.append(f"{node.label} needs another epsilon, in a body of the graph")
            elif isinstance(place, str):
                set_attribute(target, place, value)
            else:
                dtype = self.other.solution.shapes.dtype[node.inputs[place]]
                name = f"{target.input[place]}_epsilon_{number}"
                array = np.array(value, helper.tensor_dtype_to_np_dtype(dtype))
                entry = TensorProto(name=name, data_type=dtype, raw_data=array.tobytes())
                proto.graph.initializer.append(entry)
                target.input[place] = name
        return large.with_changes(proto, {} if self.problems else weights)

    def _scaled(self, weight: Weight, dtype: int) -> Weight:
        """Return a weight times the factors along its axes, in the larger network's type."""
        factors = self.factors.get(weight.name, [])
        if not factors and weight.dtype == dtype:
            return weight

        def compute() -> np.ndarray:
            array = weight.array()
            wide = array.astype(np.float64) if factors else array
            for axis, factor in factors:
                wide = wide * factor.reshape(-1, *[1] * (array.ndim - 1 - axis))
            return wide.astype(helper.tensor_dtype_to_np_dtype(dtype))

        return Computed(weight.name, dtype, weight.shape, compute)


def _value(analysis: Analysis, name: str, sizes: bool) -> np.ndarray | None:
    """Return what is known of a tensor: stored numbers, and ``sizes`` as they were tried."""
    shapes, weight = analysis.solution.shapes, analysis.graph.model.weights.get(name)
    if weight is not None:
        return weight.array()
    value = shapes.known(name) if sizes or shapes.settled(name) else None
    return None if value is None else np.asarray(value)


def _zeros(model: Model) -> set[str]:
    """Return the parameters of copied blocks that are zero: a copy begins as the identity, even
    where the larger network has another kind of block there, such as one of shifted windows.
    """
    changes = (change for entry in model.history for change in entry.get("changes", ()))
    copied = {name for change in changes for name in change.get("parameters", ())}
    weights = (model.weights[name] for name in copied if name in model.weights)
    return {w.name for w in weights if w.dtype in FLOATS and not w.array().any()}


def _touched(model: Model) -> set[str]:
    """Return the weights that the history says have grown, were copied or were renamed."""
    names: set[str] = set()
    for entry in model.history:
        names.update(name for group in entry.get("weights", ()) for name in group[0])
        for change in entry.get("changes", ()):
            names.update(change.get("parameters", ()), change.get("renames", {}).values())
            names.update(
                n for group in change.get("grown", {}).get("weights", ()) for n in group[0]
            )
    return names


def _is_float(array: np.ndarray) -> bool:
    return helper.np_dtype_to_tensor_dtype(array.dtype) in FLOATS


def _close(before: np.ndarray, after: np.ndarray) -> bool:
    """Return whether numbers are equal in the precision that both are stored in."""
    unit = max(float(finfo(array.dtype).eps) for array in (before, after))
    first, second = (array.astype(np.float64) for array in (before, after))
    return bool(np.allclose(first, second, _UNITS * unit, 0))


def _number_of(attribute: AttributeProto | None) -> float | None:
    return attribute.f if attribute and attribute.type == AttributeProto.FLOAT else None


def _few(array: np.ndarray) -> str:
    numbers = ", ".join(f"{value:.7g}" for value in array.ravel()[:3])
    return numbers if array.size <= 3 else f"{numbers}, ... (shape {array.shape})"


def _at(node: Node, problem: str) -> str:
    path = module_path(node)
    return f"{path}: {problem}" if path else problem
