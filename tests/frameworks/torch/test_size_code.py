"""Sizes that are computed as the network runs: the written Python says what the graph does."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import onnx.parser
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [torch]")

import onnx_net2net as n2n  # noqa: E402
from onnx_net2net.algebra.sizes import maximum, minimum  # noqa: E402
from onnx_net2net.frameworks.torch import size_code  # noqa: E402

# Chains of `n`, `m` and `k`, the sizes of an input, and 8: what Python says for them.
TABLE = {
    "sum": ("y = Add(n, m)", "n + m"),
    "difference": ("d = Sub(n, eight)  y = Add(d, n)", "n * 2 - 8"),
    "negative": ("y = Neg(n)", "-n"),
    "product": ("p = Mul(n, m)  y = Mul(p, eight)", "n * m * 8"),
    "quotient": ("y = Div(n, three)", "n // 3"),
    "quotient of sizes": ("p = Mul(n, m)  q = Add(p, eight)  y = Div(q, m)", "(n * m + 8) // m"),
    "quotient of a negative": ("d = Sub(n, eight)  y = Div(d, three)", "torch.div"),
    "remainder": ("y = Mod(n, three)", "n % 3"),
    "remainder of sizes": ("y = Mod(n, m)", "n // m"),
    "padding": ("r = Mod(n, eight)  p = Sub(eight, r)  y = Mod(p, eight)", "-n % 8"),
    "half of a divisor": ("f = Mul(n, two)  y = Mod(f, four)", "n % 2 * 2"),
    "multiple": ("s = Add(n, three)  q = Div(s, four)  y = Mul(q, four)", "(n + 3) // 4 * 4"),
    "largest": ("y = Max(n, eight)", "max(n, 8)"),
    "smallest": ("y = Min(n, m)", "min("),
    "nested extremes": ("a = Max(n, eight)  b = Min(a, m)  y = Add(b, n)", "min("),
    "product of extremes": ("a = Max(n, eight)  b = Min(n, m)  y = Mul(a, b)", "min("),
    "extremes of multiples": ("a = Mul(n, two)  b = Max(a, eight)  y = Sub(m, b)", "min("),
    "where equal": ("c = Equal(n, three)  y = Where(c, m, eight)", "m if n == 3 else 8"),
    "where less": ("c = Less(n, m)  y = Where(c, n, eight)", "n if n < m else 8"),
    "where both": (
        "a = Less(n, eight)  b = Greater(m, two)  c = And(a, b)  d = Not(c)  y = Where(d, n, m)",
        "n if not (n < 8 and m > 2) else m",
    ),
    "where any": (
        "a = LessOrEqual(n, m)  b = GreaterOrEqual(m, four)  c = Or(a, b)  y = Where(c, n, two)",
        "n if n <= m or m >= 4 else 2",
    ),
    "reduced": ("s = Concat<axis = 0>(n, m, k)  y = ReduceProd<keepdims = 1>(s)", "n * m * k"),
    "largest of all": ("s = Concat<axis = 0>(n, m, k)  y = ReduceMax<keepdims = 1>(s)", "max("),
    "never -1": ("c = Equal(n, minus)  y = Where(c, eight, m)", "full((), m,"),
    "absolute": ("d = Sub(n, eight)  y = Abs(d)", "max("),
}
SIZES = [(1, 1, 1), (3, 4, 5), (4, 3, 7), (8, 2, 2), (9, 9, 1), (13, 5, 6), (16, 17, 3)]


def model(chain: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 18]>
    r (float[n, m, k] x) => (int64[1] y)
    <int64[1] two = {{2}}, int64[1] three = {{3}}, int64[1] four = {{4}}, int64[1] eight = {{8}},
     int64[1] minus = {{-1}}> {{
        n = Shape<start = 0, end = 1>(x)
        m = Shape<start = 1, end = 2>(x)
        k = Shape<start = 2, end = 3>(x)
        {chain} }}""")


def problems(chain: str) -> list[str]:
    """Return what differs from onnxruntime at any of the sizes."""
    proto = model(chain)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    module, differing = n2n.to_torch(proto), []
    for sizes in SIZES:
        (want,) = session.run(None, {"x": np.zeros(sizes, np.float32)})
        got = module(torch.zeros(sizes)).numpy()
        if want.shape != got.shape or want != got:
            differing.append(f"{sizes}: {got} for {want}")
    return differing


@pytest.mark.parametrize("name", TABLE)
def test_as_onnxruntime(name: str) -> None:
    chain, text = TABLE[name]
    assert problems(chain) == []
    source = n2n.to_torch(model(chain)).source
    forward = source[source.index("def forward") : source.index("def load")]
    for axis, size in enumerate("nmk"):
        forward = forward.replace(f"x.shape[{axis}]", size)
    assert text in forward


@pytest.mark.parametrize(
    ("operator", "fault"), [("floordiv", "-(-({}) // ({}))"), ("Less", "({}) <= ({})")]
)
def test_a_planted_fault_is_seen(
    operator: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(size_code.EXPRESSIONS, operator, fault)
    name = {"floordiv": "quotient", "Less": "where less"}[operator]
    assert problems(TABLE[name][0])


def random_size(choice: random.Random, depth: int, numbers: dict[str, int]) -> tuple[Any, int]:
    """Return a size, and the number that it is where everything read has those of ``numbers``."""
    if not depth:
        name = choice.choice([*numbers, None])
        number = choice.randint(1, 9)
        return (size_code.read(name), numbers[name]) if name else (number, number)
    (a, x), (b, y) = (random_size(choice, depth - 1, numbers) for _ in range(2))
    divisor = choice.randint(2, 9)
    return choice.choice([
        (a + b, x + y), (a - b, x - y), (a * b, x * y), (a // divisor, x // divisor),
        (a % divisor, x % divisor), (minimum(a, b), min(x, y)), (maximum(a, b), max(x, y)),
        (divisor * (a // divisor), divisor * (x // divisor)),
    ])  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_code_is_the_number(seed: int) -> None:
    choice = random.Random(seed)
    for _ in range(50):
        numbers = {name: choice.randint(0, 30) for name in "nmk"}
        size, number = random_size(choice, choice.randint(1, 3), numbers)
        code = size_code.written(size)
        assert eval(code, {"max": max, "min": min, **numbers}) == number, code


def test_nothing_of_a_size() -> None:
    """An empty batch: sizes are never taken to be at least one."""
    chain = "c = Greater(n, zero)  y = Where(c, n, eight)"
    proto = model(chain.replace("zero", "none"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.int64), "none"))
    module = n2n.to_torch(proto)
    assert module(torch.zeros(0, 2, 2)).item() == 8
    assert module(torch.zeros(3, 2, 2)).item() == 3
