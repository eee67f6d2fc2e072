"""Walking a graph: each step's operator is looked up in a table and called.

This runs while Keras traces a model, so that a compiled training step pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import keras
import numpy as np
from onnx import NodeProto

from onnx_net2net.errors import Refused
from onnx_net2net.frameworks.attributes import unread
from onnx_net2net.frameworks.keras import unsigned
from onnx_net2net.frameworks.keras.library import sized
from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation, Scope
from onnx_net2net.frameworks.keras.program import KerasProgram
from onnx_net2net.frameworks.keras.run_time_sizes import (
    Scalars,
    Sizes,
    computed_sizes,
)
from onnx_net2net.frameworks.keras.types import typed
from onnx_net2net.frameworks.keras.values import Value
from onnx_net2net.frameworks.step import ProgramStep, Section
from onnx_net2net.operators import values as static
from onnx_net2net.operators.language import Op

__all__ = ["KerasTranslator"]

ILL_FORMED = (ValueError, IndexError, TypeError, ZeroDivisionError, KeyError, AttributeError)


class RefusedOutput:
    """What a refused node would have computed."""


@cache
def failures() -> tuple[type[Exception], ...]:
    """Return what the backend raises at an operand that it cannot take."""
    own: tuple[type[Exception], ...] = (*ILL_FORMED, NotImplementedError, RuntimeError)
    if keras.backend.backend() != "tensorflow":
        return own
    import tensorflow as tf

    return (*own, tf.errors.OpError)


def first_line(problem: Exception) -> str:
    """Return the type of an exception and the first line of its message."""
    return f"{type(problem).__name__}: {str(problem).strip().partition(chr(10))[0][:200]}"


class KerasTranslator:
    """One walk."""

    def __init__(
        self,
        program: KerasProgram,
        table: Mapping[tuple[str, str], Entry],
        *,
        training: bool = False,
        seed: Any = None,
        refusals: list[Refused] | None = None,
    ) -> None:
        self.program = program
        self.table = table
        self.scalars: Scalars = {}
        self.training = training
        self.seed = seed
        self.refusals = refusals

    def run(
        self, section: Section, feeds: Mapping[str, Value], outer: Scope | None = None
    ) -> list[Value]:
        """Return the outputs of the graph, or of a body of a node in it, for inputs by name."""
        program = self.program
        root = program.constants if outer is None else {}
        scope = Scope({**root, **feeds}, outer)
        for step in section.steps:
            operands = [scope[name] if name else None for name in step.inputs]
            results = self._attempt(KerasOperation(step, self, scope), operands)
            for name, value in zip(step.outputs, results, strict=False):
                if name:
                    scope.own[name] = sized(value, program.fixed.get(name))
            for name in step.done:
                scope.own.pop(name, None)
        return [scope[name] for name in section.outputs]

    def _attempt(self, op: KerasOperation, operands: list[Value]) -> Sequence[Value]:
        """Translate; with a list for refusals, note there what fails, and leave what follows it."""
        if self.refusals is None:
            return self._apply(op, operands)
        unknown = [RefusedOutput()] * len(op.step.outputs)
        if any(isinstance(operand, RefusedOutput) for operand in operands):
            return unknown
        try:
            return self._apply(op, operands)
        except Refused as problem:
            self.refusals.append(problem)
        except failures() as problem:
            reason = f"{keras.backend.backend()} cannot do it: {first_line(problem)}"
            self.refusals.append(Refused(op.step.label, reason))
        return unknown

    def _apply(self, op: KerasOperation, operands: list[Value]) -> list[Value]:
        step = op.step
        results = None if step.domain else self._static(op, operands)
        if results is None:
            step.attributes.begin()
            entry = self.table[step.domain, step.op]
            if unsigned.concerned(operands):
                results = unsigned.by_bits(op, entry, operands)
            else:
                results = entry(op, *operands)
            if self.refusals is not None and (ignored := step.ignored()):
                op.refuse(unread(ignored))
        sequence = isinstance(results, list) and step.facts.sequence
        several = isinstance(results, list | tuple) and not sequence
        return typed(step, operands, results if several else [results])

    def _static(self, op: KerasOperation, operands: list[Value]) -> Any:
        """Return what is computed without the backend, of known numbers and of sizes; else None."""
        step = op.step
        given = [operand for operand in operands if operand is not None]
        if not given or not all(isinstance(operand, np.ndarray | Sizes) for operand in given):
            return None
        if all(isinstance(operand, np.ndarray) for operand in given):
            return _evaluated(step, operands)
        node = self.program.graph.producer.get(step.output)
        if node is None or node.op != step.op:  # it stands for several nodes
            return None
        if step.attributes.foreign(step.op, step.domain, step.opset):
            return None
        return computed_sizes(node.proto, operands, step.opset, self.scalars)


class _Node(Op):
    """A step as the records' functions see it, with ``operands`` that are known."""

    def __init__(self, step: ProgramStep, operands: Sequence[Value]) -> None:
        node = NodeProto(op_type=step.op, input=step.inputs, output=step.outputs)
        super().__init__(node, step.opset, (), (), tuple(operands))
        self.attributes = step.attributes

    def attr(self, name: str, default: Any = None) -> Any:
        """Return an attribute, which counts as read then."""
        return self.attributes.get(name, default)


def _evaluated(step: ProgramStep, operands: list[Value]) -> list[np.ndarray] | None:
    """Return what a step gives by its record, None where that has no value for it."""
    if step.facts.value is None:
        return None
    step.attributes.begin()
    try:
        results = step.facts.value(_Node(step, operands))
    except static.ILL_FORMED:
        return None
    if step.ignored():
        return None
    return [np.asarray(a) for a in (results if isinstance(results, list) else [results])]
