"""Tolerances that are stated, other precisions, and outputs by position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_net2net.errors import UsageError
from onnx_net2net.verification.comparison import compare
from onnx_net2net.verification.verify import verify
from tests.verify_networks import edited, layers, mlp, model, permuted, swap_channels

# What differs, what is noise, rtol, atol: whether it passes, what was allowed, and by which rule.
# The element has the value 2.
TABLE = [
    (1e-6, 1e-5, None, None, True, 1e-5, "rounding noise"),
    (1e-4, 1e-5, None, None, False, 1e-5, "rounding noise"),
    # One alone is never stricter than the noise.
    (1e-6, 1e-5, 1e-9, None, True, 1e-5, "rounding noise"),
    (1e-6, 1e-5, None, 1e-9, True, 1e-5, "rounding noise"),
    (1e-4, 1e-5, 1e-9, None, False, 1e-5, "rounding noise"),
    (1e-4, 1e-5, 1e-3, None, True, 2e-3, "rtol"),
    (1e-4, 1e-5, None, 1e-3, True, 1e-3, "atol"),
    (1e-2, 1e-5, 1e-3, None, False, 2e-3, "rtol"),
    (1e-2, 1e-5, None, 1e-3, False, 1e-3, "atol"),
    # Both are what numpy.allclose says, stricter than the noise too.
    (1e-6, 1e-5, 1e-9, 1e-9, False, 3e-9, "rtol and atol"),
    (1e-6, 1e-5, 0.0, 0.0, False, 0.0, "rtol and atol"),
    (1e-3, 1e-5, 1e-3, 1e-3, True, 3e-3, "rtol and atol"),
]


@pytest.mark.parametrize(("apart", "noise", "rtol", "atol", "passes", "allowed", "rule"), TABLE)
def test_which_tolerance_holds(
    apart: float, noise: float, rtol: float, atol: float, passes: bool, allowed: float, rule: str
) -> None:
    expected = np.array([2.0])
    found = compare(expected, expected + apart, np.array([noise]), rtol, atol)
    assert (found.problem is None) is passes
    assert found.rule == rule and found.tolerance == pytest.approx(allowed)
    assert passes or f"differ by more than {rule}, worst" in str(found.problem)


def test_a_relative_tolerance_does_not_make_it_stricter() -> None:
    """For the few outputs near 0, noise is more than any share of them."""
    rng = np.random.default_rng(0)
    stack = layers(rng, [4, 1000, 3])
    a, b = mlp(stack), mlp(permuted(stack, 0, rng))
    for options in ({}, {"rtol": 1e-3}, {"rtol": 0.0}, {"atol": 0.0}):
        report = verify(a, b, seeds=40, **options)
        assert report, report.verdict
        assert report.outputs[0].max_abs > 0
    assert not verify(a, b, seeds=2, rtol=0.0, atol=0.0)


def test_both_together_are_stricter_where_the_user_says_so() -> None:
    rng = np.random.default_rng(1)
    stack = layers(rng, [6, 200, 4])
    assert not verify(mlp(stack), mlp(permuted(stack, 0, rng)), rtol=1e-9, atol=1e-9)
    report = verify(mlp(stack), mlp(stack), rtol={"y": 1e-3})
    assert report.outputs[0].rule in ("rtol", "rounding noise")
    assert report.as_dict()["outputs"][0]["rule"] == report.outputs[0].rule


# Precisions ------------------------------------------------------------------------------------

STACK = layers(np.random.default_rng(2), [5, 9, 4])
FLOATS = [np.float16, ml_dtypes.bfloat16, np.float64]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("swapped", [False, True])
def test_other_precisions_are_compared_after_a_cast(dtype: type, swapped: bool) -> None:
    pair = [mlp(STACK), mlp(STACK, dtype)]
    a, b = pair[::-1] if swapped else pair
    report = verify(a, b, provider="cpu")
    assert report and report.verdict == "equivalent, compared after a cast", report.verdict
    assert "input 'x' is" in report.casts[0] and "output 'y' is" in report.casts[1]
    wrong = edited(mlp(STACK), "w1", swap_channels)
    assert not verify(wrong, mlp(STACK, dtype), provider="cpu")
    assert not verify(a, b, provider="cpu", rtol=1e-9, atol=1e-9)
    assert verify(a, b, provider="cpu", rtol=0.05, atol=0.05)


@pytest.mark.parametrize("factor", [1.05, 0.9])
def test_a_fault_above_the_coarser_types_noise_is_seen(factor: float) -> None:
    off = [(w * (factor if i else 1), b) for i, (w, b) in enumerate(STACK)]
    assert not verify(mlp(STACK), mlp(off, np.float16))


def gathering(kind: int) -> onnx.ModelProto:
    nodes = [helper.make_node("Gather", ["table", "x"], ["y"])]
    table = np.linspace(-1, 1, 12, dtype=np.float32).reshape(6, 2)
    return model(nodes, [("x", kind, ["n"])], [("y", 1, ["n", 2])], {"table": table})


def test_widths_of_whole_numbers_are_cast() -> None:
    report = verify(gathering(TensorProto.INT64), gathering(TensorProto.INT32))
    assert report and "compared as int32, after a cast" in report.casts[0]
    own = {"x": np.array([0, 5, 2])}
    assert verify(gathering(TensorProto.INT64), gathering(TensorProto.INT32), inputs=own)


def doubled(kind: int) -> onnx.ModelProto:
    node = helper.make_node("Concat", ["x", "x"], ["y"], axis=0)
    return model([node], [("x", kind, [3])], [("y", kind, [6])], {})


@pytest.mark.parametrize(
    "other", [TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING, TensorProto.UINT8]
)
def test_other_kinds_stay_a_difference(other: int) -> None:
    report = verify(doubled(TensorProto.FLOAT), doubled(other), rtol=1, atol=1)
    assert not report and "input 'x' is float (3) in the first model" in report.problems[0]
    assert not report.trials and not report.casts


def test_an_output_alone_of_another_type_is_a_difference_unless_a_tolerance_is_stated() -> None:
    plain = mlp(STACK, output="h")
    cast = onnx.ModelProto()
    cast.CopyFrom(plain)
    cast.graph.node[-1].output[0] = "g"
    cast.graph.node.append(helper.make_node("Cast", ["g"], ["h"], to=TensorProto.DOUBLE))
    cast.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    assert not verify(plain, cast)
    report = verify(plain, cast, rtol={"h": 1e-4})
    assert report and report.casts == [
        "output 'h' is double instead of float: compared after a cast"
    ]


def test_own_inputs_may_have_either_type() -> None:
    for dtype in (np.float32, np.float16):
        own = {"x": np.ones((2, 5), dtype)}
        assert verify(mlp(STACK), mlp(STACK, np.float16), inputs=own)
    with pytest.raises(UsageError, match="must be float16, not int64"):
        verify(mlp(STACK), mlp(STACK, np.float16), inputs={"x": np.ones((2, 5), np.int64)})


# By position -----------------------------------------------------------------------------------


def heads(inputs: Sequence[str], outputs: Sequence[str], swap: bool = False) -> onnx.ModelProto:
    """y = a @ v and z = b @ w, under any names."""
    rng = np.random.default_rng(3)
    v, w = (rng.normal(size=(4, 3)).astype(np.float32) for _ in range(2))
    pairs = list(zip(inputs, ("v", "w"), outputs, strict=True))
    nodes = [helper.make_node("MatMul", [x, weight], [y]) for x, weight, y in pairs]
    return model(
        nodes,
        [(name, 1, ["n", 4]) for name in inputs],
        [(name, 1, ["n", 3]) for name in (outputs[::-1] if swap else outputs)],
        {"v": v, "w": w},
    )


AB = heads("ab", "yz")
OTHERS: dict[str, tuple[Any, bool, bool]] = {  # equivalent by name, by position
    "the same names": (heads("ab", "yz"), True, True),
    "other outputs": (heads("ab", ["Identity:0", "Identity_1:0"]), False, True),
    "other inputs": (heads(["args_0", "args_1"], "yz"), False, True),
    "other names in all places": (heads("pq", "st"), False, True),
    "names that the first has elsewhere": (heads("bc", "zy"), False, True),
    "another order": (heads("ab", "yz", swap=True), False, False),
    "another order and other names": (heads("ab", "st", swap=True), False, False),
}


@pytest.mark.parametrize("case", OTHERS)
def test_by_position(case: str) -> None:
    other, by_name, by_position = OTHERS[case]
    assert bool(verify(AB, other)) is by_name
    report = verify(AB, other, by_position=True)
    assert bool(report) is by_position, report.verdict
    if by_position and not by_name:
        assert report.verdict == "equivalent, compared by position"
        assert all(" is compared with " in line for line in report.by_position)
        assert [output.name for output in report.outputs] == ["y", "z"]


def test_what_does_not_fit_by_position_is_named() -> None:
    one = model(
        [helper.make_node("Relu", ["p"], ["q"])], [("p", 1, ["n", 4])], [("q", 1, ["n", 4])], {}
    )
    report = verify(AB, one, by_position=True)
    assert not report and report.problems == [
        "the inputs cannot be matched by position: the first model has 2 (a, b), the second 1 (p)",
        "the outputs cannot be matched by position: the first model has 2 (y, z), the second 1 (q)",
    ]
    long = model(
        [helper.make_node("Cast", ["p"], ["q"], to=TensorProto.INT64)],
        [("p", 1, ["n", 4])], [("q", TensorProto.INT64, ["n", 4])], {},
    )  # fmt: skip
    report = verify(one, long, by_position=True)
    assert not report and "output 'q' is int64 instead of float" in report.problems


def test_bounds_of_renamed_inputs_hold() -> None:
    """The smaller table of the second model bounds the indices, whatever its input is called."""

    def looking_up(name: str, rows: int) -> onnx.ModelProto:
        nodes = [helper.make_node("Gather", ["table", name], ["y"])]
        table = np.arange(200, dtype=np.float32).reshape(100, 2)[:rows]
        return model(
            nodes, [(name, TensorProto.INT64, ["n"])], [("y", 1, ["n", 2])], {"table": table}
        )

    assert verify(looking_up("ids", 100), looking_up("tokens", 5), by_position=True)


def test_sequences_are_renamed_with_their_elements() -> None:
    def split(name: str) -> onnx.ModelProto:
        node = helper.make_node("SplitToSequence", ["x"], [name], axis=0)
        proto = model([node], [("x", 1, [2, 3])], [], {})
        floats = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
        kind = helper.make_sequence_type_proto(floats)
        proto.graph.output.append(helper.make_value_info(name, kind))
        return proto

    report = verify(split("y"), split("Identity:0"), by_position=True)
    assert report and [o.name for o in report.outputs] == ["y.length", "y[0]", "y[1]"]
