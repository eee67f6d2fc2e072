"""What a translation may ask of its step, whatever the framework.

op.attribute("axis", 0)
op.wants(1)                                 # whether a second output is named
op.refuse("its axes are computed")          # stops: this node has no translation
"""

from __future__ import annotations

from typing import Any, NoReturn

from onnx_net2net.errors import Refused
from onnx_net2net.frameworks.step import ProgramStep


class Operation:
    """A step that is being translated."""

    def __init__(self, step: ProgramStep) -> None:
        self.step = step
        self.opset = step.opset

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or what it is by default, and record that it was looked at."""
        return self.step.attributes.get(name, default)

    def wants(self, output: int) -> bool:
        """Return whether an output is named."""
        return output < len(self.step.outputs) and bool(self.step.outputs[output])

    def strides(self, rank: int) -> list[int]:
        """Return how far a window moves along each of ``rank`` axes."""
        return list(self.attribute("strides") or [1] * rank)

    def dilations(self, rank: int) -> list[int]:
        """Return how far the elements of a window lie apart along each of ``rank`` axes."""
        return list(self.attribute("dilations") or [1] * rank)

    def pads(self, rank: int) -> list[int]:
        """Return the stated padding of ``rank`` axes: before each of them, then behind each."""
        return list(self.attribute("pads") or [0] * (2 * rank))

    def check_ratio(self, ratio: float) -> None:
        """Raise Refused for a part of all units to drop that is none, such as 5 or NaN."""
        if not 0 <= ratio <= 1:
            self.refuse(f"its ratio is {ratio:g}, and not from 0 to 1", "correct the ratio")

    def refuse(self, reason: str, remedy: str | None = None) -> NoReturn:
        """Raise Refused: this node has no translation."""
        raise Refused(self.step.label, reason, remedy)
