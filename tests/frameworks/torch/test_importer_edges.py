"""Sizes that come up at run time only: nothing to sum, no step of a sequence, no turn of a loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import onnxruntime
import pytest

pytest.importorskip("torch")

import torch

import onnx_net2net as n2n
from onnx_net2net.frameworks.torch.types import literal

HEAD = '<ir_version: 8, opset_import: ["": 18]>'
LOOP = """r (float[n, 3] x, int64 k) => (float[n, 3] last, float[a, 3] rows)
    <float[3] w = {1, 2, 3}> {
    go = Constant<value = bool {1}>()
    last, rows = Loop(k, go, x)<body = b (int64 i, bool c, float[n, 3] s)
        => (bool d, float[n, 3] t, float[3] row) {
        d = Identity(c)  t = Add(s, w)  row = Neg(w) }>
}"""


def layer(op: str, gates: int, direction: str) -> str:
    count = 1 + (direction == "bidirectional")
    weights = ", ".join(["0.5"] * (count * gates * 2 * 2))
    shape = f"[{count}, {gates * 2}, 2]"
    return f"""r (float[t, n, 2] x, int32[n] l, float[{count}, n, 2] h)
        => (float[t, {count}, n, 2] y, float[{count}, n, 2] last)
        <float{shape} w = {{{weights}}}, float{shape} r = {{{weights}}}> {{
        y, last = {op}<hidden_size = 2, direction = "{direction}">(x, w, r, , l, h) }}"""


def sequences(count: int) -> list[dict[str, Any]]:
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(2, 3, 2)
    h = np.full((count, 3, 2), 0.7, np.float32)
    return [
        {"x": x, "l": np.array(lengths, np.int32), "h": h} for lengths in ([0, 1, 2], [2, 2, 2])
    ]


def rows(*counts: int) -> list[dict[str, Any]]:
    return [{"x": np.arange(n * 3, dtype=np.float32).reshape(n, 3)} for n in counts]


TABLE: dict[str, tuple[str, list[dict[str, Any]]]] = {
    f"CumSum {flags}": (
        "r (float[n, 3] x) => (float[n, 3] y) <int64 axis = {-2}> "
        f"{{ y = CumSum<exclusive = {flags[0]}, reverse = {flags[1]}>(x, axis) }}",
        rows(0, 1, 3),
    )
    for flags in ("00", "10", "01", "11")
}
TABLE |= {
    f"{op} {direction}": (
        layer(op, gates, direction),
        sequences(1 + (direction == "bidirectional")),
    )
    for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4))
    for direction in ("forward", "reverse", "bidirectional")
}
TABLE["loop"] = LOOP, [{**rows(2)[0], "k": np.array(turns)} for turns in (0, 1, 3)]


@pytest.mark.parametrize("name", TABLE)
def test_as_onnxruntime(name: str) -> None:
    text, feeds = TABLE[name]
    model = onnx.parser.parse_model(f"{HEAD} {text}")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    module = n2n.to_torch(model)
    for given in feeds:
        with torch.no_grad():
            results = module(*map(torch.from_numpy, given.values()))
        results = results if isinstance(results, tuple) else (results,)
        for want, got in zip(session.run(None, given), results, strict=True):
            assert got.shape == want.shape
            np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=1e-6)


def test_a_loop_of_unknown_rows_says_so() -> None:
    text = LOOP.replace("float[a, 3] rows", "float[a, b] rows")
    text = text.replace("float[3] row)", "float[q] row)")
    flat = "all = Constant<value_ints = [-1]>()  row = Reshape(t, all)"
    text = text.replace("row = Neg(w)", flat)
    module = n2n.to_torch(onnx.parser.parse_model(f"{HEAD} {text}"))
    with pytest.raises(ValueError, match="a loop does not run once"):
        module(torch.ones(2, 3), torch.tensor(0))


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (np.complex64(1 - 2j), "complex(1.0, -2.0)"),
        (np.longlong(3), "3"),
        (np.float16(0.5), "0.5"),
        (np.float64(0.1), "0.1"),
    ],
)
def test_numbers_are_written_whole(value: Any, code: str) -> None:
    assert literal(value) == code
