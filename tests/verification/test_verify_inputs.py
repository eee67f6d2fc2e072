"""The inputs that models are compared on: sizes, bounds, masks, and the user's own data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_net2net.errors import UsageError
from onnx_net2net.verification.bounds import Use, input_uses
from onnx_net2net.verification.feeds import make_feeds, user_feeds
from onnx_net2net.verification.sizes import (
    InputSpec,
    chosen,
    concrete,
    defaults,
    free_dimensions,
    input_specs,
)
from onnx_net2net.verification.verify import verify

INT64, FLOAT, BOOL = TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL
Shape = Sequence[int | str | None]


def value(name: str, elem: int, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, elem, shape)


def build(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[str],
    weights: dict[str, np.ndarray],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        inputs,
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    for out in graph.output:
        out.type.tensor_type.elem_type = FLOAT
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def linear(inputs: Shape = ("batch", 4)) -> onnx.ModelProto:
    w = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return build([node], [value("x", FLOAT, inputs)], ["y"], {"w": w})


def embedding_model() -> onnx.ModelProto:
    """Token ids, positions (offset by 2), types through a Cast and a Reshape, a mask."""
    rng = np.random.default_rng(2)
    weights = {
        "words": rng.normal(size=(17, 4)),
        "positions": rng.normal(size=(12, 4)),
        "types_t": rng.normal(size=(4, 2)),
    }
    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["e"]),
        helper.make_node("Add", ["pos", "two"], ["shifted"]),
        helper.make_node("Gather", ["positions", "shifted"], ["p"]),
        helper.make_node("Cast", ["kind"], ["kind32"], to=TensorProto.INT32),
        helper.make_node("Reshape", ["kind32", "same"], ["kinds"], allowzero=0),
        helper.make_node("Transpose", ["types_t"], ["types"]),
        helper.make_node("Gather", ["types", "kinds"], ["t"]),
        helper.make_node("Sum", ["e", "p", "t"], ["h"]),
        helper.make_node("Cast", ["mask"], ["m"], to=FLOAT),
        helper.make_node("Unsqueeze", ["m", "last"], ["mm"]),
        helper.make_node("Mul", ["h", "mm"], ["y"]),
    ]
    inputs = [value(name, INT64, ["b", "s"]) for name in ("ids", "pos", "kind", "mask")]
    given = {name: array.astype(np.float32) for name, array in weights.items()}
    given |= {"two": np.array(2), "same": np.array([0, 0]), "last": np.array([2])}
    return build(nodes, inputs, ["y"], given)


# Bounds --------------------------------------------------------------------------------------


def test_indices_are_bounded_by_the_tables_they_select_from() -> None:
    uses = input_uses(embedding_model().graph)
    assert uses["ids"] == Use("index", 17)
    assert uses["pos"] == Use("index", 10)  # 10 + 2 = 12 rows
    assert uses["kind"] == Use("index", 2)
    assert uses["mask"] == Use("value")


def test_the_smaller_table_of_two_models_counts() -> None:
    """Ids that only one of the models knows would stop the other."""
    small = embedding_model()
    large = onnx.ModelProto()
    large.CopyFrom(small)
    words = numpy_helper.to_array(large.graph.initializer[0])
    large.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.vstack([words, words]), "words"))
    assert verify(small, large) and verify(large, small)


def test_uses_are_followed_into_subgraphs_and_by_float() -> None:
    table = numpy_helper.from_array(np.ones((7, 3), np.float32), "table")
    body = helper.make_graph(
        [
            helper.make_node("Cast", ["ids"], ["int_ids"], to=INT64),
            helper.make_node("Gather", ["table", "int_ids"], ["z"]),
        ],
        "body",
        [],
        [helper.make_tensor_value_info("z", FLOAT, None)],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    inputs = [value("ids", FLOAT, ["b"]), value("c", BOOL, [])]
    graph = helper.make_graph([node], "g", inputs, [value("y", FLOAT, None)], [table])
    assert input_uses(graph)["ids"] == Use("index", 7)


@pytest.mark.parametrize(
    ("op", "position", "use"),
    [("LSTM", 4, "length"), ("Reshape", 1, "extent"), ("OneHot", 1, "extent")],
)
def test_other_uses(op: str, position: int, use: str) -> None:
    names = [f"i{k}" if k != position else "x" for k in range(position + 1)]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"])], "g", [value("x", INT64, ["n"])], []
    )
    assert input_uses(graph)["x"].kind == use


# Values --------------------------------------------------------------------------------------


def specs_of(*inputs: tuple[str, int, Shape]) -> list[InputSpec]:
    graph = helper.make_graph([], "g", [value(*one) for one in inputs], [])
    return input_specs(graph)


def test_values_by_kind() -> None:
    specs = specs_of(
        ("x", FLOAT, ["b", 64]),
        ("mask", INT64, ["b", "s"]),
        ("flag", BOOL, ["b", "s"]),
        ("image", TensorProto.UINT8, ["b", 3, 32, 32]),
        ("float_mask", FLOAT, ["b", "s"]),
        ("ids", INT64, ["b", "s"]),
        ("length", TensorProto.INT32, ["b"]),
        ("nibble", TensorProto.INT4, [5]),
    )
    uses = {"ids": Use("index", 5), "length": Use("length")}
    feeds = make_feeds(specs, uses, {"b": 4, "s": 9}, seed=3)
    assert [feeds[s.name].dtype for s in specs] == [s.dtype for s in specs]
    assert feeds["x"].shape == (4, 64) and 0.8 < feeds["x"].std() < 1.2
    for name in ("mask", "float_mask"):
        assert set(np.unique(feeds[name])) == {0, 1}
        assert (feeds[name][:, 0] == 1).all()
        assert (np.diff(feeds[name], axis=1) <= 0).all()  # ones, then zeros
    assert feeds["flag"][:, 0].all() and not feeds["flag"].all()
    assert feeds["image"].min() < 10 and feeds["image"].max() > 245
    assert set(np.unique(feeds["ids"])) <= set(range(5)) and feeds["ids"].max() == 4
    assert (feeds["length"] >= 1).all()
    again = make_feeds(specs, uses, {"b": 4, "s": 9}, seed=3)
    other = make_feeds(specs, uses, {"b": 4, "s": 9}, seed=4)
    assert np.array_equal(feeds["x"], again["x"]) and not np.array_equal(feeds["x"], other["x"])


def test_ranges_override() -> None:
    specs = specs_of(("x", FLOAT, [1000]), ("n", INT64, [1000]))
    feeds = make_feeds(specs, {"n": Use("index", 3)}, {}, 0, {"x": (2, 3), "n": (5, 6)})
    assert 2 <= feeds["x"].min() < feeds["x"].max() <= 3
    assert set(feeds["n"]) == {5, 6}
    everywhere = make_feeds(specs, {}, {}, 0, (2, 3))
    assert everywhere["x"].min() >= 2 and everywhere["n"].max() > 3
    with pytest.raises(UsageError, match="no input 'z'"):
        verify(linear(), linear(), ranges={"z": (0, 1)})
    with pytest.raises(UsageError, match=r"low <= high\n  remedy: .* lower one first"):
        verify(linear(), linear(), ranges={"x": (1, 0)})


INF = float("inf")


@pytest.mark.parametrize(
    ("elem", "limits", "says"),
    [
        (FLOAT, (-INF, INF), "which is float\n.*from -3.4"),
        (FLOAT, (0, 1e39), "which is float\n.*from -3.4"),
        (INT64, (-INF, INF), "which is int64"),
        (INT64, (0, 1e30), "which is int64"),
        (INT64, (0.2, 0.7), "which is int64"),
        (TensorProto.UINT8, (-1, 9), "from 0 to 255"),
        (BOOL, (0, 2), "from 0 to 1"),
        (TensorProto.STRING, (0, 2), "has no range"),
    ],
)
def test_ranges_that_a_type_cannot_hold(elem: int, limits: tuple[float, float], says: str) -> None:
    proto = build([helper.make_node("Identity", ["x"], ["y"])], [value("x", elem, [9])], ["y"], {})
    proto.graph.output[0].type.tensor_type.elem_type = elem
    with pytest.raises(UsageError, match=says):
        verify(proto, proto, ranges={"x": limits})


def test_ranges_as_wide_as_a_type() -> None:
    specs = specs_of(("x", TensorProto.DOUBLE, [99]), ("n", TensorProto.UINT64, [99]))
    feeds = make_feeds(specs, {}, {}, 0, {"x": (-1.7e308, 1.7e308), "n": (0, 2.0**64 - 4096)})
    assert np.isfinite(feeds["x"]).all() and feeds["x"].min() < -1e308 and feeds["n"].max() > 2**63


def test_strings_and_sequences_are_refused_clearly() -> None:
    node = helper.make_node("Identity", ["s"], ["y"])
    text = build([node], [value("s", TensorProto.STRING, [2])], ["y"], {})
    text.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    with pytest.raises(UsageError, match="input 's' holds strings"):
        verify(text, text)
    assert verify(text, text, inputs={"s": np.array(["a", "b"])})
    sequence = helper.make_tensor_sequence_value_info("q", FLOAT, None)
    with pytest.raises(UsageError, match="input 'q' is a sequence"):
        input_specs(helper.make_graph([], "g", [sequence], []))


# Sizes ---------------------------------------------------------------------------------------


def test_default_sizes_are_distinct_and_include_batch_1() -> None:
    specs = specs_of(("ids", INT64, ["n", "s"]), ("x", FLOAT, ["n", 3, "h", "w"]))
    first, second = (next(defaults(specs, turn)) for turn in (0, 1))
    assert first["n"] == 1 and second["n"] == 3
    assert len(set(first.values())) == len(first) and first["s"] != second["s"]
    assert first["h"] % 32 == first["w"] % 32 == 0


def test_expressions_are_computed_from_other_dimensions() -> None:
    specs = specs_of(
        ("ids", INT64, ["batch", "sequence"]),
        ("past", FLOAT, ["batch", 2, "past_len", 4]),
        ("mask", INT64, ["batch", "past_len + sequence"]),
        ("twice", FLOAT, ["2*s7", "batch-size"]),
    )
    assert set(free_dimensions(specs)) == {"batch", "sequence", "past_len", "s7", "batch-size"}
    sizes = {"batch": 1, "sequence": 5, "past_len": 3, "s7": 4, "batch-size": 9}
    assert [concrete(spec, sizes) for spec in specs] == [(1, 5), (1, 2, 3, 4), (1, 8), (8, 9)]


def test_expressions_cannot_run_code() -> None:
    specs = specs_of(("x", FLOAT, ["__import__('os').getcwd()", "n"]))
    assert len(free_dimensions(specs)) == 2  # a name like any other


def test_a_cache_is_sized_by_the_names_of_its_inputs() -> None:
    specs = specs_of(
        ("input_ids", INT64, ["s1", "s2"]),
        ("attention_mask", INT64, ["s3", "s4"]),
        ("past_key", FLOAT, ["s1", 2, "s5", 4]),
        ("past_value", FLOAT, ["s1", 2, "s6", 4]),
    )
    tried = list(defaults(specs, 1))
    assert {"s1": 3, "s2": 4, "s3": 3, "s4": 9, "s5": 5, "s6": 5} in tried[:3]


def test_chosen_sizes() -> None:
    report = verify(linear(), linear(), sizes={"batch": [2, 5]})
    assert [trial.sizes for trial in report.trials] == [{"batch": 2}, {"batch": 5}, {"batch": 2}]
    with pytest.raises(UsageError, match="no dynamic dimension 'bach'") as caught:
        verify(linear(), linear(), sizes={"bach": 2})
    assert "did you mean 'batch'?" in str(caught.value)
    with pytest.raises(UsageError, match="whole numbers from 1 up"):
        verify(linear(), linear(), sizes={"batch": 0})
    assert chosen(specs_of(("x", FLOAT, [None, 2])), {"x[0]": 7}) == [{"x[0]": 7}]


def _windowed(multiple: int) -> onnx.ModelProto:
    """Accepts only lengths that are multiples of a window, like Swin without padding."""
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    shape = np.array([-1, multiple])
    return build([node], [value("x", FLOAT, [1, "length"])], ["y"], {"shape": shape})


def test_other_sizes_are_tried_where_a_model_rejects_the_first() -> None:
    report = verify(_windowed(32), _windowed(32))
    assert report
    used = [trial.sizes["length"] for trial in report.trials]
    assert len(set(used)) == 2 and all(size % 32 == 0 for size in used)
    with pytest.raises(UsageError, match="runs on no inputs that were tried"):
        verify(_windowed(1009), _windowed(1009))
    assert verify(_windowed(1009), _windowed(1009), sizes={"length": 1009})


def test_a_model_that_takes_one_size_only_says_so() -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    only = build(nodes, [value("x", FLOAT, ["n", 2])], ["y"], {"shape": np.array([1, 2])})
    report = verify(only, only)
    assert report and {trial.sizes["n"] for trial in report.trials} == {1}
    assert "accepts only some sizes" in report.warnings[0]


def test_a_dimension_fixed_in_one_model_is_respected_and_reported() -> None:
    report = verify(linear(), linear((2, 4)))
    assert report and "(batch, 4) in the first model" in report.warnings[0]
    assert report.outputs[0].shape == (2, 3)


# The user's own ------------------------------------------------------------------------------


def test_npz_npy_mapping_and_test_folders(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    np.savez(tmp_path / "named.npz", x=x)
    np.savez(tmp_path / "unnamed.npz", x)
    np.save(tmp_path / "one.npy", x)
    for index in (0, 10, 2):
        folder = tmp_path / "tests" / f"test_data_set_{index}"
        folder.mkdir(parents=True)
        tensor = numpy_helper.from_array(x + index, "any_name")
        (folder / "input_0.pb").write_bytes(tensor.SerializeToString())
    zero = tmp_path / "tests" / "test_data_set_0"
    given = [
        {"x": x},
        *(tmp_path / name for name in ("named.npz", "unnamed.npz", "one.npy")),
        str(zero),
        zero / "input_0.pb",
    ]
    specs = input_specs(linear().graph)
    for source in given:
        ((_, feeds),) = user_feeds(source, specs)
        np.testing.assert_array_equal(feeds["x"], x)
    report = verify(linear(), linear(), inputs=tmp_path / "tests")
    assert report and [trial.label for trial in report.trials] == [
        f"test_data_set_{index}" for index in (0, 2, 10)
    ]
    assert len(verify(linear(), linear(), inputs=given).trials) == len(given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"x": np.zeros((2, 4))}, "input 'x' must be float32, not float64"),
        ({"x": np.zeros((2, 5), np.float32)}, r"must have shape \(batch, 4\), not \(2, 5\)"),
        ({"x": np.zeros(4, np.float32)}, r"must have shape \(batch, 4\), not \(4\)"),
        ({"z": np.zeros((2, 4), np.float32)}, "the model has no input 'z'"),
        ({}, "input 'x' is missing"),
        ("nowhere.npz", "cannot read inputs from nowhere.npz"),
    ],
)
def test_user_data_that_does_not_fit(given: object, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        verify(linear(), linear(), inputs=given)  # type: ignore[arg-type]


def test_damaged_user_files(tmp_path: Path) -> None:
    (tmp_path / "input_0.pb").write_bytes(b"\xff\xff\xff")
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 not a zip")
    (tmp_path / "empty").mkdir()
    for name in ("input_0.pb", "x.npz", "empty", ""):
        with pytest.raises(UsageError):
            verify(linear(), linear(), inputs=tmp_path / name)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"location": "/etc/passwd"}, "outside the model's folder"),
        ({"location": "missing.bin"}, "missing.bin is missing"),
        ({"data_type": 99}, "unknown data type 99"),
        ({"dims": [-1, 4]}, "negative size"),
    ],
)
def test_damaged_tensors(tmp_path: Path, entries: dict[str, object], says: str) -> None:
    fields = {"dims": [2, 4], "data_type": FLOAT, "raw_data": bytes(32), **entries}
    if "location" in entries:
        keys = [onnx.StringStringEntryProto(key="location", value=str(fields.pop("location")))]
        del fields["raw_data"]
        fields |= {"data_location": TensorProto.EXTERNAL, "external_data": keys}
    (tmp_path / "input_0.pb").write_bytes(TensorProto(**fields).SerializeToString())
    with pytest.raises(UsageError, match=f"does not hold a tensor: .*{says}"):
        verify(linear(), linear(), inputs=tmp_path)


def test_tensors_with_external_data(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.ones((2, 4), np.float32))
    (tmp_path / "data.bin").write_bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, "data.bin")
    tensor.ClearField("raw_data")
    (tmp_path / "input_0.pb").write_bytes(tensor.SerializeToString())
    ((_, feeds),) = user_feeds(tmp_path, input_specs(linear().graph))
    assert (feeds["x"] == 1).all()


def test_weights_listed_as_inputs_are_not_asked_for() -> None:
    proto = linear()
    proto.graph.input.append(value("w", FLOAT, [4, 3]))
    assert [spec.name for spec in input_specs(proto.graph)] == ["x"]
    assert verify(proto, linear())
