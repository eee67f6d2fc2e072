"""One step as the translations see it, beside its operands.

def gelu(op: KerasOperation, x: Any) -> Any:
    return ops.gelu(x, approximate=op.attribute("approximate", "none") == "tanh")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from onnx_net2net.frameworks.keras.values import Value
from onnx_net2net.frameworks.operation import Operation
from onnx_net2net.frameworks.step import ProgramStep

if TYPE_CHECKING:
    from onnx_net2net.frameworks.keras.translator import KerasTranslator

__all__ = ["Entry", "KerasOperation", "Scope"]

Entry = Callable[..., Any]


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


class KerasOperation(Operation):
    """A step while it runs: what a translation may look at besides its operands."""

    def __init__(self, step: ProgramStep, translator: KerasTranslator, scope: Scope) -> None:
        super().__init__(step)
        self.translator = translator
        self.scope = scope

    @property
    def training(self) -> bool:
        """Return whether batch statistics and Dropout are wanted."""
        return self.translator.training

    def padded(self, operands: Sequence[Value], count: int) -> list[Value]:
        """Return operands that may be left out, None where they are; refuse more than ``count``."""
        if len(operands) > count:
            self.refuse(f"{len(operands) - count} operands more than it may have")
        return [*operands, *[None] * (count - len(operands))]

    def body(self, name: str, values: Sequence[Value]) -> list[Value]:
        """Return the outputs of a body (``then_branch``, ``body``) for these inputs."""
        if name not in self.step.bodies:
            self.refuse(f"its {name} does not take what it is given")
        section = self.step.bodies[name]
        feeds = dict(zip(section.inputs, values, strict=False))
        return self.translator.run(section, feeds, self.scope)
