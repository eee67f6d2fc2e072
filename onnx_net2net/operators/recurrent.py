"""Recurrent layers: the state is passed on by time, and contracted by the recurrent weight."""

from __future__ import annotations

from typing import Any

from onnx_net2net.operators import flops
from onnx_net2net.operators.language import Entry, Op, Rule, size_ref
from onnx_net2net.operators.record import Extent, Operand, Operator, Table

# All that the schema allows; they work entry by entry.
SIGMOIDS = ("hardsigmoid", "scaledtanh", "sigmoid", "softplus", "softsign", "tanh")
ACTIVATIONS = {"affine", "elu", "leakyrelu", "relu", "thresholdedrelu", *SIGMOIDS}
FIXED = {
    "t": "the state is carried along it",
    "d": "it counts the directions",
    "q": "it counts the gates",
    "e": "it counts the gates' biases",
    "p": "it counts the peepholes",
}


def layer(gates: int, *, cell: bool = False) -> Entry:
    """Return the rule of a layer with so many gates; LSTM has a ``cell`` and peepholes."""

    def rule(op: Op) -> Rule:
        units = "h" if gates == 1 else "(q h)"
        sequence, state, output = "t b i", "d b h", "t d b h"
        if op.attr("layout", 0) == 1:
            sequence, state, output = "b t i", "b d h", "b t d h"
        inputs = f"{sequence}, d {units} i, d {units} ~h, d (e h), b, {state}"
        outputs = f"{output}, {state}"
        if cell:
            inputs += f", {state}, d (p h)"
            outputs += f", {state}"
        return Rule(
            f"{inputs} -> {outputs}",
            sizes={"q": gates, "e": 2 * gates, "p": 3},
            fixed=FIXED,
            size_refs=(size_ref("hidden_size", "h"),),
        )

    return rule


LAYER: dict[str, Any] = {
    "choices": {"activations": ACTIVATIONS},
    "extents": {4: Extent.LENGTH},
    "flops": flops.recurrent,
    "implied": {"hidden_size": "the weights have this size"},
}
STATES = {1: Operand.WEIGHT, 2: Operand.WEIGHT, 3: Operand.AFFINE, 5: Operand.STATE}

TABLES: dict[str, Table] = {
    "": {
        "GRU": Operator(layer(3), weights=STATES, **LAYER),
        "LSTM": Operator(
            layer(4, cell=True), weights={**STATES, 6: Operand.STATE, 7: Operand.WEIGHT}, **LAYER
        ),
        "RNN": Operator(layer(1), weights=STATES, **LAYER),
    }
}
