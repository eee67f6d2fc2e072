"""Atomic writing: a draft becomes the user's file only after that very draft was approved.

    deliver(grown, Path("grown.onnx"), judge=lambda draft: bool(verify(model, draft)))

The draft lies in a folder of its own beside the target, so that it has its final name (which a
model with external data repeats) and can be renamed into place. Whatever happens on the way,
Ctrl-C included, the folder is removed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
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
    """Raise OutputError unless ``target`` may be written, before any work is done.

    A file that ``source`` is read from, or another one that is ``read``, is never overwritten,
    whatever ``force`` says; nor is a tensor in a folder that is ``read``.
    """
    check_target(target, force)
    for path in (*source.files, *read) if target.exists() else ():
        if path.is_dir() and target.suffix != ".pb":
            continue
        # A folder holds tensors to be fed, one a file.
        if path.exists() and os.path.samefile(path, target.parent if path.is_dir() else target):
            raise OutputError(
                f"{target}: is the source itself", "choose another name for the result"
            )


def deliver(
    grown: Model,
    target: Path,
    *,
    judge: Callable[[Path], bool],
    force: bool = False,
    shards: int | None = None,
) -> bool:
    """Write ``grown`` to ``target`` if ``judge`` agrees to the draft; return whether it did.

    ``shards`` is the size of its data files, as in :meth:`Model.save`.
    Raises OutputError, and what ``judge`` raises; then, too, nothing is left behind.
    """

    def write(draft: Path) -> None:
        try:
            grown.save(draft, shards=shards)
        except OutputError as error:
            # The user asked for the target and shall read of no other file.
            problem = error.problem.replace(str(draft), str(target))
            raise OutputError(problem, error.remedy) from error

    check_target(target, force)
    return place(target, write=write, judge=judge, is_model=True, force=force)


def place(
    target: Path,
    *,
    write: Callable[[Path], object],
    judge: Callable[[Path], bool] = lambda draft: True,
    entry: str = "",
    is_model: bool = False,
    force: bool = False,
) -> bool:
    """Let ``write`` make a draft, file or folder, and move it to ``target`` if ``judge`` agrees.

    A model may have data files beside it. A folder's files go into a folder that exists, over
    files of the same names with ``force``; ``entry`` is the one that refers to the others, if any
    does. Raises
    OutputError, and what the two raise; then nothing is left behind.
    """
    if not target.is_dir():
        check_target(target, force)
    final = followed(target)
    with ExitStack() as stack:
        with reported(target):
            folder = stack.enter_context(draft_folder(final.parent))
            draft = folder / final.name
            write(draft)
        if not judge(draft):
            return False
        with reported(target):
            if draft.is_dir():
                place_folder(draft, final, entry, force)
            elif is_model:
                data = sorted(file for file in folder.iterdir() if file != draft)
                place_model(draft, data, final, force)
            else:
                place_file(draft, final, force)
    return True


def files_of(model: Path) -> list[Path]:
    """Return the file of a model that was written here, and its data files if it has any."""
    data = {file.name for file in load(model).files if not os.path.samefile(file, model)}
    return [model, *(model.with_name(name) for name in sorted(data))]


def write_text(path: Path, text: str, *, force: bool) -> None:
    """Write a small text file; OutputError if that fails, and then nothing changed."""
    place(path, write=lambda draft: draft.write_text(text, encoding="utf-8"), force=force)
