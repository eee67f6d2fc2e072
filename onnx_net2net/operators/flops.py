"""Multiply-adds of one node, from the shapes around it and from nothing else.

    multiply_adds(Op(Conv ...)) -> [elements of the output * elements of one filter]

Each number is a product of sizes: where one of the sizes doubles, so does the number. Only
operators that sum products are counted, as the field does: convolutions, products of matrices,
attention (both its products, masked places too) and recurrent layers. What works entry by entry,
norms, softmax, pooling, resampling and Fourier transforms are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod

from onnx_net2net.operators.language import Op, Unsupported

Count = Callable[[Op], list[int]]


def convolution(weight: int) -> Count:
    """Count one filter of operand ``weight`` for each element of the output."""
    return lambda op: [prod(op.output()) * prod(op.shape(weight)[1:])]


def transposed_convolution(op: Op) -> list[int]:
    """Count one filter for each element of the input."""
    return [prod(map(int, op.shape(0))) * prod(op.shape(1)[1:])]


def product(op: Op) -> list[int]:
    """Count the left operand's last axis for each element of the output (MatMul, Gemm)."""
    left = op.shape(0)
    rows = len(left) > 1 and op.attr("transA", 0)
    return [prod(op.output()) * left[-2 if rows else -1]]


def recurrent(op: Op) -> list[int]:
    """Count both weights for each step of each sample."""
    steps = prod(op.shape(0)[:2])  # of all samples
    return [steps * prod(op.shape(1)), steps * prod(op.shape(2))]


def einsum(op: Op) -> list[int]:
    """Count products of operands from left to right, each summed as soon as that can be."""
    text = "".join(str(op.attr("equation")).split())
    left, arrow, right = text.partition("->")
    specs = [_indices(side, op.rank(i)) for i, side in enumerate(left.split(","))]
    sizes: dict[str, int] = {}
    if len(specs) != len(op.node.input) or any(
        len(spec) != op.rank(index) for index, spec in enumerate(specs)
    ):
        raise Unsupported(f"its equation {text[:80]!r} does not fit its inputs")
    for index, spec in enumerate(specs):
        for name, size in zip(spec, op.shape(index), strict=True):
            sizes[name] = max(int(size), sizes.get(name, 1))
    letters = [name for spec in specs for name in spec]
    once = {n for n in letters if letters.count(n) == 1}
    kept = set(_indices(right, len(op.output()))) if arrow else once
    kept |= {name for name in letters if name.startswith(".")}
    products: list[int] = []
    done = set(specs[0])
    for number, spec in enumerate(specs[1:], 2):
        rest = kept.union(*specs[number:])
        # What neither the other operand nor a later one has is summed over beforehand.
        multiplied = (done | set(spec)) & (rest | (done & set(spec)))
        products.append(prod(sizes[name] for name in multiplied))
        done = multiplied & rest
    return products


def _indices(side: str, rank: int) -> list[str]:
    """Return ``...ij`` as names of axes; those of the ellipsis count from the right."""
    marks = re.findall(r"\.\.\.|[A-Za-z]", side)
    extra = rank - sum(mark != "..." for mark in marks)
    dots = [f".{extra - 1 - i}" for i in range(extra)]
    return [name for mark in marks for name in (dots if mark == "..." else [mark])]


def attention(op: Op) -> list[int]:
    """Count queries times keys, and weights times values, those of the cache, too."""
    length = op.shape(1)[-2 if op.rank(1) == 4 else 1] + (op.shape(4)[-2] if op.has(4) else 0)
    return [prod(map(int, op.shape(0))) * length, prod(op.output()) * length]
