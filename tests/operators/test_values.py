"""Every operator that size chains are evaluated with, against ONNX's reference implementation.

Generated from the records: an operator that has a value and no sample fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_net2net.analysis import values
from onnx_net2net.operators import facts, registry
from onnx_net2net.operators.language import Op


@dataclass
class Sample:
    """One node: its inputs (None: absent), attributes and opset."""

    inputs: list[Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 18
    outputs: int = 1

    def arrays(self) -> list[np.ndarray | None]:
        """The inputs, lists as int64."""
        return [v if v is None or isinstance(v, np.ndarray) else np.asarray(v) for v in self.inputs]


def f32(*entries: float) -> np.ndarray:
    return np.asarray(entries, np.float32)


def one(entry: float) -> np.ndarray:
    return np.asarray(entry, np.float32)


BOOLS = [np.array([True, True, False, False]), np.array([True, False, True, False])]
INTS = [[5, -7, 2, 0], [3, 3, -2, 4]]
REDUCED = [
    Sample([[[3, -1, 4], [1, 5, -9]]], {"keepdims": 1}),
    Sample([[[3, -1, 4], [1, 5, -9]]], {"axes": [1], "keepdims": 0}, opset=12),
    Sample([[3, -1, 4]], {"axes": [-1]}, opset=12),
]
REDUCED_BY_INPUT = [
    *REDUCED[:1],
    Sample([[[3, -1, 4], [1, 5, -9]], [0]], {"keepdims": 0}, opset=18),
    Sample([[3, -1, 4], [-1]], {"keepdims": 1}, opset=18),
    Sample([[[3, -1], [1, 5]], np.zeros(0, np.int64)], {"keepdims": 0}, opset=18),
    Sample([[[3, -1], [1, 5]]], {"noop_with_empty_axes": 1}, opset=18),
]
SAMPLES: dict[str, list[Sample]] = {
    "Abs": [Sample([[-3, 0, 4]]), Sample([one(-2.5)])],
    "Add": [Sample(INTS), Sample([[[1], [2]], [10, 20]]), Sample([one(1.5), one(2.25)])],
    "And": [Sample(BOOLS)],
    "Cast": [
        Sample([[3, 0, -2]], {"to": TensorProto.FLOAT}),
        Sample([one(-2.75)], {"to": TensorProto.INT64}),
        Sample([[0, 2]], {"to": TensorProto.BOOL}),
        Sample([[3, -2]], {"to": TensorProto.INT32}),
    ],
    "CastLike": [
        Sample([[3, -2], one(0)], opset=19),
        Sample([[3, -2, 126], np.int8([0])], opset=19),
        Sample([[1, 0], np.array([True])], opset=19),
    ],
    "Ceil": [Sample([f32(-1.5, 1.2, 2.0)]), Sample([one(-0.5)])],
    "Clip": [
        Sample([[-4, 2, 9], np.asarray(-1), np.asarray(5)]),
        Sample([[-4, 2, 9], None, np.asarray(5)]),
        Sample([[5, 2, 9], None, np.asarray(5)]),
        Sample([f32(-4, 2, 9)], {"min": -1.0, "max": 5.0}, opset=6),
        Sample([[-4, 2, 9]], opset=13),
    ],
    "Concat": [
        Sample([[1, 2], [3], [4, 5]], {"axis": 0}),
        Sample([[[1], [2]], [[3], [4]]], {"axis": -1}),
    ],
    "ConstantOfShape": [
        Sample([[3]]),
        Sample([[2]], {"value": numpy_helper.from_array(np.array([-7]))}),
        Sample([np.zeros(0, np.int64)], {"value": numpy_helper.from_array(np.array([5]))}),
    ],
    "Div": [
        Sample([*INTS[:1], [3, 2, -3, 4]]),
        Sample([[-7, 7, -8], [2, -2, 3]]),
        Sample([one(7), one(2)]),
    ],
    "Equal": [Sample([[1, 2, 3], [1, 5, 3]])],
    "Expand": [Sample([[[1], [2]], [2, 3]]), Sample([[7], [3]]), Sample([[[1], [2]], [1, 3]])],
    "Floor": [Sample([f32(-1.5, 1.2, 2.0)]), Sample([one(-0.5)])],
    "Gather": [
        Sample([[10, 20, 30], [2, 0]]),
        Sample([[10, 20, 30], np.asarray(-1)]),
        Sample([[[1, 2, 3], [4, 5, 6]], [0, 2]], {"axis": 1}),
    ],
    "Greater": [Sample(INTS)],
    "GreaterOrEqual": [Sample([[1, 2, 3], [1, 3, 2]])],
    "Identity": [Sample([[1, -2]])],
    "Less": [Sample(INTS)],
    "LessOrEqual": [Sample([[1, 2, 3], [1, 3, 2]])],
    "Max": [Sample([[1, 5], [4, 2], [3, 3]]), Sample([one(2), one(3)])],
    "Min": [Sample([[1, 5], [4, 2], [3, 3]]), Sample([one(2), one(3)])],
    "Mod": [
        Sample([[-7, 7, -7, 7], [3, -3, -3, 3]]),
        Sample([[-7, 7, -7, 7], [3, -3, -3, 3]], {"fmod": 1}),
    ],
    "Mul": [Sample(INTS), Sample([one(1.5), one(-2)])],
    "Neg": [Sample([[1, -2]]), Sample([one(1.5)])],
    "Not": [Sample(BOOLS[:1])],
    "Or": [Sample(BOOLS)],
    "Pow": [
        Sample([[2, 3, -2], [3, 2, 3]]),
        Sample([one(16), one(0.5)]),
        Sample([[4, 9], f32(2, 0.5)]),
        Sample([one(16), np.asarray(2)]),
    ],
    "Range": [
        Sample([np.asarray(2), np.asarray(11), np.asarray(3)]),
        Sample([np.asarray(5), np.asarray(0), np.asarray(-2)]),
        Sample([np.asarray(3), np.asarray(3), np.asarray(1)]),
    ],
    "Reciprocal": [Sample([one(4)])],
    "ReduceMax": REDUCED,
    "ReduceMin": REDUCED,
    "ReduceProd": REDUCED_BY_INPUT,
    "ReduceSum": [*REDUCED_BY_INPUT, Sample([[3, -1, 4]], {"axes": [0], "keepdims": 0}, opset=11)],
    "Reshape": [
        Sample([[1, 2, 3, 4], [2, -1]]),
        Sample([[[1, 2], [3, 4]], [0, -1]]),
        Sample([[[1, 2], [3, 4]], [-1]]),
        Sample([[7], np.zeros(0, np.int64)]),
    ],
    "Round": [Sample([f32(0.5, 1.5, 2.5, -0.5, -1.7)]), Sample([one(2.5)])],
    "ScatterND": [
        Sample([[1, 2, 3, 4], [[3], [0]], [40, 10]]),
        Sample([[[1, 2], [3, 4]], [[1]], [[5, 6]]]),
    ],
    "Slice": [
        Sample([[1, 2, 3, 4], [1], [3]]),
        Sample([[1, 2, 3, 4], [-1], [-9], [0], [-1]]),
        Sample([[1, 2, 3, 4], [0], [2**63 - 1], [0], [2]]),
        Sample([[[1, 2, 3], [4, 5, 6]], [1], [3], [-1]]),
        Sample([[[1, 2, 3], [4, 5, 6]], [0, 1], [1, 3]]),
        Sample([[1, 2, 3, 4]], {"starts": [1], "ends": [-1]}, opset=9),
        Sample([[[1, 2, 3], [4, 5, 6]]], {"starts": [1], "ends": [3], "axes": [1]}, opset=9),
    ],
    "Split": [
        Sample([[1, 2, 3, 4], [1, 3]], outputs=2),
        Sample([[1, 2, 3, 4]], {"split": [3, 1]}, opset=11, outputs=2),
        Sample([[[1, 2], [3, 4]], [1, 1]], {"axis": 1}, outputs=2),
    ],
    "Sqrt": [Sample([one(2)]), Sample([f32(4)])],
    "Squeeze": [
        Sample([[[1, 2]]]),
        Sample([[[1, 2]], [0]]),
        Sample([[[[5]]], [0, -1]]),
        Sample([[[1, 2]]], {"axes": [0]}, opset=11),
    ],
    "Sub": [Sample(INTS), Sample([one(1.5), one(2.25)])],
    "Tile": [Sample([[1, 2], [3]]), Sample([[[1, 2]], [2, 2]])],
    "Transpose": [Sample([[[1, 2, 3], [4, 5, 6]]]), Sample([[[1, 2, 3]]], {"perm": [1, 0]})],
    "Unsqueeze": [
        Sample([[1, 2], [0]]),
        Sample([np.asarray(5), [0, 1]]),
        Sample([[1, 2], [-1]]),
        Sample([[1, 2]], {"axes": [1]}, opset=11),
    ],
    "Where": [Sample([BOOLS[0], [1, 2, 3, 4], [-1]])],
    "Xor": [Sample(BOOLS)],
}


OPERATORS = sorted(
    name for (domain, name), record in registry().items() if record.value and not record.measures
)


def test_every_operator_has_a_sample() -> None:
    assert len(OPERATORS) > 40
    assert set(OPERATORS) <= set(SAMPLES), set(OPERATORS) - set(SAMPLES)


def test_what_commutes_does() -> None:
    checked = 0
    for name in filter(lambda name: facts(name).commutes, OPERATORS):
        for sample in (s for s in SAMPLES[name] if len(s.inputs) == 2):
            turned = replace(sample, inputs=sample.inputs[::-1])
            assert differences(name, turned, _reference(name, sample)) == [], name
            checked += 1
    assert checked >= 10
    turned = replace(SAMPLES["Sub"][0], inputs=INTS[::-1])
    assert differences("Sub", turned, _reference("Sub", SAMPLES["Sub"][0]))


def _node(operator: str, sample: Sample) -> Any:
    names = ["" if v is None else f"x{i}" for i, v in enumerate(sample.inputs)]
    outputs = [f"y{i}" for i in range(sample.outputs)]
    return helper.make_node(operator, names, outputs, **sample.attributes)


def _reference(operator: str, sample: Sample) -> list[np.ndarray]:
    node, given = _node(operator, sample), sample.arrays()
    feeds = {
        name: array for name, array in zip(node.input, given, strict=True) if array is not None
    }
    typed = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in feeds.items()
    ]
    free = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "one", typed, free)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", sample.opset)])
    return [np.asarray(a) for a in ReferenceEvaluator(model).run(None, feeds)]


def differences(operator: str, sample: Sample, wanted: list[np.ndarray] | None = None) -> list[str]:
    """How the evaluation differs from the reference."""
    got = values.evaluate(_node(operator, sample), sample.arrays(), sample.opset)
    if got is None:
        return ["no value"]
    found = []
    for ours, theirs in zip(got, wanted or _reference(operator, sample), strict=True):
        if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
            found.append(f"{ours.dtype} {ours.shape}, not {theirs.dtype} {theirs.shape}")
        elif not np.allclose(ours, theirs, rtol=1e-6):
            found.append(f"{ours}, not {theirs}")
    return found


CASES = [
    pytest.param(operator, sample, id=f"{operator}-{index}")
    for operator in OPERATORS
    for index, sample in enumerate(SAMPLES.get(operator, ()))
]


@pytest.mark.parametrize(("operator", "sample"), CASES)
def test_operator_computes_what_the_reference_computes(operator: str, sample: Sample) -> None:
    assert differences(operator, sample) == []


@pytest.mark.parametrize(
    ("operator", "wrong"),
    [
        ("Sqrt", lambda op: op.known(0)),
        ("Div", lambda op: op.known(0) // op.known(1)),
        ("Mod", lambda op: np.fmod(op.known(0), op.known(1))),
        ("Gather", lambda op: np.take(op.known(0), op.known(1))),
        ("Sub", lambda op: op.known(1) - op.known(0)),
        ("Cast", lambda op: op.known(0)),
    ],
)
def test_a_planted_fault_is_seen(
    operator: str, wrong: Callable[[Op], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry(), ("", operator), replace(facts(operator), value=wrong))
    assert any(differences(operator, sample) for sample in SAMPLES[operator])


def test_data_is_no_size() -> None:
    data = np.ones((80, 80), np.float32)
    assert values.evaluate(helper.make_node("Neg", ["x"], ["y"]), [data], 18) is None
    table = np.zeros((100, 100), np.int64)
    assert values.evaluate(helper.make_node("Neg", ["x"], ["y"]), [table], 18) is None


@pytest.mark.parametrize(
    ("operator", "inputs"),
    [
        ("Reshape", [[1, 2, 3], [2, 2]]),
        ("Gather", [[1, 2, 3], [5]]),
        ("Concat", [[1, 2], [[3]]]),
        ("Squeeze", [[1, 2], [0]]),
        ("Expand", [[1, 2], [3]]),
        ("Div", [[1], None]),
        ("Expand", [1, [100, 100]]),
        ("Tile", [[1, 2], [9000]]),
        ("Range", [0, 10**9, 1]),
    ],
)
def test_an_ill_formed_chain_has_no_value(operator: str, inputs: list[Any]) -> None:
    sample = Sample(inputs, {"axis": 0} if operator == "Concat" else {})
    assert values.evaluate(_node(operator, sample), sample.arrays(), 18) is None


def test_other_domains_are_not_evaluated() -> None:
    node = helper.make_node("Neg", ["x"], ["y"], domain="com.example")
    assert values.evaluate(node, [np.asarray([1])], 1) is None


def test_constants_are_read_in_every_form() -> None:
    forms: list[tuple[dict[str, Any], Any]] = [
        ({"value": numpy_helper.from_array(np.asarray([[1, 2]]))}, np.asarray([[1, 2]])),
        ({"value_int": 3}, np.asarray(3)),
        ({"value_ints": [3, 4]}, np.asarray([3, 4])),
        ({"value_float": 1.5}, np.asarray(1.5, np.float32)),
        ({"value_floats": [1.5, 2.5]}, np.asarray([1.5, 2.5], np.float32)),
    ]
    for attributes, expected in forms:
        found = values.constant(helper.make_node("Constant", [], ["y"], **attributes))
        assert found is not None
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    assert values.constant(helper.make_node("Constant", [], ["y"], value_string="s")) is None
