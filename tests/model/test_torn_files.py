"""A save that is cut off leaves the old model or the new; a source that changes is noticed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_net2net as n2n
from onnx_net2net.model.atomic_write import check_free, write_text
from onnx_net2net.model.drafts import draft_folder
from onnx_net2net.verification.contents import Contents, check_files, contents
from tests.console import ROOT
from tests.cut_off import dense
from tests.small_models import big_weight, with_initializer

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks and kills")


def cuts(kind: str, folder: Path, *fault: str) -> list[list]:
    """Every cut of a writer, from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.cut_off", kind, str(folder / "cut"), *fault],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


FILES = {
    "model": ["m.onnx", "m.onnx.#.data"],
    "shards": ["m.onnx", *(f"m.onnx.#-0000{i}-of-00003.data" for i in (1, 2, 3))],
    "package": ["package", "package/model.py", "package/model.safetensors", "package/train.py"],
}


@pytest.mark.parametrize("kind", FILES)
def test_a_save_that_is_cut_off_leaves_the_old_files_or_the_new(kind: str, tmp_path: Path) -> None:
    found = cuts(kind, tmp_path)
    for how, number, call, outcome, read, left, then, tidy in found:
        where = f"{how} at call {number}, {call}: {read}, {left}"
        assert read in ("old", "new"), where
        assert then == "new" and tidy == FILES[kind], f"{where}; and after the next run {tidy}"
        if outcome == "complained":
            assert read == "old" and left == FILES[kind], where
        assert outcome != "finished" or read == "new", where
    killed = [row[4] for row in found if row[0] == "kill"]
    assert len(killed) >= 10 and {"old", "new"} == set(killed)
    assert killed == sorted(killed, reverse=True), "the new files were there, and then the old"


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("model", "model first"),
        ("model", "one name"),
        ("shards", "model first"),
        ("shards", "one name"),
        ("package", "no bridge"),
    ],
)
def test_the_cuts_find_a_writer_that_is_not_safe(kind: str, fault: str, tmp_path: Path) -> None:
    assert not {row[4] for row in cuts(kind, tmp_path, fault)} <= {"old", "new"}


# ---- data files ------------------------------------------------------------------------------


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_data_of_the_replaced_model_goes_unless_another_model_reads_it(tmp_path: Path) -> None:
    path = n2n.load(dense(2)).save(tmp_path / "m.onnx", external=True)
    (old,) = tmp_path.glob("*.data")
    (tmp_path / "twin.onnx").write_bytes(path.read_bytes())
    (tmp_path / "m.onnx.0123.data").write_text("not by this program")
    n2n.load(dense(3)).save(path, external=True)
    assert old.exists() and n2n.verify(tmp_path / "twin.onnx", dense(2))
    (tmp_path / "twin.onnx").unlink()
    n2n.load(dense(4)).save(path)
    assert names(tmp_path) == ["m.onnx", "m.onnx.0123.data"]


def test_data_that_another_program_wrote_goes_with_its_model(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    for location in ("m.onnx.data", "shared.bin"):
        onnx.save(dense(2), path, save_as_external_data=True, location=location, size_threshold=0)
        n2n.load(path).save(path, external=False)
    assert names(tmp_path) == ["m.onnx", "shared.bin"]


def test_the_same_model_is_the_same_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        n2n.load(dense(2)).save(tmp_path / name / "m.onnx", external=True)
    assert names(tmp_path / "a") == names(tmp_path / "b")
    for one, other in zip((tmp_path / "a").iterdir(), (tmp_path / "b").iterdir(), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_reader_of_a_model_that_is_replaced_again_and_again(tmp_path: Path) -> None:
    script = (
        "import sys; from onnx_net2net import load; from tests.cut_off import dense\n"
        "while True:\n"
        "    for scale in (2, 3): load(dense(scale)).save(sys.argv[1], external=True)\n"
    )
    path = n2n.load(dense(2)).save(tmp_path / "m.onnx", external=True)
    known = {n2n.load(dense(scale)).sha256() for scale in (2, 3)}
    found: set[str] = set()
    with subprocess.Popen([sys.executable, "-c", script, str(path)], cwd=ROOT) as writer:
        end = time.monotonic() + 60
        while len(found) < 2 and time.monotonic() < end:
            found.add(n2n.load(path).sha256())
        for _ in range(100):
            assert n2n.load(path).sha256() in known
        writer.kill()
    assert found == known


# ---- drafts ----------------------------------------------------------------------------------

HOLD = (
    "import sys, time; from pathlib import Path\n"
    "from onnx_net2net.model.drafts import draft_folder\n"
    "with draft_folder(Path(sys.argv[1])) as folder:\n"
    "    print(folder, flush=True); time.sleep(60)\n"
)


def test_drafts_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    others = [
        ".onnx-net2net.tmp",
        ".onnx-net2net.0123456789ab.tmp.d",
        "x.onnx-net2net.0123456789ab",
    ]
    for name in others:
        (tmp_path / name).mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".onnx-net2net.0123456789ab.tmp").symlink_to(tmp_path / "elsewhere")
    holders = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        dead, living = [Path(h.stdout.readline().strip()) for h in holders if h.stdout]
        (dead / "m.onnx").write_text("half")
        holders[0].kill()
        holders[0].wait()
        assert dead.exists()
        with draft_folder(tmp_path) as own:
            assert living.is_dir() and own.is_dir() and not dead.exists()
            assert own.stat().st_mode & 0o077 == 0
        assert not own.exists()
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()
    with draft_folder(tmp_path):
        assert not living.exists()
    kept = ["elsewhere", ".onnx-net2net.0123456789ab.tmp", *others]
    assert names(tmp_path) == sorted(kept)


# ---- a source that changes -------------------------------------------------------------------


def truncated(path: Path) -> None:
    os.truncate(path, 1000)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def rewritten(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(64))


def rewritten_behind_its_time(path: Path) -> None:
    before = path.stat()
    rewritten(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def appended(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"x")


CHANGES = [truncated, emptied, rewritten, rewritten_behind_its_time, appended]
READS: dict[str, Callable[[n2n.Model, Path], object]] = {
    "array": lambda model, out: model.weights["w"].array(),
    "bytes": lambda model, out: model.to_bytes(),
    "sha256": lambda model, out: model.sha256(),
    "save": lambda model, out: model.save(out / "grown.onnx"),
    "save external": lambda model, out: model.save(out / "grown.onnx", external=True),
    "verify": lambda model, out: n2n.verify(model, model, seeds=1),
    "diff": lambda model, out: n2n.diff(model, model),
}


@pytest.mark.parametrize("external", [False, True], ids=["single", "external"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_source_that_changes_is_noticed_by_whoever_reads_it(
    change: Callable[[Path], None], external: bool, tmp_path: Path
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    path = n2n.load(dense(2)).save(source / "m.onnx", external=external)
    model = n2n.load(path)
    changed = next(source.glob("*.data")) if external else path
    change(changed)
    for name, read in READS.items():
        with pytest.raises(n2n.InvalidModel, match="was changed by another program") as caught:
            read(model, out)
        assert changed.name in caught.value.problem, name
    assert not names(out)


@pytest.mark.parametrize("external", [False, True], ids=["single", "external"])
def test_a_source_that_moves_is_read_to_the_end(external: bool, tmp_path: Path) -> None:
    """Its name, its folder, its mode, its owner and further links are not what it holds."""
    path = n2n.load(dense(2)).save(tmp_path / "m.onnx", external=external)
    model = n2n.load(path)
    held = next(tmp_path.glob("*.data")) if external else path
    os.chmod(held, 0o400)
    os.link(held, tmp_path / "another")
    held.rename(tmp_path / "renamed")
    n2n.load(dense(3)).save(path, external=external)
    (tmp_path / "renamed").unlink()
    assert n2n.verify(model, dense(2))
    assert not n2n.verify(model, path)


def test_a_file_that_is_replaced_is_not_taken_for_the_model_that_was_loaded(tmp_path: Path) -> None:
    path = n2n.load(dense(2)).save(tmp_path / "m.onnx")
    model = n2n.load(path)
    n2n.load(dense(3)).save(path)
    assert model.file is None and not n2n.verify(model, path)


def test_onnxruntime_is_given_a_file_only_while_it_is_the_one_that_was_loaded(
    tmp_path: Path,
) -> None:
    path = n2n.load(dense(2)).save(tmp_path / "m.onnx")
    model = n2n.load(path)
    assert contents(model, as_file=True) == str(path)
    given = contents(model, as_file=False)
    assert isinstance(given, Contents) and given.message == path.read_bytes()
    n2n.load(dense(3)).save(path)
    given = contents(model, as_file=True)
    assert isinstance(given, Contents) and given.message == dense(2).SerializeToString()
    with pytest.raises(n2n.InvalidModel, match="was changed"):
        check_files(path, model)


def test_a_file_that_is_rewritten_within_a_tick_of_the_clock(tmp_path: Path) -> None:
    """File times move every few milliseconds: what was just written is looked at after the next."""
    path = tmp_path / "m.onnx"
    for _ in range(20):
        path.write_bytes(dense(2).SerializeToString())
        model = n2n.load(path)
        rewritten(path)
        with pytest.raises(n2n.InvalidModel, match="changed"):
            model.weights["w"].array()


def test_the_digest_of_a_model_covers_its_data(tmp_path: Path) -> None:
    path = n2n.load(dense(2)).save(tmp_path / "m.onnx", external=True)
    (data,) = tmp_path.glob("*.data")
    before = n2n.load(path).sha256()
    assert before == n2n.load(dense(2)).sha256()
    rewritten(data)
    assert n2n.load(path).sha256() != before


# ---- links, modes, things that are no files ----------------------------------------------------


def test_a_link_is_followed_over_any_number_of_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "m.onnx").write_text("old")
    (tmp_path / "second").symlink_to("real/m.onnx")
    (tmp_path / "first").symlink_to(tmp_path / "second")
    (tmp_path / "dangling").symlink_to("real/new.onnx")
    model = n2n.load(dense(2))
    model.save(tmp_path / "first")
    model.save(tmp_path / "dangling")
    assert all((tmp_path / name).is_symlink() for name in ("first", "second", "dangling"))
    assert names(tmp_path / "real") == ["m.onnx", "new.onnx"]
    assert n2n.load(tmp_path / "first").sha256() == model.sha256()
    with pytest.raises(n2n.OutputError, match=r"is a link to .*real/m\.onnx"):
        model.save(tmp_path / "first", external=True)
    assert names(tmp_path / "real") == ["m.onnx", "new.onnx"]


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    for name, to in (
        ("loop", "loop"),
        ("gone", "no/where.onnx"),
        ("null", "/dev/null"),
        ("up", "."),
    ):
        (tmp_path / name).symlink_to(to)
        with pytest.raises(n2n.OutputError, match=name):
            n2n.load(dense(2)).save(tmp_path / name)
    assert names(tmp_path) == ["gone", "loop", "null", "up"]
    assert os.readlink(tmp_path / "null") == "/dev/null"


def test_a_link_within_the_folder_keeps_model_and_data_together(tmp_path: Path) -> None:
    (tmp_path / "latest.onnx").symlink_to("m.onnx")
    n2n.load(dense(2)).save(tmp_path / "latest.onnx", external=True)
    for name in ("latest.onnx", "m.onnx"):
        assert n2n.load(tmp_path / name).sha256() == n2n.load(dense(2)).sha256()


@pytest.mark.parametrize("external", [False, True])
def test_a_private_model_stays_private(external: bool, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.touch(0o600)
    umask = os.umask(0o022)
    try:
        n2n.load(dense(2)).save(path, external=external)
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
        n2n.load(dense(2)).save(tmp_path / "new.onnx")
        assert (tmp_path / "new.onnx").stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(umask)


def test_text_files_are_replaced_as_models_are(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text("old")
    report.chmod(0o640)
    with pytest.raises(n2n.OutputError, match="exists already"):
        write_text(report, "new", force=False)
    (tmp_path / "link").symlink_to(report)
    write_text(tmp_path / "link", "new", force=True)
    assert report.read_text() == "new" and report.stat().st_mode & 0o777 == 0o640
    for place in ("/dev/null", tmp_path):
        with pytest.raises(n2n.OutputError):
            write_text(Path(place), "new", force=True)


def test_what_is_read_is_never_written(tmp_path: Path) -> None:
    path = n2n.load(with_initializer(big_weight())).save(tmp_path / "m.onnx", external=True)
    model = n2n.load(path)
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    (inputs / "input_0.pb").write_text("precious")
    (tmp_path / "link").symlink_to(path)
    for target in (*model.files, tmp_path / "link", inputs / "input_0.pb"):
        with pytest.raises(n2n.OutputError, match="is the source itself"):
            check_free(model, target, force=True, read=[inputs])


def test_a_killed_command_is_tidied_up_by_the_next(tmp_path: Path) -> None:
    fixture = ROOT / "fixtures" / "resnet.dynamo.onnx"
    target = tmp_path / "grown.onnx"
    command = [sys.executable, "-m", "onnx_net2net", "widen", str(fixture), "--node", "conv1"]
    command += ["--width", "9", "-o", str(target)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while not names(tmp_path) and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    left = [name for name in names(tmp_path) if name.startswith(".onnx-net2net")]
    done = subprocess.run([*command, "--force"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert left and names(tmp_path) == ["grown.onnx"]


def test_arrays_are_no_views_of_the_file(tmp_path: Path) -> None:
    path = n2n.load(dense(2)).save(tmp_path / "m.onnx")
    array = n2n.load(path).weights["w"].array()
    os.truncate(path, 0)
    assert np.isfinite(array.sum()) and not array.flags.writeable
