"""Everything that can be wrong from outside: one clear error, the right exit code, nothing left.

Each case is a process of its own, as a user runs it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_net2net as n2n
from onnx_net2net.errors import InvalidModel, Refused
from onnx_net2net.model.model import load
from onnx_net2net.widening.widen import widen
from tests.console import FIXTURES, command, complaint, environment, finished, left_behind
from tests.networks import Net

LENET = FIXTURES / "lenet.ts17.onnx"
GROW = ("--node", "conv1", "--width", 9)


@pytest.fixture
def lenet(tmp_path: Path) -> Path:
    return Path(shutil.copy(LENET, tmp_path / "lenet.onnx"))


def external(folder: Path) -> tuple[Path, onnx.ModelProto]:
    """A model with its weights in ``weights.bin``, and its skeleton."""
    path = folder / "external.onnx"
    model = onnx.load(LENET)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=64)
    return path, onnx.load(path, load_external_data=False)


# ---- the model ----------------------------------------------------------------------------------


def _no_model(folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_text("These are words, not a network.\n")
    return path


def _no_file(folder: Path) -> Path:
    return folder / "missing.onnx"


def _truncated(folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(LENET.read_bytes()[:9000])
    return path


def _future_opset(folder: Path) -> Path:
    model = onnx.load(LENET)
    model.opset_import[0].version = 999
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def _ancient_opset(folder: Path) -> Path:
    model = onnx.load(LENET)
    model.opset_import[0].version = 6
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def _missing_data(folder: Path) -> Path:
    path, _ = external(folder)
    (folder / "weights.bin").unlink()
    return path


def _short_data(folder: Path) -> Path:
    path, _ = external(folder)
    os.truncate(folder / "weights.bin", 100)
    return path


def _escaping_data(folder: Path) -> Path:
    path, model = external(folder)
    for entry in model.graph.initializer:
        for pair in entry.external_data:
            if pair.key == "location":
                pair.value = "../../etc/passwd"
    path.write_bytes(model.SerializeToString())
    return path


def _not_a_number(folder: Path) -> Path:
    model = onnx.load(LENET)
    entry = next(t for t in model.graph.initializer if t.name == "fc2.weight")
    array = numpy_helper.to_array(entry).copy()
    array[3, 4] = np.nan
    entry.CopyFrom(numpy_helper.from_array(array, entry.name))
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (_no_model, "not an ONNX model"),
        (_no_file, "no such file"),
        (_truncated, "truncated"),
        (_future_opset, "opset 999 is newer than onnx"),
        (_ancient_opset, "opset 6 is too old"),
        (_missing_data, "weights.bin"),
        (_short_data, "weights.bin"),
        (_escaping_data, "outside the model's folder"),
        (_not_a_number, "weight 'fc2.weight' holds NaN (1 of 651 elements)"),
    ],
)
def test_models_that_cannot_be_grown(
    tmp_path: Path, make: Callable[[Path], Path], problem: str
) -> None:
    model = make(tmp_path)
    before = left_behind(tmp_path)
    said, remedy = complaint(finished("widen", model, *GROW), 2)
    assert problem in said and remedy
    assert left_behind(tmp_path) == before


def test_nan_in_the_weights_is_one_error_for_the_library_too(tmp_path: Path) -> None:
    model = load(_not_a_number(tmp_path))
    with pytest.raises(InvalidModel, match=r"'fc2.weight' holds NaN \(1 of 651") as caught:
        widen(model, {"conv1": 20})
    assert caught.value.remedy


# ---- the request --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "code", "problem", "remedy"),
    [
        (("--node", "conv3", "--width", 9), 2, "no node, tensor, parameter", "did you mean 'conv"),
        (("--dim", "conv3", "--width", 9), 2, "no dimension 'conv3'", "did you mean 'conv"),
        (("--node", "conv1", "--width", 5), 2, "6 wide already, 5 is less", "a larger width"),
        (("--node", "conv1", "--width", 0), 2, "0", ""),
        (("--node", "conv1", "--width", -3), 2, "-3", ""),
        (("--node", "conv1", "--width", 10**12), 2, "1000000000000 is absurd", "at most"),
        (("--node", "conv1", "--width", 10**30), 2, "is absurd", "at most"),
        (("--node", "fc3", "--width", 20), 1, "fc3: it cannot grow", ""),
        (
            (*GROW, "--split", "noise", "--noise", "7"),
            2,
            "noise: 7.0 is not a number between 0 and 1",
            "",
        ),
    ],
)
def test_requests_that_cannot_be_met(
    lenet: Path, request_: tuple[object, ...], code: int, problem: str, remedy: str
) -> None:
    said, helps = complaint(finished("widen", lenet, *request_), code)
    assert problem in said and remedy in helps
    assert left_behind(lenet.parent) == ["lenet.onnx"]


def test_inputs_that_the_model_cannot_run_on(lenet: Path) -> None:
    said, remedy = complaint(finished("widen", lenet, *GROW, "--size", "length=3"), 2)
    assert "there is no dynamic dimension 'length'" in said and "--no-verify" in remedy
    assert left_behind(lenet.parent) == ["lenet.onnx"]


# ---- the target ---------------------------------------------------------------------------------


def test_targets_that_cannot_be_written(lenet: Path) -> None:
    folder = lenet.with_name("folder")
    folder.mkdir()
    before = left_behind(lenet.parent)
    for target, problem in (
        (folder, "is a folder"),
        (folder / "none" / "out.onnx", "does not exist"),
        (lenet / "out.onnx", "is not a folder"),
        (folder / ("x" * 300), "File name too long"),
        (Path("/dev/full"), "is not a regular file"),
    ):
        said, remedy = complaint(finished("widen", lenet, *GROW, "-o", target, "--force"), 2)
        assert str(target) in said and problem in said and remedy
    assert left_behind(lenet.parent) == before and not left_behind(folder)


def test_a_read_only_folder(lenet: Path) -> None:
    folder = lenet.with_name("read-only")
    folder.mkdir()
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):  # root may write anywhere but into the kernel's own folders
        folder = Path("/proc/self/fdinfo")
        if not folder.is_dir():
            pytest.skip("no folder here is read-only for this user")
    said, remedy = complaint(finished("widen", lenet, *GROW, "-o", folder / "out.onnx"), 2)
    assert "out.onnx: cannot be written" in said and remedy


@pytest.mark.parametrize("options", [(), ("--no-verify",)])
def test_a_full_disk(lenet: Path, options: tuple[str, ...]) -> None:
    """A limit on the size of files fails in the middle of writing, as a full disk does."""
    said, remedy = complaint(finished("widen", lenet, *GROW, *options, limit=20_000), 2)
    assert "lenet-grown.onnx: cannot be written: File too large" in said and remedy
    assert ".tmp" not in said, "the temporary file is nobody's business"
    assert left_behind(lenet.parent) == ["lenet.onnx"]


def _unsorted(graph: onnx.GraphProto) -> None:
    nodes = list(graph.node)[::-1]  # onnxruntime does not mind
    del graph.node[:]
    graph.node.extend(nodes)


def _written_twice(graph: onnx.GraphProto) -> None:
    graph.node[1].output[0] = graph.node[0].output[0]


def _without_an_input(graph: onnx.GraphProto) -> None:
    del graph.node[0].input[1:]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_unsorted, "which nothing before it writes"),
        (_written_twice, "which is there"),
        (_without_an_input, "Conv needs more inputs"),
        (lambda graph: graph.node.add(op_type="Relu", input=["y"]), "writes nothing"),
        (lambda graph: graph.node.pop(), "nothing writes the output 'y'"),
    ],
)
def test_graphs_that_are_no_graphs(
    lenet: Path, damage: Callable[[onnx.GraphProto], object], says: str
) -> None:
    model = onnx.load(lenet)
    damage(model.graph)
    onnx.save(model, lenet)
    for arguments in (("inspect", lenet), ("grow", lenet, "--params", "2x", "--no-verify")):
        said, remedy = complaint(finished(*arguments), 2)
        assert says in said and remedy
    assert left_behind(lenet.parent) == ["lenet.onnx"]


# ---- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", ["\u5c42" * 83, "x" * 249, os.fsdecode(b"\xff")])
def test_every_name_that_a_file_can_have(lenet: Path, stem: str) -> None:
    target = lenet.with_name(f"{stem}.onnx")
    done = finished("widen", lenet, *GROW, "-o", target, PYTHONIOENCODING="cp1252:strict")
    assert done.code == 0 and "wrote " in done.out and not done.err
    assert left_behind(lenet.parent) == sorted(["lenet.onnx", target.name])
    assert finished("verify", lenet, target).code == 0


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams(lenet: Path, closed: str) -> None:
    for arguments, code in ((("inspect", lenet), 0), (("inspect", "missing.onnx"), 2)):
        shell = ["bash", "-c", f'"$@" {closed}', "bash", *command(*arguments)]
        done = subprocess.run(shell, env=environment(), capture_output=True, text=True, timeout=120)
        assert done.returncode == code and "bug" not in done.stderr
        assert "error" not in done.stdout


# ---- interruptions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
def test_interrupted_in_the_middle(lenet: Path, number: signal.Signals, code: int) -> None:
    """The signal comes while the draft lies on the disk and waits for its verdict."""
    process = subprocess.Popen(
        command("widen", lenet, *GROW),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while left_behind(lenet.parent) == ["lenet.onnx"] and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, (out, err)
    assert "Traceback" not in err and "wrote" not in out
    assert left_behind(lenet.parent) == ["lenet.onnx"]


def test_a_reader_that_leaves_early(lenet: Path) -> None:
    """``inspect model.onnx | head -1``"""
    script = '"$@" | head -1; exit "${PIPESTATUS[0]}"'
    shell = ["bash", "-c", script, "bash", *command("inspect", lenet, "--all", "--json")]
    done = subprocess.run(shell, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.stdout == "{\n" and "Traceback" not in done.stderr and "bug" not in done.stderr


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_along_what_grows_is_refused(value: float) -> None:
    """Shares of infinity, of both signs, would add up to NaN."""
    net = Net()
    weight = np.ones((3, 4), np.float32)
    weight[0, 1] = value
    hidden = net("MatMul", net.input("batch", 3), net.put(weight))
    model = n2n.load(net.model(net("MatMul", hidden, net.weight(4, 2))))
    with pytest.raises(Refused, match="'w0' holds infinity"):
        n2n.widen(model, {"matmul0": 7})
