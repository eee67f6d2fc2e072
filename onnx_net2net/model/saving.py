"""Writing a model: one tensor at a time, beside the target, checked, then renamed into place.

    write(Path("grown.onnx"), proto, lifted, external=False, force=False)

``lifted`` holds the contents that are not in ``proto``, by initializer index. The result is one
file, or a small one and ``.data`` files beside it (external data), which onnxruntime can map.
A failure at any point, Ctrl-C included, leaves neither a partial file nor a temporary one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from google.protobuf.message import EncodeError
from onnx import ModelProto, TensorProto

from onnx_net2net.errors import OutputError
from onnx_net2net.model.drafts import draft_folder
from onnx_net2net.model.placing import (
    check_target,
    data_name,
    followed,
    place_file,
    place_model,
    reported,
)
from onnx_net2net.model.reading import OpenFile
from onnx_net2net.model.shards import divided, shard_name
from onnx_net2net.model.tensors import clear_data
from onnx_net2net.model.weights import Source, Stored, Weight
from onnx_net2net.model.wire import RAW_DATA, WireError, splice, strip
from onnx_net2net.progress import work

__all__ = [
    "SINGLE_FILE_LIMIT", "Pieces", "message", "stream", "whole", "write", "write_plain",
]  # fmt: skip

# Protobuf, and with it onnxruntime, reads no message of 2 GiB or more.
SINGLE_FILE_LIMIT = 2**31 - 1
# Tensors worth mapping start at the allocation granularity of Windows, the coarsest of all systems.
_COARSE, _FINE, _WORTH_MAPPING = 64 << 10, 64, 1 << 20
_PADDING = memoryview(bytes(_COARSE))

Pieces = Sequence[memoryview | Weight]


def message(proto: ModelProto, lifted: Mapping[int, Weight]) -> tuple[bytes, Pieces]:
    """Return the serialised skeleton, and the whole model in pieces.

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


def stream(pieces: Iterable[memoryview | Weight], sink: Callable[[memoryview], object]) -> None:
    """Hand all bytes to ``sink``, holding one tensor at a time."""
    for piece in pieces:
        for chunk in piece.chunks() if isinstance(piece, Weight) else (piece,):
            sink(chunk)


def write(
    path: Path,
    proto: ModelProto,
    lifted: Mapping[int, Weight],
    *,
    original: Source | None = None,
    external: bool | None,
    force: bool,
    limit: int | None = None,
) -> None:
    """Write the model to ``path``. ``external=None``: external data only above 2 GiB.

    Files of external data have at most ``limit`` bytes, but where a single tensor has more.
    ``original`` is the one file that holds the model as it is, to be copied byte for byte. Raises
    :class:`OutputError`.
    """
    check_target(path, force)
    skeleton, pieces = message(proto, lifted)
    if sum(piece.nbytes for piece in pieces) > SINGLE_FILE_LIMIT and not external:
        if external is False:
            raise OutputError(
                f"{path}: the model is above the 2 GiB that fit into one file",
                "let the weights be written as external data",
            )
        external = True
    if original is not None and not external:
        skeleton, pieces = strip(original.view)[0], whole(original)
    final = followed(path)
    with reported(path), draft_folder(final.parent) as folder:
        data: list[Path] = []
        if external and lifted:
            if final != path and not os.path.samefile(final.parent, path.parent):
                raise OutputError(
                    f"{path}: is a link to {final}, and external data would not be found beside "
                    "the link",
                    f"write to {final}, or keep the weights in the model's file",
                )
            if final.name.encode(errors="ignore").decode() != final.name:
                raise OutputError(
                    f"{path}: no model can refer to data files of a name that is not UTF-8",
                    "choose another name, or keep the weights in the model's file",
                )
            small, data = _write_data(folder, final, proto, lifted, limit)
            skeleton, pieces = message(small, {})
        draft = folder / final.name
        _write_file(draft, path, pieces)
        _check_written(draft, skeleton, path)
        place_model(draft, data, final, force)


def whole(source: Source, weights: Iterable[Weight] = ()) -> list[Weight]:
    """Return a file in pieces, of which these weights that lie in it are some."""
    pieces: list[Weight] = []
    own = (w for w in weights if isinstance(w, Stored) and w.source is source)
    start = 0

    def add_until(end: int) -> None:
        pieces.append(Stored("", TensorProto.UINT8, (end - start,), source=source, offset=start))

    for weight in sorted(own, key=lambda weight: weight.offset):
        add_until(weight.offset)
        pieces.append(weight)
        start = weight.offset + weight.nbytes
    add_until(len(source.view))
    return pieces


def write_plain(path: Path, pieces: Pieces, *, force: bool) -> None:
    """Write any file in pieces, as carefully as a model. Raises :class:`OutputError`."""
    check_target(path, force)
    final = followed(path)
    with reported(path), draft_folder(final.parent) as folder:
        draft = folder / final.name
        _write_file(draft, path, pieces)
        place_file(draft, final, force)


def _write_file(draft: Path, target: Path, pieces: Pieces, *, hashed: bool = False) -> None:
    """Write and flush a draft of ``target``; ``hashed``: each weight knows its digest then."""
    total = sum(piece.nbytes for piece in pieces)
    writing = work(
        f"writing {target.name}", total, in_bytes=True, measure=lambda: draft.stat().st_size
    )
    with writing, open(draft, "xb", buffering=1 << 20) as file, ThreadPoolExecutor(1) as helper:
        for piece in _joined(pieces, hashed):
            if isinstance(piece, _Run):
                piece.file.copy(piece.start, piece.end, file)
            elif isinstance(piece, Weight):
                file.writelines(piece.examined(True, helper) if hashed else piece.chunks())
            else:
                file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    if draft.stat().st_size != total:
        raise _not_as_written(target)


@dataclass
class _Run:
    """Bytes of a file that are copied as they are."""

    file: OpenFile
    start: int
    end: int

    def join(self, other: _Run, between: Sequence[memoryview]) -> bool:
        """Extend it by another one, if these bytes lie between the two there; else return False."""
        gap = sum(piece.nbytes for piece in between)
        if other.file is not self.file or other.start - self.end != gap or gap > _COARSE:
            return False
        if self.file[self.end : other.start] != b"".join(between):
            return False
        self.end = other.end
        return True


def _joined(pieces: Pieces, hashed: bool) -> Iterator[memoryview | Weight | _Run]:
    """Yield the pieces, those to be copied as runs; ``hashed``: only if their digest is known."""
    run: _Run | None = None
    between: list[memoryview] = []
    for piece in pieces:
        if isinstance(piece, memoryview):
            between.append(piece)
            continue
        following = None
        if isinstance(piece, Stored) and isinstance(file := piece.source.view, OpenFile):
            known = not hashed or piece.digest is not None
            end = piece.offset + piece.nbytes
            following = _Run(file, piece.offset, end) if known else None
        if run is None or following is None or not run.join(following, between):
            yield from () if run is None else (run,)
            yield from between
            run = following
            if following is None:
                yield piece
        between = []
    yield from () if run is None else (run,)
    yield from between


def _not_as_written(target: Path) -> OutputError:
    return OutputError(
        f"{target}: the written file does not read back as it was written",
        "check the disk, or write to another one",
    )


def _check_written(draft: Path, skeleton: bytes, target: Path) -> None:
    """Read the file's structure again: lengths, nesting and all fields but the payloads.

    What the same scan leaves of the file must be the skeleton that was to be written.
    """
    try:
        again, _ = strip(Source.open(draft).view)
        whole = again == strip(memoryview(skeleton))[0]
    except WireError:
        whole = False
    if not whole:
        raise _not_as_written(target)


def _write_data(
    folder: Path, final: Path, proto: ModelProto, lifted: Mapping[int, Weight], limit: int | None
) -> tuple[ModelProto, list[Path]]:
    """Write the data files of a model; return the skeleton that refers to them, and the files.

    Their name is a digest of the digests of all tensors, which may be known without reading them,
    and of what lies in which file.
    """
    small = deepcopy(proto)
    files = divided(dict(sorted(lifted.items())), limit, _alignment)
    drafts: list[Path] = []
    for number, offsets in enumerate(files):
        pieces: list[memoryview | Weight] = []
        end = 0
        for index, offset in offsets.items():
            pieces += [_PADDING[: offset - end], lifted[index]]
            end = offset + lifted[index].nbytes
            tensor = small.graph.initializer[index]
            clear_data(tensor)
            tensor.data_location = TensorProto.EXTERNAL
            place = {"location": "", "offset": offset, "length": lifted[index].nbytes}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
        drafts.append(folder / f"{final.name}.{number}.data")
        _write_file(drafts[-1], final, pieces, hashed=True)
    digest = sha256(b"".join(lifted[index].digest or b"" for file in files for index in file))
    if len(files) > 1:
        digest.update(repr([len(file) for file in files]).encode())
    name = data_name(final.name, digest.hexdigest())
    data = [folder / shard_name(name, number + 1, len(files)) for number in range(len(files))]
    for draft, named, offsets in zip(drafts, data, files, strict=True):
        os.rename(draft, named)
        for index in offsets:
            small.graph.initializer[index].external_data[0].value = named.name
    return small, data


def _alignment(weight: Weight) -> int:
    return _COARSE if weight.nbytes >= _WORTH_MAPPING else _FINE
