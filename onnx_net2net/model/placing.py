"""Finished drafts become the user's files: at every instant the old ones are there or the new.

    check_target(path, force=False)              # before any work is done
    final = followed(path)                       # what a link leads to, not the link
    place_model(draft, [data], final, force=False)

A model with external data is several files, and no two renames are one. So the data files have
names of their own, ``<model>.<digest of their contents>.data`` or, of several,
``<model>.<digest>-00001-of-00003.data``: they are renamed into place first, beside the old ones;
then the model, which refers to them; then the old data goes, unless another model needs it. The
digest makes the same growth give the same files again, byte for byte.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto

from onnx_net2net.errors import InvalidModel, OutputError
from onnx_net2net.model.drafts import locked
from onnx_net2net.model.tensors import attribute_tensors, is_external
from onnx_net2net.model.weights import Source
from onnx_net2net.model.wire import WireError, strip

__all__ = [
    "check_target", "data_name", "followed", "place_file", "place_folder", "place_model",
    "reported",
]  # fmt: skip

_TOKEN = "[0-9a-f]{16}"
_REMEDIES = {
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "free some space or choose another folder",
    errno.EFBIG: "raise the file size limit (ulimit -f) or choose another file system",
    errno.EROFS: "choose another folder",
    errno.EACCES: "choose another folder or change its permissions",
    errno.EPERM: "choose another folder or change its permissions",
    errno.ENAMETOOLONG: "choose a shorter name",
}


@contextlib.contextmanager
def reported(path: Path) -> Iterator[None]:
    """Raise failures of the file system as :class:`OutputError`, which names the file asked for."""
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> OutputError:
    remedy = _REMEDIES.get(error.errno or 0, "choose another folder")
    return OutputError(f"{path}: cannot be written: {error.strerror or error}", remedy)


def check_target(path: Path, force: bool) -> None:
    """Raise unless a file may be created, or with ``force`` replaced, at ``path``."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:  # nothing is there, or a link that leads nowhere
        if path.is_symlink() and not force:
            raise _exists(path) from None
        folder = followed(path).parent
        if not folder.is_dir():
            state = "is not a folder" if folder.exists() else "does not exist"
            problem = f"{path}: the folder {folder} {state}"
            raise OutputError(problem, "create it or choose another") from None
        return
    except NotADirectoryError:
        raise OutputError(
            f"{path}: {path.parent} is not a folder", "choose another folder"
        ) from None
    except ValueError as error:  # a null byte
        raise OutputError(f"{str(path)!r}: {error}", "choose another name") from None
    except OSError as error:
        raise _unwritable(path, error) from None
    if stat.S_ISDIR(mode):
        raise OutputError(f"{path}: is a folder", "give the name of a file in it")
    if not stat.S_ISREG(mode):
        raise OutputError(f"{path}: is not a regular file", "give the name of a file")
    if not force:
        raise _exists(path)


def _exists(path: Path) -> OutputError:
    return OutputError(f"{path}: exists already", "choose another name, or overwrite (--force)")


def followed(path: Path) -> Path:
    """Return the file that a link leads to, over any number of links; other paths as they are."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def data_name(model: str, digest: str) -> str:
    """Return the name of a model's data file, by the digest of its contents."""
    return f"{model}.{digest[:16]}.data"


def place_file(draft: Path, final: Path, force: bool) -> None:
    """Rename a finished draft, of any kind of file, into place."""
    check_target(final, force)  # again, for somebody else may have made a file of that name
    _like_the_old(draft, final)
    os.replace(draft, final)
    _sync_folder(final.parent)


def place_model(draft: Path, data: Sequence[Path], final: Path, force: bool) -> None:
    """Rename a model, and its data files if it has any, into place; drop what they replace."""
    with locked(final.parent) as alone:
        check_target(final, force)
        replaced = final.exists()
        old = _data_of(final) if replaced else set()
        targets = [final.with_name(file.name) for file in data]
        new = [target for target in targets if not target.exists()]
        try:
            for file, target in zip(data, targets, strict=True):
                check_target(target, force=True)
                _like_the_old(file, final)
                os.replace(file, target)  # of the same name are the same contents, if whole
                _sync_folder(target.parent)
            place_file(draft, final, force)
        except BaseException:
            if draft.exists():
                _unlink(new)
            raise
        if alone and replaced:
            _remove_unused(final, old or set(), keep={target.name for target in targets})


def _like_the_old(draft: Path, final: Path) -> None:
    """Give a draft the permissions and the owner of the file that it replaces."""
    try:
        old = os.stat(final)
    except FileNotFoundError:
        return  # as any new file
    new = os.stat(draft)
    if hasattr(os, "chown") and (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        with contextlib.suppress(OSError):  # root may; others keep what they made
            os.chown(draft, old.st_uid, old.st_gid)
    os.chmod(draft, stat.S_IMODE(old.st_mode))


def _data_of(path: Path) -> set[str] | None:
    """Return the data files that a model file refers to; None where it cannot be looked at."""
    if not path.is_file():
        return set()
    try:
        proto = ModelProto.FromString(strip(Source.open(path).view)[0])
    except (WireError, DecodeError):
        return set()  # no model at all
    except (OSError, InvalidModel):
        return None
    tensors = (*proto.graph.initializer, *attribute_tensors(proto))
    entries = [entry for tensor in tensors if is_external(tensor) for entry in tensor.external_data]
    return {os.path.normpath(entry.value) for entry in entries if entry.key == "location"}


def _remove_unused(final: Path, old: set[str], keep: set[str]) -> None:
    """Remove data files that were written for ``final`` and that no model beside it refers to."""
    own = re.compile(rf"{re.escape(final.name)}\.{_TOKEN}(-\d{{5}}-of-\d{{5}})?\.data")
    with contextlib.suppress(OSError):  # the model is complete; what is left is only in the way
        names = os.listdir(final.parent)
        unused = {name for name in names if own.fullmatch(name)} - keep
        unused |= {f"{final.name}.data"} & old & set(names)
        for name in names if unused else ():
            if name != final.name and not own.fullmatch(name):
                needed = _data_of(final.with_name(name))
                unused = set() if needed is None else unused - needed
        for name in unused:
            final.with_name(name).unlink()


def place_folder(draft: Path, target: Path, entry: str, force: bool) -> None:
    """Put a folder of files into place, ``entry`` naming the others, as :func:`place_model` does.

    Where ``entry`` exists, two of it are put there. First one that refers to the other files under
    names of their own; once nothing needs the old ones, those are replaced, and then ``entry``.
    Where no file names the others (``entry`` is empty), the folder itself is exchanged.
    """
    if not os.path.lexists(target):
        os.rename(draft, target)
        _sync_folder(target.parent)
        return
    names = sorted(file.name for file in draft.iterdir() if file.name != entry)
    for name in (*names, entry) if entry else names:
        check_target(target / name, force)
    with locked(target):
        for name in names:
            _like_the_old(draft / name, target / name)
        if not entry:
            _swap(draft, target)
            return
        put = _exchange if (target / entry).exists() else _add
        put(draft, target, names, entry)


def _add(draft: Path, target: Path, names: Sequence[str], entry: str) -> None:
    """Put files into a folder without ``entry``, which comes last: it alone refers to them."""
    new = [target / name for name in names if not (target / name).exists()]
    try:
        for name in (*names, entry):
            _replace(draft / name, target / name)
    except BaseException:
        if not (target / entry).exists():
            _unlink(new)
        raise


def _exchange(draft: Path, target: Path, names: Sequence[str], entry: str) -> None:
    """Put files over those of a folder whose ``entry`` refers to them."""
    bridge = _bridge(draft, names, entry)
    try:
        for name in bridge.values():
            _replace(draft / name, target / name)
        _replace(draft / f"{entry}.bridge", target / entry)
    except BaseException:
        if (draft / f"{entry}.bridge").exists():
            _unlink(target / name for name in bridge.values())
        raise
    # From here on the new package is there; this only gives it its usual names.
    with contextlib.suppress(OSError):
        for name in (*names, entry):
            _replace(draft / name, target / name)
        old = re.compile("|".join(_bridged(re.escape(name), _TOKEN) for name in names) or "(?!)")
        _unlink(file for file in target.iterdir() if old.fullmatch(file.name))


def _swap(draft: Path, target: Path) -> None:
    """Put a folder in the place of another one, and take over what that holds besides.

    The old folder lies beside it, whole, until the new one is there; a process that is killed in
    between leaves it there, so that no instant sees files of both.
    """
    for path in target.iterdir():
        if os.path.lexists(draft / path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, draft / path.name, symlinks=True, copy_function=_link)
        else:
            _link(path, draft / path.name)
    shutil.copymode(target, draft)
    old = target.with_name(f"{target.name}.{secrets.token_hex(4)}.old")
    try:
        os.rename(target, old)
        os.rename(draft, target)
    finally:
        if os.path.lexists(target):
            shutil.rmtree(old, ignore_errors=True)
        elif os.path.lexists(old):
            os.rename(old, target)
        _sync_folder(target.parent)


def _link(source: str | Path, target: str | Path) -> None:
    """Give a file a second name, or copy it where the file system has no links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):
        shutil.copy2(source, target, follow_symlinks=False)


def _replace(draft: Path, target: Path) -> None:
    place_file(draft, followed(target), force=True)


def _bridge(draft: Path, names: Iterable[str], entry: str) -> dict[str, str]:
    """Make copies of the files under names of their own, and an entry that refers to those."""
    token = secrets.token_hex(8)
    names_for = {name: _bridged(name, token) for name in names}
    text = (draft / entry).read_text(encoding="utf-8")
    for name, other in names_for.items():
        text = text.replace(name, other)
        try:
            os.link(draft / name, draft / other)
        except OSError:
            shutil.copy(draft / name, draft / other)
    (draft / f"{entry}.bridge").write_text(text, encoding="utf-8")
    return names_for


def _bridged(name: str, token: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}.{token}{dot}{suffix}"


def _unlink(files: Iterable[Path]) -> None:
    with contextlib.suppress(OSError):
        for file in files:
            file.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power failure, where the system can."""
    # Some file systems cannot; the file itself is complete and flushed.
    with contextlib.suppress(OSError):
        if os.name == "posix":
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
