"""The rules, assembled from their families: (domain, operator) -> rule."""

from __future__ import annotations

from functools import cache, lru_cache
from importlib import import_module

from onnx_net2net.rules.language import Entry, Op, Rule, Unsupported

# One file a family; each holds a TABLE of operators and names its domain.
FAMILIES = (
    "elementwise",
    "linear",
    "normalisation",
    "pooling",
    "quantization",
    "reduction",
    "signal",
    "movement",
    "shaping",
    "indexing",
    "selection",
    "recurrent",
    "attention",
    "microsoft",
    "microsoft_attention",
    "classical",
)


@cache
def registry() -> dict[tuple[str, str], Entry]:
    """All rules by (domain, operator)."""
    found: dict[tuple[str, str], Entry] = {}
    for family in FAMILIES:
        module = import_module(f"{__name__}.{family}")
        for domain, table in module.TABLES.items():
            for name, entry in table.items():
                if (domain, name) in found:
                    raise ValueError(f"two rules for {domain or 'ai.onnx'}.{name}")
                found[domain, name] = entry
    return found


def lookup(op: Op) -> Rule:
    """The rule for this node; Unsupported where there is none."""
    domain = "" if op.node.domain == "ai.onnx" else op.node.domain
    entry = registry().get((domain, op.node.op_type))
    if entry is None:
        name = f"{domain}.{op.node.op_type}" if domain else op.node.op_type
        raise Unsupported(f"operator {name} is not known")
    try:
        rule = entry(op) if callable(entry) else entry
    except (ArithmeticError, IndexError, TypeError, ValueError):
        raise Unsupported("its attributes or shapes do not fit the operator") from None
    return _plain(rule) if isinstance(rule, str) else rule


@lru_cache(maxsize=4096)
def _plain(pattern: str) -> Rule:
    return Rule(pattern)
