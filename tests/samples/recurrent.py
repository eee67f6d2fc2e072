"""Samples of the recurrent layers."""

from __future__ import annotations

import numpy as np
from onnx import helper

from tests.samples import Sample

TIME, BATCH, INPUT, HIDDEN = 5, 3, 4, 6
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STATES = {"LSTM": 2, "GRU": 1, "RNN": 1}
EXPECT = "t fixed, b any, i any, d fixed, h any"


def _weight(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) * 0.6).astype(np.float32)


def _sample(
    op: str, name: str, *, full: bool = False, opset: int = 17, expect: str = EXPECT, **attributes
) -> Sample:
    """``full``: every optional input and output is present."""
    rng = np.random.default_rng(7)
    both = attributes.get("direction") == "bidirectional"
    directions, gates = (2 if both else 1), GATES[op]
    weights = {
        "W": _weight(rng, directions, gates * HIDDEN, INPUT),
        "R": _weight(rng, directions, gates * HIDDEN, HIDDEN),
    }
    inputs: dict = {"X": (np.float32, (TIME, BATCH, INPUT))}
    names = ["X", "W", "R"]
    outputs = ["Y", "Y_h"]
    if full:
        state = (np.float32, (directions, BATCH, HIDDEN))
        weights["B"] = _weight(rng, directions, 2 * gates * HIDDEN)
        weights["lengths"] = np.array([5, 2, 4], np.int32)
        inputs["h0"] = state
        names += ["B", "lengths", "h0"]
        if op == "LSTM":
            weights["P"] = _weight(rng, directions, 3 * HIDDEN)
            inputs["c0"] = state
            names += ["c0", "P"]
            outputs.append("Y_c")
    node = helper.make_node(op, names, outputs, hidden_size=HIDDEN, **attributes)
    return Sample(f"{op}-{name}", node, inputs, weights, opset=opset, expect=expect)


ONE_WAY = "t fixed, b any, i any, h any"
SAMPLES = [
    *(_sample(op, "plain", expect=ONE_WAY) for op in GATES),
    *(_sample(op, "opset7", opset=7, expect=ONE_WAY) for op in GATES),
    *(_sample(op, "reverse", full=True, direction="reverse", expect=ONE_WAY) for op in GATES),
    *(_sample(op, "both-ways", full=True, direction="bidirectional") for op in GATES),
    _sample("GRU", "linear-before-reset", full=True, linear_before_reset=1, expect=ONE_WAY),
    _sample("LSTM", "clip", full=True, clip=0.4, expect=ONE_WAY),
    _sample("LSTM", "activations", activations=["HardSigmoid", "Softsign", "Elu"], expect=ONE_WAY),
    _sample("LSTM", "input-forget", input_forget=1, expect=ONE_WAY),
    _sample("RNN", "relu", full=True, activations=["Relu"], expect=ONE_WAY),
]
