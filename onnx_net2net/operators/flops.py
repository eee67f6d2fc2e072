"""Multiply-adds of one node, from the shapes around it and from nothing else.

    multiply_adds(Op(Conv ...)) -> [elements of the output * elements of one filter]

Each number is a product of sizes: where one of the sizes doubles, so does the number. Only
operators that sum products are counted, as the field does: convolutions, products of matrices,
attention (both its products, masked places too) and recurrent layers. What works entry by entry,
norms, softmax, pooling, resampling and Fourier transforms are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from math import prod

from onnx_net2net.operators.language import Op, Unsupported

Count = Callable[[Op], list[int]]


def convolution(weight: int) -> Count:
    """Each element of the output is a sum over one filter of operand ``weight``."""
    return lambda op: [prod(op.output()) * prod(op.shape(weight)[1:])]


def transposed_convolution(op: Op) -> list[int]:
    """Each element of the input is multiplied with one filter."""
    return [prod(map(int, op.shape(0))) * prod(op.shape(1)[1:])]


def product(op: Op) -> list[int]:
    """Both MatMul and Gemm: every element of the output is a sum over the left operand's axis."""
    left = op.shape(0)
    rows = len(left) > 1 and op.attr("transA", 0)
    return [prod(op.output()) * left[-2 if rows else -1]]


def recurrent(op: Op) -> list[int]:
    """Products with both weights, for each step of each sample."""
    steps = prod(op.shape(0)[:2])  # of all samples
    return [steps * prod(op.shape(1)), steps * prod(op.shape(2))]


def einsum(op: Op) -> list[int]:
    """Operands are multiplied from left to right, and summed over as soon as that can be."""
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
    found: list[int] = []
    done = set(specs[0])
    for number, spec in enumerate(specs[1:], 2):
        rest = kept.union(*specs[number:])
        mine = _needed(done, rest, spec) | _needed(spec, rest, done)
        found.append(prod(sizes[name] for name in mine))
        done = mine & rest
    return found


def _needed(own: Collection[str], rest: set[str], other: Collection[str]) -> set[str]:
    """Indices of one operand that are not summed over before it is multiplied."""
    return {name for name in own if name in rest or name in other}


def _indices(side: str, rank: int) -> list[str]:
    """``...ij`` as names of axes; those of the ellipsis count from the right."""
    found = re.findall(r"\.\.\.|[A-Za-z]", side)
    extra = rank - sum(name != "..." for name in found)
    dots = [f".{extra - 1 - i}" for i in range(extra)]
    return [name for item in found for name in (dots if item == "..." else [item])]


def attention(op: Op) -> list[int]:
    """Queries times keys, and weights times values, for all keys of the cache, too."""
    length = op.shape(1)[-2 if op.rank(1) == 4 else 1] + (op.shape(4)[-2] if op.has(4) else 0)
    return [prod(map(int, op.shape(0))) * length, prod(op.output()) * length]
