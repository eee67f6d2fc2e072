"""Folders for files that are not done yet: hidden, private, and gone with the process.

    with draft_folder(target.parent) as folder:
        (folder / target.name).write_bytes(...)
        os.replace(folder / target.name, target)

Each is locked for as long as it is in use. A process that is killed leaves its folder behind, and
loses the lock: the next one that makes a folder in the same place removes it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["draft_folder", "locked"]

_NAME = re.compile(r"\.onnx-net2net\.[0-9a-f]{12}\.tmp")
_ABANDONED_AFTER = 24 * 3600
_PATIENCE = 10.0


@contextlib.contextmanager
def draft_folder(parent: Path) -> Iterator[Path]:
    """Make an empty folder in ``parent``, removed in the end with all that is in it.

    Raises OSError where it cannot be made.
    """
    _remove_abandoned(parent)
    while True:
        # The name comes first: an interruption just behind the mkdir must know what to remove.
        folder = parent / f".onnx-net2net.{secrets.token_hex(6)}.tmp"
        try:
            folder.mkdir(mode=0o700)
            with _lock(folder, patience=_PATIENCE):
                # Whoever takes a folder for abandoned locks it, too; then this one is gone.
                if folder.exists():
                    yield folder
                    return
        finally:
            try:
                _remove(folder)
            finally:
                _remove(folder)  # again, for the first may have been interrupted itself


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Keep other processes of this program from putting files into ``folder``.

    Yields whether that is certain: some file systems have no locks, and a lock that is held too
    long is no longer waited for.
    """
    if _NAME.fullmatch(folder.name):
        yield True  # a draft folder: its process has it for itself
        return
    with _lock(folder, patience=_PATIENCE) as held:
        yield held is True


@contextlib.contextmanager
def _lock(folder: Path, patience: float = 0.0) -> Iterator[bool | None]:
    """Lock a folder. Yields whether that was possible in time, None where it never is."""
    handle = None
    if fcntl is not None:
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
    try:
        yield None if handle is None else _acquired(handle, patience)
    finally:
        if handle is not None:
            os.close(handle)


def _acquired(handle: int, patience: float) -> bool | None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        except OSError:
            return None


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders of processes that are no more. Others, and what is not ours, stay."""
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(parent) if _NAME.fullmatch(name)]
        for folder in (parent / name for name in names):
            if folder.is_dir() and not folder.is_symlink():
                with _lock(folder) as free:
                    # Where nothing can be locked (Windows, network file systems) age must tell.
                    if free or (
                        free is None and time.time() - folder.stat().st_mtime > _ABANDONED_AFTER
                    ):
                        _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
