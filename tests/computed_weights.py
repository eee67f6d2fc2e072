"""Small networks whose second convolution computes its weight in the graph, in many spellings.

    x -> Conv(w0) -> Relu -> Conv(ws) -> Relu -> Conv(w2) -> y        ws = f(w, ...)

``ws`` has 6 filters of 5 x 3 x 3. Growing the 5 channels of ``w0`` widens what f reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper, parser

OUT, IN, KERNEL = 6, 5, 3
SIZE = IN * KERNEL * KERNEL


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Asymmetric values, so that no mean is zero."""
    rng = np.random.default_rng([seed, *shape])
    return (rng.standard_normal(shape) * 0.7 + 0.3).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@dataclass
class Spelling:
    """How ``ws`` is computed: ONNX text and the weights it needs; ``reason`` why it is refused."""

    text: str
    reason: str = ""
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    opset: int = 18

    def model(self) -> onnx.ModelProto:
        """The network."""
        given = {"w0": normal(IN, 3, 3, 3), "b0": normal(IN), "b": normal(OUT)}
        given |= {"w": normal(OUT, IN, KERNEL, KERNEL), "w2": normal(4, OUT, 1, 1)}
        body = self.text.replace(";", "\n")
        proto = parser.parse_model(
            f"""<ir_version: 9, opset_import: ["" : {self.opset}], producer_name: "test">
            network (float[N, 3, 9, 8] x) => (float[N, 4, 5, 4] y) {{
              c0 = Conv(x, w0, b0)
              r0 = Relu(c0)
              {body}
              c1 = Conv(r0, ws, b)
              r1 = Relu(c1)
              y = Conv(r1, w2)
            }}"""
        )
        for name, array in (given | self.weights).items():
            proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return proto


AXES = {"axes": ints(1, 2, 3)}
EPSILON = {"epsilon": np.float32(1e-5)}
ROWS = {"rows": ints(OUT, -1), "back": ints(OUT, IN, KERNEL, KERNEL)}
IMAGE = {"rows": ints(1, OUT, -1), "back": ints(OUT, IN, KERNEL, KERNEL)}
COLUMN = {"column": ints(OUT, 1, 1, 1)}
GAIN = {"gain": normal(OUT, 1, 1, 1)}
STATISTIC = "a statistic of the weights themselves"
NORMALISED = "the weights themselves are normalised"

# What reads the 5 channels as a whole: copies would change the weight.
REFUSED = {
    "standardised by squares": Spelling(
        "m = ReduceMean(w, axes); d = Sub(w, m); q = Mul(d, d); v = ReduceMean(q, axes);"
        "e = Add(v, epsilon); s = Sqrt(e); ws = Div(d, s)",
        STATISTIC,
        AXES | EPSILON,
    ),
    "standardised by powers and a count": Spelling(
        "m = ReduceMean(w, axes); d = Sub(w, m); q = Pow(d, two); t = ReduceSum(q, axes);"
        "v = Div(t, n); e = Add(v, epsilon); s = Sqrt(e); r = Reciprocal(s); ws = Mul(d, r)",
        STATISTIC,
        AXES | EPSILON | {"two": np.float32(2), "n": np.float32(SIZE)},
    ),
    "standardised by the size of the weight": Spelling(
        "t = ReduceSum(w, axes); n = Size(w); f = Cast<to = 1>(n); m = Div(t, f); ws = Sub(w, m)",
        STATISTIC,
        AXES,
    ),
    "centred": Spelling("m = ReduceMean(w, axes); ws = Sub(w, m)", STATISTIC, AXES),
    "BatchNormalization in training mode": Spelling(
        "r = Reshape(w, rows);"
        "n, mean, var = BatchNormalization<training_mode = 1, momentum = 1.0>"
        "(r, one, zero, zero, one);"
        "ws = Reshape(n, back)",
        "BatchNormalization in training mode",
        IMAGE | {"one": np.ones(OUT, np.float32), "zero": np.zeros(OUT, np.float32)},
    ),
    "InstanceNormalization": Spelling(
        "r = Reshape(w, rows); n = InstanceNormalization(r, g, z); ws = Reshape(n, back)",
        NORMALISED,
        IMAGE | {"g": normal(OUT), "z": normal(OUT, seed=1)},
    ),
    "LayerNormalization of rows": Spelling(
        "r = Reshape(w, rows); n = LayerNormalization(r, g, z); ws = Reshape(n, back)",
        NORMALISED,
        ROWS | {"g": normal(SIZE), "z": normal(SIZE, seed=1)},
    ),
    "LayerNormalization": Spelling(
        "ws = LayerNormalization<axis = 1>(w, g)", NORMALISED, {"g": normal(IN, KERNEL, KERNEL)}
    ),
    "GroupNormalization": Spelling(
        "r = Reshape(w, rows); n = GroupNormalization<num_groups = 1>(r, g, z);"
        "ws = Reshape(n, back)",
        NORMALISED,
        ROWS | {"rows": ints(OUT, IN, -1), "g": normal(IN), "z": normal(IN, seed=1)},
        opset=21,
    ),
    "RMSNormalization": Spelling(
        "r = Reshape(w, rows); n = RMSNormalization(r, g); ws = Reshape(n, back)",
        NORMALISED,
        ROWS | {"g": normal(SIZE)},
        opset=23,
    ),
    "MeanVarianceNormalization": Spelling(
        "ws = MeanVarianceNormalization<axes = [1, 2, 3]>(w)", NORMALISED
    ),
    "LpNormalization": Spelling(
        "r = Reshape(w, rows); n = LpNormalization<axis = -1>(r); ws = Reshape(n, back)",
        "divided by its own norm",
        ROWS,
    ),
    "weight_norm by ReduceL2": Spelling(
        "n = ReduceL2(w, axes); d = Div(w, n); ws = Mul(d, gain)", STATISTIC, AXES | GAIN
    ),
    "weight_norm by powers": Spelling(
        "q = Pow(w, two); t = ReduceSum(q, axes); n = Sqrt(t); d = Div(w, n); ws = Mul(gain, d)",
        STATISTIC,
        AXES | GAIN | {"two": np.float32(2)},
    ),
    "norm by ReduceSumSquare": Spelling(
        "t = ReduceSumSquare(w, axes); n = Sqrt(t); ws = Div(w, n)", STATISTIC, AXES
    ),
    "norm by ReduceL1": Spelling("n = ReduceL1(w, axes); ws = Div(w, n)", STATISTIC, AXES),
    "norm of everything": Spelling("n = ReduceL2<keepdims = 0>(w); ws = Div(w, n)", STATISTIC),
    "binarised": Spelling(
        "a = Abs(w); m = ReduceMean(a, axes); s = Sign(w); ws = Mul(s, m)", STATISTIC, AXES
    ),
    "log of a sum": Spelling("n = ReduceLogSumExp(w, axes); ws = Sub(w, n)", STATISTIC, AXES),
    "pooled mean": Spelling(
        "r = Reshape(w, rows); p = GlobalAveragePool(r); m = Reshape(p, column); ws = Sub(w, m)",
        STATISTIC,
        IMAGE | COLUMN,
    ),
    "Softmax": Spelling("ws = Softmax<axis = 1>(w)", "Softmax runs over it"),
    "CumSum": Spelling("ws = CumSum(w, along)", "CumSum runs along it", {"along": np.int64(1)}),
    "ReduceProd": Spelling(
        "p = ReduceProd(w, along); ws = Add(w, p)", "a product runs over it", {"along": ints(1)}
    ),
    "pruned to the largest": Spelling(
        "f = Reshape(w, flat); v, i = TopK(f, k); t = ReduceMin<keepdims = 0>(v);"
        "m = GreaterOrEqual(w, t); c = Cast<to = 1>(m); ws = Mul(w, c)",
        "compared with one another",
        {"flat": ints(-1), "k": ints(100)},
    ),
}
# What the analysis follows, or what weighs the channels with weights that can be split.
FOLLOWED = {
    "scaled by a number": Spelling("ws = Mul(w, s)", weights={"s": np.float32(1.7)}),
    "scaled filters": Spelling("ws = Mul(w, gain)", weights=GAIN),
    "scaled channels": Spelling("ws = Mul(w, s)", weights={"s": normal(1, IN, 1, 1)}),
    "masked": Spelling(
        "ws = Mul(w, s)",
        weights={"s": (normal(OUT, IN, KERNEL, KERNEL, seed=2) > 0).astype(np.float32)},
    ),
    "shifted": Spelling("ws = Add(w, s)", weights={"s": np.float32(0.5)}),
    "squashed": Spelling("ws = Tanh(w)"),
    "low rank": Spelling(
        "p = MatMul(left, right); r = Reshape(p, back); ws = Add(w, r)",
        weights=ROWS | {"left": normal(OUT, 2), "right": normal(2, SIZE)},
    ),
    "largest of a filter": Spelling(
        "a = Abs(w); n = ReduceMax(a, axes); ws = Div(w, n)", weights=AXES
    ),
    "spectral norm": Spelling(
        "r = Reshape(w, rows); rv = MatMul(r, v); n = MatMul(u, rv); ws = Div(w, n)",
        weights={"rows": ints(OUT, -1), "u": normal(OUT), "v": normal(SIZE)},
    ),
    "mean by a product": Spelling(
        "r = Reshape(w, rows); p = MatMul(r, mean); m = Reshape(p, column); ws = Sub(w, m)",
        weights=COLUMN | {"rows": ints(OUT, -1), "mean": np.full((SIZE, 1), 1 / SIZE, np.float32)},
    ),
    "norm by Einsum": Spelling(
        'e = Einsum<equation = "oikl,oikl->o">(w, w); c = Reshape(e, column); s = Sqrt(c);'
        "ws = Div(w, s)",
        weights=COLUMN,
    ),
    "orthogonal step": Spelling(
        "r = Reshape(w, rows); t = Transpose<perm = [1, 0]>(r); g = MatMul(r, t);"
        "p = MatMul(g, r); ws = Reshape(p, back)",
        weights=ROWS,
    ),
    "mean of each window": Spelling("m = GlobalAveragePool(w); ws = Sub(w, m)"),
    "blurred": Spelling(
        "ws = Conv<pads = [1, 1, 1, 1], group = 5>(w, blur)", weights={"blur": normal(IN, 1, 3, 3)}
    ),
    "divided by its fan": Spelling(
        "s = Shape(w); f = Gather(s, one); c = Cast<to = 1>(f); r = Sqrt(c); ws = Div(w, r)",
        weights={"one": np.int64(1)},
    ),
}
