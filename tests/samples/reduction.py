"""Samples of reductions and running sums."""

from __future__ import annotations

import numpy as np

from tests.samples import Sample, node

F32 = np.float32
X = {"x": (F32, (3, 4, 5))}
ROOM = {"x": (0.2, 1.7)}
FREE = "a0 any, a1 any, a2 any"
OPERATORS = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
    "ReduceSum ReduceSumSquare"
)


def _expect(op: str, *over: int) -> str:
    status = {"ReduceProd": "fixed"}.get(op, "any")
    return ", ".join(f"a{i} {status if i in over else 'any'}" for i in range(3))


def _attribute(op: str, opset: int) -> list[Sample]:
    one = node(op, "x", axes=[1])
    two = node(op, "x", axes=[-1, 0], keepdims=0)
    every = node(op, "x", keepdims=0)
    return [
        Sample(f"one-opset{opset}", one, X, {}, opset, _expect(op, 1), ROOM),
        Sample(f"two-opset{opset}", two, X, {}, opset, _expect(op, 0, 2), ROOM),
        Sample(f"all-opset{opset}", every, X, {}, opset, _expect(op, 0, 1, 2), ROOM),
    ]


def _input(op: str, opset: int) -> list[Sample]:
    axes = {"axes": np.array([-2])}
    one = node(op, "x axes", keepdims=0)
    every = node(op, "x")
    none = node(op, "x", noop_with_empty_axes=1)
    return [
        Sample(f"input-opset{opset}", one, X, axes, opset, _expect(op, 1), ROOM),
        Sample(f"no-input-opset{opset}", every, X, {}, opset, _expect(op, 0, 1, 2), ROOM),
        Sample(f"no-axes-opset{opset}", none, X, {}, opset, _expect(op), ROOM),
    ]


RUNNING = [
    Sample(
        "last", node("CumSum", "x axis"), X, {"axis": np.array(-1)}, 11, "a0 any, a1 any, a2 fixed"
    ),
    Sample(
        "reverse",
        node("CumSum", "x axis", reverse=1, exclusive=1),
        X,
        {"axis": np.array([0])},
        14,
        "a0 fixed, a1 any, a2 any",
    ),
    Sample(
        "middle",
        node("CumProd", "x axis"),
        X,
        {"axis": np.array(1)},
        26,
        "a0 any, a1 fixed, a2 any",
        ROOM,
        runs=False,
    ),
]
SAMPLES = [
    Sample(
        "batch",
        node("Det", "x"),
        {"x": (F32, (3, 2, 4, 4))},
        {},
        11,
        "... any, m fixed, n fixed",
    ),
    *(s for op in OPERATORS.split() for s in _attribute(op, 11 if op == "ReduceSum" else 13)),
    *(s for op in OPERATORS.split() for s in _input(op, 13 if op == "ReduceSum" else 18)),
    *_input("ReduceMax", 20),
    *RUNNING,
]
