"""A graph as Keras' own layers: each step becomes a layer, operations of ``keras.ops``, or neither.

    builder = Builder(program)
    outputs = builder.build({"x": Arranged.plain(keras.Input((3, 224, 224), name="x"))})
    builder.table                        # [(variable, terms)]: what each variable holds

Steps are taken in order, and what each makes is noted under the names of its outputs:

Arranged      a symbolic tensor, whose axes may lie otherwise than in the file (arranged.py)
Moved         weights, moved only: no layer yet, so that a layer can hold them (moved.py)
np.ndarray    a constant

First the layers of :mod:`.layers` are asked: each takes a step whose attributes and operands prove
that one layer of Keras computes the same. Else the translation of the operator is called with
symbolic tensors, and its operations become part of the graph; that works wherever every size that
it needs is known. What is left is noted as nothing. Once something reads it, all that it is made
of becomes one layer that walks those nodes (layer.py), as sizes are known while it runs.

A weight that no layer takes is the table of an Embedding, looked up by constant indices.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import chain, count
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from onnx import NodeProto, helper

from onnx_net2net.errors import Refused
from onnx_net2net.frameworks.keras.arranged import Arranged
from onnx_net2net.frameworks.keras.history import GivenName, operations, valid_name
from onnx_net2net.frameworks.keras.layers import makers
from onnx_net2net.frameworks.keras.moved import Moved, Terms
from onnx_net2net.frameworks.keras.operation import KerasOperation, Scope
from onnx_net2net.frameworks.keras.operators import translations
from onnx_net2net.frameworks.keras.regions import RefusedTensor, region
from onnx_net2net.frameworks.keras.replaced import replaced
from onnx_net2net.frameworks.keras.size_tensors import SizeTensors
from onnx_net2net.frameworks.keras.sums import added
from onnx_net2net.frameworks.keras.translator import failures
from onnx_net2net.frameworks.keras.types import type_name, typed
from onnx_net2net.frameworks.keras.values import dtype_of
from onnx_net2net.frameworks.keras.weight_moves import (
    blank,
    carried,
    moved_together,
    moves,
    readers,
)
from onnx_net2net.frameworks.program import Program, computed
from onnx_net2net.frameworks.roles import Role
from onnx_net2net.frameworks.step import ProgramStep
from onnx_net2net.model.graph import parameter_path, scope_path

__all__ = ["Builder"]

LARGEST = 1 << 16  # elements of a constant that stands in the graph


class Builder(SizeTensors):
    """One network that is being built. ``names`` are taken already."""

    def __init__(self, program: Program, names: Sequence[str] = ()) -> None:
        super().__init__(program)
        self.values: dict[str, Any] = {}
        self._held_by_layers: list[tuple[Any, Terms]] = []
        self._kept: list[tuple[Any, Terms]] = []  # weights that no layer takes
        self.refusals: list[Refused] = []
        self.scalars: dict[Any, Any] = {}  # of a translator's walk: no size is a symbol here
        self.seed = None
        self.readers = readers(program)
        self.consumers = _consumers(program)
        self._makes_size = False  # whether the step that is taken computes sizes of others
        self._saved: set[Any] = set()  # operations whose arguments a file can hold
        self._taken = set(names)
        self._tensors: dict[str, Arranged] = {}
        self._steps = {name: step for step in program.steps for name in step.outputs}
        weights = program.model.weights
        self.shapes = {name: weights[name].shape for name in weights}

    @property
    def table(self) -> list[tuple[Any, Terms]]:
        """Return what each variable holds."""
        return [*self._held_by_layers, *self._kept]

    # ---- the walk --------------------------------------------------------------------------------

    def build(self, inputs: Mapping[str, Arranged]) -> list[Any]:
        """Return the outputs of the graph in its order."""
        self.inputs = list(inputs.values())
        self.values |= inputs
        with ExitStack() as stack:
            for name in ("__add__", "__radd__"):
                stack.enter_context(replaced(keras.KerasTensor, name, added))
            for step in self.program.steps:
                if step.output not in self.values:
                    self._take(step)
            return [self._output(name) for name in self.program.main.outputs]

    def name_others(self, outputs: list[Any]) -> None:
        """Name what Keras has named: its numbers may be taken, and are others each time."""
        for operation in operations(outputs):
            if isinstance(operation.name, GivenName):
                operation.name = str(operation.name)
            elif not isinstance(operation, layers.InputLayer):
                operation.name = str(self.name(re.sub(r"_\d+$", "", operation.name)))

    def _output(self, name: str) -> Any:
        """Return an output of the graph, None where it is refused."""
        if name not in self.values and self.is_size(name):
            self._region(name)
        try:
            return self.symbolic(name)
        except RefusedTensor:
            return None

    def _take(self, step: ProgramStep) -> None:
        """Note what a step makes, if it is no part of a region."""
        self._makes_size = self.is_size(step.output)
        makes = self._moved(step) or self._made(step) or self._operated(step)
        for name, value in zip(step.outputs, makes or (), strict=False):
            if name and value is not None:
                self.values[name] = value

    def _moved(self, step: ProgramStep) -> list[Moved] | None:
        """Return what a step makes of weights by moving them."""
        if not moves(step):
            return None
        operands = [self._fixed(name) for name in step.inputs]
        weights = [x for x in operands if isinstance(x, Moved)]
        others = [name for name, x in zip(step.inputs, operands, strict=True) if x is None]
        own = carried(step, operands)
        if not weights or any(others) or not own:
            return None
        node = self._node(step)
        shapes = [self.program.shapes.of(name) for name in step.outputs]
        if node is None or not all(shape is not None for shape in shapes):
            return None
        sources = tuple(dict.fromkeys(name for x in weights for name in x.sources))
        whole = step.facts.in_order and len(own) == 1 and weights[0].whole

        reads = moved_together(node, operands, own, self.program.opset)
        made = [
            Moved(sources, tuple(shape or ()), weights[0].dtype, reads(place), whole)
            for place, shape in enumerate(shapes)
        ]
        tried = computed(node, [blank(x) for x in operands], self.program.opset)
        fits = tried is not None and all(
            array.shape == value.shape for array, value in zip(tried, made, strict=True)
        )
        return made if fits else None

    def _made(self, step: ProgramStep) -> list[Any] | None:
        """Return what a layer of Keras makes, where one computes the same."""
        maker = makers().get((step.domain, step.op))
        if maker is None:
            return None
        before = len(self._held_by_layers)
        step.attributes.begin()
        try:
            made = maker(self, step)
        except _unmade():
            made = None
        if made is None or step.ignored() or not self._fits(step, made):
            del self._held_by_layers[before:]
            return None
        return made

    def _operated(self, step: ProgramStep) -> list[Any] | None:
        """Return what the operator's translation makes of symbolic tensors."""
        facts = step.facts
        if step.bodies or facts.random or facts.sequence:
            return None
        step.attributes.begin()
        try:
            operands = [self._plain(name) for name in step.inputs]
            op = KerasOperation(step, self, Scope({}))  # type: ignore[arg-type]
            results = translations()[step.domain, step.op](op, *operands)
            results = list(results) if isinstance(results, list | tuple) else [results]
            made = [_noted(value) for value in typed(step, operands, results)]
        except _unmade():
            return None
        return None if step.ignored() or not self._fits(step, made, known=True) else made

    def _fits(self, step: ProgramStep, made: list[Any], *, known: bool = False) -> bool:
        """Return whether results have the types, ranks and sizes that the graph says.

        With ``known``, also whether they are known where the graph says what they are. What they
        are made of can be saved.
        """
        for name, value in zip(step.outputs, made, strict=False):
            if not name or isinstance(value, np.ndarray):
                continue
            if value is None:
                return False
            sizes, kind = self.sizes(name), self.program.dtype(name)
            if kind is not None and dtype_of(value.value) != type_name(kind):
                return False
            if sizes is not None and (
                len(sizes) != value.rank
                or any(
                    isinstance(mine, int) and (known or own is not None) and mine != own
                    for mine, own in zip(sizes, value.shape, strict=True)
                )
            ):
                return False
        return len(made) >= sum(map(bool, step.outputs)) and self._can_be_saved(made)

    def _can_be_saved(self, made: list[Any]) -> bool:
        """Return whether each new operation has arguments that a file can hold.

        Some operations take a size that is open as an argument, and fail only when they run.
        """
        values = [x.value for x in made if isinstance(x, Arranged)]
        try:
            for operation in operations(values, self._saved):
                operation.get_config()
                self._saved.add(operation)
        except NotImplementedError:
            return False
        return True

    # ---- what is read ----------------------------------------------------------------------------

    def weight(self, name: str) -> Moved | None:
        """Return a parameter or statistic, None for any other tensor."""
        if not self.program.is_weight(name):
            return None
        weight = self.program.model.weights[name]
        return Moved.of(name, weight.shape, type_name(weight.dtype))

    def operand(self, name: str) -> Any:
        """Return what a tensor is: Arranged, Moved, an array, or None where nothing is named.

        What is left becomes a layer of its own now, but for sizes: the analysis knows them. Raise
        ValueError where it does not, and RefusedTensor for what is refused.
        """
        if not name:
            return None
        if name not in self.values:
            known = self.constant(name)
            value = self.weight(name) if known is None else known
            if value is not None:
                return value
            if self.is_size(name):
                if self._makes_size:
                    raise ValueError("a size that only a run tells")
                return self.sized(name)
            self._region(name)
        if self.values[name] is None:
            raise RefusedTensor(name)
        return self.values[name]

    def is_made(self, name: str) -> bool:
        """Return whether a tensor is part of the graph already, or a weight."""
        value = self.values.get(name, self)
        return self.program.is_weight(name) or isinstance(value, Arranged | Moved | None)

    def constant(self, name: str) -> Any:
        """Return a constant, None for anything else."""
        if name not in self.values:
            known = self.program.constant(name)
            if known is None and self.is_settled(name):
                known = self.program.shapes.value[name]
            return known
        value = self.values[name]
        return value if isinstance(value, np.ndarray) else None

    def symbolic(self, name: str) -> Arranged:
        """Return a tensor of the graph, whatever it is made of."""
        value = self.operand(name)
        if isinstance(value, Moved):
            return self._held(name, value)
        return self._filled(value) if isinstance(value, np.ndarray) else value

    def _fixed(self, name: str) -> Any:
        """Return weights or a constant, None for anything else."""
        value = self.constant(name)
        if value is None:
            value = self.values.get(name) or self.weight(name)
        return value if isinstance(value, Moved | np.ndarray) else None

    def sole(self, name: str, role: Role = Role.PARAMETER, *, zeros: bool = False) -> Moved | None:
        """Return weights of this role that nothing else reads, each of their elements once.

        With ``zeros``, also with constant zeros among them.
        """
        value = self._fixed(name)
        if not isinstance(value, Moved):
            return None
        if any(self.readers[n] > 1 or self.program.roles[n] is not role for n in value.sources):
            return None
        return value if value.is_whole(self.shapes, zeros=zeros) else None

    def _held(self, name: str, value: Moved) -> Arranged:
        """Return weights as a tensor of the graph, moved as the graph does."""
        if name not in self._tensors:
            made = None
            if name in self.shapes:
                made = self._looked_up(name, value)
            elif results := self._operated(self._steps[name]):
                made = results[self._steps[name].outputs.index(name)]
            self._tensors[name] = made or self._region(name)
        return self._tensors[name]

    def _looked_up(self, name: str, value: Moved) -> Arranged:
        """Return an initializer as the rows of an Embedding."""
        shape = value.shape
        rows, width = math.prod(shape[:-1]), shape[-1] if shape else 1
        trains = self.program.roles[name] is Role.PARAMETER
        title = self.name(self.program.paths[name])
        layer = layers.Embedding(rows, width, dtype=value.dtype, trainable=trains, name=title)
        table = layer(ops.add(self.zero(), np.arange(rows, dtype="int32")))
        self._kept.append((layer.embeddings, (value.reshaped(rows, width),)))
        return Arranged.plain(table if len(shape) == 2 else ops.reshape(table, shape))

    def _plain(self, name: str) -> Any:
        """Return an operand as translations take it."""
        if not name:
            return None
        value = self.operand(name)
        if not isinstance(value, np.ndarray):
            return self.symbolic(name).stored()
        if value.size > LARGEST:
            raise ValueError("a constant is too large to stand in the graph")
        return value

    def _filled(self, value: np.ndarray) -> Arranged:
        """Return a constant as a tensor of the graph."""
        kind = value.dtype.name
        zero = ops.cast(self.zero(), kind)
        if kind == "bool":
            return Arranged.plain(ops.logical_or(value, zero))
        return Arranged.plain(ops.subtract(value, zero))

    def _region(self, name: str) -> Any:
        """Make one layer of all that is left of what ``name`` is made of."""
        made, problems = region(self, name)
        self.refusals += problems
        self.values |= made
        return made[name]

    # ---- layers ----------------------------------------------------------------------------------

    def hold(self, variable: Any, *terms: Moved) -> None:
        """Note what a layer's variable holds."""
        self._held_by_layers.append((variable, terms))

    def name(self, hint: str) -> GivenName:
        """Return a name for a layer that none has yet."""
        plain = valid_name(hint)
        numbered = (f"{plain}_{number}" for number in count(2))
        chosen = next(n for n in chain([plain], numbered) if n not in self._taken)
        self._taken.add(chosen)
        return GivenName(chosen)

    def layer_name(self, step: ProgramStep, *weights: Any) -> GivenName:
        """Return the author's name of the module that a step belongs to, or that of its output."""
        for weight in weights:
            if isinstance(weight, Moved) and len(weight.sources) == 1:
                path = parameter_path(weight.sources[0].replace("/", "."))
                if path is not None:
                    return self.name(path)
        node = self.program.graph.producer.get(step.output)
        scope = None if node is None else scope_path(node.proto)
        return self.name(scope or step.output)

    def sole_reader(self, name: str) -> ProgramStep | None:
        """Return the only step that reads a tensor, if there is one."""
        steps = self.consumers.get(name, [])
        return steps[0] if len(steps) == 1 and name not in self.program.main.outputs else None

    def _node(self, step: ProgramStep) -> NodeProto | None:
        node = self.program.graph.producer.get(step.output)
        if node is not None and node.op == step.op:
            return node.proto
        if step.op != "Transpose":
            return None
        return helper.make_node(step.op, step.inputs, step.outputs, **step.attributes)

    # ---- what a translation asks of its translator ---------------------------------------------

    @property
    def training(self) -> bool:
        """Raise ValueError: only a layer knows whether it trains."""
        raise ValueError("only a layer knows whether it trains")


def _unmade() -> tuple[type[Exception], ...]:
    """Return what is raised where a layer or an operation cannot take a step."""
    return (*failures(), Refused, RefusedTensor)


def _noted(value: Any) -> Any:
    """Return a translation's result as the builder notes it."""
    if isinstance(value, keras.KerasTensor):
        return Arranged.plain(value)
    if isinstance(value, np.ndarray) or value is None:
        return value
    return np.asarray(ops.convert_to_numpy(value))


def _consumers(program: Program) -> dict[str, list[ProgramStep]]:
    """Return the steps that read each tensor."""
    readers: dict[str, list[ProgramStep]] = {}
    for step in program.main.every_step():
        for name in dict.fromkeys(step.inputs):
            readers.setdefault(name, []).append(step)
    return readers
