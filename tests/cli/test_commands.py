"""The command line: what each command prints, writes and returns."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_net2net import __main__, __version__
from onnx_net2net.model.model import Model, load
from onnx_net2net.plan import steps
from tests.console import FIXTURES, Result, left_behind

LENET = FIXTURES / "lenet.ts17.onnx"
GPT2 = FIXTURES / "gpt2.dynamo.onnx"
STANDARDISED = FIXTURES / "standardised.dynamo-raw.onnx"

Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command within this process, which spares a second of imports for each test."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["onnx-net2net", *map(str, arguments)])
        monkeypatch.setattr(__main__.Interruption, "install", lambda self: None)
        capsys.readouterr()
        code = __main__.main()
        said = capsys.readouterr()
        return Result(code, said.out, said.err)

    return call


@pytest.fixture
def lenet(tmp_path: Path) -> Path:
    return Path(shutil.copy(LENET, tmp_path / "lenet.onnx"))


def changed(path: Path, target: Path, weight: str, change: Callable[[np.ndarray], None]) -> Path:
    """A copy of a model with one weight edited."""
    model = onnx.load(path)
    entry = next(t for t in model.graph.initializer if t.name == weight)
    array = numpy_helper.to_array(entry).copy()
    change(array)
    entry.CopyFrom(numpy_helper.from_array(array, weight))
    onnx.save(model, target)
    return target


# ---- the program as a whole ---------------------------------------------------------------------


def test_help_and_version(run: Run) -> None:
    for arguments in ([], ["inspect"], ["widen"], ["verify"]):
        result = run(*arguments, "--help")
        assert result.code == 0 and result.err == ""
        assert "onnx-net2net " in result.out and "--help" in result.out, "no example"
    assert run("--version") == Result(0, f"onnx-net2net {__version__}\n", "")
    assert run().code == 2


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["shrink"], "No such command 'shrink'"),
        (["widen"], "Missing argument 'MODEL'"),
        (["widen", LENET, "--wide"], "No such option"),
        (["widen", LENET, "--node", "conv1", "--width", "many"], "'many' is not a valid integer"),
        (["widen", LENET], "nothing to grow"),
        (["widen", LENET, "--node", "conv1"], "--node conv1 has no --width"),
        (["widen", LENET, "--width", "9"], "--width 9 stands before any --node or --dim"),
        (["widen", LENET, "--node", "a", "--width", "9", "--width", "8"], "more than one --width"),
        (["widen", LENET, "--all"], "--all needs --factor"),
        (["widen", LENET, "--factor", "2"], "--factor needs either --all or"),
        (["widen", LENET, "--factor", "1", "--all"], "--factor 1 is not above 1"),
        (["widen", LENET, "--factor", "x", "--all"], "'x' is not a number such as 1.5"),
        (["widen", LENET, "--factor", "1/0", "--all"], "'1/0' is not a number such as 1.5"),
        (["widen", LENET, "--factor", "2", "--node", "a", "--width", "9"], "exclude each other"),
        (["verify", LENET, LENET, "--range", "0"], "'0' is not of the form NAME=LO:HI or LO:HI"),
        (["verify", LENET, LENET, "--size", "3"], "'3' is not of the form NAME=1,3"),
        (["verify", LENET, LENET, "--rtol", "1", "--rtol", "y=1"], "given for all and for one"),
        (["verify", LENET, LENET, "--provider", "abacus"], "no provider 'abacus'"),
    ],
)
def test_bad_usage(run: Run, arguments: list[object], problem: str) -> None:
    result = run(*arguments)
    assert result.code == 2 and result.out == ""
    first, second = result.err.splitlines()
    assert first.startswith("error: ") and problem in first
    assert second.startswith("  remedy: ")


def test_errors_as_json(run: Run) -> None:
    refused = run("widen", LENET, "--node", "fc3", "--width", 20, "--json")
    assert (refused.code, refused.err) == (1, "")
    error = json.loads(refused.out)["error"]
    assert error["kind"] == "Refused" and error["node"] == "fc3" and error["exit"] == 1
    assert "the network's output 'y'" in error["reason"]
    misused = run("widen", LENET, "--json")
    error = json.loads(misused.out)["error"]
    assert misused.code == error["exit"] == 2 and error["remedy"].startswith("for example")


def test_a_defect_is_one_line_and_a_traceback_on_request(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(arguments: list[str]) -> int:
        raise KeyError("planted")

    monkeypatch.setattr("onnx_net2net.cli.main.run", broken)
    monkeypatch.delenv("ONNX_NET2NET_DEBUG", raising=False)
    result = run("inspect", LENET)
    assert result.code == 70 and "this is a bug, please report it: KeyError" in result.err
    monkeypatch.setenv("ONNX_NET2NET_DEBUG", "1")
    with pytest.raises(KeyError, match="planted"):
        run("inspect", LENET)


def test_too_little_memory_is_no_defect(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(arguments: list[str]) -> int:
        raise MemoryError

    monkeypatch.setattr("onnx_net2net.cli.main.run", exhausted)
    result = run("inspect", LENET)
    assert result.code == 2 and result.err.startswith("error: there is not enough memory\n")


# ---- inspect ------------------------------------------------------------------------------------


def test_inspect_lists_what_can_grow(run: Run) -> None:
    result = run("inspect", LENET)
    assert result.code == 0 and result.err == ""
    rows = {line.split()[0]: line.split()[1:] for line in result.out.splitlines() if line}
    assert rows["conv1"][:2] == ["6", "any"]
    assert rows["conv1"][3:] == ["/conv1/Conv", "/conv2/Conv"]
    assert rows["fc3"][:2] == ["10", "fixed"] and "output" in result.out
    assert "conv1.weight[2]" not in rows, "kernel windows are hidden"
    assert "of 5,460 weight elements lie on dimensions that can grow" in result.out
    assert "conv1.weight[2]" in run("inspect", LENET, "--all").out


def test_inspect_shows_multiples_and_why(run: Run) -> None:
    out = run("inspect", FIXTURES / "convnext.dynamo.onnx").out
    assert "multiples of 14" in out and "LayerNormalization" in out


@pytest.mark.parametrize(("columns", "nodes"), [(78, False), (200, True)])
def test_names_are_whole_on_a_terminal_of_any_width(
    run: Run, monkeypatch: pytest.MonkeyPatch, columns: int, nodes: bool
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    out = re.sub(r"\x1b\[[0-9;]*m", "", run("inspect", GPT2).out)
    assert max(map(len, out.splitlines())) <= columns
    assert "\nmodel.transformer.h.0.attn.c_attn:heads " in out
    assert ("written by" in out) == nodes


def test_inspect_one_place(run: Run) -> None:
    named = run("inspect", LENET, "--node", "fc1.weight")
    lines = named.out.split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines] == ["dimension", "fc1"]
    wrong = run("inspect", LENET, "--node", "conv7")
    assert wrong.code == 2 and "did you mean" in wrong.err


@pytest.mark.parametrize("name", ["{}.weight", "{}"])
def test_inspect_says_what_a_composite_axis_is_made_of(run: Run, name: str) -> None:
    name = name.format("model.transformer.h.0.attn.c_attn")
    document = json.loads(run("inspect", GPT2, "--node", name, "--json").out)
    names = [d["name"] for d in document["dimensions"]]
    assert len(names) == 3 and all("c_attn:" in name for name in names)


def test_inspect_as_json(run: Run) -> None:
    document = json.loads(run("inspect", LENET, "--json").out)
    model = load(LENET)
    by_name = {d["name"]: d for d in document["dimensions"]}
    assert document["parameters"] == model.parameters == 5460
    assert 0.9 < document["growable"] <= 1
    assert ["conv1.weight", 0] in by_name["conv1"]["sites"]
    assert by_name["conv1"]["growth"] == "any" and by_name["conv1"]["reason"] is None
    assert by_name["conv1.weight[2]"]["growth"] == "fixed"


# ---- widen --------------------------------------------------------------------------------------


def test_widen_writes_a_verified_model(run: Run, lenet: Path) -> None:
    result = run("widen", lenet, "--node", "conv1", "--width", 9)
    target = lenet.with_name("lenet-grown.onnx")
    assert result.code == 0 and result.err == ""
    assert "verified: equivalent; y differs by" in result.out
    assert f"wrote {target}" in result.out
    assert left_behind(lenet.parent) == ["lenet-grown.onnx", "lenet.onnx"]
    assert load(target).weights["conv1.weight"].shape[0] == 9
    assert run("verify", lenet, target).code == 0
    assert lenet.read_bytes() == LENET.read_bytes()


def test_names_and_widths_pair_in_the_order_of_the_command_line(run: Run, lenet: Path) -> None:
    out = lenet.with_name("out.onnx")
    result = run(
        "widen", lenet, "--dim", "fc1", "--width", 40, "--node", "conv1", "--width", 7,
        "--dim", "conv2", "--width", 15, "-o", out,
    )  # fmt: skip
    assert result.code == 0
    weights = load(out).weights
    shapes = {name: weights[f"{name}.weight"].shape[0] for name in ("conv1", "conv2", "fc1")}
    assert shapes == {"conv1": 7, "conv2": 15, "fc1": 40}


def test_factor_grows_to_the_next_possible_width(run: Run) -> None:
    convnext = FIXTURES / "convnext.dynamo.onnx"
    everything = run("widen", convnext, "--factor", 1.5, "--all", "--dry-run", "--json")
    new = {c["dimension"]: (c["old"], c["new"]) for c in json.loads(everything.out)["changes"]}
    assert new["stages.0.0.pwconv1"] == (33, 50)
    assert new["downsample_layers.0.0"][1] == 2 * new["downsample_layers.0.0"][0]
    some = run("widen", convnext, "--factor", 2, "--node", "stages.0.*", "--dry-run", "--json")
    names = [c["dimension"] for c in json.loads(some.out)["changes"]]
    assert names and all(name.startswith("stages.0.") for name in names)


def test_factors_are_exact(run: Run) -> None:
    """1.1 of 10 is 11, though 1.1 * 10 > 11 in binary."""
    resnet = FIXTURES / "resnet.ts17.onnx"
    asked = ("--factor", 1.1, "--node", "layer2.0.downsample.0")
    document = json.loads(run("widen", resnet, *asked, "--dry-run", "--json").out)
    assert [(c["old"], c["new"]) for c in document["changes"]] == [(10, 11)]


def test_dry_run_writes_nothing(run: Run, lenet: Path) -> None:
    result = run("widen", lenet, "--node", "conv1", "--width", 9, "--dry-run")
    assert result.code == 0 and "not written: a dry run" in result.out
    assert "5,460" in result.out and "6,513" in result.out
    assert left_behind(lenet.parent) == ["lenet.onnx"]


def test_no_verify_says_so(run: Run, lenet: Path) -> None:
    result = run("widen", lenet, "--node", "conv1", "--width", 9, "--no-verify")
    assert result.code == 0 and "not verified" in result.out and "wrote" in result.out


def test_a_sample_says_so(run: Run, lenet: Path) -> None:
    result = run("widen", lenet, "--node", "conv1", "--width", 9, "--sample")
    assert result.code == 0 and "(1 trial, a sample only, on CPU" in result.out
    wide = lenet.with_name("lenet-grown.onnx")
    result = run("verify", lenet, wide, "--sample", "--json")
    assert result.code == 0 and json.loads(result.out)["sample"] is True
    result = run("verify", lenet, wide, "--sample")
    assert result.out.splitlines()[-1] == "equivalent, as far as a sample shows"


def test_an_existing_file_is_kept_unless_forced(run: Run, lenet: Path) -> None:
    target = lenet.with_name("kept.onnx")
    target.write_bytes(b"precious")
    asked = ("widen", lenet, "--node", "conv1", "--width", 9, "-o", target)
    result = run(*asked)
    assert result.code == 2 and "exists already" in result.err
    assert target.read_bytes() == b"precious"
    assert run(*asked, "--force").code == 0
    assert load(target).weights["conv1.weight"].shape[0] == 9


def test_the_source_is_never_overwritten(run: Run, lenet: Path) -> None:
    link = lenet.with_name("link.onnx")
    link.symlink_to(lenet)
    for target in (lenet, link):
        result = run("widen", lenet, "--node", "conv1", "--width", 9, "-o", target, "--force")
        assert result.code == 2 and "is the source itself" in result.err
    assert lenet.read_bytes() == LENET.read_bytes()


def test_a_report_or_weights_never_replace_what_is_read(run: Run, lenet: Path) -> None:
    inputs, other = lenet.with_name("x.npz"), Path(shutil.copy(lenet, lenet.with_name("b.onnx")))
    np.savez(inputs, x=np.zeros((2, 1, 18, 22), np.float32))
    weights = lenet.with_name("w.safetensors")
    assert run("export", lenet, "--to", "safetensors", "-o", weights).code == 0
    before = {path: path.read_bytes() for path in lenet.parent.iterdir()}
    asked = ("verify", lenet, other, "--inputs", inputs, "--force", "--junit")
    for arguments in (
        *((*asked, path) for path in (lenet, other, inputs)),
        ("export", lenet, "--to", "safetensors", "-o", lenet, "--force"),
        ("absorb", lenet, weights, "-o", weights, "--force"),
    ):
        result = run(*arguments)
        assert result.code == 2 and "is the source itself" in result.err, arguments
    assert before == {path: path.read_bytes() for path in lenet.parent.iterdir()}


def test_external_data_is_never_overwritten_however_small(run: Run, lenet: Path) -> None:
    data = lenet.with_name("grown.onnx.data")
    model = onnx.load(lenet)
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], data.name)
    onnx.save(model, lenet)
    before = data.read_bytes()
    assert len(before) == 600
    asked = ("widen", lenet, "--node", "fc1", "--width", 130, "--force", "-o")
    result = run(*asked, data)
    assert result.code == 2 and "grown.onnx.data: is the source itself" in result.err
    assert run(*asked, data.with_suffix("")).code == 0
    assert data.read_bytes() == before and run("verify", lenet, data.with_suffix("")).code == 0


@pytest.mark.parametrize("folder", [".", "..", "/"])
@pytest.mark.parametrize(
    "command",
    [
        ("widen", "--node", "conv1", "--width", 9),
        ("deepen", "--after", "conv1"),
        ("grow", "--params", "2x"),
        ("export", "--to", "torch"),
        ("absorb", "weights.npz"),
    ],
    ids=lambda command: command[0],
)
def test_a_folder_is_no_model(run: Run, command: tuple, folder: str) -> None:
    result = run(command[0], folder, *command[1:])
    assert result.code == 2 and "is a folder" in result.err and "bug" not in result.err


def test_noise_reports_the_difference_and_does_not_block(run: Run, lenet: Path) -> None:
    result = run("widen", lenet, "--node", "conv1", "--width", 9, "--split", "noise")
    assert result.code == 0 and "not exact, as asked by --split noise: y differs by" in result.out
    assert left_behind(lenet.parent) == ["lenet-grown.onnx", "lenet.onnx"]


def plant(monkeypatch: pytest.MonkeyPatch, fault: Callable[[onnx.ModelProto], None]) -> None:
    """Let growing go wrong: every grown model has the fault."""
    right = steps.run

    def wrong(*arguments: Any, **options: Any) -> Model:
        grown = right(*arguments, **options)
        proto = onnx.ModelProto()
        proto.CopyFrom(grown.proto)
        fault(proto)
        return grown.with_changes(proto, {}, grown.changes)

    monkeypatch.setattr(steps, "run", wrong)


def test_a_grown_model_that_differs_is_not_written(
    run: Run, lenet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(proto: onnx.ModelProto) -> None:
        relu = next(node for node in proto.graph.node if node.op_type == "Relu")
        relu.op_type = "Tanh"

    plant(monkeypatch, fault)
    result = run("widen", lenet, "--node", "conv1", "--width", 9)
    assert result.code == 1 and "not equivalent: y: " in result.out
    assert "nothing was written" in result.err
    document = json.loads(run("widen", lenet, "--node", "conv1", "--width", 9, "--json").out)
    assert document["output"] is None and document["verification"]["equivalent"] is False
    noisy = run("widen", lenet, "--node", "conv1", "--width", 9, "--split", "noise")
    assert noisy.code == 0, "with noise a difference is expected, and its size reported"
    assert left_behind(lenet.parent) == ["lenet-grown.onnx", "lenet.onnx"]


@pytest.mark.parametrize("split", ["project", "noise"])
def test_a_grown_model_that_does_not_load_is_not_written(
    run: Run, lenet: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    def fault(proto: onnx.ModelProto) -> None:
        proto.graph.node[0].op_type = "Nonsense"

    plant(monkeypatch, fault)
    result = run("widen", lenet, "--node", "conv1", "--width", 9, "--split", split)
    assert result.code == 1 and result.err.startswith("refused: the grown model was not written")
    assert left_behind(lenet.parent) == ["lenet.onnx"]


def test_noise_excuses_no_other_shape(
    run: Run, lenet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(proto: onnx.ModelProto) -> None:
        last = proto.graph.node[-1].output
        last[0] = "flat"
        proto.graph.node.append(onnx.helper.make_node("Transpose", ["flat"], ["y"]))

    plant(monkeypatch, fault)
    result = run("widen", lenet, "--node", "conv1", "--width", 9, "--split", "noise")
    assert result.code == 1 and "shape" in result.out
    assert left_behind(lenet.parent) == ["lenet.onnx"]


def test_fold_makes_standardised_weights_grow(run: Run, tmp_path: Path) -> None:
    asked = ("widen", STANDARDISED, "--node", "conv1", "--width", 11, "-o", tmp_path / "out.onnx")
    refused = run(*asked)
    assert refused.code == 1 and "--fold" in refused.err and not left_behind(tmp_path)
    assert run(*asked, "--fold").code == 0
    assert run("verify", STANDARDISED, tmp_path / "out.onnx").code == 0
    assert " any " in run("inspect", STANDARDISED, "--fold", "--node", "conv1").out


def test_external_data_is_renamed_together(run: Run, tmp_path: Path) -> None:
    model = onnx.load(LENET)
    source = tmp_path / "source.onnx"
    onnx.save(model, source, save_as_external_data=True, location="source.bin", size_threshold=64)
    target = tmp_path / "grown.onnx"
    result = run("widen", source, "--node", "conv1", "--width", 9, "-o", target)
    assert result.code == 0
    (data,) = (path.name for path in tmp_path.glob("grown.onnx.*.data"))
    weight = sum((tmp_path / name).stat().st_size for name in (target.name, data))
    assert f"wrote {target} and {tmp_path / data} ({weight / 1000:.0f} kB)" in result.out
    assert left_behind(tmp_path) == ["grown.onnx", data, "source.bin", "source.onnx"]
    assert run("verify", source, target).code == 0


# ---- verify -------------------------------------------------------------------------------------


def test_verify_finds_a_planted_fault(run: Run, lenet: Path) -> None:
    def swap(array: np.ndarray) -> None:
        array[:] = array[[1, 0, *range(2, 10)]]

    other = changed(lenet, lenet.with_name("other.onnx"), "fc3.weight", swap)
    result = run("verify", lenet, other)
    assert result.code == 1
    assert result.out.splitlines()[-1].startswith("not equivalent: y: ")
    assert run("verify", lenet, other, "--atol", 10).code == 0
    assert run("verify", lenet, other, "--atol", "y=10", "--rtol", 0).code == 0
    assert run("verify", lenet, other, "--atol", 1e-6).code == 1


def test_verify_options_reach_the_judge(run: Run, lenet: Path) -> None:
    result = run(
        "verify", lenet, lenet, "--size", "batch=2,5", "--seeds", 4, "--range", "x=0:1",
        "--provider", "cpu", "--json",
    )  # fmt: skip
    document = json.loads(result.out)
    assert result.code == 0 and document["equivalent"] and document["verdict"] == "equivalent"
    assert document["provider"] == "CPUExecutionProvider"
    assert {trial["sizes"]["batch"] for trial in document["trials"]} == {2, 5}
    assert len(document["trials"]) == 4


def test_verify_on_own_inputs(run: Run, lenet: Path) -> None:
    data = lenet.with_name("data.npz")
    rng = np.random.default_rng(0)
    np.savez(data, x=rng.standard_normal((2, 1, 18, 22), np.float32))
    folder = lenet.with_name("test_data_set_0")
    folder.mkdir()
    array = rng.standard_normal((3, 1, 18, 22), np.float32)
    (folder / "input_0.pb").write_bytes(numpy_helper.from_array(array, "x").SerializeToString())
    result = run("verify", lenet, lenet, "--inputs", data, "--inputs", folder, "--json")
    labels = [trial["label"] for trial in json.loads(result.out)["trials"]]
    assert result.code == 0 and labels == ["data.npz", "test_data_set_0"]
    missing = run("verify", lenet, lenet, "--inputs", lenet.with_name("none.npz"))
    assert missing.code == 2 and "cannot read inputs" in missing.err


def test_verify_writes_junit(run: Run, lenet: Path) -> None:
    report = lenet.with_name("report.xml")
    other = changed(lenet, lenet.with_name("other.onnx"), "fc3.bias", lambda a: a.fill(7))
    assert run("verify", lenet, lenet, "--junit", report).code == 0
    assert ElementTree.parse(report).getroot().get("failures") == "0"
    assert "exists already" in run("verify", lenet, other, "--junit", report).err
    assert run("verify", lenet, other, "--junit", report, "--force").code == 1
    assert ElementTree.parse(report).getroot().get("failures") != "0"
    assert left_behind(lenet.parent) == ["lenet.onnx", "other.onnx", "report.xml"]
    unwritable = run("verify", lenet, lenet, "--junit", lenet / "report.xml")
    assert unwritable.code == 2 and "is not a folder" in unwritable.err
    assert run("verify", lenet, lenet, "--junit", ".").err.startswith("error: .: is a folder")


def test_layers_name_the_first_node_that_parts(run: Run, lenet: Path) -> None:
    grown = lenet.with_name("grown.onnx")
    assert run("widen", lenet, "--node", "conv1", "--width", 9, "-o", grown).code == 0
    right = run("verify", lenet, grown, "--layers")
    assert right.code == 0 and "every unit holds what it is a copy of" in right.out

    def swap(array: np.ndarray) -> None:
        array[:] = array[[1, 0, *range(2, len(array))]]

    other = changed(grown, lenet.with_name("other.onnx"), "conv2.weight", swap)
    wrong = run("verify", lenet, other, "--layers")
    assert wrong.code == 1 and "the models part at node '/conv2/Conv'" in wrong.out
    document = json.loads(run("verify", lenet, other, "--layers", "--json").out)
    problems = [layer for layer in document["layers"]["layers"] if layer["problem"]]
    assert problems[0]["node"] == "/conv2/Conv" and not document["layers"]["holds"]


def test_layers_need_a_model_that_was_grown(run: Run, lenet: Path) -> None:
    result = run("verify", lenet, lenet, "--layers")
    assert result.code == 2 and "does not carry a history" in result.err


def test_layers_of_a_folded_model(run: Run, tmp_path: Path) -> None:
    grown = tmp_path / "grown.onnx"
    asked = ("--fold", "--node", "conv1", "--width", 11)
    assert run("widen", STANDARDISED, *asked, "-o", grown).code == 0
    assert run("verify", STANDARDISED, grown, "--layers").code == 0
    assert run("history", grown, "--replay", STANDARDISED, "-o", tmp_path / "again.onnx").code == 0
    assert (tmp_path / "again.onnx").read_bytes() == grown.read_bytes()


def test_verify_models_with_other_inputs(run: Run) -> None:
    result = run("verify", LENET, FIXTURES / "mlp.ts17.onnx")
    assert result.code == 1 and "not equivalent: input 'x'" in result.out


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "onnx_net2net", "inspect", str(FIXTURES / "gpt2.dynamo.onnx")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode in (0, 141)
