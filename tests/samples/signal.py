"""Samples of Fourier transforms."""

from __future__ import annotations

import numpy as np

from tests.samples import Sample, node, weight

F32 = np.float32
X = {"x": (F32, (2, 6, 3, 1))}
SAMPLES = [
    Sample(
        "opset17",
        node("DFT", "x"),
        X,
        {},
        17,
        "a0 any, a1 fixed, a2 any, out1 fixed, out3 fixed",
    ),
    Sample(
        "onesided",
        node("DFT", "x", axis=2, onesided=1),
        X,
        {},
        18,
        "a0 any, a1 any, a2 fixed, out2 fixed, out3 fixed",
    ),
    Sample(
        "opset20",
        node("DFT", "x length axis"),
        X,
        {"length": np.array(8), "axis": np.array(1)},
        20,
        "a0 any, a1 fixed, a2 any, out1 fixed, out3 fixed",
    ),
    Sample(
        "window",
        node("STFT", "x step window length"),
        {"x": (F32, (2, 24, 1))},
        {"step": np.array(5), "window": weight(8), "length": np.array(8)},
        17,
        # onnx 1.23 infers 8 bins where there are 5, so what reads them does not fit: all is pinned.
        "b fixed, n fixed, frame fixed, bin fixed, parts fixed",
    ),
]
