"""Samples of pools."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.samples import Sample, integers, node

F32 = np.float32
X = (2, 3, 7, 6)
WINDOW = "b any, c any, s fixed, t fixed"
FREE = "b any, c any, s any"


def _sample(
    op: str,
    name: str,
    expect: str,
    *,
    opset: int = 17,
    shape: tuple[int, ...] = X,
    outputs: str = "y",
    **attributes: Any,
) -> Sample:
    return Sample(
        name, node(op, "x", outputs, **attributes), {"x": (F32, shape)}, {}, opset, expect
    )


def _windows(op: str) -> list[Sample]:
    strides = {"strides": [2, 1]}
    return [
        _sample(op, "opset7", WINDOW, opset=7, kernel_shape=[3, 2], pads=[1, 0, 1, 1]),
        _sample(op, "strides", WINDOW, opset=22, kernel_shape=[3, 3], auto_pad="VALID", **strides),
        _sample(op, "one-dimension", WINDOW, shape=(2, 3, 9), kernel_shape=[4]),
        _sample(op, "one-entry", FREE, kernel_shape=[1, 1]),
        _sample(op, "skipping", WINDOW, kernel_shape=[1, 1], strides=[2, 2]),
    ]


GLOBAL = "b any, c any, s0 any, s1 any"
SAMPLES = [
    *_windows("AveragePool"),
    _sample(
        "AveragePool", "padding", WINDOW, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1
    ),
    _sample(
        "AveragePool", "ceil", WINDOW, opset=19, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1
    ),
    *_windows("LpPool"),
    *_windows("MaxPool"),
    _sample("MaxPool", "dilations", WINDOW, kernel_shape=[2, 2], dilations=[2, 2], ceil_mode=1),
    _sample(
        "MaxPool",
        "indices",
        "not followed: its rule does not describe output 1",
        kernel_shape=[2, 2],
        outputs="y where",
    ),
    _sample("GlobalAveragePool", "opset7", GLOBAL, opset=7),
    _sample("GlobalAveragePool", "one-dimension", "b any, c any, s0 any", shape=(2, 3, 5)),
    _sample("GlobalMaxPool", "opset22", GLOBAL, opset=22),
    _sample("GlobalLpPool", "two", GLOBAL),
    _sample("GlobalLpPool", "one", GLOBAL, p=1),
    _sample("GlobalLpPool", "three", "b any, c any, s0 fixed, s1 fixed", p=3),
    _sample(
        "LRN", "window", "b any, c fixed, s any", shape=(2, 5, 3, 4), size=3, alpha=0.4, bias=1.5
    ),
    Sample(
        "windows",
        node("Col2Im", "x image block"),
        {"x": (F32, (2, 18, 20))},
        {"image": np.array([6, 6]), "block": np.array([2, 3])},
        18,
        "b any, c any, k fixed, l fixed, t fixed",
    ),
    Sample(
        "indices",
        node("MaxUnpool", "x where", kernel_shape=[2, 2], strides=[2, 2]),
        {"x": (F32, (1, 2, 3, 4))},
        {"where": integers(1, 2, 3, 4, low=0, high=90)},
        11,
        "not followed: its indices count through the whole tensor",
    ),
]
