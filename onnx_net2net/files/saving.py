"""Writing a model: one tensor at a time, beside the target, checked, then renamed into place.

    write(Path("grown.onnx"), proto, lifted, sources, external=False, force=False)

``lifted`` holds the contents that are not in ``proto``, by initializer index. The result is one
file, or a small one and a ``.data`` file beside it (external data), which onnxruntime can map.
A failure at any point, Ctrl-C included, leaves neither a partial file nor a temporary one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from google.protobuf.message import EncodeError
from onnx import ModelProto, TensorProto

from onnx_net2net.errors import OutputError
from onnx_net2net.files.tensors import clear_data
from onnx_net2net.files.weights import Source, Stored, Weight
from onnx_net2net.files.wire import RAW_DATA, WireError, splice, strip

__all__ = ["SINGLE_FILE_LIMIT", "Pieces", "message", "stream", "write", "write_plain"]

# Protobuf, and with it onnxruntime, reads no message of 2 GiB or more.
SINGLE_FILE_LIMIT = 2**31 - 1
# Tensors worth mapping start at the allocation granularity of Windows, the coarsest of all systems.
_COARSE, _FINE, _WORTH_MAPPING = 64 << 10, 64, 1 << 20
_RELEASE_EVERY = 32 << 20
_PADDING = memoryview(bytes(_COARSE))

Pieces = Sequence[memoryview | Weight]

_REMEDIES = {
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "free some space or choose another folder",
    errno.EFBIG: "raise the file size limit (ulimit -f) or choose another file system",
    errno.EROFS: "choose another folder",
    errno.EACCES: "choose another folder or change its permissions",
    errno.EPERM: "choose another folder or change its permissions",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def message(proto: ModelProto, lifted: Mapping[int, Weight]) -> tuple[bytes, Pieces]:
    """The serialised skeleton, and the whole model in pieces.

    Raises :class:`OutputError` if the skeleton alone is above protobuf's limit.
    """
    try:
        skeleton = proto.SerializeToString()
    except (EncodeError, ValueError):
        raise OutputError(
            "the model without its initializers is above protobuf's limit of 2 GiB",
            "export it with its weights as initializers, not as Constant nodes",
        ) from None
    if not lifted:
        return skeleton, [memoryview(skeleton)]
    fields = {
        index: (weight.field if isinstance(weight, Stored) else RAW_DATA, weight)
        for index, weight in lifted.items()
    }
    return skeleton, splice(skeleton, fields)


def stream(
    pieces: Iterable[memoryview | Weight],
    sink: Callable[[memoryview], object],
    sources: Iterable[Source],
) -> None:
    """Hand all bytes to ``sink``, holding one tensor at a time.

    Pages of the mapped sources count as this process's memory until they are given back.
    """
    sources = tuple(sources)
    since = 0
    for piece in pieces:
        for chunk in piece.chunks() if isinstance(piece, Weight) else (piece,):
            sink(chunk)
            since += len(chunk)
            if since >= _RELEASE_EVERY:
                since = 0
                for source in sources:
                    source.release()


def write(
    path: Path,
    proto: ModelProto,
    lifted: Mapping[int, Weight],
    sources: Iterable[Source],
    *,
    external: bool | None,
    force: bool,
) -> None:
    """Write the model to ``path``. ``external=None``: external data only above 2 GiB.

    Raises :class:`OutputError`.
    """
    check_target(path, force)
    with _reported(path):
        skeleton, pieces = message(proto, lifted)
        if sum(piece.nbytes for piece in pieces) > SINGLE_FILE_LIMIT and not external:
            if external is False:
                raise OutputError(
                    f"{path}: the model is above the 2 GiB that fit into one file",
                    "let the weights be written as external data",
                )
            external = True
        with Files(force) as files:
            if external and lifted:
                data = path.with_name(path.name + ".data")
                check_target(data, force)
                small, layout = _externalised(proto, lifted, data.name)
                _write_file(files, data, layout, sources)
                skeleton, pieces = message(small, {})
            temporary = _write_file(files, path, pieces, sources)
            _check_written(temporary, skeleton, path)
            files.commit()


def write_plain(path: Path, pieces: Pieces, sources: Iterable[Source], *, force: bool) -> None:
    """Write any file in pieces, as carefully as a model. Raises :class:`OutputError`."""
    check_target(path, force)
    with _reported(path), Files(force) as files:
        _write_file(files, path, pieces, sources)
        files.commit()


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Failures of the file system as :class:`OutputError`."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: {error.strerror or error}",
            _REMEDIES.get(error.errno or 0, "choose another folder"),
        ) from error


def check_target(path: Path, force: bool) -> None:
    """Raise unless a file may be created, or with ``force`` replaced, at ``path``."""
    folder = path.parent
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        if folder.is_dir():
            return
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise OutputError(
            f"{path}: the folder {folder} {problem}", "create it or choose another"
        ) from None
    except NotADirectoryError:
        raise OutputError(f"{path}: {folder} is not a folder", "choose another folder") from None
    except ValueError as error:  # a null byte
        raise OutputError(f"{str(path)!r}: {error}", "choose another name") from None
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "choose another folder")
        raise OutputError(f"{path}: cannot be written: {error.strerror}", remedy) from None
    if path.is_dir():
        raise OutputError(f"{path}: is a folder", "give the name of a file in it")
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise OutputError(f"{path}: is not a regular file", "give the name of a file")
    if not force:
        raise OutputError(f"{path}: exists already", "choose another name, or overwrite (--force)")


class Files:
    """Temporary files that become the targets together, or vanish."""

    def __init__(self, force: bool) -> None:
        self.force = force
        self.renames: list[tuple[Path, Path]] = []

    def __enter__(self) -> Files:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for temporary, _ in self.renames:
            temporary.unlink(missing_ok=True)

    def temporary(self, target: Path) -> Path:
        """A new name in the target's folder, forgotten again when all is done."""
        # Without the target's name, which may be as long as a name can be.
        name = f".onnx-net2net.{secrets.token_hex(6)}.tmp"
        self.renames.append((target.with_name(name), target))
        return self.renames[-1][0]

    def commit(self) -> None:
        """Rename all into place; if one fails, undo those before it."""
        undo: list[tuple[Path, Path | None]] = []
        renames = list(self.renames)
        try:
            for temporary, target in renames:
                # Again, for somebody else may have made a file of that name since.
                check_target(target, self.force)
                kept = None
                if temporary != renames[-1][0] and target.exists():
                    kept = self.temporary(target)
                    undo.append((target, kept))
                    os.replace(target, kept)
                else:
                    undo.append((target, None))
                os.replace(temporary, target)
        except BaseException:
            if not renames[-1][0].exists():
                raise  # interrupted after the last rename: the result is complete
            for target, kept in undo[: len(renames) - 1]:
                if kept is None:
                    target.unlink(missing_ok=True)
                elif kept.exists():
                    os.replace(kept, target)
            raise
        _sync_folder(renames[-1][1].parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power failure, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        # Some file systems cannot; the file itself is complete and flushed.
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def _write_file(files: Files, target: Path, pieces: Pieces, sources: Iterable[Source]) -> Path:
    """Write and flush a temporary file that ``files.commit`` will rename to ``target``."""
    temporary = files.temporary(target)
    with open(temporary, "xb", buffering=1 << 20) as file:
        stream(pieces, file.write, sources)
        file.flush()
        os.fsync(file.fileno())
    if temporary.stat().st_size != sum(piece.nbytes for piece in pieces):
        raise _not_as_written(target)
    return temporary


def _not_as_written(target: Path) -> OutputError:
    return OutputError(
        f"{target}: the written file does not read back as it was written",
        "check the disk, or write to another one",
    )


def _check_written(temporary: Path, skeleton: bytes, target: Path) -> None:
    """Read the file's structure again: lengths, nesting and all fields but the payloads.

    What the same scan leaves of the file must be the skeleton that was to be written.
    """
    try:
        again, _ = strip(Source.open(temporary).view)
        whole = again == strip(memoryview(skeleton))[0]
    except WireError:
        whole = False
    if not whole:
        raise _not_as_written(target)


def _externalised(
    proto: ModelProto, lifted: Mapping[int, Weight], location: str
) -> tuple[ModelProto, list[memoryview | Weight]]:
    """A copy of the skeleton that refers to ``location``, and that file's contents in pieces."""
    small = ModelProto()
    small.CopyFrom(proto)
    pieces: list[memoryview | Weight] = []
    offset = 0
    for index, weight in sorted(lifted.items()):
        padding = -offset % (_COARSE if weight.nbytes >= _WORTH_MAPPING else _FINE)
        pieces += [_PADDING[:padding], weight]
        offset += padding
        tensor = small.graph.initializer[index]
        clear_data(tensor)
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": location, "offset": offset, "length": weight.nbytes}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        offset += weight.nbytes
    return small, pieces
