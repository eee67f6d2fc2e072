"""What cannot be written leaves nothing behind, and the source is never touched."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnx_net2net.errors import OutputError
from onnx_net2net.model.model import Computed, Model, load
from onnx_net2net.model.saving import _check_written
from tests.small_models import (
    ROOT,
    big_weight,
    with_initializer,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / "m.onnx"
    onnx.save(with_initializer(big_weight()), path)
    return path


def unwritable(model: Model, path: Path, **options: bool) -> OutputError:
    with pytest.raises(OutputError) as caught:
        model.save(path, **options)
    assert caught.value.remedy and str(path) in caught.value.problem
    return caught.value


def grown(model: Model, fn: Callable[[], np.ndarray]) -> Model:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    return model.with_changes(proto, {"w": Computed("w", TensorProto.FLOAT, (40, 30), fn)})


def test_targets_that_are_refused(source: Path, tmp_path: Path) -> None:
    model, before = load(source), source.read_bytes()
    assert "exists already" in unwritable(model, source, force=False).problem
    assert "is a folder" in unwritable(model, tmp_path, force=True).problem
    assert "does not exist" in unwritable(model, tmp_path / "no" / "m.onnx").problem
    assert "is not a folder" in unwritable(model, source / "m.onnx").problem
    assert "cannot be written" in unwritable(model, tmp_path / ("x" * 300)).problem
    # A pipe or a device (/dev/null!) must not be replaced by a file, not even with force.
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in unwritable(model, tmp_path / "pipe", force=True).problem
    (tmp_path / "pipe").unlink()
    (tmp_path / "link.onnx").symlink_to(tmp_path / "nowhere.onnx")
    assert "exists already" in unwritable(model, tmp_path / "link.onnx", force=False).problem
    assert source.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "link.onnx"]


def test_saving_over_the_source(source: Path) -> None:
    model, before = load(source), source.read_bytes()
    old = model.weights["w"]
    grown(model, lambda: old.array() * np.float32(3)).save(source, force=True)
    assert load(source).weights["w"].array()[0, 0] == 3
    assert old.array()[0, 0] == 1, "the mapped source changed under its reader"
    model.save(source, force=True)
    assert source.read_bytes() == before
    assert [path.name for path in source.parent.iterdir()] == ["m.onnx"]


class Faulty(Computed):
    """Announces one size and hands out another, as a failing disk would."""

    def __init__(self, change: Callable[[bytes], bytes]) -> None:
        super().__init__("w", TensorProto.FLOAT, (40, 30), lambda: np.ones((40, 30), np.float32))
        self.change = change

    def chunks(self) -> Iterator[memoryview]:
        yield memoryview(self.change(bytes(self.payload())))


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize(
    "change", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b""], ids=["short", "long", "none"]
)
def test_a_file_other_than_planned_is_never_renamed(
    source: Path, change: Callable[[bytes], bytes], external: bool
) -> None:
    model = load(source)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    faulty = model.with_changes(proto, {"w": Faulty(change)})
    target = source.parent / "out.onnx"
    with pytest.raises(OutputError, match="does not read back"):
        faulty.save(target, external=external)
    assert [path.name for path in source.parent.iterdir()] == ["m.onnx"]


def test_a_file_of_another_structure_is_never_renamed(source: Path) -> None:
    """Right size, wrong nesting: seen by reading the written file again."""
    proto = load(source).proto
    skeleton = proto.SerializeToString()
    written = source.parent / "written"
    written.write_bytes(skeleton)
    _check_written(written, skeleton, source)
    for position in range(len(skeleton)):
        damaged = bytearray(skeleton)
        damaged[position] ^= 5
        written.write_bytes(damaged)
        os.utime(written, (0, 0))  # nobody writes to it: no need to wait for its clock to tick
        with pytest.raises(OutputError, match="does not read back"):
            _check_written(written, skeleton, source)


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError(28, "No space left")])
def test_interrupted_while_writing(source: Path, error: BaseException, external: bool) -> None:
    def fn() -> np.ndarray:
        raise error

    target = source.parent / "out.onnx"
    wanted = OutputError if isinstance(error, OSError) else error
    model = grown(load(source), fn)
    with pytest.raises(wanted):
        model.save(target, external=external)
    assert [path.name for path in source.parent.iterdir()] == ["m.onnx"]
    target.write_bytes(b"old")
    with pytest.raises(wanted):
        model.save(target, external=external, force=True)
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in source.parent.iterdir()) == ["m.onnx", "out.onnx"]


def test_a_failed_second_rename_undoes_the_first(source: Path) -> None:
    """External data: a folder appears in the model's place, and the data file must go again."""
    target = source.parent / "out.onnx"

    def fn() -> np.ndarray:
        target.mkdir(exist_ok=True)
        return np.ones((40, 30), np.float32)

    assert "is a folder" in str(unwritable(grown(load(source), fn), target, external=True))
    assert sorted(path.name for path in source.parent.iterdir()) == ["m.onnx", "out.onnx"]


_SAVE = """
import resource, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
import numpy as np, onnx
from onnx_net2net.errors import OutputError
from onnx_net2net.model.model import Computed, load
source, target, what = sys.argv[1:]
model = load(source)
proto = onnx.ModelProto()
proto.CopyFrom(model.proto)
def fn():
    if what == "wait":
        print("writing", flush=True)
        time.sleep(60)
    return np.ones((1 << 20,), np.float32)
grown = model.with_changes(proto, {"w": Computed("w", 1, (1 << 20,), fn)})
if what == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    grown.save(target)
except OutputError as error:
    sys.exit(f"OutputError: {error}")
except KeyboardInterrupt:
    sys.exit("interrupted")
"""


def save_elsewhere(source: Path, target: Path, what: str, prefix: tuple[str, ...] = ()) -> str:
    """Save a 4 MiB model from another process and give what it complained of."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", _SAVE, str(source), str(target), what],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    return done.stderr.strip()


def test_a_file_size_limit(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    said = save_elsewhere(source, out / "m.onnx", "limit")
    assert said == f"OutputError: {out / 'm.onnx'}: cannot be written: File too large\n" + (
        "  remedy: raise the file size limit (ulimit -f) or choose another file system"
    )
    assert not list(out.iterdir())


def in_namespace(tmp_path: Path, options: str) -> tuple[str, ...]:
    """A prefix that runs a command where ``tmp_path/disk`` is a file system of 1 MiB of its own."""
    (tmp_path / "disk").mkdir()
    script = f'mount -t tmpfs -o {options} none {tmp_path}/disk && "$@" 2>&1; ls -A {tmp_path}/disk'
    prefix = ("unshare", "--map-root-user", "--mount", "sh", "-c", f"{{ {script}; }} >&2", "sh")
    if not shutil.which("unshare") or subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("no private mounts here")
    probe = subprocess.run([*prefix, "echo", "ok"], capture_output=True, text=True, check=False)
    if probe.stderr.strip() != "ok":
        pytest.skip("no private mounts here")
    return prefix


def test_a_full_disk(source: Path, tmp_path: Path) -> None:
    prefix = in_namespace(tmp_path, "size=1m")
    said = save_elsewhere(source, tmp_path / "disk" / "m.onnx", "full", prefix)
    # The listing of the folder comes last: nothing may follow the remedy.
    assert said == f"OutputError: {tmp_path}/disk/m.onnx: cannot be written: " + (
        "No space left on device\n  remedy: free some space or choose another folder"
    )


def test_a_read_only_folder(source: Path, tmp_path: Path) -> None:
    prefix = in_namespace(tmp_path, "ro")
    said = save_elsewhere(source, tmp_path / "disk" / "m.onnx", "read-only", prefix)
    assert said.startswith(f"OutputError: {tmp_path}/disk/m.onnx: cannot be written: Read-only")
    assert said.endswith("remedy: choose another folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(source: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    assert "Permission denied" in unwritable(load(source), locked / "m.onnx").problem


def test_ctrl_c(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-c", _SAVE, str(source), str(out / "m.onnx"), "wait"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout and process.stdout.readline() == "writing\n"
        assert [path.suffix for path in out.iterdir()] == [".tmp"]
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=30)
    assert complaint.strip() == "interrupted"
    assert not list(out.iterdir())


def test_permissions_are_those_of_any_new_file(source: Path, tmp_path: Path) -> None:
    """Not the 0600 of temporary files."""
    (tmp_path / "ordinary").touch()
    written = load(source).save(tmp_path / "m.onnx")
    assert written.stat().st_mode == (tmp_path / "ordinary").stat().st_mode
