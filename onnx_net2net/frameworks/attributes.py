"""The attributes and operands of a node: what no translation looks at is refused.

    attributes = Attributes({"axis": 1, "mode": "odd"})
    attributes.get("axis", 0)
    attributes.ignored("Softmax", "", 13)           # ["mode"]

A translation that does not look at an attribute computes something else than the file says. So
what a node states must be looked up by whoever translates it, unless it is what the operator's
schema gives by default anyway. The same goes for operands.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from onnx import defs, helper

from onnx_net2net.operators import facts

__all__ = ["Attributes", "unread"]


class Attributes(dict[str, Any]):
    """Attributes by name; ``seen`` are those that were looked up since :meth:`begin`."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.seen: set[str] = set()

    def begin(self) -> None:
        """Forget what was looked up: another reader comes."""
        self.seen.clear()

    def get(self, name: str, default: Any = None) -> Any:
        """Return like `dict.get`, and note that the name was looked up."""
        self.seen.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> Any:
        self.seen.add(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.seen.add(str(name))
        return super().__contains__(name)

    def ignored(self, op: str, domain: str, opset: int) -> list[str]:
        """List what is stated, was not looked up, and is not the default of the schema."""
        known = _defaults(op, domain, opset)
        return sorted(
            name
            for name, value in self.items()
            if name not in self.seen
            and name not in facts(op, domain).implied
            and not _same(value, known.get(name))
        )

    def foreign(self, op: str, domain: str, opset: int) -> list[str]:
        """List what the operator's schema does not have."""
        known = _schema(op, domain, opset)
        return [] if known is None else sorted(self.keys() - known.attributes.keys())


def unread(names: Sequence[str], kind: str = "attribute") -> str:
    """Say in a refusal that nothing looks at them.

    >>> unread(["mode"])
    'no translation looks at its attribute mode'
    """
    plural = "s" if len(names) > 1 else ""
    return f"no translation looks at its {kind}{plural} {', '.join(names)}"


def _schema(op: str, domain: str, opset: int) -> defs.OpSchema | None:
    if defs.has(op, opset, domain):
        return defs.get_schema(op, opset, domain)
    # onnxruntime knew some operators before ONNX did.
    return defs.get_schema(op, domain) if defs.has(op, domain) else None


@cache
def _defaults(op: str, domain: str, opset: int) -> dict[str, Any]:
    schema = _schema(op, domain, opset)
    defaults: dict[str, Any] = {}
    for name, attribute in (schema.attributes if schema else {}).items():
        if attribute.default_value.name:
            value = helper.get_attribute_value(attribute.default_value)
            defaults[name] = value.decode() if isinstance(value, bytes) else value
    return defaults


def _same(value: Any, default: Any) -> bool:
    if default is None or isinstance(value, np.ndarray):
        return False
    return bool(value == default)
