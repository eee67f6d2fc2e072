"""One-node networks, at least one for every rule: what `tests/operators/test_rules.py` grows.

    Sample("MatMul", node("MatMul", "a w"), {"a": (np.float32, (3, 4))}, {"w": ...},
           expect="...0 any, m any, k any, n any")

``expect`` is the golden text: the status of every axis name of the rule whose size is not 1,
or "not followed: why". Sizes differ on every axis, and values are random, so that faults do
not cancel.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from onnx_net2net.operators import registry

Spec = tuple[Any, tuple[int, ...]]
RULED = {key for key, record in registry().items() if record.rule is not None}


@dataclass(frozen=True, eq=False)
class Sample:
    """One node with its operands."""

    id: str
    node: NodeProto
    inputs: Mapping[str, Spec]  # activations: type and shape
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    opset: int = 17
    expect: str | None = None
    within: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # ranges of inputs
    runs: bool = True  # False where onnxruntime has no kernel: onnx's reference is the judge

    @property
    def operator(self) -> tuple[str, str]:
        """Domain and operator."""
        return self.node.domain, self.node.op_type


def node(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> NodeProto:
    """A node from names separated by spaces; ``_`` is an absent operand."""
    names = ["" if name == "_" else name for name in inputs.split()]
    results = ["" if name == "_" else name for name in outputs.split()]
    return helper.make_node(op, names, results, name="node", **attributes)


def weight(*shape: int, seed: int = 1, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    """Random float32 values, none of them special."""
    values = np.random.default_rng([seed, *shape]).uniform(low, high, shape)
    return np.asarray(values, np.float32)


def integers(*shape: int, low: int, high: int, dtype: Any = np.int64, seed: int = 1) -> np.ndarray:
    """Random integers, ``high`` excluded."""
    values = np.random.default_rng([seed, *shape]).integers(low, high, shape)
    return np.asarray(values, dtype)


def samples() -> dict[str, list[Sample]]:
    """All samples by family."""
    return {
        module.name: getattr(import_module(f"{__name__}.{module.name}"), "SAMPLES", [])
        for module in pkgutil.iter_modules(__path__)
    }
