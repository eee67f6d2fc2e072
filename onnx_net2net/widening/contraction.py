"""Where a grown dimension is summed over: who takes the shares of the copies.

A contraction over d is exact after growth if one of its operands is split, so that the
copies of a unit add up to the unit. A weight takes the split itself, also behind the
Transpose or Reshape that an exporter put there, if all that read it want the same;
otherwise the operand is multiplied by a vector of shares on its way in.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, field

from onnx_net2net.algebra.axes import Atom, Axis, atoms
from onnx_net2net.analysis.solver import Applied, Solution
from onnx_net2net.operators.language import AS_OFTEN, Kind
from onnx_net2net.operators.notation import Term, leaves
from onnx_net2net.operators.types import FLOATS

Edge = tuple[int, int, int]  # node position, input index, axis
Site = tuple[str, int]  # weight, axis

SPLITTING = (Kind.MOVE, Kind.LINEAR, Kind.PRODUCT, Kind.SCALE)
FOLD = "fold the weights first (--fold)"


@dataclass(frozen=True, slots=True, eq=False)
class Contraction:
    """Name ``name`` of ``applied`` is summed over; ``reduce`` says how if by one operand alone."""

    applied: Applied
    name: str
    places: tuple[tuple[int, int], ...]
    reduce: str  # "" for a sum of products

    @property
    def axis(self) -> Axis:
        """Return the axis that is summed over."""
        return self.applied.env[self.name]


@dataclass(frozen=True, slots=True, eq=False)
class Rescale:
    """Multiply input ``index`` of the node by shares along ``axis`` before the contraction."""

    contraction: Contraction
    index: int
    axis: int


@dataclass(slots=True, eq=False)
class Chain:
    """How a split reaches the weights behind an operand: their sites, and the edges between."""

    contraction: Contraction
    sites: list[Site] = field(default_factory=list)
    edges: set[Edge] = field(default_factory=set)
    tensors: dict[tuple[str, int], None] = field(default_factory=dict)


def contractions(solution: Solution) -> Iterator[Contraction]:
    """Yield every sum over axes that a rule does not forbid or call normalised."""
    for applied in solution.applied.values():
        rule = applied.rule
        for name, places in applied.pattern.contracted.items():
            if name not in applied.env or name in rule.normalised:
                continue
            starred = [key[:-1] for key in rule.fixed if key.endswith("*")]
            if name not in rule.fixed and not any(map(name.startswith, starred)):
                reduce = rule.reduce.get(name) or rule.reduce.get(name.partition(".")[0] + "*", "")
                yield Contraction(applied, name, places, reduce)


def obstacle(solution: Solution, contraction: Contraction) -> tuple[str, str | None] | None:
    """Say why copies of this sum cannot share, with a remedy; None where they can."""
    node = contraction.applied.node
    name = contraction.name
    if contraction.reduce in AS_OFTEN:
        return None
    if name in contraction.applied.rule.rescale:
        pass  # the operand to rescale is stated
    elif contraction.reduce:
        operand = node.inputs[contraction.places[0][0]]
        if operand in solution.graph.derived:
            return "a statistic of the weights themselves is computed in the graph", FOLD
    elif len({index for index, _ in contraction.places}) < 2:
        index, axis = contraction.places[0]
        spec = contraction.applied.pattern.inputs[index]
        if spec is None or spec[axis] != "~" + name:  # else the other one is a state inside
            return f"sums over '{name}' in a way that copies cannot share", None
    if _rescale(solution, contraction) is None:
        return "it sums integers, which copies cannot share", None
    return None


def _rescale(solution: Solution, contraction: Contraction) -> Rescale | None:
    """Return the operand to multiply by shares: an activation rather than a weight."""
    node, chosen = contraction.applied.node, None
    forced = contraction.applied.rule.rescale.get(contraction.name)
    for index, axis in contraction.places:
        operand = node.inputs[index]
        if forced is not None and index != forced:
            continue
        if solution.shapes.dtype.get(operand, 1) not in FLOATS:
            continue
        if chosen is None or operand not in solution.graph.derived:
            chosen = Rescale(contraction, index, axis)
            if operand not in solution.graph.derived:
                break
    return chosen


def distribute(solution: Solution, grown: set[Atom]) -> tuple[set[Site], list[Rescale]]:
    """Return sites of weights to split, and operands to rescale, for the sums over ``grown``."""
    chains: list[Chain] = []
    rescales: list[Rescale] = []
    for contraction in contractions(solution):
        if contraction.reduce in AS_OFTEN or not grown.intersection(atoms(contraction.axis)):
            continue
        chain = None if contraction.reduce else _best_chain(solution, contraction, grown)
        if chain is not None:
            chains.append(chain)
        else:
            rescales.append(_must_rescale(solution, contraction))
    kept, count = chains, -1
    while count != len(kept):  # dropping one may cost another
        count, covered = len(kept), {edge for chain in kept for edge in chain.edges}
        kept = [chain for chain in kept if _covered(solution, chain, covered)]
    rescales += [_must_rescale(solution, c.contraction) for c in chains if c not in kept]
    return {site for chain in kept for site in chain.sites}, rescales


def _must_rescale(solution: Solution, contraction: Contraction) -> Rescale:
    rescale = _rescale(solution, contraction)
    assert rescale is not None, "obstacle() found one"
    return rescale


def _best_chain(solution: Solution, contraction: Contraction, grown: set[Atom]) -> Chain | None:
    """Return the way of a split to the weights behind one operand, if there is one."""
    node, specs = contraction.applied.node, contraction.applied.pattern.inputs
    if contraction.name in contraction.applied.rule.rescale:
        return None
    for index, axis in contraction.places:
        spec = specs[index]
        alone = spec is not None and isinstance(spec[axis], str)
        if alone and node.inputs[index] in solution.graph.derived:
            chain, edge = Chain(contraction), (node.position, index, axis)
            if _push(solution, node.inputs[index], axis, edge, grown, chain):
                return chain
    return None


def _push(
    solution: Solution, tensor: str, axis: int, edge: Edge, grown: set[Atom], chain: Chain
) -> bool:
    """Follow a weight's axis up to the initializers through operators that split as it does."""
    chain.edges.add(edge)
    chain.tensors[tensor, axis] = None
    weight = solution.graph.model.weights.get(tensor)
    if weight is not None:
        chain.sites.append((tensor, axis))
        return weight.dtype in FLOATS
    node = solution.graph.producer.get(tensor)
    applied = solution.applied.get(node.position) if node is not None else None
    if node is None or applied is None or applied.rule.kind not in SPLITTING:
        return False
    spec = applied.pattern.outputs[node.outputs.index(tensor)]
    wanted = set(leaves(spec[axis])) if spec else set()
    for other, terms in zip(node.outputs, applied.pattern.outputs, strict=False):
        # What Split cuts from the weight beside this piece is split as well.
        places = [i for i, item in enumerate(terms or ()) if wanted & set(leaves(item))]
        chain.tensors.update(((other, place), None) for place in places if other)
    carriers = carriers_of(solution, applied, wanted)
    for index, place in carriers:  # none is mixed with others that grow
        names = set(leaves((applied.pattern.inputs[index] or ())[place])) - wanted
        others = (applied.env[name] for name in names if name in applied.env)
        if any(grown.intersection(atoms(other)) for other in others):
            return False
    if not carriers or not _splits(applied, {index for index, _ in carriers}):
        return False
    return all(
        _push(solution, node.inputs[i], a, (node.position, i, a), grown, chain) for i, a in carriers
    )


def carriers_of(solution: Solution, applied: Applied, names: Set[str]) -> list[tuple[int, int]]:
    """Return the inputs of a node, and their axes longer than 1, that ``names`` stand in."""
    shapes = [solution.shapes.of(name) for name in applied.node.inputs]
    return [
        (index, axis)
        for index, spec in enumerate(applied.pattern.inputs)
        for axis, item in enumerate(spec or ())
        if names & set(leaves(item)) and (shape := shapes[index]) is not None and shape[axis] != 1
    ]


def _splits(applied: Applied, carriers: set[int]) -> bool:
    """Return whether splitting these operands splits the result."""
    tracked = {i for i, spec in enumerate(applied.pattern.inputs) if spec is not None}
    if applied.rule.kind is Kind.LINEAR:  # a summand that is not split would be counted per copy
        return carriers == tracked
    if applied.rule.kind is Kind.PRODUCT:
        return len(carriers) == 1
    return applied.rule.kind is Kind.MOVE or carriers == {0}


def _covered(solution: Solution, chain: Chain, covered: set[Edge]) -> bool:
    """Return whether nobody reads the weights of a chain otherwise."""
    outputs = solution.graph.results
    return all(
        tensor not in outputs
        and all(
            (node.position, index, axis) in covered
            for node, index in solution.graph.consumers.get(tensor, ())
            if node.position not in solution.shapes.computed
        )
        for tensor, axis in chain.tensors
    )


def term_at(rescale: Rescale) -> Term:
    """Return the axis term that the shares lie along."""
    spec = rescale.contraction.applied.pattern.inputs[rescale.index]
    assert spec is not None
    return spec[rescale.axis]
