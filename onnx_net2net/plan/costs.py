"""What a network costs: parameters, floating-point operations and activations.

    >>> network = costs(load("resnet18.onnx"))
    >>> network.parameters, network.flops, network.activations
    (11699112, 3628146688, 4716544)

Parameters are weight elements that can be learned, and statistics of norms among them: floats, and
the 8-bit integers of quantised weights. FLOPs are two for each multiply-add of the operators in
:mod:`onnx_net2net.operators.flops`, and of what function texts call. Activations are the elements
of all tensors of such types that nodes write, without those that only rearrange another (Reshape,
Transpose, Concat, Slice ...).

Nothing that a graph computes from weights or sizes alone is counted. Of an If the branch counts
that is taken, or else the more expensive one; the body of a Loop as often as it runs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from onnx import TensorProto
from onnx.helper import tensor_dtype_to_np_dtype

from onnx_net2net.algebra.sizes import trial
from onnx_net2net.analysis.onnx_inference import Shape
from onnx_net2net.analysis.shapes import ITERATIONS, Shapes, infer, infer_at, iterations
from onnx_net2net.analysis.symbols import symbol
from onnx_net2net.errors import UsageError
from onnx_net2net.model.graph import Graph, Node
from onnx_net2net.model.model import AnyModel, Model, load
from onnx_net2net.model.sequences import without_sequences
from onnx_net2net.model.unique_names import with_unique_names
from onnx_net2net.operators import lookup
from onnx_net2net.operators.language import Kind, Op, Unsupported
from onnx_net2net.operators.types import FLOATS
from onnx_net2net.plan.flops import Flops
from onnx_net2net.verification.sizes import Sizes, chosen, concrete, defaults, input_specs

# What people call parameters and activations: floats, and the small integers of quantised ones.
_NUMBERS = FLOATS | {TensorProto.INT8, TensorProto.UINT8}


@dataclass(frozen=True)
class Costs:
    """``sizes`` are those that were taken for dynamic dimensions; ``bytes`` those of activations.

    ``uncounted`` tells, by operator, how many nodes are not known to the count: unknown
    operators, and those whose shapes are unknown.
    """

    parameters: int
    flops: int
    activations: int
    bytes: int
    sizes: dict[str, int] = field(default_factory=dict)
    uncounted: dict[str, int] = field(default_factory=dict)


def costs(model: AnyModel, sizes: Mapping[str, int] | None = None) -> Costs:
    """Count ``model`` once.

    ``sizes`` gives sizes of dynamic dimensions by name. Others have the first of those that
    :func:`verify` would try with which all shapes can be inferred: the batch is 1.
    """
    return Workload(load(model), sizes or {}).costs()


def elements(names: Iterable[str], model: Model) -> int:
    """Count the elements of those of the named weights that count as parameters."""
    weights = model.weights
    return sum(math.prod(weights[n].shape) for n in names if weights[n].dtype in _NUMBERS)


def parameters(model: Model) -> int:
    """Count weight elements that can be learned: floats, and 8-bit integers."""
    return elements(model.weights, model)


class Workload:
    """A model's nodes with their shapes at given sizes, how often each runs, and what it does.

    ``terms`` are a node's :meth:`Flops.products` by position, for one run of the node.
    ``graph`` may be that of an analysis of the same model.
    """

    def __init__(self, model: Model, sizes: Mapping[str, int], graph: Graph | None = None) -> None:
        self.model = model
        self.graph = graph or Graph(with_unique_names(without_sequences(model)))
        self.shapes, self.sizes = _shapes(self.graph, sizes)
        self.uncounted: Counter[str] = Counter()
        self.products = Flops().products
        self.terms = dict(self._terms())
        self.times: dict[int, int] = {}
        self._enter(self.graph.main, 1)
        self.flops = sum(self.work(node) for node in self.graph.nodes)

    def costs(self) -> Costs:
        """Return the sums."""
        activations, size = 0, 0
        for count, dtype in self._activations():
            activations += count
            size += count * tensor_dtype_to_np_dtype(dtype).itemsize
        uncounted = dict(sorted(self.uncounted.items()))
        return Costs(parameters(self.model), self.flops, activations, size, self.sizes, uncounted)

    def op(self, node: Node, shape: Mapping[str, Shape]) -> Op:
        """Return what a count may look at, with these shapes."""
        return Op(
            node.proto,
            self.graph.model.opset.get(node.domain, 1),
            tuple([shape.get(name) for name in node.inputs]),
            tuple([shape.get(name) for name in node.outputs]),
            tuple([self.shapes.known(name) if name else None for name in node.inputs]),
        )

    def runs(self, node: Node) -> bool:
        """Return whether a node computes with what the network is fed."""
        if node.stores or node.position in self.shapes.computed:
            return False
        return any(name and name not in self.graph.derived for name in node.outputs)

    def _terms(self) -> Iterator[tuple[int, list[int]]]:
        for node in self.graph.nodes:
            if node.bodies or not self.runs(node):
                continue
            op = self.op(node, self.shapes.shape)
            try:
                lookup(op)
            except Unsupported as problem:
                if node.opaque or "is not known" in str(problem):
                    self.uncounted[node.op] += 1
            try:
                yield node.position, self.products(op)
            except Unsupported:
                self.uncounted[node.op] += 1

    def _enter(self, nodes: Iterable[Node], times: int) -> None:
        """Note how often the nodes of one graph run, and those of their bodies."""
        for node in nodes:
            self.times[node.position] = 0 if node.position in self.shapes.dead else times
            if node.op == "If":
                for body in node.bodies:
                    self._enter(body.nodes, times)
                self._choose(node)
            else:
                for body in node.bodies:
                    self._enter(
                        body.nodes, times * (int(trial(iterations(self.shapes, node)) or 1))
                    )

    def _choose(self, node: Node) -> None:
        """Count the more expensive of branches that are not known to be taken."""
        work = [sum(map(self._inside, body.nodes)) for body in node.bodies]
        for index, body in enumerate(node.bodies):
            if index != work.index(max(work)):
                self._enter(body.nodes, 0)

    def _inside(self, node: Node) -> int:
        inner = (n for body in node.bodies for n in body.nodes)
        return self.work(node) + sum(map(self._inside, inner))

    def work(self, node: Node) -> int:
        """Return the floating-point operations of a node, in all of its runs."""
        return 2 * self.times[node.position] * sum(self.terms.get(node.position, ()))

    def _activations(self) -> Iterator[tuple[int, int]]:
        """Yield elements and type of what each node writes."""
        for node in self.graph.nodes:
            if node.bodies or not self.runs(node) or self._moves(node):
                continue
            for name in node.outputs:
                dtype, shape = self.shapes.dtype.get(name, 0), self.shapes.of(name)
                if shape is not None and dtype in _NUMBERS:
                    yield math.prod(shape) * self.times[node.position], dtype

    def _moves(self, node: Node) -> bool:
        try:
            return lookup(self.op(node, self.shapes.shape)).kind is Kind.MOVE
        except Unsupported:
            return False


def _shapes(graph: Graph, wanted: Mapping[str, int]) -> tuple[Shapes, Sizes]:
    """Infer shapes at the first sizes at which no more are unknown than the graph leaves open."""
    inputs = graph.model.proto.graph.input
    try:
        specs = {spec.name: spec for spec in input_specs(graph.model.proto.graph)}
    except UsageError:  # an input is no tensor: no size is asked for
        shapes = infer(graph)
        return shapes, dict(shapes.binding)
    chosen(list(specs.values()), {n: s for n, s in wanted.items() if not n.startswith(ITERATIONS)})
    best: tuple[Shapes, Sizes] | None = None
    for sizes in defaults(list(specs.values()), 0):
        sizes = {**sizes, **wanted}
        binding = {}
        for value in (v for v in inputs if v.name in specs):
            shape = concrete(specs[value.name], sizes)
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                name = symbol(value.name, axis, dim)
                if name is not None:
                    binding[name] = shape[axis]
        shapes = infer_at(graph, binding)
        loops = {n: size for n, size in shapes.binding.items() if n not in binding}
        if best is None or shapes.unknown < best[0].unknown:
            best = shapes, {**sizes, **loops}
        if not shapes.unknown:
            break
    assert best is not None
    return best
