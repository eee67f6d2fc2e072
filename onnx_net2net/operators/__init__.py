"""What each operator is, assembled from its family's file: (domain, operator) -> record."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

import numpy as np

from onnx_net2net.algebra.sizes import Undecided
from onnx_net2net.operators.assembly import assembled
from onnx_net2net.operators.language import Op, Rule, Unsupported
from onnx_net2net.operators.record import Operator

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
    "control",
)

UNKNOWN = Operator()
T = TypeVar("T")


@cache
def registry() -> dict[tuple[str, str], Operator]:
    """Return all records by (domain, operator)."""
    return assembled(__name__, FAMILIES)


def facts(name: str, domain: str = "") -> Operator:
    """Return the record of an operator; ``UNKNOWN`` where there is none."""
    return registry().get(("" if domain == "ai.onnx" else domain, name), UNKNOWN)


def lookup(op: Op) -> Rule:
    """Return the rule for this node. Raise Unsupported where there is none."""
    record = facts(op.node.op_type, op.node.domain)
    if record.rule is None:
        domain = "" if op.node.domain in ("", "ai.onnx") else f"{op.node.domain}."
        raise Unsupported(f"operator {domain}{op.node.op_type} is not known")
    if record.constant_rule is not None:
        return record.constant_rule
    key = (record, *looked_at(op))
    rule = _made.get(key)
    if rule is None:
        if len(_made) >= MOST_KEPT:
            _made.clear()
        assert callable(record.rule)  # or it were a constant rule
        made = _called(record.rule, op)
        rule = _made[key] = record.of_kind(Rule(made) if isinstance(made, str) else made)
    return rule


def multiply_adds(op: Op) -> list[int]:
    """Return the products that one node sums, to be added; none where its record counts nothing.

    Raise Unsupported where a shape that it takes is not known.
    """
    flops = facts(op.node.op_type, op.node.domain).flops
    return [] if flops is None else _called(flops, op)


# Networks repeat their layers: what a rule said of one node holds for all that look alike.
_made: dict[tuple[object, ...], Rule] = {}
MOST_KEPT = 4096


def looked_at(op: Op) -> tuple[object, ...]:
    """Return all that a rule may look at: nodes for which it is equal are alike."""
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


def _called(function: Callable[[Op], T], op: Op) -> T:
    try:
        return function(op)
    except Undecided as problem:
        raise Unsupported(str(problem)) from None
    except (ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError):
        raise Unsupported("its attributes or shapes do not fit the operator") from None
