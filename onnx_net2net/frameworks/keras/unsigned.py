"""uint64, which Keras counts in 32 bits, on TensorFlow: computed on the same bits as int64.

Sums, products and what only moves entries are the same for both; what orders entries sees them
with the highest bit turned. Quotients and shifts are TensorFlow's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation
from onnx_net2net.frameworks.keras.types import tied
from onnx_net2net.frameworks.keras.values import dtype_of, tensor
from onnx_net2net.operators.language import Kind

__all__ = ["by_bits", "concerned"]

# Of those that compute; what only moves entries is the same for both as well.
SAME_BITS = frozenset({
    "Add", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad", "Compress",
    "CumSum", "Equal", "Gemm", "If", "MatMul", "Mul", "Pad", "ReduceSum", "ReverseSequence",
    "ScatterElements", "ScatterND", "Sub", "Sum", "Trilu", "Where",
})  # fmt: skip
NATIVE = frozenset(["BitShift", "Div", "Mod"])
# Those that look at no entry, or take the type as it is.
OWN = frozenset({
    "Abs", "Sign", "BitCast", "Cast", "CastLike", "ConcatFromSequence", "EyeLike", "If", "Loop",
    "Scan", "SequenceAt", "SequenceConstruct", "SequenceErase", "SequenceInsert",
    "SequenceLength", "Shape", "Size",
})  # fmt: skip
HIGHEST = np.int64(-(2**63))


def concerned(operands: Sequence[Any]) -> bool:
    """Return whether TensorFlow gets numbers of this type."""
    return keras.backend.backend() == "tensorflow" and any(
        not isinstance(x, list) and x is not None and dtype_of(x) == "uint64" for x in operands
    )


def by_bits(op: KerasOperation, entry: Entry, operands: Sequence[Any]) -> Any:
    """Compute ``entry`` for these operands on their bits."""
    step = op.step
    if step.domain or step.op in OWN:
        return entry(op, *operands)
    if step.op in NATIVE:
        return _native(op, *(tensor(x) for x in operands))
    facts = step.facts
    whole = step.op in SAME_BITS or facts.kind is Kind.MOVE or facts.compares
    if not whole or op.attribute("reduction", "none") in ("max", "min"):
        op.refuse("arithmetic on uint64 is not translated")
    turn = HIGHEST if facts.compares else np.int64(0)
    results = entry(op, *(_signed(x, turn) for x in operands))
    several = isinstance(results, list | tuple)
    back = {index for index, kind in tied(step, operands).items() if kind == "uint64"}
    values = [
        _unsigned(value, turn) if index in back else value
        for index, value in enumerate(results if several else [results])
    ]
    return values if several else values[0]


def _signed(x: Any, turn: np.int64) -> Any:
    import tensorflow as tf

    if x is None or dtype_of(x) != "uint64":
        return x
    return tf.bitwise.bitwise_xor(tf.bitcast(tensor(x), "int64"), turn)


def _unsigned(x: Any, turn: np.int64) -> Any:
    import tensorflow as tf

    return tf.bitcast(tf.bitwise.bitwise_xor(tensor(x), turn), "uint64")


def _native(op: KerasOperation, x: Any, y: Any) -> Any:
    import tensorflow as tf

    if op.step.op == "BitShift":
        left = op.attribute("direction") == "LEFT"
        shift = tf.bitwise.left_shift if left else tf.bitwise.right_shift
        return tf.where(y < 64, shift(x, y), tf.zeros_like(x))
    op.attribute("fmod")  # the same for numbers without a sign
    return (tf.math.floordiv if op.step.op == "Div" else tf.math.floormod)(x, y)
