"""A folder whose files belong together is replaced as one: whoever reads it finds old or new."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onnx_net2net.errors import OutputError
from onnx_net2net.model import placing
from onnx_net2net.model.atomic_write import place

NAMES = ("config.json", "model.safetensors")


def _write(folder: Path, text: str) -> None:
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text(text)


def _place(target: Path) -> bool:
    return place(target, write=lambda draft: _write(draft, "new"), force=True)


def _contents(folder: Path) -> set[str]:
    return {(folder / name).read_text() for name in NAMES}


def _killed(target: Path, calls: int) -> bool:
    """Whether a process died that was killed instead of its n-th change to the file system."""
    if (child := os.fork()) == 0:
        left = calls

        def counted(real):  # type: ignore[no-untyped-def]
            def call(*arguments, **options):  # type: ignore[no-untyped-def]
                nonlocal left
                left -= 1
                if left < 0:
                    os._exit(9)
                return real(*arguments, **options)

            return call

        for name in ("rename", "replace", "unlink", "rmdir", "link"):
            setattr(os, name, counted(getattr(os, name)))
        _place(target)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_no_instant_mixes_two_folders(tmp_path: Path) -> None:
    """Killed at any call: the folder is the old one or the new one, or the old one lies beside."""
    seen = []
    for calls in range(100):
        here = tmp_path / str(calls)
        here.mkdir()
        _write(here / "target", "old")
        (here / "target" / "notes.txt").write_text("mine")
        killed = _killed(here / "target", calls)
        whole = [f for f in (here / "target", *here.glob("target.*.old")) if f.is_dir()]
        assert _contents(whole[0]) in ({"old"}, {"new"}), calls
        assert (whole[0] / "notes.txt").read_text() == "mine"
        seen.append(whole[0].name == "target" and _contents(whole[0]))
        if not killed:
            break
    assert {"old"} in seen and seen[-1] == {"new"} and False in seen, seen


def test_what_lies_there_besides_stays(tmp_path: Path) -> None:
    target = tmp_path / "target"
    _write(target, "old")
    (target / "run" / "inner").mkdir(parents=True)
    (target / "run" / "inner" / "log").write_text("mine")
    (target / "link").symlink_to("run")
    assert _place(target)
    assert _contents(target) == {"new"} and (target / "run" / "inner" / "log").read_text() == "mine"
    assert (target / "link").is_symlink() and os.listdir(tmp_path) == ["target"]


def test_a_failure_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "target"
    _write(target, "old")
    rename = os.rename

    def failing(source: Path, goal: Path) -> None:
        if Path(goal) == target and not str(source).endswith(".old"):
            raise OSError(28, "No space left on device")
        rename(source, goal)

    monkeypatch.setattr(placing.os, "rename", failing)
    with pytest.raises(OutputError, match="No space left"):
        _place(target)
    assert _contents(target) == {"old"} and os.listdir(tmp_path) == ["target"]
