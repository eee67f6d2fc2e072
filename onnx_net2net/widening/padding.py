"""Any width through a normalisation: pad what whole copies do not fill (LEMON, ICLR 2024).

LayerNorm and RMSNorm are exact under k whole copies of all n units. For n' = k n + r the r
remaining entries of the stream are padded: with the mean of the vector in front of LayerNorm,
with zeros in front of RMSNorm, so that its statistics change by a known factor only:

    gamma' = eta gamma,  epsilon' = eta^2 epsilon,  eta = sqrt(k n / n')

and its output is zero there, so readers' columns are free: behind LayerNorm since gamma' and beta'
are zero on the pads, behind RMSNorm since what it reads is; gamma' is the mean of gamma there, so
that the pads are trained. Going backward through the graph, each tensor is asked for pads that are
a fixed weighting of its old entries; weights that write the dimension give it, and where nobody
can, there is no padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from ml_dtypes import finfo
from onnx import helper

from onnx_net2net.algebra.axes import Atom, atoms, canonical
from onnx_net2net.algebra.expansion import PAD, Index
from onnx_net2net.analysis.norms import Normalization
from onnx_net2net.analysis.solver import Applied, Solution
from onnx_net2net.model.graph import Node
from onnx_net2net.model.model import Weight
from onnx_net2net.operators.language import Kind, Reduction
from onnx_net2net.operators.notation import Spec, leaves
from onnx_net2net.operators.types import FLOATS
from onnx_net2net.widening.contraction import Site

Vector = np.ndarray


class NotPaddable(Exception):
    """Why the dimension cannot be padded."""


@dataclass
class Padding:
    """How to pad one dimension: what weights hold in padded entries, and which norms change.

    ``fills`` gives for a site the weighting of its old entries that a padded entry holds;
    ``free`` are sites whose padded entries meet zeros only; ``ones`` hold 1. ``idle`` tells that
    padded entries of two activations meet, which are zero and so never trained.
    """

    atom: Atom
    fills: dict[Site, Vector] = field(default_factory=dict)
    free: set[Site] = field(default_factory=set)
    ones: set[str] = field(default_factory=set)
    norms: list[Normalization] = field(default_factory=list)
    zero: set[str] = field(default_factory=set)  # tensors whose padded entries are zero
    idle: bool = False

    def eta(self, source: Index) -> float:
        """Return the factor by which the deviation of the padded vector is smaller."""
        return float(np.sqrt(np.mean(source != PAD)))

    def gammas(self) -> set[str]:
        """Return the scale weights that ``eta`` multiplies."""
        return {norm.scale for norm in self.norms}

    def nodes(self) -> set[int]:
        """Return the positions of the nodes that compute the norms."""
        return {position for norm in self.norms for position in norm.nodes}


@dataclass
class _Demands:
    """Demands on padded entries, gathered from the readers back to the writers."""

    solution: Solution
    norms: Mapping[int, Normalization]
    atom: Atom
    demands: dict[Site, Vector] = field(default_factory=dict)
    read: dict[Site, list[str]] = field(default_factory=dict)  # weights read, and by what partner
    padding: Padding = field(init=False)

    def __post_init__(self) -> None:
        self.padding = Padding(self.atom)
        size = int(self.atom.size)
        self.none = np.zeros(size)
        self.mean = np.full(size, 1 / size)

    def normalized(self, applied: Applied) -> Normalization | None:
        """Return the normalisation over the dimension that a node has a part in."""
        norm = self.norms.get(applied.node.position)
        return norm if norm is not None and self.atom in atoms(norm.axis) else None

    def carries(self, tensor: str, axis: int) -> bool:
        """Return whether an axis of ``tensor`` holds the dimension."""
        axes = self.solution.axes.get(tensor)
        return axes is not None and axis < len(axes) and self.atom in atoms(axes[axis])

    def carried(self, tensor: str) -> list[int]:
        """Return the axes of ``tensor`` that hold the dimension."""
        axes = self.solution.axes.get(tensor, [])
        return [i for i, axis in enumerate(axes) if self.atom in atoms(axis)]

    def derived(self, tensor: str) -> bool:
        """Return whether ``tensor`` is a weight, or computed from weights alone."""
        return tensor in self.solution.graph.derived

    def demand(self, tensor: str, axis: int, vector: Vector) -> None:
        """Ask for pads along an axis that are this weighting of its entries.

        Raises NotPaddable where the tensor cannot have them.
        """
        if self.solution.shapes.dtype.get(tensor) not in FLOATS:  # an index has no mean
            raise NotPaddable(f"'{tensor}' holds no real numbers")
        graph = self.solution.graph
        writer = graph.producer.get(tensor)
        written = writer is not None and writer.position in self.solution.applied
        if tensor not in graph.model.weights and not written:
            raise NotPaddable(f"'{tensor}' comes into or out of the body of an If, Loop or Scan")
        known = self.demands.setdefault((tensor, axis), vector)
        if not np.allclose(known, vector, rtol=1e-6, atol=0):
            raise NotPaddable(f"'{tensor}' would have to hold two different paddings")


def plan(
    solution: Solution, norms: Mapping[int, Normalization], atom: Atom, touching: list[Applied]
) -> Padding:
    """Plan how to pad ``atom``, given all nodes that touch it in order. Raises NotPaddable."""
    state = _Demands(solution, norms, atom)
    for applied in reversed(touching):
        _backward(state, applied)
    for applied in touching:
        _forward(state, applied)
    _fills(state)
    return state.padding


def _backward(state: _Demands, applied: Applied) -> None:
    """Hand the demands on a node's outputs to its inputs."""
    norm = state.normalized(applied)
    if norm is not None:
        return _through_norm(state, norm) if norm.node is applied.node else None
    named = (applied.env[name] for name in applied.rule.normalised if name in applied.env)
    if any(state.atom in atoms(axis) for axis in named):
        raise NotPaddable(f"{applied.node.label} normalises over it in groups")
    _reading(state, applied)
    for output, spec in zip(applied.node.outputs, applied.pattern.outputs, strict=False):
        for axis in state.carried(output) if output and spec else ():
            _passing(state, applied, output, axis, spec or ())
    return None


def _through_norm(state: _Demands, norm: Normalization) -> None:
    """Hand the demands on a norm's output to its summands and its affine map."""
    label, weights = norm.node.label, state.solution.graph.model.weights
    if canonical(norm.axis) is not state.atom:
        raise NotPaddable(f"{label} normalises over it together with others")
    vector = state.mean if norm.centred else state.none
    for position, output in enumerate(norm.node.outputs):
        if position and output != norm.total and output in state.solution.graph.consumers:
            raise NotPaddable(f"the deviation that {label} gives is used elsewhere")
        for axis in state.carried(output) if output else ():
            wanted = state.demands.get((output, axis))
            if output == norm.total:
                if wanted is not None:
                    state.demand(output, axis, vector)
            elif wanted is not None and wanted.any():
                raise NotPaddable(f"{label} gives zeros where its reader needs a mean")
    for summand in norm.summands:
        _demand_all(state, summand, vector, label)
    if norm.scale not in weights or np.prod(weights[norm.scale].shape) != state.atom.size:
        raise NotPaddable(f"the scale of {label} is not a weight of its own")
    if norm.bias:
        _demand_all(state, norm.bias, state.none, label)
    if norm.epsilon_input is not None and not _keeps_precision(state, norm):
        raise NotPaddable(f"a smaller epsilon of {label} would be rounded")
    # The mean of zeros is zero, whatever the scale; a mean is met by rounding only.
    _demand_all(state, norm.scale, state.none if norm.centred else state.mean, label)
    state.padding.norms.append(norm)


def _keeps_precision(state: _Demands, norm: Normalization) -> bool:
    """Return whether half of epsilon, the least that it becomes, is no subnormal number."""
    assert norm.epsilon_input is not None
    node, index = norm.epsilon_input
    dtype = state.solution.shapes.dtype.get(node.inputs[index])
    if dtype not in FLOATS:
        return False
    least = finfo(helper.tensor_dtype_to_np_dtype(dtype)).smallest_normal
    return norm.epsilon == 0 or norm.epsilon / 2 >= float(least)


def _demand_all(state: _Demands, tensor: str, vector: Vector, label: str) -> None:
    axes = state.carried(tensor)
    if len(axes) != 1:
        raise NotPaddable(f"{label} reads '{tensor}', which carries it {len(axes)} times")
    state.demand(tensor, axes[0], vector)


def _reading(state: _Demands, applied: Applied) -> None:
    """Note the weights that are summed over the dimension: their pads meet the partner's."""
    node = applied.node
    for name, places in applied.pattern.contracted.items():
        if name not in applied.env or state.atom not in atoms(applied.env[name]):
            continue
        reduce = applied.rule.reduce.get(name, "")
        if reduce == Reduction.UNREAD:
            continue
        if reduce in (Reduction.MAX, Reduction.LOGSUMEXP):
            raise NotPaddable(f"{node.label} takes an extreme over it")
        partners = [node.inputs[i] for i, _ in places if not state.derived(node.inputs[i])]
        state.padding.idle |= len(partners) == len(places) > 1
        for index, axis in places:
            if state.derived(node.inputs[index]):
                state.read.setdefault((node.inputs[index], axis), []).extend(partners)


def _passing(state: _Demands, applied: Applied, output: str, axis: int, spec: Spec) -> None:
    """Hand the demand on an output axis that carries the dimension to the inputs."""
    names = {n for n in leaves(spec[axis]) if state.atom in atoms(applied.env.get(n, state.atom))}
    carriers = [
        (tensor, place)
        for tensor, inner in zip(applied.node.inputs, applied.pattern.inputs, strict=False)
        for place, item in enumerate(inner or ())
        if names & set(leaves(item)) and state.carries(tensor, place)
    ]
    wanted = state.demands.get((output, axis))
    if state.derived(output) and (output, axis) in state.read:
        if applied.rule.kind is not Kind.MOVE:
            raise NotPaddable(f"{applied.node.label} computes weights")
        for site in carriers:
            state.read.setdefault(site, []).extend(state.read[output, axis])
    handler = HANDLERS.get(applied.rule.kind)
    if handler is None:
        raise NotPaddable(f"{applied.node.label} treats padded entries like units")
    handler(state, applied.node, carriers, wanted)


Carriers = list[Site]


def _move(state: _Demands, node: Node, carriers: Carriers, wanted: Vector | None) -> None:
    for tensor, axis in carriers if wanted is not None else ():
        state.demand(tensor, axis, wanted)  # type: ignore[arg-type]


def _linear(state: _Demands, node: Node, carriers: Carriers, wanted: Vector | None) -> None:
    """Ask the same of all summands; one without the dimension is added to pads as to units."""
    if wanted is None:
        wanted = state.mean
    if len(carriers) < len([n for n in node.inputs if n]) and not np.isclose(wanted.sum(), 1):
        raise NotPaddable(f"{node.label} adds the same to padded entries")
    _move(state, node, carriers, wanted)


def _product(state: _Demands, node: Node, carriers: Carriers, wanted: Vector | None) -> None:
    weights = [site for site in carriers if state.derived(site[0])]
    others = [site for site in carriers if not state.derived(site[0])]
    if not others:  # a weight spreads over what does not carry the dimension
        return _move(state, node, carriers, state.mean if wanted is None else wanted)
    if wanted is None or not wanted.any():
        for tensor, axis in weights:
            state.demand(tensor, axis, state.none)
        return _move(state, node, others, wanted if not weights else None)
    if len(others) != 1 or len(weights) > 1:
        raise NotPaddable(f"{node.label} multiplies units with each other")
    for tensor, _ in weights:
        weight = _scale(state, tensor)
        sizes = {int(np.prod(weight.shape)), *weight.shape} - {1} if weight else ()
        if weight is None or not weight.given or sizes != {state.atom.size} - {1}:
            raise NotPaddable(f"{node.label} scales units by more than one number each")
        wanted = wanted * np.asarray(weight.array(), np.float64).reshape(-1)
        state.padding.ones.add(weight.name)
    return _move(state, node, others, wanted)


def _scale(state: _Demands, tensor: str) -> Weight | None:
    """Return the weight that ``tensor`` is another form of; None where it is computed otherwise."""
    graph, dtype = state.solution.graph, state.solution.shapes.dtype
    while tensor not in graph.model.weights:
        applied = state.solution.applied.get(graph.producer[tensor].position)
        carriers = [name for name in graph.producer[tensor].inputs if state.carried(name)]
        if applied is None or applied.rule.kind is not Kind.MOVE or len(carriers) != 1:
            return None
        [tensor] = carriers
        if dtype.get(tensor) not in FLOATS:  # indices: the numbers are another operand's
            return None
    return graph.model.weights[tensor]


def _scaled(state: _Demands, node: Node, carriers: Carriers, wanted: Vector | None) -> None:
    """Ask rows of a weight that write it for the pads; a weight that scales units, for zeros."""
    weights = [site for site in carriers if state.derived(site[0])]
    others = [site for site in carriers if not state.derived(site[0])]
    if others and weights:
        if wanted is not None and wanted.any():
            raise NotPaddable(f"{node.label} treats each unit apart")
        wanted = state.none
        return _move(state, node, weights, wanted)
    if others and [s[0] for s in others] != [node.inputs[0]]:
        raise NotPaddable(f"{node.label} divides by its units")
    return _move(state, node, carriers, state.mean if wanted is None and weights else wanted)


def _zero(state: _Demands, node: Node, carriers: Carriers, wanted: Vector | None) -> None:
    if wanted is not None and wanted.any():
        raise NotPaddable(f"{node.label} does not keep a mean")
    _move(state, node, carriers, state.none)


HANDLERS = {
    Kind.AFFINE: _scaled,
    Kind.LINEAR: _linear,
    Kind.MOVE: _move,
    Kind.PRODUCT: _product,
    Kind.SCALE: _scaled,
    Kind.ZERO: _zero,
}


def _forward(state: _Demands, applied: Applied) -> None:
    """Note which activations are certainly zero in their padded entries."""
    node, zero = applied.node, state.padding.zero
    for output in node.outputs:
        if not output or not state.carried(output):
            continue
        norm = state.normalized(applied)
        if norm is not None:
            if norm.node is node and output != norm.total:
                zero.add(output)
            continue
        inputs = [n for n in node.inputs if n and state.carried(n)]
        passed = [n in zero or _is_zero_weight(state, n) for n in inputs]
        writes = applied.rule.kind in (Kind.SCALE, Kind.AFFINE) and all(map(state.derived, inputs))
        keeps = (writes or applied.rule.kind in (Kind.MOVE, Kind.LINEAR, Kind.ZERO)) and all(passed)
        if passed and (keeps or (applied.rule.kind is Kind.PRODUCT and any(passed))):
            zero.add(output)


def _is_zero_weight(state: _Demands, tensor: str) -> bool:
    """Return whether a weight is asked to be zero in its padded entries."""
    axes = state.carried(tensor)
    wanted = state.demands.get((tensor, axes[0])) if len(axes) == 1 else None
    return state.derived(tensor) and wanted is not None and not wanted.any()


def _fills(state: _Demands) -> None:
    """Settle what every weight holds in its padded entries."""
    graph, padding = state.solution.graph, state.padding
    for (tensor, axis), vector in state.demands.items():
        if tensor in graph.model.weights:
            padding.fills[tensor, axis] = vector
    for site, partners in state.read.items():
        if site[0] not in graph.model.weights:
            continue
        safe = bool(partners) and all(p in padding.zero for p in partners)
        known = padding.fills.get(site)
        if known is not None and known.any() and not safe:
            raise NotPaddable(f"'{site[0]}' both writes and reads it")
        if known is None and safe:
            padding.free.add(site)
    if clash := padding.ones & {tensor for tensor, _ in state.demands}:
        raise NotPaddable(f"'{min(clash)}' would have to hold two different paddings")
    for name in padding.gammas():
        readers = graph.consumers[name]
        if not {node.position for node, _ in readers} <= padding.nodes():
            raise NotPaddable(f"the scale '{name}' is read elsewhere too")
