"""Groups of nodes that compute what one operator does: GELU, a norm, attention, a layer with bias.

    for fusion in fusions(surroundings):
        fusion.op, fusion.inputs, fusion.nodes       # "Gelu", ("x",), the nodes that it replaces

Each kind is a list of patterns and a function that gives the fusion, or None where a match is no
such thing. Operators of the domain ``fusion`` are known to the frameworks' translations alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from onnx_net2net.analysis.fusion_patterns import FusionPattern, Match, Surroundings, attributes_of
from onnx_net2net.model.graph import Node
from onnx_net2net.operators.types import FLOATS

FUSED = "fusion"


@dataclass(frozen=True, eq=False)
class Fusion:
    """``nodes``, the first of which gives their result, compute what ``op`` does.

    ``op`` is empty where no operator does just that, with all its roundings. ``names`` are the
    tensors by the names of the pattern. ``permuted`` is an input whose axes ``op`` needs in another
    order, and that order.
    """

    op: str
    inputs: tuple[str, ...]
    nodes: Sequence[Node]
    names: Mapping[str, str]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = ""
    permuted: tuple[int, tuple[int, ...]] | None = None


Maker = Callable[[Surroundings, Match], Fusion | None]


def _fusion(match: Match, op: str, *names: str, domain: str = "", **attributes: Any) -> Fusion:
    """Return ``op`` of the tensors that the pattern calls ``names``, as far as there are such."""
    inputs = tuple(match.names[name] for name in names if name in match.names)
    return Fusion(op, inputs, match.nodes, match.names, attributes, domain)


# ---- nodes that do nothing ---------------------------------------------------------------------


def _unchanged(around: Surroundings, match: Match) -> Fusion | None:
    """Return ``x`` itself, where the other operand does not widen it."""
    root, x = match.nodes[0], match.names["x"]
    rank, other = (around.rank(n) for n in (x, next((n for n in root.inputs if n != x), x)))
    if rank is None or other is None or rank < other:
        return None
    return _fusion(match, "Identity", "x")


# ---- activations -------------------------------------------------------------------------------


def _plain(op: str, **attributes: Any) -> Maker:
    return lambda around, match: _fusion(match, op, "x", **attributes)


def _hard_swish(around: Surroundings, match: Match) -> Fusion | None:
    inner = attributes_of(match.nodes[1])
    if abs(inner.get("alpha", 0.2) - 1 / 6) > 1e-6 or inner.get("beta", 0.5) != 0.5:
        return None
    return _fusion(match, "HardSwish", "x")


# ---- norms -------------------------------------------------------------------------------------


def _axis(around: Surroundings, match: Match) -> int | None:
    """Return the one axis of ``x`` that all means are over and keep, counted from the end."""
    rank = around.rank(match.names["x"])
    reduced: set[int] = set()
    for node in (n for n in match.nodes if n.op == "ReduceMean"):
        stated = attributes_of(node)
        axes = stated.get("axes")
        if axes is None and len(node.inputs) > 1:
            constant = around.constant(node.inputs[1])
            axes = None if constant is None else constant.reshape(-1).tolist()
        if rank is None or axes is None or len(axes) != 1 or not stated.get("keepdims", 1):
            return None
        reduced.add(axes[0] % rank - rank)
    return reduced.pop() if len(reduced) == 1 else None


def _along(around: Surroundings, name: str, x: str, axis: int) -> bool:
    """Return whether ``name`` holds one number for each entry of that axis of ``x`` alone."""
    shape, whole = around.shapes.of(name), around.shapes.of(x)
    if shape is None or whole is None:
        return False
    return shape[axis:] == (whole[axis], *[1] * (-1 - axis)) and prod(shape) == whole[axis]


def _norm(op: str) -> Maker:
    def make(around: Surroundings, match: Match) -> Fusion | None:
        names, dtype = match.names, around.shapes.dtype.get(match.names["x"])
        epsilon, axis = around.number(names["eps"]), _axis(around, match)
        if epsilon is None or epsilon < 0 or axis is None:
            return None
        affine = [names[k] for k in ("w", "b") if k in names]
        if not all(_along(around, name, names["x"], axis) for name in affine):
            return None
        types = {attributes_of(node)["to"] for node in match.nodes if node.op == "Cast"}
        if not types <= FLOATS:
            return None
        plain = types <= {dtype} and "difference" not in names and axis == -1
        plain &= all(around.rank(name) == 1 for name in affine)
        return _fusion(match, op if plain else "", "x", "w", "b", axis=axis, epsilon=epsilon)

    return make


# ---- layers ------------------------------------------------------------------------------------


def _weight(around: Surroundings, name: str) -> tuple[str, bool] | None:
    """Return a matrix of weights, and whether it is stored as (out, in)."""
    node = around.graph.producer.get(name)
    stored = node is not None and node.op == "Transpose" and not node.domain
    if node is not None and stored:
        if attributes_of(node).get("perm", [1, 0]) != [1, 0]:
            return None
        name = node.inputs[0]
    return (name, stored) if around.is_weight(name) and around.rank(name) == 2 else None


def _linear(around: Surroundings, match: Match) -> Fusion | None:
    names, shapes = match.names, around.shapes
    weight = _weight(around, names["w"])
    if weight is None or (around.rank(names["x"]) or 0) < 2:
        return None
    name, stored = weight
    inputs = [names["x"], name]
    if "b" in names:
        shape = shapes.of(name)
        width = shape[0 if stored else 1] if shape is not None else None
        if not around.is_weight(names["b"]) or shapes.of(names["b"]) != (width,):
            return None
        inputs.append(names["b"])
    elif not stored:
        return None
    attributes = {"transposed": int(stored)}
    return Fusion("Linear", tuple(inputs), match.nodes, names, attributes, FUSED)


def _fake_quantize(around: Surroundings, match: Match) -> Fusion | None:
    outer, inner = match.nodes
    stated = attributes_of(inner)
    if len(outer.inputs) != len(inner.inputs) or attributes_of(outer) != stated:
        return None
    for a, b in zip(outer.inputs[1:], inner.inputs[1:], strict=True):
        first, second = around.constant(a), around.constant(b)
        if a != b and (first is None or second is None or not np.array_equal(first, second)):
            return None
    return Fusion("FakeQuantize", inner.inputs, match.nodes, match.names, stated, FUSED)


# ---- attention ---------------------------------------------------------------------------------


def _attention(around: Surroundings, match: Match) -> Fusion | None:
    """Return attention: scaled products, a mask, softmax over the last axis, and a product.

    Where it is ``guarded``, a query that may see no key gives zeros, else not a number. ``dropout``
    is the ratio of the weights that training drops.
    """
    names = match.names
    if any(around.rank(names[k]) != 4 for k in ("q", "k", "v")):
        return None
    softmax = attributes_of(next(n for n in match.nodes if n.op == "Softmax"))
    default = 1 if around.graph.model.opset.get("", 1) < 13 else -1
    if softmax.get("axis", default) not in (-1, 3):
        return None
    if around.shapes.dtype.get(names["q"]) not in FLOATS:
        return None
    scale = 1.0
    for key in ("s", "t", "u", "d"):
        if key not in names:
            continue
        number = around.number(names[key])
        if not number:
            return None
        scale = scale / number if key == "d" else scale * number
    if "mask" in names and (around.rank(names["mask"]) or 5) > 4:
        return None
    ratio = around.number(names["ratio"]) if "ratio" in names else 0.0
    if ratio is None or not 0 <= ratio <= 1:
        return None
    key, order = _untransposed(around, names["k"])
    inputs = (names["q"], key, names["v"], *([names["mask"]] if "mask" in names else []))
    permuted = None if order == (0, 1, 2, 3) else (1, order)
    attributes = {"scale": scale, "guarded": int("p" in names), "dropout": ratio}
    return Fusion("Attention", inputs, match.nodes, names, attributes, FUSED, permuted)


def _untransposed(around: Surroundings, name: str) -> tuple[str, tuple[int, ...]]:
    """Return the keys, and the order of their axes that swaps the last two of ``name``."""
    node = around.graph.producer.get(name)
    if node is not None and node.op == "Transpose" and not node.domain:
        order = attributes_of(node).get("perm", [3, 2, 1, 0])
        return node.inputs[0], tuple(order[i] for i in (0, 1, 3, 2))
    source = _flattened_transpose(around, node) if node is not None else None
    return (name, (0, 1, 3, 2)) if source is None else (source, (0, 1, 2, 3))


def _flattened_transpose(around: Surroundings, last: Node) -> str | None:
    """Return ``k`` of k.reshape(-1, t, d).transpose(1, 2).reshape(b, h, d, t)."""
    chain = [last]
    for _ in range(2):
        above = around.graph.producer.get(chain[-1].inputs[0]) if chain[-1].inputs else None
        if above is None:
            return None
        chain.append(above)
    _, middle, first = chain
    if [node.op for node in chain] != ["Reshape", "Transpose", "Reshape"]:
        return None
    if attributes_of(middle).get("perm") != [0, 2, 1] or around.rank(first.inputs[0]) != 4:
        return None
    names = (first.inputs[0], first.outputs[0], last.outputs[0])
    source, flat, result = map(around.shapes.sizes_of, names)
    if source is None or flat != (source[0] * source[1], *source[2:]):
        return None
    return first.inputs[0] if result == (*source[:2], source[3], source[2]) else None


_SCORES = "(MatMul(Mul(q, s), Mul(k, t)) | MatMul(Mul(q, s), k) | MatMul(q, k))"
_SCALED = f"(Div({_SCORES}, d) | Mul({_SCORES}, u) | {_SCORES})"
_SOFTMAX = f"(Softmax(Add({_SCALED}, mask)) | Softmax({_SCALED}))"
_GUARDED = f"Where(IsNaN(p := {_SOFTMAX}), 0, p)"
_ERF = "Add(Erf(Div(x, 1.4142135381698608) | Mul(x, 0.7071067811865476)), 1)"
_CUBE = "(Pow(x, 3) | Mul(x, Mul(x, x)))"
_TANH = f"Add(Tanh(Mul(Add(x, Mul({_CUBE}, 0.044715)), 0.7978845608028654)), 1)"


def _gelu_forms(inner: str) -> list[str]:
    return [
        f"Mul(Mul(x, 0.5), {inner})",
        f"Mul(x, Mul({inner}, 0.5))",
        f"Mul(Mul(x, {inner}), 0.5)",
    ]


def _root(variance: str) -> str:
    return f"Sqrt(variance := Add({variance}, eps))"


def _inverse(variance: str) -> str:
    """Return the pattern of 1 over the root of ``variance``."""
    moved = f"variance := Add({variance}, eps)"
    return f"(Reciprocal({_root(variance)}) | Div(1, {_root(variance)}) | Pow({moved}, -0.5))"


def _scaled(value: str, variance: str) -> str:
    """Return the pattern of ``value`` over the root of ``variance``, times a scale."""
    normed = f"(Div({value}, {_root(variance)}) | Mul({value}, {_inverse(variance)}))"
    return f"Mul({normed} | Cast({normed}), w)"


def _squares(value: str) -> str:
    return f"(Pow({value}, 2) | Mul({value}, {value}))"


def _centred(x: str) -> list[str]:
    """Return the patterns of LayerNorm, whose variance may be a difference of squares.

    The last ones multiply it out: x s + (b - mean s), with s the scale over the root.
    """
    mean = f"(mean := ReduceMean({x}))"
    value = f"Sub({x}, {mean})"
    difference = f"(difference := Sub(ReduceMean({_squares(x)}), {_squares(mean)}))"
    variance = f"(ReduceMean({_squares(value)}) | {difference} | Max({difference}, 0))"
    scaled = _scaled(value, variance)
    factor = f"Mul({_inverse(variance)}, w)"
    shift, minus = f"Mul({mean}, {factor})", f"Mul(Neg({mean}), {factor})"
    moved = f"(Add({minus}, b) | Sub(b, {shift}))"
    product = f"Mul({x}, {factor})"
    out = [f"Add({product}, {moved})", f"Add({product}, {minus})", f"Sub({product}, {shift})"]
    return [f"Add({scaled}, b)", scaled, *out]


def _uncentred(x: str) -> str:
    """Return the pattern of RMSNorm."""
    return _scaled(x, f"ReduceMean({_squares(x)})")


Kind = tuple[Maker, tuple[FusionPattern, ...]]


def _kind(make: Maker, *texts: str) -> Kind:
    return make, tuple(map(FusionPattern, texts))


NORMS = (
    _kind(_norm("LayerNormalization"), *_centred("Cast(x)"), *_centred("x")),
    _kind(_norm("RMSNormalization"), _uncentred("Cast(x)"), _uncentred("x")),
)
# In order: what an earlier kind covers, a later one does not.
KINDS = (
    _kind(_unchanged, "Add(x, 0)", "And(x, 1)", "Mul(x, 1)", "Div(x, 1)", "Sub(x, 0)"),
    _kind(_plain("Gelu", approximate="none"), *_gelu_forms(_ERF)),
    _kind(_plain("Gelu", approximate="tanh"), *_gelu_forms(_TANH)),
    _kind(_plain("Swish"), "Mul(x, Sigmoid(x))"),
    _kind(_plain("Mish"), "Mul(x, Tanh(Softplus(x)))"),
    _kind(_hard_swish, "Mul(x, HardSigmoid(x))"),
    *NORMS,
    _kind(
        _attention,
        *(f"MatMul({weights}, v)" for weights in (_GUARDED, _SOFTMAX)),
        *(f"MatMul(Dropout({weights}, ratio), v)" for weights in (_GUARDED, _SOFTMAX)),
    ),
    _kind(_linear, "Add(MatMul(x, w), b)", "MatMul(x, w)"),
    _kind(_fake_quantize, "DequantizeLinear(QuantizeLinear(x))"),
)


def fusions(around: Surroundings, kinds: Sequence[Kind] = KINDS) -> Iterator[Fusion]:
    """Yield the groups of nodes that one operator could replace, no node in two of them."""
    covered: set[int] = set()
    for make, known in kinds:
        patterns = [p for p in known if p.may_match(around.by_operator)]
        roots = dict.fromkeys(pattern.root for pattern in patterns)
        for node in (n for root in roots for n in around.by_operator.get(root, ())):
            for pattern in patterns if node.position not in covered else ():
                match = pattern.match(around, node)
                fusion = None if match is None else make(around, match)
                if fusion is not None and covered.isdisjoint(n.position for n in fusion.nodes):
                    covered.update(n.position for n in fusion.nodes)
                    yield fusion
                    break
