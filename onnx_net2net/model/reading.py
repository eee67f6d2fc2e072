"""A file that others may write to while it is read: what was opened, or an error.

    view = OpenFile(Path("model.onnx"))
    len(view), view[0], bytes(view[8:16])

Nothing is mapped. The system kills a process that touches a mapped page which somebody has cut
off; a read of it comes back short. After each read the file must still be what was opened: same
size, same times. So whatever was read, all of it, is of one state of the file.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import IO, overload

import numpy as np

from onnx_net2net.errors import InvalidModel

__all__ = ["OpenFile"]

# Enough for the tags and lengths that lie close together between two payloads.
_BLOCK = 16 << 10
_MOST_AT_ONCE = 1 << 30
_CHUNK = 1 << 20
# File times move in ticks, of 10 ms at the coarsest (Linux with CONFIG_HZ=100).
_TICK = 10_000_000

# How the system copies, the best way first: (to, from, offset, bytes) -> bytes copied.
_COPIERS: list[Callable[[int, int, int, int], int]] = []
if hasattr(os, "copy_file_range"):
    _COPIERS.append(lambda out, file, at, most: os.copy_file_range(file, out, most, at))
if hasattr(os, "sendfile"):
    _COPIERS.append(os.sendfile)


class OpenFile:
    """The contents of a file as if they lay in memory; raises InvalidModel once it changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._lock = Lock()
        self._opened = os.fstat(self._file.fileno())
        age = time.time_ns() - self._opened.st_mtime_ns
        if 0 <= age < _TICK:  # from the next tick on, each change shows in the file's times
            time.sleep((_TICK - age) / 1e9)
            self._opened = os.fstat(self._file.fileno())
        self._block, self._start = memoryview(b""), 0

    def __len__(self) -> int:
        return self._opened.st_size

    @overload
    def __getitem__(self, key: int) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> memoryview: ...
    def __getitem__(self, key: int | slice) -> int | memoryview:
        if isinstance(key, slice):
            start, stop, _ = key.indices(len(self))
            return self._read(start, max(0, stop - start))
        if not 0 <= key - self._start < len(self._block):
            if not 0 <= key < len(self):
                raise IndexError(key)
            self._block = self._read(key, min(_BLOCK, len(self) - key))
            self._start = key
        return self._block[key - self._start]

    @property
    def current(self) -> bool:
        """Whether the path still leads to this file, and it is as it was opened."""
        try:
            there = os.stat(self.path)
        except OSError:
            return False
        return os.path.samestat(there, self._opened) and not self._changed()

    def chunks(self, start: int, end: int, size: int) -> Iterator[memoryview]:
        """Yield the bytes from ``start`` to ``end``, some at a time, all in the same memory."""
        buffer = np.empty(min(size, end - start), np.uint8).data
        for at in range(start, end, size):
            part = buffer[: min(size, end - at)]
            self._fill(part, at)
            yield part.toreadonly()

    def copy(self, start: int, end: int, target: IO[bytes]) -> None:
        """Append the bytes from ``start`` to ``end`` to a file, by the system where it can."""
        target.flush()
        for copier in _COPIERS:
            with suppress(OSError):  # not here, or not between these; what else is wrong, shows
                while start < end:
                    most = min(_MOST_AT_ONCE, end - start)
                    count = copier(target.fileno(), self._file.fileno(), start, most)
                    if not count:
                        break
                    start += count
        target.writelines(self.chunks(start, end, _CHUNK))
        self._check_unchanged()

    def _read(self, start: int, length: int) -> memoryview:
        # Not a bytearray: NumPy's memory comes in huge pages where it can, three times as fast.
        view = np.empty(length, np.uint8).data
        self._fill(view, start)
        return view.toreadonly()

    def _fill(self, view: memoryview, start: int) -> None:
        """Read as many bytes as ``view`` holds; raise if the file has changed by then."""
        length, done = len(view), 0
        while done < length:
            count = self._read_into(view[done : done + _MOST_AT_ONCE], start + done)
            if not count:
                break
            done += count
        self._check_unchanged(done == length)

    def _check_unchanged(self, complete: bool = True) -> None:
        """Raise if the file has changed, as one has that ended before all was read."""
        if not complete or self._changed():
            raise InvalidModel(
                f"{self.path} was changed by another program while it was read",
                "run this again when nobody writes to it",
            )

    def _read_into(self, view: memoryview, start: int) -> int:
        try:
            if hasattr(os, "preadv"):
                return os.preadv(self._file.fileno(), [view], start)
            with self._lock:
                self._file.seek(start)
                return self._file.readinto(view) or 0
        except OSError as error:
            raise InvalidModel(
                f"{self.path} cannot be read: {error.strerror or error}", "check the disk"
            ) from error

    def _changed(self) -> bool:
        """Return whether the file was written to since it was opened."""
        now, then = os.fstat(self._file.fileno()), self._opened
        if (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
            return True
        return now.st_ctime_ns != then.st_ctime_ns and not self._moved(now)

    def _moved(self, now: os.stat_result) -> bool:
        """Return whether a new name, link or owner explains that the inode was changed.

        Else somebody may have written to the file and then put back its time.
        """
        then = self._opened
        if (now.st_nlink, now.st_mode, now.st_uid, now.st_gid) != (
            then.st_nlink, then.st_mode, then.st_uid, then.st_gid,
        ):  # fmt: skip
            return True
        try:
            return not os.path.samestat(os.stat(self.path), now)
        except OSError:
            return True
