"""A node as translations see it, and the steps of a graph in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnx_net2net.frameworks.attributes import Attributes
from onnx_net2net.operators import facts
from onnx_net2net.operators.record import Operator


@dataclass(eq=False)
class ProgramStep:
    """One node. ``bodies`` are the subgraphs of If, Loop and Scan by attribute."""

    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes
    label: str
    opset: int  # the version of the operator's domain
    bodies: dict[str, Any] = field(default_factory=dict)  # sections
    done: tuple[str, ...] = ()  # tensors that nothing reads after this step, once that is known

    @property
    def output(self) -> str:
        """Return the first output."""
        return self.outputs[0]

    @property
    def operator(self) -> str:
        """Return the operator with its domain, as a message names it."""
        return f"{self.domain}.{self.op}" if self.domain else self.op

    @property
    def facts(self) -> Operator:
        """Return what the operator is."""
        return facts(self.op, self.domain)

    def ignored(self) -> list[str]:
        """Return attributes that it states and nobody looked up, but for defaults."""
        return self.attributes.ignored(self.op, self.domain, self.opset)


@dataclass(eq=False)
class Section:
    """The steps of one graph, with the names that it takes and gives."""

    inputs: list[str]
    outputs: list[str]
    steps: list[ProgramStep]

    def sections(self) -> Iterator[Section]:
        """Yield this section, and the bodies of its steps."""
        yield self
        for step in self.steps:
            for body in step.bodies.values():
                yield from body.sections()

    def every_step(self) -> Iterator[ProgramStep]:
        """Yield the steps, each before those of its bodies."""
        for step in self.steps:
            yield step
            for body in step.bodies.values():
                yield from body.every_step()


def attributes_of(node: NodeProto) -> Attributes:
    """Return the attributes of a node but for graphs: text as str, tensors as arrays."""
    return Attributes(
        (a.name, _plain(helper.get_attribute_value(a)))
        for a in node.attribute
        if a.type not in (a.GRAPH, a.GRAPHS)
    )


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, list) and value and isinstance(value[0], bytes):
        return [item.decode(errors="backslashreplace") for item in value]
    return value
