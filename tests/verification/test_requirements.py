"""What the differences of outputs are measured in, and what may be required of them."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_net2net.cli.render_report import report_table, report_text, statistics_table
from onnx_net2net.errors import UsageError
from onnx_net2net.model.model import load
from onnx_net2net.verification.precision import in_precision
from onnx_net2net.verification.report import Report
from onnx_net2net.verification.statistics import LIKENESSES, statistics
from onnx_net2net.verification.terms import MEASURES, Terms, requirements
from onnx_net2net.verification.verify import verify
from tests.console import FIXTURES
from tests.verify_networks import edited, layers, mlp, model, not_a_number, scale_one, swap_channels

X = np.array([[3.0, -4.0, 0.5], [1.0, 2.0, -2.5]], np.float32)


# Measures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, int])
def test_measures_are_what_they_are_called(dtype: type, rng: np.random.Generator) -> None:
    x = (rng.normal(size=(20, 30)) * 9).astype(dtype)
    y = (rng.normal(size=(20, 30)) * 2 + x.astype(float)).astype(dtype)
    measured = statistics(x, y)
    assert measured is not None
    a, b = x.astype(np.float64), y.astype(np.float64)
    e = abs(a - b)
    expected = {
        "max": e.max(), "mean": e.mean(), "median": np.median(e), "p90": np.quantile(e, 0.9),
        "p99": np.quantile(e, 0.99), "relative": e.max() / abs(a).max(),
        "cosine": (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b),
        "sqnr": 10 * np.log10((a**2).sum() / (e**2).sum()),
        "psnr": 10 * np.log10(abs(a).max() ** 2 / (e**2).mean()),
        "top1": (a.argmax(1) == b.argmax(1)).mean(),
    }  # fmt: skip
    assert set(expected) == set(MEASURES)
    for name, value in expected.items():
        assert getattr(measured, name) == pytest.approx(value, rel=1e-12), name


def test_equal_arrays_are_exactly_alike(rng: np.random.Generator) -> None:
    for scale in (1, 1e-30, 1e30):
        x = (rng.normal(size=(7, 9)) * scale).astype(np.float32)
        measured = statistics(x, x.copy())
        assert measured is not None and measured.cosine == measured.top1 == 1
        assert measured.max == 0 and measured.sqnr == measured.psnr == np.inf


def test_numbers_whose_squares_overflow() -> None:
    measured = statistics(np.array([1e300, 2e300]), np.array([1e300, 2.2e300]))
    assert measured is not None and measured.sqnr == pytest.approx(20.97, abs=0.01)
    assert measured.cosine is not None and 0.99 < measured.cosine < 1


@pytest.mark.parametrize(
    ("x", "y", "cosine", "sqnr"),
    [
        (np.zeros(3), np.zeros(3), None, None),
        (np.zeros(3), np.ones(3), 0, -np.inf),
        (np.ones(3), np.zeros(3), 0, 0),
        (np.ones(3), -np.ones(3), -1, pytest.approx(-6.02, abs=0.01)),
    ],
)
def test_zero_has_no_angle(x: np.ndarray, y: np.ndarray, cosine: float, sqnr: float) -> None:
    measured = statistics(x, y)
    assert measured is not None and measured.cosine == cosine and measured.sqnr == sqnr


def test_what_is_not_finite_is_left_out() -> None:
    x, y = np.array([1, np.nan, np.inf, 4.0]), np.array([1, np.nan, np.inf, 5.0])
    measured = statistics(x, y)
    assert measured is not None and (measured.max, measured.mean) == (1, 0.5)
    for a, b in (
        (np.full(3, np.nan), np.full(3, np.nan)),
        (np.zeros((0, 3)), np.zeros((0, 3))),
        (np.zeros(3), np.zeros(4)),
        (np.zeros(3), np.zeros(3, int)),
        (np.array(["a"], object), np.array(["a"], object)),
    ):
        assert statistics(a, b) is None


# Requirements --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cosine", "is no requirement"),
        ("cosine>0.9", "is no requirement"),
        ("cosine>=nan", "is no requirement"),
        ("cosine>=x", "is no requirement"),
        ("likeness>=1", "there is no measure 'likeness'"),
        ("cosine<=0.9", "cosine is a likeness"),
        ("max>=0.9", "max is a distance"),
    ],
)
def test_a_requirement_that_cannot_be_meant(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        requirements(text)
    assert caught.value.remedy


def test_requirements_are_read_as_they_are_written() -> None:
    texts = ["cosine>=0.9999999", "max<=0.001", "a=b:0=sqnr>=40", "top1 >= 1"]
    read = requirements(texts)
    assert [*map(str, read)] == [*texts[:3], "top1>=1"]
    assert read[2].output == "a=b:0"
    for name in MEASURES:
        relation = ">=" if name in LIKENESSES else "<="
        assert requirements(f"{name}{relation}1")[0].measure == name


def test_a_requirement_holds_besides_rounding_noise(rng: np.random.Generator) -> None:
    stack = layers(rng, [5, 9, 4])
    good, bad = mlp(stack), edited(mlp(stack), "w0", scale_one)
    assert verify(good, good, require=["cosine>=1", "sqnr>=200"])
    assert not verify(good, bad, require="cosine>=0.9"), "it makes nothing milder"
    report = verify(good, bad, require="cosine>=0.9", require_only=True)
    assert report and report.verdict == "equivalent as far as is required: cosine>=0.9"
    assert report.outputs[0].rule == "required" and "required" in report_text(report)
    report = verify(good, bad, require=["cosine>=0.9", "y=max<=1e-9"], require_only=True)
    assert not report and "its max is" in report.verdict and "y=max<=1e-09" in report.verdict


def test_a_requirement_has_to_hold_in_every_trial(rng: np.random.Generator) -> None:
    stack = layers(rng, [5, 9, 4])
    bad = edited(mlp(stack), "w0", scale_one)
    report = verify(mlp(stack), bad)
    each = [d.statistics.max for d in report.outputs[0].differences if d.statistics]
    assert len(each) == 3 and report["y"].statistics and report["y"].statistics.max == max(each)
    between = sorted(each)[1]
    report = verify(mlp(stack), bad, require=f"max<={between}", require_only=True)
    assert [d.problem is None for d in report.outputs[0].differences].count(False) == 1
    assert report.junit().count("<failure") == 1


def test_numbers_excuse_no_nan_no_shape_and_no_type(rng: np.random.Generator) -> None:
    stack = layers(rng, [5, 9, 4])
    for other, says in (
        (edited(mlp(stack), "w0", not_a_number), "NaN in one model only"),
        (mlp(layers(rng, [5, 9, 3])), "its shape is"),
    ):
        report = verify(mlp(stack), other, require="cosine>=-1", require_only=True)
        assert not report and says in report.verdict
    nan = edited(mlp(stack), "b1", lambda array: array.fill(np.nan))
    assert not verify(nan, nan, require="max<=1", require_only=True)


def constant(value: float) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Mul", ["x", "zero"], ["z"]),
        helper.make_node("Add", ["z", "c"], ["y"]),
    ]
    weights = {"zero": np.zeros(1, np.float32), "c": np.full(1, value, np.float32)}
    return model(nodes, [("x", 1, ["b", 3])], [("y", 1, ["b", 3])], weights)


def test_zero_meets_no_requirement_of_an_angle() -> None:
    assert verify(constant(0), constant(0), require="max<=0")
    report = verify(constant(0), constant(0), require="cosine>=0.9")
    assert not report and "its cosine has no value in any trial" in report.verdict
    assert not verify(constant(0), constant(1), require="cosine>=0.1", require_only=True)


def test_what_is_required_of_nothing_is_an_error(rng: np.random.Generator) -> None:
    proto = mlp(layers(rng, [5, 4]))
    with pytest.raises(UsageError, match="'z', which is no output"):
        verify(proto, proto, require="z=cosine>=0.9")
    with pytest.raises(UsageError, match="nothing is required"):
        verify(proto, proto, require_only=True)
    with pytest.raises(UsageError, match="tolerances say nothing"):
        verify(proto, proto, require="max<=1", require_only=True, atol=1)


def test_one_output_decides_by_requirement_the_other_by_noise(rng: np.random.Generator) -> None:
    proto = mlp(layers(rng, [5, 9, 4]))
    proto.graph.output.append(helper.make_tensor_value_info("a0", 1, None))
    bad = edited(proto, "w0", scale_one)
    report = verify(proto, bad, require="y=cosine>=0.9", require_only=True)
    assert [output.equivalent for output in report.outputs] == [True, False]
    assert Terms(requirements=requirements("y=max<=1"), alone=True).decide_alone("a0") is False


# Shown -----------------------------------------------------------------------------------------


def test_statistics_are_in_the_data_and_the_text(rng: np.random.Generator) -> None:
    stack = layers(rng, [5, 9, 4])
    report = verify(mlp(stack), edited(mlp(stack), "w0", scale_one))
    plain = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert set(plain["outputs"][0]["statistics"]) == set(MEASURES)
    assert set(plain["outputs"][0]["differences"][0]["statistics"]) == set(MEASURES)
    assert "feeds" not in plain and "expected" not in plain
    assert "cosine" in report_text(report) and "SQNR" in report_text(report)


def test_no_width_drops_a_verdict(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = layers(rng, [5, 9, 4])
    name = "decoder/layers/11/encoder_attention/output_projection/MatMul_output_0"
    report = verify(mlp(stack, output=name), edited(mlp(stack, output=name), "w0", scale_one))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for columns in (60, 80, 100, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        shown = report_text(report).split("\n\n")
        table = shown[0].splitlines()
        assert "verdict" in table[0] and any("differs" in line for line in table), columns
        rest = "".join(line.split("  ")[0].strip() for line in table[1:])
        assert name in rest.replace("\x1b[0m", ""), columns
    assert isinstance(report, Report)
    assert len(report_table(report, narrow=True).columns) < len(report_table(report).columns)
    assert len(statistics_table(report, narrow=True).columns) == 6


# In words ----------------------------------------------------------------------------------------


def in_half(proto: onnx.ModelProto, *, ends: bool) -> onnx.ModelProto:
    """The same network in float16, its inputs and outputs too, or Casts at both ends."""
    half = onnx.load_from_string(in_precision(load(proto), TensorProto.FLOAT16).to_bytes())
    for values, to in ((half.graph.input, "in"), (half.graph.output, "out")) if ends else ():
        value = values[0]
        for node in half.graph.node:
            for names in (node.input, node.output):
                names[:] = [to if name == value.name else name for name in names]
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    if ends:
        x, y = half.graph.input[0].name, half.graph.output[0].name
        half.graph.node.insert(0, helper.make_node("Cast", [x], ["in"], to=TensorProto.FLOAT16))
        half.graph.node.append(helper.make_node("Cast", ["out"], [y], to=TensorProto.FLOAT))
    return half


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("name", ["mlp.ts17", "resnet.dynamo", "lenet.ts17"])
def test_a_copy_in_half_precision_may_differ_by_what_that_costs(name: str, ends: bool) -> None:
    proto = onnx.load(FIXTURES / f"{name}.onnx")
    half = in_half(proto, ends=ends)
    report = verify(proto, half, precision="fp16", seeds=1)
    assert report and "float16" in report.noise_sources, report.verdict
    if ends:
        assert not verify(proto, half, seeds=1), "float32 is promised where nothing else is said"
    weight = next(t.name for t in half.graph.initializer if len(t.dims) >= 2)
    for fault in (swap_channels, not_a_number):
        assert not verify(proto, edited(half, weight, fault), precision="float16", seeds=1)


def test_token_ids_and_logits_in_half_precision() -> None:
    proto = onnx.load(FIXTURES / "gpt2.dynamo.onnx")
    half = in_half(proto, ends=False)
    assert "is float16 instead of float" in verify(proto, half, seeds=1).verdict
    assert verify(proto, half, precision="fp16", seeds=1)
    with pytest.raises(UsageError, match="nothing measures what 'int8' costs"):
        verify(proto, half, precision="int8")
