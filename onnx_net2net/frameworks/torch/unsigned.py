"""Unsigned integers, which PyTorch stores and moves, and has few kernels to compute with.

    widened("x", TensorProto.UINT32, step)      # "(x).to(torch.int64)"
    narrowed("y", TensorProto.UINT32, step)     # "(y).to(torch.uint32)"

uint16 and uint32 are computed as int64. The bits of uint64 are seen as int64: sums and products
are the same, and with the highest bit turned the order is, too. What neither holds for has
functions of its own (see kernels/unsigned.py), or is refused.
"""

from __future__ import annotations

from onnx import TensorProto

from onnx_net2net.frameworks.step import ProgramStep
from onnx_net2net.frameworks.torch.types import FLOATS8, SMALL, UNSIGNED, Untranslated

HIGHEST = "-(2**63)"
# Operators that move entries as they are.
MOVES = frozenset({
    "BitCast", "Cast", "CastLike", "Concat", "ConcatFromSequence", "DepthToSpace",
    "DequantizeLinear", "Expand", "Flatten", "Gather", "Identity", "If", "Loop", "Optional",
    "OptionalGetElement", "OptionalHasElement", "Reshape", "Scan", "SequenceAt",
    "SequenceConstruct", "SequenceErase", "SequenceInsert", "SequenceLength", "Shape", "Size",
    "Slice", "SpaceToDepth", "Split", "SplitToSequence", "Squeeze", "Tile", "Transpose",
    "Unsqueeze", "Where",
})  # fmt: skip
# Operators of uint64 that do the same to the bits of int64.
BITS = frozenset({
    "Abs", "Add", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor",
    "CenterCropPad", "Compress", "ConstantOfShape", "CumProd", "CumSum", "Div", "Equal",
    "EyeLike", "GatherElements", "GatherND", "MatMul", "Mod", "Mul", "NonZero", "OneHot", "Pad",
    "QuantizeLinear", "Range", "ReduceProd", "ReduceSum", "ReduceSumSquare", "ReverseSequence",
    "Scatter", "ScatterElements", "ScatterND", "Sign", "Sub", "Sum", "TensorScatter", "Trilu",
})  # fmt: skip
# Operators that take numbers of 8 and fewer bits.
STORED = frozenset({
    "BitCast", "Cast", "CastLike", "DequantizeLinear", "Flatten", "Identity", "QuantizeLinear",
    "Reshape", "Shape", "Size", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip


def widened(code: str, dtype: int | None, step: ProgramStep) -> str:
    """Return an operand in a type that PyTorch computes with. Raises Untranslated."""
    if dtype in SMALL or dtype in FLOATS8:
        if step.op not in STORED:
            raise Untranslated(f"it computes with {TensorProto.DataType.Name(dtype)}")
        return code
    if dtype not in UNSIGNED or step.op in MOVES:
        return code
    if step.op == "Pow":
        return f"({code}).to(torch.float64)"
    if dtype != TensorProto.UINT64:
        return f"({code}).to(torch.int64)"
    bits = f"({code}).contiguous().view(torch.int64)"
    return f"({bits} ^ {HIGHEST})" if _by_order(step) else bits


def narrowed(code: str, dtype: int | None, step: ProgramStep) -> str:
    """Return a result in its own type."""
    if dtype not in UNSIGNED or step.op in MOVES:
        return code
    if dtype != TensorProto.UINT64:
        return f"({code}).to(torch.{'uint16' if dtype == TensorProto.UINT16 else 'uint32'})"
    return f"({code}{f' ^ {HIGHEST}' if _by_order(step) else ''}).view(torch.uint64)"


def is_widened(dtype: int | None, step: ProgramStep) -> bool:
    """Return whether tensors of this type are computed as int64."""
    return dtype in UNSIGNED and step.op not in MOVES


def _by_order(step: ProgramStep) -> bool:
    if step.facts.compares:
        return True
    if step.op not in BITS:
        raise Untranslated("PyTorch does not compute with UINT64")
    return step.op.startswith("Scatter") and step.attributes.get("reduction") in ("max", "min")
