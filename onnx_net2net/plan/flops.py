"""Multiply-adds of one node, from the shapes around it and from nothing else.

    multiply_adds(Op(Conv ...)) -> [elements of the output * elements of one filter]

Each number is a product of sizes: where one of the sizes doubles, so does the number. Only
operators that sum products are counted, as the field does: convolutions, products of matrices,
attention (both its products, masked places too) and recurrent layers. What works entry by entry,
norms, softmax, pooling, resampling and Fourier transforms are not. Of an operator that has a
function text, what that calls counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import lru_cache
from math import prod

from onnx import NodeProto, TensorProto, helper

from onnx_net2net.analysis.shapes import infer
from onnx_net2net.model.graph import Graph
from onnx_net2net.model.model import load
from onnx_net2net.operators.function_texts import OPSET
from onnx_net2net.operators.functions import body, functions
from onnx_net2net.operators.language import Op, Unsupported

Count = Callable[[Op], list[int]]


def multiply_adds(op: Op) -> list[int]:
    """The products of one node, to be added; none for an operator that is not counted.

    Raises Unsupported where a shape that it takes is not known.
    """
    domain = "" if op.node.domain == "ai.onnx" else op.node.domain
    key = domain, op.node.op_type
    count = _of_body if key in functions() and key not in COUNTS else COUNTS.get(key)
    try:
        return count(op) if count is not None else []
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        raise Unsupported("its attributes or shapes do not fit the operator") from None


def _of_body(op: Op) -> list[int]:
    """Count what the operator's function text calls."""
    return list(_body_terms(op.node.SerializeToString(deterministic=True), op.shapes))


@lru_cache(maxsize=4096)
def _body_terms(serialized: bytes, shapes: tuple[tuple[int, ...] | None, ...]) -> tuple[int, ...]:
    node = NodeProto.FromString(serialized)
    operands = zip(node.input, shapes, strict=False)
    known = {name: shape for name, shape in operands if name and shape is not None}
    if known.keys() != set(node.input) - {""}:
        raise Unsupported("the shape of an operand is not known")
    nodes = body(node, lambda i: len(known[node.input[i]]), lambda name: False, bool)
    # No count looks at types.
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in known.items()]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph(nodes, "body", values, outputs)
    opsets = [helper.make_opsetid("", OPSET)]
    inner = Graph(load(helper.make_model(graph, opset_imports=opsets)))
    found = infer(inner)
    terms: list[int] = []
    for n in inner.nodes:
        given, made = tuple(map(found.of, n.inputs)), tuple(map(found.of, n.outputs))
        terms += multiply_adds(Op(n.proto, OPSET, given, made, (None,) * len(given)))
    return tuple(terms)


def _convolution(weight: int) -> Count:
    return lambda op: [prod(op.output()) * prod(op.shape(weight)[1:])]


def _transposed_convolution(op: Op) -> list[int]:
    return [prod(op.shape(0)) * prod(op.shape(1)[1:])]


def _product(op: Op) -> list[int]:
    """Both MatMul and Gemm: every element of the output is a sum over the left operand's axis."""
    left = op.shape(0)
    rows = len(left) > 1 and op.attr("transA", 0)
    return [prod(op.output()) * left[-2 if rows else -1]]


def _recurrent(op: Op) -> list[int]:
    steps = prod(op.shape(0)[:2])  # of all samples
    return [steps * prod(op.shape(1)), steps * prod(op.shape(2))]


def _einsum(op: Op) -> list[int]:
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
            sizes[name] = max(size, sizes.get(name, 1))
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


def _scores(op: Op, queries: int, entries: int, length: int) -> list[int]:
    """Queries times keys, and weights times values, for ``length`` keys each."""
    return [queries * length, entries * length]


def _attention(op: Op) -> list[int]:
    length = op.shape(1)[-2 if op.rank(1) == 4 else 1] + (op.shape(4)[-2] if op.has(4) else 0)
    return _scores(op, prod(op.shape(0)), prod(op.output()), length)


def _grouped_attention(op: Op) -> list[int]:
    """com.microsoft.GroupQueryAttention gives its cache of keys, old and new ones, too."""
    known = op.outputs[1] if len(op.outputs) > 1 else None
    length = op.shape(0)[1] + (op.shape(3)[2] if op.has(3) else 0) if known is None else known[2]
    entries = prod(op.output())
    return _scores(op, entries, entries, length)


MICROSOFT = "com.microsoft"
COUNTS: dict[tuple[str, str], Count] = {
    ("", "Attention"): _attention,
    ("", "Conv"): _convolution(1),
    ("", "ConvInteger"): _convolution(1),
    ("", "ConvTranspose"): _transposed_convolution,
    ("", "DeformConv"): _convolution(1),
    ("", "Einsum"): _einsum,
    ("", "GRU"): _recurrent,
    ("", "Gemm"): _product,
    ("", "LSTM"): _recurrent,
    ("", "MatMul"): _product,
    ("", "MatMulInteger"): _product,
    ("", "QLinearConv"): _convolution(3),
    ("", "QLinearMatMul"): _product,
    ("", "RNN"): _recurrent,
    (MICROSOFT, "GroupQueryAttention"): _grouped_attention,
    (MICROSOFT, "MatMulNBits"): _product,
}

__all__ = ["COUNTS", "Unsupported", "multiply_adds"]
