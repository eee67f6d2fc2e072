"""Products of matrices and convolutions.

    "... m k, ... k n -> ... m n"                MatMul
    "b i *s, o i *k, o -> b o *t"                Conv
    "b (g i) *s, (g o) i *k, (g o) -> b (g o) *t"    Conv with groups

Group 1 is written without its name: only an axis that a contracted name has to itself can
receive the shares of copies.
"""

from __future__ import annotations

import re

from onnx_net2net.algebra.sizes import AnySize
from onnx_net2net.operators import flops
from onnx_net2net.operators.broadcast import broadcast
from onnx_net2net.operators.language import Kind, Op, Rule, SizeRef, Unsupported, line, size_ref
from onnx_net2net.operators.record import (
    PRODUCT,
    PRODUCT_BIAS,
    WEIGHT_BIAS,
    Operand,
    Operator,
    Table,
)
from onnx_net2net.operators.windows import sliding, spreading

WINDOW = "a kernel window slides over it"
SPATIAL = {"s*": WINDOW, "k*": "it is a kernel window", "t*": WINDOW}


def conv(op: Op) -> Rule:
    """Relate dense, grouped and depthwise ones alike; only 1x1 ones let spatial axes pass."""
    group, out = int(op.attr("group", 1)), "*s" if pointwise(op) else "*t"
    kind = Kind.AFFINE if op.has(2) else Kind.SCALE
    fixed = {"k*": SPATIAL["k*"]} if pointwise(op) else SPATIAL
    windows = {} if op.outputs[0] is not None else sliding(op, op.shape(1)[2:], "t.")
    if group == 1:
        text = f"b i *s, o i *k, o -> b o {out}"
        return Rule(text, sizes=windows, fixed=fixed, kind=kind)
    channels, weight, bias, sizes = grouped(op, group)
    text = f"b {channels} *s, {weight} *k, {bias} -> b {bias} {out}"
    parts = group_parts(channels)
    return Rule(text, sizes | windows, fixed, size_refs=[GROUP], kind=kind, parts=parts)


GROUP: SizeRef = size_ref("group", "g")


def group_parts(channels: str) -> dict[str, str]:
    """Return what parts of channels are called; where each channel is a group, there are none."""
    parts = {"g": "groups", "i": "channels", "o": "channels"}
    return {name: part for name, part in parts.items() if name != channels}


def grouped(op: Op, group: int, weight: int = 1) -> tuple[str, str, str, dict[str, AnySize]]:
    """Name input channels, the weight's first two axes and output channels; size the group."""
    out, inner = op.shape(weight)[:2]
    if out % group:
        raise Unsupported(f"{out} output channels are not {group} equal groups")
    channels, inner_name = ("g", "1") if inner == 1 else ("(g i)", "i")
    result = "g" if out == group else "(g o)"
    return channels, f"{result} {inner_name}", result, {"g": group}


def pointwise(op: Op, weight: int = 1) -> bool:
    """Return whether the window is one entry that moves by one: spatial axes are then untouched."""
    return (
        all(k == 1 for k in op.shape(weight)[2:])
        and all(s == 1 for s in op.attr("strides", ()))
        and not any(op.attr("pads", ()))
        and not any(op.attr("output_padding", ()))
        and not op.attr("output_shape", ())
    )


def conv_transpose(op: Op) -> Rule:
    """Relate like Conv, with the weight's axes swapped: input channels first."""
    if len(op.attr("output_shape", ())) > op.rank() - 2:
        raise Unsupported("its output_shape repeats batch or channels")
    group, out = int(op.attr("group", 1)), "*s" if pointwise(op) else "*t"
    kind = Kind.AFFINE if op.has(2) else Kind.SCALE
    fixed = {"k*": SPATIAL["k*"]} if pointwise(op) else dict(SPATIAL)
    windows = {} if op.outputs[0] is not None else spreading(op, op.shape(1)[2:], "t.")
    if group == 1:
        return Rule(f"b i *s, i o *k, o -> b o {out}", windows, fixed, kind=kind)
    inner, outer = op.shape(1)[0] // group, op.shape(1)[1]
    channels, result = "g" if inner == 1 else "(g i)", "g" if outer == 1 else "(g o)"
    second = "1" if outer == 1 else "o"
    fixed["i"] = "it is summed inside groups, on an axis shared with them"
    text = f"b {channels} *s, {channels} {second} *k, {result} -> b {result} {out}"
    sizes, parts = {"g": group} | windows, group_parts(channels)
    return Rule(text, sizes, fixed, size_refs=[GROUP], kind=kind, parts=parts)


def deform_conv(op: Op) -> Rule:
    """Convolve at learned offsets, which each offset group has for itself."""
    group, offsets = int(op.attr("group", 1)), int(op.attr("offset_group", 1))
    sizes: dict[str, AnySize] = {}
    fixed = {**SPATIAL, "f": "offsets of a kernel window", "e": "a mask of a kernel window"}
    if group == 1:
        channels, weight, result = "i", "o i", "o"
    else:
        channels, weight, result, sizes = grouped(op, group)
    if offsets > 1:
        fixed |= dict.fromkeys("gi", "its offset groups divide it")
    text = f"b {channels} *s, {weight} *k, b f *t, {result}, b e *t -> b {result} *t"
    refs, parts = ([GROUP], group_parts(channels)) if group > 1 else ([], {})
    return Rule(text, sizes, fixed, size_refs=refs, parts=parts)


def einsum(op: Op) -> Rule:
    """Take the equation, which is a rule already: its letters are the names."""
    left, arrow, right = "".join(str(op.attr("equation")).split()).partition("->")
    inputs = [_letters(side) for side in left.split(",")]
    letters = [name for spec in inputs for name in spec]
    once = [n for n in dict.fromkeys(letters) if letters.count(n) == 1]
    if not arrow:
        dots = ["..."] if "..." in letters else []
        output = dots + sorted(n for n in once if n != "...")
    else:
        output = _letters(right)
    if "..." in letters and "..." not in output:
        raise Unsupported("its equation sums over an ellipsis")
    if any(len(set(spec)) < len(spec) for spec in (*inputs, output)):
        raise Unsupported("its equation takes a diagonal")
    alone = {n: "sum" for n in once if n not in output and n != "..."}
    return Rule(line(inputs, [output]), reduce=alone)


def _letters(side: str) -> list[str]:
    letters = re.findall(r"\.\.\.|[A-Za-z]", side)
    if "".join(letters) != side:
        raise Unsupported(f"cannot read '{side}' of its equation")
    return letters


def gemm(op: Op) -> Rule:
    """Broadcast C to (m, n) in any of its forms."""
    a = "k m" if op.attr("transA", 0) else "m k"
    b = "n k" if op.attr("transB", 0) else "k n"
    c = broadcast(["m", "n"], op.shape(2)) if op.has(2) else ["n"]
    return Rule(f"{a}, {b}, {' '.join(c)} -> m n", kind=Kind.AFFINE if op.has(2) else Kind.SCALE)


def matmul(op: Op) -> Rule:
    """Take a vector as a row on the left, as a column on the right."""
    a, b = matrices(op.rank(0), op.rank(1))
    return Rule(line([a, b], [product_of(a, b)]))


def matrices(left: int, right: int) -> tuple[list[str], list[str]]:
    """Name the axes of MatMul's operands of the given ranks."""
    a = ["k"] if left == 1 else ["...", "m", "k"]
    b = ["k"] if right == 1 else ["...", "k", "n"]
    return a, b


def product_of(a: list[str], b: list[str]) -> list[str]:
    """Name the axes of MatMul's result."""
    dots = ["..."] if "..." in (*a, *b) else []
    return dots + [name for name in ("m", "n") if name in (*a, *b)]


KERNEL: dict[str | int, str] = {"kernel_shape": "the weights have this size"}

TABLES: dict[str, Table] = {
    "": {
        "Conv": Operator(conv, weights=WEIGHT_BIAS, implied=KERNEL, flops=flops.convolution(1)),
        "ConvTranspose": Operator(
            conv_transpose, weights=WEIGHT_BIAS, implied=KERNEL, flops=flops.transposed_convolution
        ),
        "DeformConv": Operator(
            deform_conv,
            weights={1: Operand.WEIGHT, 3: Operand.AFFINE},
            implied=KERNEL,
            flops=flops.convolution(1),
        ),
        "Einsum": Operator(
            einsum, Kind.SCALE, weights=dict.fromkeys(range(8), Operand.MATRIX), flops=flops.einsum
        ),
        "Gemm": Operator(gemm, weights=PRODUCT_BIAS, flops=flops.product),
        "MatMul": Operator(matmul, Kind.SCALE, weights=PRODUCT, flops=flops.product),
    }
}
