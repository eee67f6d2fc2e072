"""Samples of the recurrent layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

from tests.samples import Sample, weight

TIME, BATCH, INPUT, HIDDEN = 5, 3, 4, 6
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _sample(
    op: str, name: str, *, full: bool = False, opset: int = 17, **attributes: Any
) -> Sample:
    """``full``: every optional input and output is present."""
    directions, gates = (1 + (attributes.get("direction") == "bidirectional")), GATES[op]
    weights = {
        "W": weight(directions, gates * HIDDEN, INPUT),
        "R": weight(directions, gates * HIDDEN, HIDDEN),
    }
    inputs: dict[str, Any] = {"X": (np.float32, (TIME, BATCH, INPUT))}
    names, outputs = ["X", "W", "R"], ["Y", "Y_h"]
    if full:
        state = (np.float32, (directions, BATCH, HIDDEN))
        weights["B"] = weight(directions, 2 * gates * HIDDEN)
        weights["lengths"] = np.array([5, 2, 4], np.int32)
        inputs["h0"] = state
        names += ["B", "lengths", "h0"]
        if op == "LSTM":
            weights["P"] = weight(directions, 3 * HIDDEN)
            inputs["c0"] = state
            names += ["c0", "P"]
            outputs.append("Y_c")
    node = helper.make_node(op, names, outputs, name="node", hidden_size=HIDDEN, **attributes)
    expect = _expect(op, full, directions > 1)
    return Sample(name, node, inputs, weights, opset=opset, expect=expect)


def _expect(op: str, full: bool, both: bool) -> str:
    """Time, directions, gates, their biases and their peepholes do not grow."""
    fixed = {"t": True, "d": both, "q": op != "RNN", "e": full, "p": full and op == "LSTM"}
    return ", ".join(["b any, i any, h any", *(f"{n} fixed" for n, here in fixed.items() if here)])


SAMPLES = [
    *(_sample(op, "plain") for op in GATES),
    *(_sample(op, "opset7", opset=7) for op in GATES),
    *(_sample(op, "reverse", full=True, direction="reverse") for op in GATES),
    *(_sample(op, "both-ways", full=True, direction="bidirectional") for op in GATES),
    _sample("GRU", "linear-before-reset", full=True, linear_before_reset=1),
    _sample("LSTM", "clip", full=True, clip=0.4),
    _sample("LSTM", "activations", activations=["HardSigmoid", "Softsign", "Elu"]),
    _sample("LSTM", "input-forget", input_forget=1),
    _sample("RNN", "relu", full=True, activations=["Relu"]),
]
