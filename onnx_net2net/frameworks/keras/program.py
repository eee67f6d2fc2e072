"""A graph as a list of steps that an interpreter can walk.

program = compiled(proto)
for step in program.steps:
    step.op, step.inputs, step.attributes, step.bodies
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, numpy_helper

from onnx_net2net.analysis.values import attribute_value, constant
from onnx_net2net.frameworks.attributes import Attributes
from onnx_net2net.model.graph import captured
from onnx_net2net.model.validation import opset_versions
from onnx_net2net.operators import facts
from onnx_net2net.operators.record import Operator

__all__ = ["Program", "Step", "all_steps", "compiled"]


@dataclass(eq=False)
class Step:
    """One node: what it reads and writes, and all that is known of it before it runs."""

    op: str
    domain: str
    label: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes
    opset: int
    bodies: dict[str, Program] = field(default_factory=dict)
    done: tuple[str, ...] = ()  # tensors that nothing reads after this step

    @property
    def facts(self) -> Operator:
        """What the operator is."""
        return facts(self.op, self.domain)

    def ignored(self) -> list[str]:
        """Attributes that it states and nobody looked up, but for defaults."""
        return self.attributes.ignored(self.op, self.domain, self.opset)

    @property
    def operator(self) -> str:
        """With its domain, as a message names it."""
        return f"{self.domain}.{self.op}" if self.domain else self.op


@dataclass(eq=False)
class Program:
    """The steps of one graph in order, its constants by name."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: dict[str, np.ndarray]
    steps: list[Step]
    fixed: dict[str, tuple[int | None, ...]] = field(default_factory=dict)  # sizes by tensor


def compiled(proto: ModelProto, variables: frozenset[str] = frozenset()) -> Program:
    """The program of a model. Initializers in ``variables`` are left to the caller."""
    return _program(proto.graph, opset_versions(proto), variables)


def all_steps(program: Program) -> Iterator[Step]:
    """The steps of the program and of all bodies in it."""
    for step in program.steps:
        yield step
        for body in step.bodies.values():
            yield from all_steps(body)


def _program(graph: GraphProto, opsets: dict[str, int], variables: frozenset[str]) -> Program:
    constants = {
        entry.name: numpy_helper.to_array(entry)
        for entry in graph.initializer
        if entry.name not in variables
    }
    steps = []
    for position, node in enumerate(graph.node):
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            if node.output[0] in variables:
                continue
            value = constant(node)
            if value is not None:
                constants[node.output[0]] = value
                continue
        steps.append(_step(node, position, opsets, variables))
    outputs = tuple(value.name for value in graph.output)
    _release(steps, outputs)
    stored = {entry.name for entry in graph.initializer}
    inputs = tuple(value.name for value in graph.input if value.name not in stored)
    fixed = {
        value.name: tuple(
            d.dim_value if d.HasField("dim_value") else None
            for d in value.type.tensor_type.shape.dim
        )
        for value in graph.value_info
    }
    return Program(inputs, outputs, constants, steps, fixed)


def _step(
    node: NodeProto, position: int, opsets: dict[str, int], variables: frozenset[str]
) -> Step:
    domain = "" if node.domain == "ai.onnx" else node.domain
    name = node.name or next((output for output in node.output if output), f"#{position}")
    bodies = {
        attribute.name: _program(attribute.g, opsets, variables)
        for attribute in node.attribute
        if attribute.type == AttributeProto.GRAPH
    }
    step = Step(
        node.op_type,
        domain,
        f"{node.op_type} '{name}'",
        tuple(node.input),
        tuple(node.output),
        Attributes((a.name, _plain(a)) for a in node.attribute if a.name not in bodies),
        opsets.get(domain, 1),
        bodies,
    )
    step.done = tuple(sorted({n for n in node.input if n} | captured(node)))
    return step


def _plain(attribute: AttributeProto) -> Any:
    """Strings as str, tensors as arrays."""
    value = attribute_value(attribute)
    if attribute.type == AttributeProto.STRING:
        return value.decode(errors="backslashreplace")
    if attribute.type == AttributeProto.STRINGS:
        return [item.decode(errors="backslashreplace") for item in value]
    if attribute.type == AttributeProto.TENSOR:
        return numpy_helper.to_array(value)
    return value


def _release(steps: list[Step], outputs: tuple[str, ...]) -> None:
    """Leave each tensor in the ``done`` of the last step that reads it, and there only."""
    needed = set(outputs)
    for step in reversed(steps):
        step.done = tuple(name for name in step.done if name not in needed)
        needed.update(step.done)
