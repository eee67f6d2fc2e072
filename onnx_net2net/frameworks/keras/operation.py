"""One step as the translations see it, beside its operands.

def gelu(op: Operation, x: Any) -> Any:
    return ops.gelu(x, approximate=op.attribute("approximate", "none") == "tanh")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from onnx_net2net.frameworks.keras.values import Value
from onnx_net2net.frameworks.operation import Operation as Shared
from onnx_net2net.frameworks.step import Step

if TYPE_CHECKING:
    from onnx_net2net.frameworks.keras.translator import Translator

__all__ = ["Entry", "Operation", "Scope"]

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


class Operation(Shared):
    """A step while it runs: what a translation may look at besides its operands."""

    def __init__(self, step: Step, translator: Translator, scope: Scope) -> None:
        super().__init__(step)
        self.translator = translator
        self.scope = scope

    @property
    def training(self) -> bool:
        """Whether batch statistics and Dropout are wanted."""
        return self.translator.training

    def padded(self, operands: Sequence[Value], count: int) -> list[Value]:
        """Operands that may be left out, None where they are; refuses more than ``count``."""
        if len(operands) > count:
            self.refuse(f"{len(operands) - count} operands more than it may have")
        return [*operands, *[None] * (count - len(operands))]

    def body(self, name: str, values: Sequence[Value]) -> list[Value]:
        """The outputs of a body (``then_branch``, ``body``) for these inputs."""
        if name not in self.step.bodies:
            self.refuse(f"its {name} does not take what it is given")
        section = self.step.bodies[name]
        feeds = dict(zip(section.inputs, values, strict=False))
        return self.translator.run(section, feeds, self.scope)
