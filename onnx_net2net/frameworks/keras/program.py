"""A graph as a list of steps that an interpreter can walk.

program = compiled(proto)
for step in program.steps:
    step.op, step.inputs, step.attributes, step.bodies
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, numpy_helper

from onnx_net2net.analysis.values import constant
from onnx_net2net.frameworks.step import Section, Step, attributes_of
from onnx_net2net.model.graph import captured
from onnx_net2net.model.validation import opset_versions

__all__ = ["Program", "compiled"]


@dataclass(eq=False)
class Program(Section):
    """The steps of one graph in order, its constants by name, and sizes that it declares."""

    constants: dict[str, np.ndarray]
    fixed: dict[str, tuple[int | None, ...]]


def compiled(proto: ModelProto, variables: frozenset[str] = frozenset()) -> Program:
    """The program of a model. Initializers in ``variables`` are left to the caller."""
    return _program(proto.graph, opset_versions(proto), variables)


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
    outputs = [value.name for value in graph.output]
    _release(steps, outputs)
    stored = {entry.name for entry in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in stored]
    fixed = {
        value.name: tuple(
            d.dim_value if d.HasField("dim_value") else None
            for d in value.type.tensor_type.shape.dim
        )
        for value in graph.value_info
    }
    return Program(inputs, outputs, steps, constants, fixed)


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
        tuple(node.input),
        tuple(node.output),
        attributes_of(node),
        f"{node.op_type} '{name}'",
        opsets.get(domain, 1),
        bodies,
    )
    step.done = tuple(sorted({n for n in node.input if n} | captured(node)))
    return step


def _release(steps: list[Step], outputs: list[str]) -> None:
    """Leave each tensor in the ``done`` of the last step that reads it, and there only."""
    needed = set(outputs)
    for step in reversed(steps):
        step.done = tuple(name for name in step.done if name not in needed)
        needed.update(step.done)
