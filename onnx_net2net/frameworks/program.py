"""A model as the frameworks' translators read it: steps in order, what is constant computed.

    program = Program(model)
    for step in program.steps:
        step.op, step.inputs, step.attributes, program.rank(step.inputs[0])

No framework is known here. What depends on constants alone (see :mod:`.roles`) is computed
once; what depends on parameters stays a step, so that it is computed again as they are trained.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from onnx import NodeProto, helper
from onnx.reference import ReferenceEvaluator

from onnx_net2net.analysis.fusion_patterns import Surroundings
from onnx_net2net.analysis.fusions import Fusion, fusions
from onnx_net2net.analysis.shapes import infer
from onnx_net2net.analysis.values import evaluate
from onnx_net2net.frameworks.attributes import Attributes
from onnx_net2net.frameworks.roles import Role, paths, roles
from onnx_net2net.frameworks.step import ProgramStep, Section, attributes_of
from onnx_net2net.model.graph import Graph, Node
from onnx_net2net.model.hazards import node_hazard
from onnx_net2net.model.model import Model
from onnx_net2net.model.native import infer_shapes
from onnx_net2net.model.unique_names import with_unique_names

Array = np.ndarray[Any, Any]
LARGEST = 1 << 20  # elements of a result that is computed once; a larger one is computed as it runs
# What onnx's reference raises where it has no implementation for an operator or a type.
_NO_REFERENCE = (
    ArithmeticError, AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError,
    TypeError, ValueError,
)  # fmt: skip


class Program:
    """``model`` as steps. ``kinds`` are the roles of its weights, where these are known."""

    def __init__(self, model: Model, kinds: Mapping[str, Role] | None = None) -> None:
        self.model = with_unique_names(model)
        self.graph = Graph(self.model)
        self.opset = dict(self.model.opset)
        self.shapes = infer(self.graph)
        self.roles: Mapping[str, Role] = roles(self.model) if kinds is None else kinds
        self._static = _static_dims(self.model, isolated=self.shapes.unknown > 0)
        self._constants: dict[str, Array] = {}
        self.main = self._section(self.graph.main, self.graph.inputs, self.graph.outputs)

    @cached_property
    def paths(self) -> Mapping[str, str]:
        """Return the path of every weight in a tree of modules."""
        return paths(self.model)

    @property
    def steps(self) -> list[ProgramStep]:
        """Return the steps of the main graph."""
        return self.main.steps

    def constant(self, name: str) -> Array | None:
        """Return the contents of a constant, None for anything else."""
        if name in self._constants:
            return self._constants[name]
        if self.roles.get(name) is Role.CONSTANT:
            self._constants[name] = array = self.model.weights[name].array()
            return array
        return None

    def is_constant(self, name: str) -> bool:
        """Return whether :meth:`constant` gives contents, without reading them."""
        return name in self._constants or self.roles.get(name) is Role.CONSTANT

    def is_weight(self, name: str) -> bool:
        """Return whether ``name`` is a parameter or a statistic."""
        return name in self.roles and self.roles[name] is not Role.CONSTANT

    def rank(self, name: str) -> int | None:
        """Return how many axes a tensor has, None where that is not known."""
        shape = self.shapes.of(name)
        if shape is None and name in self._static:
            return len(self._static[name])
        return None if shape is None else len(shape)

    def dtype(self, name: str) -> int | None:
        """Return the element type of a tensor, None where it is not known."""
        dtype = self.shapes.dtype.get(name)
        if dtype is None and name in self.shapes.value:
            return helper.np_dtype_to_tensor_dtype(self.shapes.value[name].dtype)
        if dtype is None and name in self._constants:
            return helper.np_dtype_to_tensor_dtype(self._constants[name].dtype)
        return dtype

    def fuse(self, known: Collection[tuple[str, str]]) -> None:
        """Replace every group of steps that one operator of ``known`` computes, in bodies too."""
        around = Surroundings(self.graph, self.shapes, self.constant, self.is_weight)
        made: dict[tuple[str, ...], list[ProgramStep]] = {}
        for fusion in (f for f in fusions(around) if (f.domain, f.op) in known):
            made |= {node.outputs: [] for node in fusion.nodes[1:]}
            made[fusion.nodes[0].outputs] = self._fused(fusion)
        for section in self.main.sections():
            section.steps = [new for s in section.steps for new in made.get(s.outputs, [s])]

    def _fused(self, fusion: Fusion) -> list[ProgramStep]:
        """Make the step in place of a fusion, behind one that permutes what it reads."""
        root, inputs, steps = fusion.nodes[0], list(fusion.inputs), []
        if fusion.permuted is not None:
            index, order = fusion.permuted
            new, perm = f"{root.outputs[0]}/permuted", list(order)
            self._derive(new, inputs[index], perm)
            operands, opset = (inputs[index],), self.opset.get("", 1)
            attributes = Attributes(perm=perm)
            steps.append(
                ProgramStep("Transpose", "", operands, (new,), attributes, root.label, opset)
            )
            inputs[index] = new
        attributes, opset = Attributes(fusion.attributes), self.opset.get(fusion.domain, 1)
        op, domain, outputs = fusion.op, fusion.domain, root.outputs
        step = ProgramStep(op, domain, tuple(inputs), outputs, attributes, root.label, opset)
        return [*steps, step]

    def _derive(self, name: str, source: str, perm: list[int]) -> None:
        """Note the type and shape of a new tensor: ``source`` with its axes permuted."""
        sizes = self.shapes.sizes_of(source)
        if sizes is not None:
            self.shapes.put(name, [sizes[axis] for axis in perm])
        if source in self.shapes.dtype:
            self.shapes.dtype[name] = self.shapes.dtype[source]
        if source in self._static:
            self._static[name] = tuple(self._static[source][axis] for axis in perm)

    def dims(self, name: str) -> tuple[int | str | None, ...] | None:
        """Return sizes by axis: a number where it is always that, a symbol, or None if unknown."""
        constant = self._constants.get(name)
        if constant is not None:
            return tuple(constant.shape)
        if name in self.model.weights:
            return tuple(self.model.weights[name].shape)
        rank = self.rank(name)
        static = self._static.get(name)
        if rank is None or (static is not None and len(static) == rank):
            return static
        return (None,) * rank

    def size(self, name: str, axis: int) -> int | None:
        """Return the size of one axis where it is always the same."""
        dims = self.dims(name)
        size = dims[axis] if dims is not None and -len(dims) <= axis < len(dims) else None
        return size if isinstance(size, int) else None

    def _section(
        self, nodes: Iterable[Node], inputs: Iterable[str], outputs: Iterable[str]
    ) -> Section:
        steps = []
        for node in nodes:
            if node.stores:
                continue
            step = self._step(node)
            if not self._fold(step, node):
                steps.append(step)
        return Section(list(inputs), list(outputs), steps)

    def _step(self, node: Node) -> ProgramStep:
        bodies = {
            body.attribute: self._section(
                body.nodes,
                [v.name for v in body.proto.input],
                [v.name for v in body.proto.output],
            )
            for body in node.bodies
        }
        attributes, opset = attributes_of(node.proto), self.opset.get(node.domain, 1)
        return ProgramStep(
            node.op, node.domain, node.inputs, node.outputs, attributes, node.label, opset, bodies
        )

    def _fold(self, step: ProgramStep, node: Node) -> bool:
        """Compute a step of constants; False where it stays."""
        given = [name for name in step.inputs if name]
        if step.bodies or node.opaque or _stays(step) or step.domain:
            return False
        if step.attributes.foreign(step.op, step.domain, step.opset):
            return False
        if step.op == "CastLike" and self.is_constant(given[0]):
            return self._fold_type(step)
        if not all(map(self.is_constant, given)) or not given:
            return self._fold_shape(step)
        shapes = [self.shapes.of(name) for name in step.outputs if name]
        if any(shape is None or math.prod(shape) > LARGEST for shape in shapes):
            return False
        values = [self.constant(name) if name else None for name in step.inputs]
        outputs = computed(node.proto, values, self.opset)
        if outputs is None:
            return False
        self._constants.update(zip(step.outputs, outputs, strict=False))
        return True

    def _fold_type(self, step: ProgramStep) -> bool:
        """Fold CastLike of a constant: only the type of the other operand matters."""
        array, dtype = self.constant(step.inputs[0]), self.dtype(step.inputs[1])
        if array is None or dtype is None or array.dtype == object:
            return False
        self._constants[step.output] = array.astype(helper.tensor_dtype_to_np_dtype(dtype))
        return True

    def _fold_shape(self, step: ProgramStep) -> bool:
        """Fold the Shape of a tensor whose sizes never change."""
        if not step.facts.measures:
            return False
        dims = self.dims(step.inputs[0])
        if dims is None:
            return False
        if step.op == "Shape":
            start, end = step.attributes.get("start", 0), step.attributes.get("end", len(dims))
            dims = dims[start:end]
        sizes = [d for d in dims if isinstance(d, int)]
        if len(sizes) < len(dims):
            return False
        value = np.asarray(sizes, np.int64) if step.op == "Shape" else np.int64(math.prod(sizes))
        self._constants[step.output] = np.asarray(value)
        return True


def _stays(step: ProgramStep) -> bool:
    """Return whether a result varies, is no tensor, or is a table larger than its source."""
    larger = step.op in ("DequantizeLinear", "Optional")
    return larger or step.facts.random or step.facts.sequence


def computed(
    node: NodeProto, values: list[Array | None], opset: Mapping[str, int]
) -> list[Array] | None:
    """Compute a node of constants; None where nothing here does."""
    outputs = evaluate(node, values, opset.get("", 1))
    if outputs is not None:
        return outputs
    inputs = {n: v for n, v in zip(node.input, values, strict=True) if v is not None}
    if any(value.dtype == object for value in inputs.values()) or node_hazard(node, inputs.get):
        return None
    graph = helper.make_graph(
        [node],
        "constants",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in inputs.items()
        ],
        [helper.make_empty_tensor_value_info(n) for n in node.output if n],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in opset.items()]
    model = helper.make_model(graph, opset_imports=opsets)
    try:
        results = iter(ReferenceEvaluator(model).run(None, dict(inputs)))
    except _NO_REFERENCE:
        return None
    return [np.asarray(next(results)) if name else np.empty(0) for name in node.output]


def _static_dims(model: Model, *, isolated: bool) -> dict[str, tuple[int | str | None, ...]]:
    """Return what onnx infers with the symbols left symbols: sizes that hold for every input."""
    proto = model.editable()
    del proto.graph.value_info[:]
    inferred = infer_shapes(proto, model.small, isolated=isolated) or proto.graph
    shapes: dict[str, tuple[int | str | None, ...]] = {}
    for value in (*inferred.value_info, *inferred.input):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            shapes[value.name] = tuple(
                d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in dims
            )
    return shapes
