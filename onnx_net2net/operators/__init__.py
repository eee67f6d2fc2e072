"""What each operator is, assembled from its family's file: (domain, operator) -> rule."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np

from onnx_net2net.algebra.sizes import Undecided
from onnx_net2net.operators.assembly import assembled
from onnx_net2net.operators.language import Entry, Op, Rule, Unsupported

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
    return assembled(__name__, FAMILIES)


def lookup(op: Op) -> Rule:
    """The rule for this node; Unsupported where there is none."""
    domain = "" if op.node.domain == "ai.onnx" else op.node.domain
    entry = registry().get((domain, op.node.op_type))
    if entry is None:
        name = f"{domain}.{op.node.op_type}" if domain else op.node.op_type
        raise Unsupported(f"operator {name} is not known")
    if not callable(entry):
        return _plain(entry) if isinstance(entry, str) else entry
    key = (entry, *_looked_at(op))
    rule = _made.get(key)
    if rule is None:
        if len(_made) >= MOST_KEPT:
            _made.clear()
        rule = _made[key] = _called(entry, op)
    return rule


# Networks repeat their layers: what a rule said of one node holds for all that look alike.
_made: dict[tuple[object, ...], Rule] = {}
MOST_KEPT = 4096


def _looked_at(op: Op) -> tuple[object, ...]:
    """All that a rule may look at."""
    node = op.node
    return (
        node.op_type,
        op.opset,
        op.shapes,
        op.outputs,
        tuple([a.SerializeToString() for a in node.attribute]),
        tuple([None if v is None else _contents(v) for v in op.values]),
        # What has a shape is there; what has none may be absent.
        tuple(map(bool, node.input)) if None in op.shapes else None,
        tuple(map(bool, node.output)) if None in op.outputs else None,
    )


def _contents(value: np.ndarray) -> tuple[object, ...]:
    symbols = value.dtype == object
    return value.dtype, value.shape, tuple(value.ravel()) if symbols else value.tobytes()


def _called(entry: Callable[[Op], str | Rule], op: Op) -> Rule:
    try:
        rule = entry(op)
    except Undecided as problem:
        raise Unsupported(str(problem)) from None
    except (ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError):
        raise Unsupported("its attributes or shapes do not fit the operator") from None
    return _plain(rule) if isinstance(rule, str) else rule


@lru_cache(maxsize=4096)
def _plain(pattern: str) -> Rule:
    return Rule(pattern)
