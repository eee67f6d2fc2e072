"""Atomic writing: a draft becomes the user's file only after that very draft was approved.

    deliver(grown, Path("grown.onnx"), judge=lambda draft: bool(verify(model, draft)))

The draft lies in a folder of its own beside the target, so that it has its final name (which a
model with external data repeats) and can be renamed into place. Whatever happens on the way,
Ctrl-C included, the folder is removed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from onnx_net2net.errors import OutputError
from onnx_net2net.model.drafts import draft_folder
from onnx_net2net.model.model import Model, load
from onnx_net2net.model.placing import (
    check_target,
    followed,
    place_file,
    place_folder,
    place_model,
    reported,
)

__all__ = ["check_free", "deliver", "files_of", "place", "write_text"]


def check_free(source: Model, target: Path, *, force: bool, read: Iterable[Path] = ()) -> None:
    """OutputError unless ``target`` may be written, before any work is done.

    A file that ``source`` is read from, or another one that is ``read``, is never overwritten,
    whatever ``force`` says; nor is a tensor in a folder that is ``read``.
    """
    check_target(target, force)
    for path in (*source.files, *read):
        if target.exists() and path.exists() and _holds(path, target):
            raise OutputError(
                f"{target}: is the source itself", "choose another name for the result"
            )


def _holds(path: Path, target: Path) -> bool:
    if path.is_dir():  # tensors to be fed, one a file
        return target.suffix == ".pb" and os.path.samefile(path, target.parent)
    return os.path.samefile(path, target)


def deliver(
    grown: Model, target: Path, *, judge: Callable[[Path], bool], force: bool = False
) -> bool:
    """Write ``grown`` to ``target`` if ``judge`` agrees to the written draft; whether it did.

    Raises OutputError, and what ``judge`` raises; then, too, nothing is left behind.
    """
    check_target(target, force)
    final = followed(target)
    with _drafts_beside(final, target) as folder:
        draft = folder / final.name
        _save(grown, draft, target)
        if not judge(draft):
            return False
        with reported(target):
            data = next((file for file in folder.iterdir() if file != draft), None)
            place_model(draft, data, final, force)
    return True


def place(
    target: Path,
    *,
    write: Callable[[Path], object],
    judge: Callable[[Path], bool] = lambda draft: True,
    entry: str = "",
    force: bool = False,
) -> bool:
    """Let ``write`` make a draft, file or folder, and move it to ``target`` if ``judge`` agrees.

    A folder's files go into a folder that exists, over files of the same names with ``force``;
    ``entry`` is the one that refers to the others. Raises OutputError, and what the two raise; then
    nothing is left behind.
    """
    if not target.is_dir():
        check_target(target, force)
    final = followed(target)
    with _drafts_beside(final, target) as folder:
        draft = folder / final.name
        with reported(target):
            write(draft)
        if not judge(draft):
            return False
        with reported(target):
            if draft.is_dir():
                place_folder(draft, final, entry, force)
            else:
                place_file(draft, final, force)
    return True


@contextmanager
def _drafts_beside(final: Path, target: Path) -> Iterator[Path]:
    with ExitStack() as stack:
        with reported(target):
            folder = stack.enter_context(draft_folder(final.parent))
        yield folder


def _save(grown: Model, draft: Path, target: Path) -> None:
    try:
        grown.save(draft)
    except OutputError as error:
        # The user asked for the target and shall read of no other file.
        raise OutputError(error.problem.replace(str(draft), str(target)), error.remedy) from error


def files_of(model: Path) -> list[Path]:
    """The file of a model that was written here, and its data file if it has one."""
    data = {file.name for file in load(model).files if not os.path.samefile(file, model)}
    return [model, *(model.with_name(name) for name in sorted(data))]


def write_text(path: Path, text: str, *, force: bool) -> None:
    """Write a small text file; OutputError if that fails, and then nothing changed."""
    place(path, write=lambda draft: draft.write_text(text, encoding="utf-8"), force=force)
