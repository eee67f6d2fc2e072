"""Recurrent layers: the state is passed on by time, and contracted by the recurrent weight."""

from __future__ import annotations

from typing import Any

from onnx_net2net.operators import flops
from onnx_net2net.operators.language import Op, Rule, Unsupported, size_ref
from onnx_net2net.operators.record import Extent, Operand, Operator, Table

# Every activation that the operators know; all work entry by entry.
SIGMOIDS = ("hardsigmoid", "scaledtanh", "sigmoid", "softplus", "softsign", "tanh")
ACTIVATIONS = {"affine", "elu", "leakyrelu", "relu", "thresholdedrelu", *SIGMOIDS}
FIXED = {
    "t": "the state is carried along it",
    "d": "it counts the directions",
    "q": "it counts the gates",
    "e": "it counts the gates' biases",
    "p": "it counts the peepholes",
}


def _check(op: Op) -> None:
    for name in op.attr("activations", []):
        name = name.decode() if isinstance(name, bytes) else name
        if name.lower() not in ACTIVATIONS:
            raise Unsupported(f"activation {name} is not known")


def _layer(op: Op, gates: str, biases: int, *, cell: bool = False) -> Rule:
    """``gates`` is the axis of the weights that lists a unit for each gate; LSTM has a ``cell``."""
    _check(op)
    sequence, state, output = "t b i", "d b h", "t d b h"
    if op.attr("layout", 0) == 1:
        sequence, state, output = "b t i", "b d h", "b t d h"
    inputs = f"{sequence}, d {gates} i, d {gates} ~h, d (e h), b, {state}"
    outputs = f"{output}, {state}"
    if cell:
        inputs += f", {state}, d (p h)"
        outputs += f", {state}"
    return Rule(
        f"{inputs} -> {outputs}",
        sizes={"q": biases // 2, "e": biases, "p": 3},
        fixed=FIXED,
        size_refs=(size_ref("hidden_size", "h"),),
    )


def _gru(op: Op) -> Rule:
    return _layer(op, "(q h)", 6)


def _lstm(op: Op) -> Rule:
    return _layer(op, "(q h)", 8, cell=True)


def _rnn(op: Op) -> Rule:
    return _layer(op, "h", 2)


LAYER: dict[str, Any] = {
    "choices": {"activations": ACTIVATIONS},
    "extents": {4: Extent.LENGTH},
    "flops": flops.recurrent,
    "implied": {"hidden_size": "the weights have this size"},
}
STATES = {1: Operand.WEIGHT, 2: Operand.WEIGHT, 3: Operand.AFFINE, 5: Operand.STATE}

TABLES: dict[str, Table] = {
    "": {
        "GRU": Operator(_gru, weights=STATES, **LAYER),
        "LSTM": Operator(_lstm, weights={**STATES, 6: Operand.STATE, 7: Operand.WEIGHT}, **LAYER),
        "RNN": Operator(_rnn, weights=STATES, **LAYER),
    }
}
