"""Where operators read what is trained: the table that roles.py goes by.

    SLOTS[("", "Conv")] == {1: Slot.WEIGHT, 2: Slot.AFFINE}

An operator that is missing here takes no weights; tensors that it is given are constants. Where it
has a function text, what that calls is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

MICROSOFT = "com.microsoft"


class Slot(Enum):
    """What an operand is, if it is a weight."""

    WEIGHT = auto()  # learned, whatever it holds
    MATRIX = auto()  # learned, unless it is a formula's: frequencies, a transform, a running sum
    TABLE = auto()  # rows looked up by index: learned, unless a formula's, or single numbers
    AFFINE = auto()  # learned, unless made by the exporter for a module that has none: ones, zeros
    STATE = auto()  # where a recurrence starts: learned, unless it is all one number
    STATISTIC = auto()  # running mean or variance


_WEIGHT_BIAS = {1: Slot.WEIGHT, 2: Slot.AFFINE}
_PRODUCT = {0: Slot.MATRIX, 1: Slot.MATRIX}
_NORM = {1: Slot.AFFINE, 2: Slot.AFFINE}
_RECURRENT = {1: Slot.WEIGHT, 2: Slot.WEIGHT, 3: Slot.AFFINE, 5: Slot.STATE}
_ROWS = {0: Slot.TABLE}

SLOTS: Mapping[tuple[str, str], Mapping[int, Slot]] = {
    ("", "BatchNormalization"): {**_NORM, 3: Slot.STATISTIC, 4: Slot.STATISTIC},
    ("", "Conv"): _WEIGHT_BIAS,
    ("", "ConvTranspose"): _WEIGHT_BIAS,
    ("", "DeformConv"): {1: Slot.WEIGHT, 3: Slot.AFFINE},
    ("", "Einsum"): dict.fromkeys(range(8), Slot.MATRIX),
    ("", "GRU"): _RECURRENT,
    ("", "Gather"): _ROWS,
    ("", "GatherElements"): _ROWS,
    ("", "GatherND"): _ROWS,
    ("", "Gemm"): {**_PRODUCT, 2: Slot.AFFINE},
    ("", "GroupNormalization"): _NORM,
    ("", "InstanceNormalization"): _NORM,
    ("", "LSTM"): {**_RECURRENT, 6: Slot.STATE, 7: Slot.WEIGHT},
    ("", "LayerNormalization"): _NORM,
    ("", "MatMul"): _PRODUCT,
    ("", "PRelu"): {1: Slot.WEIGHT},
    ("", "RMSNormalization"): {1: Slot.AFFINE},
    ("", "RNN"): _RECURRENT,
    (MICROSOFT, "BiasAdd"): {1: Slot.WEIGHT},
    (MICROSOFT, "GroupNorm"): _NORM,
}

# Arithmetic with activations: what the tensor holds decides (biases, scales, position tables,
# class tokens; but masks and sines, too).
STREAM: Mapping[str, tuple[int, ...]] = {
    "Add": (0, 1),
    "Concat": tuple(range(64)),
    "Div": (0, 1),
    "Expand": (0,),
    "Mul": (0, 1),
    "Sub": (0, 1),
    "Sum": tuple(range(64)),
    "Where": (1, 2),
}

# The first operand in another form.
VIEWS = frozenset(
    (
        "Cast", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile",
        "Transpose", "Unsqueeze",
    )
)  # fmt: skip

# What these give no longer depends on what the weight holds, or cannot be trained through.
DROPS_VALUES = frozenset(
    (
        "ArgMax", "ArgMin", "DequantizeLinear", "Equal", "Greater", "GreaterOrEqual", "IsInf",
        "IsNaN", "Less", "LessOrEqual", "NonZero", "QuantizeLinear", "Shape", "Size",
    )
)  # fmt: skip
