"""Every fixture, every dimension that promises growth: grown, run, and equal.

Widths are an odd number of units larger (or a multiple), so that some units have more copies
than others. `python -m tests.coverage.fixtures` does the same at more widths, by every split
and mapping.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_net2net.model.model import load
from onnx_net2net.widening.dimensions import analyse, inspect
from onnx_net2net.widening.widen import widen
from tests import golden_dimensions, judging
from tests.judging import Subject, everything, wider

NAMES = [path.name for path in golden_dimensions.FIXTURES]
BY_NAME = dict(zip(NAMES, golden_dimensions.FIXTURES, strict=True))
# Nothing in its loop has a name of its own, so that an inserted Mul gives its to the dimension.
RENAMED = {"keras-gru.tf2onnx.onnx"}


@pytest.fixture(scope="module", params=NAMES)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """One fixture after another: its source is run once for all tests."""
    path: Path = BY_NAME[request.param]
    before = path.read_bytes()
    found = judging.subject(request.param)
    proto = found.model.proto.SerializeToString(deterministic=True)
    yield found
    assert path.read_bytes() == before, "the source file was written to"
    after = found.model.proto.SerializeToString(deterministic=True)
    assert after == proto, "the source model was changed in place"


def test_growth_and_reasons_are_golden(subject: Subject) -> None:
    """`python -m tests.golden_dimensions --write` writes the table anew."""
    assert subject.model.path is not None
    now = golden_dimensions.table(subject.dimensions)
    assert now == golden_dimensions.read()[subject.model.path.name]


def test_what_is_fixed_says_why(subject: Subject) -> None:
    for dimension in subject.dimensions:
        assert (dimension.growth == "any") == (dimension.reason is None), dimension.name


def test_each_dimension_grows_by_itself(subject: Subject) -> None:
    wrong = {}
    for turn, dimension in enumerate(subject.growable):
        grown = widen(subject.model, {dimension.name: wider(dimension, turn)}, seed=turn)
        report = subject.agrees(grown)
        if not report:
            wrong[dimension.name] = report.verdict
    assert not wrong


@pytest.mark.parametrize("split", ["project", "even"])
def test_all_dimensions_grow_at_once(subject: Subject, split: str) -> None:
    if not subject.growable:
        pytest.skip("nothing in it can grow")
    grown = widen(subject.model, everything(subject.dimensions), seed=1, split=split)
    report = subject.judge(grown)
    assert report, report.verdict


def test_what_has_grown_can_grow_again(subject: Subject) -> None:
    """The same dimensions under the same names, and still the first network's function."""
    if not subject.growable:
        pytest.skip("nothing in it can grow")
    once = widen(subject.model, everything(subject.dimensions), seed=1)
    again = load(once.to_bytes())
    before = {d.name: d.growth for d in subject.growable}
    after = {d.name: d.growth for d in inspect(again) if d.growth != "fixed"}
    assert subject.model.path is not None
    if subject.model.path.name not in RENAMED:
        assert after == before
    assert sorted(after.values()) == sorted(before.values())
    report = subject.agrees(widen(again, everything(inspect(again), turn=0), seed=2))
    assert report, report.verdict


def test_noise_is_about_as_large_as_asked_for(subject: Subject) -> None:
    """Net2Net's own split is not exact: the error is proportional to the noise."""
    if not subject.growable:
        pytest.skip("nothing in it can grow")
    small, large = (noise_error(subject, noise) for noise in (1e-3, 1e-2))
    types = {w.dtype for w in subject.model.weights.values()}
    if types & {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}:
        assert large < 1e-5  # quantised weights are copied, and shares are exact
    else:
        assert small < 0.05
        # Half precision rounds such noise away, or to as much again.
        rounding = types & {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
        assert rounding or (small > 5e-5 and 5 < large / small < 20)


def noise_error(subject: Subject, noise: float) -> float:
    """The largest relative error of a number that the network gives."""
    widths = everything(subject.dimensions)
    grown = widen(subject.model, widths, seed=1, split="noise", noise=noise)
    report = subject.judge(grown)
    assert not report.problems
    return max(o.max_rel for o in report.outputs if o.dtype.startswith(("float", "bfloat")))


def test_grown_file_is_sound(subject: Subject) -> None:
    """Valid where the source is, typed rightly, and the same but for what grew."""
    if not subject.growable:
        pytest.skip("nothing in it can grow")
    source = onnx.ModelProto.FromString(subject.model.to_bytes())
    grown = widen(subject.model, everything(subject.dimensions), seed=1)
    proto = onnx.ModelProto.FromString(grown.to_bytes())
    if is_valid(source):  # what onnxruntime's optimiser writes is not
        onnx.checker.check_model(proto, full_check=True)
        assert sizes_compared(proto) >= 0.8 * sizes_compared(source)
    assert_only_grown_weights_changed(subject, source, proto)
    assert_only_sizes_are_lost(subject, source, proto)


def is_valid(model: onnx.ModelProto) -> bool:
    """Whether onnx's own checker accepts it."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def sizes(value: onnx.ValueInfoProto) -> list[int | None]:
    """The static sizes of a declared tensor."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]


def sizes_compared(proto: onnx.ModelProto) -> int:
    """How many sizes that the file declares onnx infers too; they must be equal."""
    declared = {v.name: sizes(v) for v in (*proto.graph.value_info, *proto.graph.output)}
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.graph.value_info[:]
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True)
    compared = 0
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        for said, known in zip(declared.get(value.name, []), sizes(value), strict=False):
            if said is not None and known is not None:
                assert said == known, f"{value.name} is declared as {declared[value.name]}"
                compared += 1
    return compared


def assert_only_grown_weights_changed(
    subject: Subject, source: onnx.ModelProto, grown: onnx.ModelProto
) -> None:
    after = {t.name: t for t in grown.graph.initializer}
    sites = {name for d in subject.growable for name, _ in d.sites}
    inputs = (norm.epsilon_input for norm in analyse(subject.model).norms.values())
    epsilons = {node.inputs[index] for node, index in filter(None, inputs)}
    for tensor in source.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT64 and tensor.name not in sites:
            continue  # sizes, which are rewritten, or go where others replace them
        found = after[tensor.name]
        if tensor.name in epsilons:  # of a norm: pads make it smaller, by less than growth
            old, new = (float(numpy_helper.to_array(t).item()) for t in (tensor, found))
            assert old / 10 < new <= old, f"epsilon '{tensor.name}' was {old} and is {new}"
        elif tensor.name in sites:
            assert np.isfinite(numpy_helper.to_array(found).astype(np.float64)).all()
        else:
            assert found == tensor, f"'{tensor.name}' lies on nothing that grew, but changed"


def assert_only_sizes_are_lost(
    subject: Subject, source: onnx.ModelProto, grown: onnx.ModelProto
) -> None:
    """Nodes keep their names, but those that computed sizes which others replace."""
    shapes = analyse(subject.model).solution.shapes  # the values of what sizes determine
    kept = {node.name for node in grown.graph.node}
    for node in source.graph.node:
        if node.name not in kept and node.op_type != "SplitToSequence":  # becomes a Split
            assert all(n in shapes.value for n in node.output), node.name
    assert [v.name for v in grown.graph.output] == [v.name for v in source.graph.output]


def test_the_name_of_a_size_goes_where_it_grows() -> None:
    """Tensors of one name share memory in onnxruntime: of another layer, too, that stays."""
    model = load(BY_NAME["vit-mha.dynamo.onnx"])
    heads = {"layers.0.self_attention:heads": 3, "layers.1.self_attention:heads": 2}

    def stated(proto: onnx.ModelProto) -> set[str]:
        values = proto.graph.value_info
        return {d.dim_param for v in values for d in v.type.tensor_type.shape.dim}

    assert {f"{number}*batch" for number in heads.values()} <= stated(model.proto)
    for name, number in heads.items():
        left = stated(widen(model, {name: 5}).proto)
        assert f"{number}*batch" not in left and f"{5 - number}*batch" in left
