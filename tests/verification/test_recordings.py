"""Recorded inputs and outputs: a model held against what one gave before."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_net2net.errors import OutputError, UsageError
from onnx_net2net.model import arrays
from onnx_net2net.verification.trial_files import numbered_trials, save_trials
from onnx_net2net.verification.verify import verify
from tests.console import FIXTURES, complaint, finished, left_behind
from tests.verify_networks import (
    edited,
    layers,
    mlp,
    model,
    not_a_number,
    permuted,
    scale_one,
    swap_channels,
)

LENET = FIXTURES / "lenet.ts17.onnx"


def record(proto: onnx.ModelProto, folder: Path, **options: object) -> dict[str, Path]:
    report = verify(proto, proto, **options)  # type: ignore[arg-type]
    report.save_inputs(folder / "x.npz")
    report.save_outputs(folder / "y.npz")
    return {"inputs": folder / "x.npz", "against": folder / "y.npz"}


@pytest.mark.parametrize("sizes", [None, {"batch": 2}])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_what_was_recorded_judges(
    dtype: type, sizes: dict[str, int] | None, rng: np.random.Generator, tmp_path: Path
) -> None:
    stack = layers(rng, [5, 9, 4])
    files = record(mlp(stack, dtype), tmp_path, sizes=sizes, provider="cpu")
    report = verify(mlp(stack, dtype), provider="cpu", **files)
    assert report and len(report.trials) >= 3, report.verdict
    assert verify(mlp(permuted(stack, 0, rng), dtype), provider="cpu", **files)
    assert not verify(edited(mlp(stack, dtype), "w0", swap_channels), provider="cpu", **files)
    report = verify(edited(mlp(stack, dtype), "w0", not_a_number), provider="cpu", **files)
    assert not report and "NaN in one model only" in report.verdict


def test_texts_and_whole_numbers_are_recorded(tmp_path: Path, rng: np.random.Generator) -> None:
    def classifier(names: list[str]) -> onnx.ModelProto:
        nodes = [
            helper.make_node("ArgMax", ["x"], ["i"], axis=1, keepdims=0),
            helper.make_node("LabelEncoder", ["i"], ["label"], domain="ai.onnx.ml",
                             keys_int64s=[0, 1, 2], values_strings=names),
        ]  # fmt: skip
        outputs = [("label", TensorProto.STRING, ["n"]), ("i", TensorProto.INT64, ["n"])]
        proto = model(nodes, [("x", 1, ["n", 3])], outputs, {})
        proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
        return proto

    files = record(classifier(["ä", "b", "cat"]), tmp_path)
    assert verify(classifier(["ä", "b", "cat"]), **files)
    report = verify(classifier(["a", "b", "cat"]), **files)
    assert [output.equivalent for output in report.outputs] == [False, True]


def test_files_are_read_by_numpy_and_repeat(tmp_path: Path, rng: np.random.Generator) -> None:
    trials = [{"x": rng.normal(size=(2, 3)), "file": np.array(["a", "bc"], object)}]
    save_trials(tmp_path / "one.npz", trials)
    with np.load(tmp_path / "one.npz") as archive:
        assert set(archive) == {"x", "file"} and archive["x"].shape == (2, 3)
    save_trials(tmp_path / "two.npz", [*trials, {"x": np.zeros(1)}])
    both = arrays.read(tmp_path / "two.npz")
    assert isinstance(both, dict) and set(both) == {"0/x", "0/file", "1/x"}
    assert [set(trial) for trial in numbered_trials(both)] == [{"x", "file"}, {"x"}]
    save_trials(tmp_path / "again.npz", trials)
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "one.npz").read_bytes()
    with pytest.raises(OutputError, match="exists"):
        save_trials(tmp_path / "one.npz", trials)
    save_trials(tmp_path / "one.npz", trials, force=True)


@pytest.mark.parametrize(
    "names", [["x", "y"], ["0/x", "2/x"], ["1/x"], ["0/", "1/"], ["encoder/x", "decoder/x"]]
)
def test_names_that_are_of_one_trial(names: list[str]) -> None:
    contents = {name: np.zeros(1) for name in names}
    assert numbered_trials(contents) == [contents]


def test_files_that_do_not_fit_are_refused(rng: np.random.Generator, tmp_path: Path) -> None:
    proto = mlp(layers(rng, [5, 9, 4]))
    files = record(proto, tmp_path)
    other = mlp(layers(rng, [5, 9, 4]), output="z")
    x = {"x": np.zeros((1, 5), np.float32)}
    for tested, options, says in (
        (proto, {"against": files["against"]}, "none are given"),
        (proto, {**files, "inputs": x}, "the outputs are of 3 trials, the inputs of 1"),
        (other, files, "output 'z' of the model was not recorded: y"),
        (proto, {**files, "against": {}}, "no outputs are recorded"),
        (proto, {**files, "against": tmp_path / "none.npz"}, "cannot read outputs"),
        (proto, {**files, "by_position": True}, "a model is compared with a second one"),
        (proto, {}, "a model is compared with a second one"),
    ):
        with pytest.raises(UsageError, match=says):
            verify(tested, **options)  # type: ignore[arg-type]
    report = verify(proto, inputs=x, against={"y": np.zeros((1, 4)), "z": np.zeros(1)})
    assert not report and "does not give it" in str(report["z"].problem)


# On the command line -----------------------------------------------------------------------------


def test_a_gate_in_two_commands(tmp_path: Path) -> None:
    x, y = tmp_path / "x.npz", tmp_path / "y.npz"
    assert finished("verify", LENET, "--save-inputs", x, "--save-outputs", y).code == 0
    known = left_behind(tmp_path)
    assert known == ["x.npz", "y.npz"]
    result = finished("verify", LENET, "--inputs", x, "--against", y, "--json")
    assert result.code == 0 and len(json.loads(result.out)["trials"]) == 3
    proto = onnx.load(LENET)
    onnx.save(edited(proto, proto.graph.initializer[0].name, scale_one), tmp_path / "bad.onnx")
    assert finished("verify", tmp_path / "bad.onnx", "--inputs", x, "--against", y).code == 1
    before = y.read_bytes()
    record = ("verify", LENET, "--save-outputs", y)
    assert "exists" in complaint(finished(*record), 2)[0] and y.read_bytes() == before
    read = finished("verify", LENET, "--inputs", x, "--against", y, "--save-outputs", y, "--force")
    assert "is the source itself" in complaint(read, 2)[0] and y.read_bytes() == before
    nothing = complaint(finished("verify", LENET), 2)
    assert "nothing to compare" in nothing[0] and "--save-outputs" in nothing[1]
    twice = finished("verify", LENET, "--save-inputs", x, "--save-outputs", x, "--force")
    assert "to one file" in complaint(twice, 2)[0]


def test_outputs_matched_by_a_map(tmp_path: Path, rng: np.random.Generator) -> None:
    def twin(first: str, second: str, swap: bool = False) -> onnx.ModelProto:
        names = [second, first] if swap else [first, second]
        nodes = [helper.make_node("Relu", ["x"], [first]), helper.make_node("Exp", ["x"], [second])]
        return model(nodes, [("x", 1, ["b", 3])], [(n, 1, ["b", 3]) for n in names], {})

    a, b = twin("a", "b"), twin("p", "q", swap=True)
    report = verify(a, b, names={"a": "p", "b": "q"})
    assert report and report.verdict == "equivalent, compared as mapped"
    assert not verify(a, b, names={"a": "q", "b": "p"}), "wrongly mapped is found"
    assert not verify(a, b, names={"a": "p"}), "an output without a partner"
    assert verify(a, twin("b", "a"), names={"a": "b", "b": "a"})
    for names, says in (
        ({"a": "z"}, "are no pair"),
        ({"z": "p"}, "are no pair"),
        ({"a": "p", "b": "p"}, "mapped twice"),
        ({"x": "p"}, "are no pair"),
    ):
        with pytest.raises(UsageError, match=says):
            verify(a, b, names=names)
    with pytest.raises(UsageError, match="one too many"):
        verify(a, twin("b", "c"), names={"b": "c"})
    with pytest.raises(UsageError, match="not both"):
        verify(a, b, names={"a": "p"}, by_position=True)
    onnx.save(a, tmp_path / "a.onnx")
    onnx.save(b, tmp_path / "b.onnx")
    asked = ("verify", tmp_path / "a.onnx", tmp_path / "b.onnx", "--map", "a=p", "--map")
    result = finished(*asked, "b=q")
    assert result.code == 0 and "note: output 'a' is compared with 'p'" in result.out, result
    assert finished(*asked, "b").code == 2


def test_noise_of_the_model_stands_for_that_of_the_record(rng: np.random.Generator) -> None:
    """Far more than a few units in the last place, where large terms cancel."""
    stack = layers(rng, [5, 64, 64, 4])
    stack[2] = (np.concatenate([stack[2][0][:32], -stack[2][0][:32]]), stack[2][1])
    twins = stack[1][0].copy()
    twins[:, 32:] = twins[:, :32] * (1 + 1e-4)
    stack[1] = (twins * 100, np.concatenate([stack[1][1][:32]] * 2))
    report = verify(mlp(stack), mlp(stack))
    recorded = {f"{i}/y": one["y"] for i, one in enumerate(report.expected)}
    other = mlp(permuted(stack, 1, rng))
    report = verify(other, inputs=report.feeds, against=recorded)
    assert report, report.verdict
    assert report["y"].max_abs > 32 * 1.2e-7 * abs(report.expected[0]["y"]).max()


def test_nothing_is_pickled(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        arrays.write(tmp_path / "x.npz", {"x": np.array([{}], object)})
