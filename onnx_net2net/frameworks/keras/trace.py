"""Walking a graph: each step's operator is looked up in a table and called.

This runs while Keras traces a model, so that a compiled training step pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

import keras
import numpy as np

from onnx_net2net.analysis import values as static
from onnx_net2net.errors import Refused
from onnx_net2net.frameworks.attributes import unread
from onnx_net2net.frameworks.keras import unsigned
from onnx_net2net.frameworks.keras.program import Program, Step
from onnx_net2net.frameworks.keras.types import typed
from onnx_net2net.frameworks.keras.values import Mixed, Value, elementwise, sized

__all__ = ["Call", "Entry", "Trace"]

# What merely moves entries, so that it can be done on arrays of numbers and tensors.
MOVES = frozenset(
    [
        "Concat",
        "Expand",
        "Gather",
        "Identity",
        "ReduceProd",
        "ReduceSum",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    ]
)
ILL_FORMED = (ValueError, IndexError, TypeError, ZeroDivisionError, KeyError, AttributeError)

Entry = Callable[..., Any]


class Unknown:
    """What a refused node would have computed."""


@cache
def failures() -> tuple[type[Exception], ...]:
    """What the backend raises at an operand that it cannot take."""
    found: tuple[type[Exception], ...] = (*ILL_FORMED, NotImplementedError, RuntimeError)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        found += (tf.errors.OpError,)
    return found


def first_line(problem: Exception) -> str:
    """Enough of a message."""
    return f"{type(problem).__name__}: {str(problem).strip().partition(chr(10))[0][:200]}"


class Scope:
    """Tensors by name; what a body does not hold is looked up around it."""

    def __init__(self, own: dict[str, Value], outer: Scope | None = None) -> None:
        self.own = own
        self.outer = outer

    def __getitem__(self, name: str) -> Value:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.own:
                return scope.own[name]
            scope = scope.outer
        raise KeyError(name)


@dataclass(eq=False)
class Call:
    """One step while it runs: what a table's function may look at besides its operands."""

    step: Step
    trace: Trace
    scope: Scope

    @property
    def opset(self) -> int:
        """The version of the step's operator set."""
        return self.step.opset

    @property
    def training(self) -> bool:
        """Whether batch statistics and Dropout are wanted."""
        return self.trace.training

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute of the node."""
        return self.step.attributes.get(name, default)

    def wants(self, output: int) -> bool:
        """Whether anything may read this output."""
        outputs = self.step.outputs
        return output < len(outputs) and bool(outputs[output])

    def padded(self, operands: Sequence[Value], count: int) -> list[Value]:
        """Operands that may be left out, None where they are; refuses more than ``count``."""
        if len(operands) > count:
            self.refuse(f"{len(operands) - count} operands more than it may have")
        return [*operands, *[None] * (count - len(operands))]

    def body(self, name: str, values: Sequence[Value]) -> list[Value]:
        """The outputs of a body (``then_branch``, ``body``) for these inputs."""
        program = self.step.bodies[name]
        return self.trace.run(program, dict(zip(program.inputs, values, strict=False)), self.scope)

    def refuse(self, reason: str, remedy: str | None = None) -> NoReturn:
        """Stop: this node cannot be translated."""
        raise Refused(self.step.label, reason, remedy)


class Trace:
    """One walk. ``variables`` are tensors by initializer, ``update`` writes a statistic.

    ``population`` says that a running variance moves towards the batch's own, not the unbiased one.
    """

    def __init__(
        self,
        table: Mapping[tuple[str, str], Entry],
        pointwise: frozenset[str],
        variables: Mapping[str, Any],
        *,
        training: bool = False,
        seed: Any = None,
        update: Callable[[str, Any], None] | None = None,
        refusals: list[Refused] | None = None,
        population: bool = False,
    ) -> None:
        self.table = table
        self.pointwise = pointwise
        self.variables = variables
        self.training = training
        self.seed = seed
        self.update = update
        self.refusals = refusals
        self.population = population

    def moved(self, name: str, value: Any) -> None:
        """Give a statistic its new value."""
        if self.update is not None:
            self.update(name, value)

    def run(
        self, program: Program, feeds: Mapping[str, Value], outer: Scope | None = None
    ) -> list[Value]:
        """The outputs of a program for inputs by name."""
        root = self.variables if outer is None else {}
        scope = Scope({**program.constants, **root, **feeds}, outer)
        for step in program.steps:
            operands = [scope[name] if name else None for name in step.inputs]
            results = self._attempt(Call(step, self, scope), operands)
            for name, value in zip(step.outputs, results, strict=False):
                if name:
                    scope.own[name] = sized(value, program.fixed.get(name))
            for name in step.done:
                scope.own.pop(name, None)
        return [scope[name] for name in program.outputs]

    def _attempt(self, call: Call, operands: list[Value]) -> Sequence[Value]:
        """With a list for refusals, a node that fails is noted there and what follows it left."""
        if self.refusals is None:
            return self._apply(call, operands)
        unknown = [Unknown()] * len(call.step.outputs)
        if any(isinstance(operand, Unknown) for operand in operands):
            return unknown
        try:
            return self._apply(call, operands)
        except Refused as problem:
            self.refusals.append(problem)
        except failures() as problem:
            reason = f"{keras.backend.backend()} cannot do it: {first_line(problem)}"
            self.refusals.append(Refused(call.step.label, reason))
        return unknown

    def _apply(self, call: Call, operands: list[Value]) -> Sequence[Value]:
        step = call.step
        found = None if step.domain else self._static(call, operands)
        if found is None:
            step.attributes.begin()
            found = self._translated(call, operands)
            self._all_read(call)
        results = found if isinstance(found, list | tuple) and not _one(step, found) else [found]
        return list(typed(step, operands, results))

    def _translated(self, call: Call, operands: list[Value]) -> Any:
        entry = self.table[call.step.domain, call.step.op]
        if unsigned.concerned(operands):
            return unsigned.by_bits(call, entry, operands)
        return entry(call, *operands)

    def _all_read(self, call: Call) -> None:
        """Refuse what the node states and its translation does not look at."""
        ignored = call.step.ignored() if self.refusals is not None else None
        if ignored:
            call.refuse(unread(ignored))

    def _static(self, call: Call, operands: list[Value]) -> Any:
        """Computed without the backend, where operands are known; None where they are not."""
        step = call.step
        given = [operand for operand in operands if operand is not None]
        if not given or not all(isinstance(o, np.ndarray | Mixed) for o in given):
            return None
        if not any(isinstance(operand, Mixed) for operand in given):
            return _evaluated(step, operands)
        if step.op in self.pointwise:
            return elementwise(lambda *items: self._scalar(call, items), operands)
        return _moved(step, operands) if step.op in MOVES else None

    def _scalar(self, call: Call, items: Sequence[Value]) -> Value:
        """A pointwise operator on numbers and scalar tensors."""
        if all(isinstance(item, np.ndarray) for item in items):
            found = _evaluated(call.step, list(items))
            if found is not None:
                return found[0]
        call.step.attributes.begin()
        result = self.table[call.step.domain, call.step.op](call, *items)
        self._all_read(call)
        return result


def _one(step: Step, found: Any) -> bool:
    """Whether a list is the value of one output: a sequence of tensors."""
    return isinstance(found, list) and step.facts.sequence


def _evaluated(step: Step, operands: list[Value]) -> list[np.ndarray] | None:
    entry = static.OPERATORS.get(step.op)
    if entry is None:
        return None
    try:
        step.attributes.begin()
        found = entry(step.attributes, list(operands), step.opset)
    except ILL_FORMED:
        return None
    if step.ignored():
        return None
    return [np.asarray(a) for a in (found if isinstance(found, list) else [found])]


def _moved(step: Step, operands: list[Value]) -> list[Value] | None:
    """An operator that only moves entries, on arrays of numbers and tensors."""
    kind = next(o.dtype for o in operands if isinstance(o, Mixed))
    arrays = [o.items if isinstance(o, Mixed) else o for o in operands]
    if step.op == "Concat":
        arrays = [array.astype(object) for array in arrays]
    elif any(isinstance(operand, Mixed) for operand in operands[1:]):
        return None  # an index or a size that is not known
    try:
        step.attributes.begin()
        found = static.OPERATORS[step.op](step.attributes, arrays, step.opset)
    except ILL_FORMED:
        return None
    if step.ignored():
        return None
    return [_plain(part, kind) for part in (found if isinstance(found, list) else [found])]


def _plain(found: Any, kind: np.dtype) -> np.ndarray | Mixed:
    """An array of numbers where no element is a tensor."""
    array: np.ndarray = found
    if not isinstance(found, np.ndarray):  # the one element of an array without axes
        array = np.empty((), object)
        array[()] = found
    items = array.reshape(-1).tolist()
    if all(isinstance(item, int | float | bool) for item in items):
        return array.astype(kind)
    return Mixed(array, kind)
