"""A grown model becomes a file only after that very file has been judged.

    report = deliver(grown, Path("grown.onnx"), judge=lambda draft: verify(model, draft))

The draft lies in a folder of its own beside the target, so that it has its final name (which a
model with external data repeats) and can be renamed into place. Whatever happens on the way,
Ctrl-C included, the folder is removed.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_net2net.errors import InvalidModel, OutputError, Refused, UsageError
from onnx_net2net.files.saving import Files, check_target
from onnx_net2net.model import Model

if TYPE_CHECKING:
    from onnx_net2net.judge.report import Report

__all__ = ["Judge", "check_free", "deliver", "place", "write_text"]

_REMEDY = "choose another folder, or check its permissions and free space"


def check_free(source: Model, target: Path, *, force: bool, read: Iterable[Path] = ()) -> None:
    """OutputError unless ``target`` may be written, before any work is done.

    A file that ``source`` is read from, or another one that is ``read``, is never overwritten,
    whatever ``force`` says.
    """
    check_target(target, force)
    for path in (*source.files, *read):
        for written in (target, _data_of(target)):
            there = os.path.exists(written) and os.path.exists(path)
            if there and os.path.samefile(written, path):
                raise OutputError(
                    f"{written}: is the source itself", "choose another name for the result"
                )


def deliver(
    grown: Model, target: Path, *, judge: Callable[[Path], bool], force: bool = False
) -> bool:
    """Write ``grown`` to ``target`` if ``judge`` agrees to the written draft; whether it did.

    Raises OutputError, and what ``judge`` raises; then, too, nothing is left behind.
    """
    check_target(target, force)
    with _folder_beside(target) as folder:
        draft = folder / target.name
        _save(grown, draft, target)
        if not judge(draft):
            return False
        _move(draft, target, force)
    return True


def place(
    target: Path,
    *,
    write: Callable[[Path], None],
    judge: Callable[[Path], bool],
    force: bool = False,
) -> bool:
    """Let ``write`` make a draft, file or folder, and move it to ``target`` if ``judge`` agrees.

    A folder's files go into a folder that exists, over files of the same names with ``force``.
    Raises OutputError, and what the two raise; then nothing is left behind.
    """
    if not (force or target.is_dir()):
        check_target(target, force)
    with _folder_beside(target) as folder:
        draft = folder / target.name
        try:
            write(draft)
        except OSError as error:
            raise _unwritable(target, error) from error
        if not judge(draft):
            return False
        _move_files(draft, target, force)
    return True


def _move_files(draft: Path, target: Path, force: bool) -> None:
    moves = [(draft, target)]
    if draft.is_dir():
        moves = [(file, target / file.name) for file in sorted(draft.iterdir()) if file.is_file()]
    try:
        if draft.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        for _, final in moves:
            check_target(final, force)
        for file, final in moves:
            os.replace(file, final)
    except OSError as error:
        raise _unwritable(target, error) from error


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """An empty folder next to ``target``, removed in the end with all that is in it."""
    # The name comes first: an interruption just behind the mkdir must know what to remove.
    folder = target.with_name(f".onnx-net2net.{secrets.token_hex(6)}.tmp")
    try:
        try:
            folder.mkdir()
        except OSError as error:
            raise _unwritable(target, error) from error
        yield folder
    finally:
        try:
            _remove(folder)
        finally:
            _remove(folder)  # again, for the first may have been interrupted itself


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _unwritable(target: Path, error: OSError) -> OutputError:
    return OutputError(f"{target}: cannot be written: {error.strerror or error}", _REMEDY)


def _save(grown: Model, draft: Path, target: Path) -> None:
    try:
        grown.save(draft)
    except OutputError as error:
        # The user asked for the target and shall read of no other file.
        raise OutputError(error.problem.replace(str(draft), str(target)), error.remedy) from error


def _move(draft: Path, target: Path, force: bool) -> None:
    """Rename the draft, and the data file beside it if there is one, into place."""
    try:
        with Files(force) as files:
            if os.path.exists(_data_of(draft)):  # no for a name that is too long
                check_target(_data_of(target), force)
                files.renames.append((_data_of(draft), _data_of(target)))
            files.renames.append((draft, target))
            files.commit()
    except OSError as error:
        raise _unwritable(target, error) from error


def _data_of(path: Path) -> Path:
    return path.with_name(path.name + ".data")


def write_text(path: Path, text: str) -> None:
    """Write or replace a small text file; OutputError if that fails, and then nothing changed."""
    with _folder_beside(path) as folder:
        draft = folder / path.name
        try:
            draft.write_text(text, encoding="utf-8")
            os.replace(draft, path)
        except OSError as error:
            raise _unwritable(path, error) from error


class Judge:
    """Asks onnxruntime whether a written draft computes what ``source`` does.

    ``exact=False`` is for growth with noise: the size of the difference is reported, and only a
    model that does not run, or whose outputs are of another kind, is turned down.
    """

    def __init__(self, source: Model, *, exact: bool, arguments: Mapping[str, Any]) -> None:
        self.source = source
        self.exact = exact
        self.arguments = arguments
        self.report: Report | None = None

    def __call__(self, draft: Path) -> bool:
        from onnx_net2net.judge.verify import verify

        try:
            self.report = verify(self.source, draft, **self.arguments)
        except InvalidModel as error:
            self._blame(error)
            raise
        except UsageError as error:
            remedy = f"{error.remedy}; or write it unverified (--no-verify)"
            problem = f"the grown model cannot be verified: {error.problem}"
            raise UsageError(problem, remedy) from None
        self.report.problems += self.report.casts  # growing changes no types
        return self.report.equivalent if self.exact else _comparable(self.report)

    def _blame(self, error: InvalidModel) -> None:
        """Raise Refused if it is the draft that cannot be run: then the source runs by itself."""
        from onnx_net2net.judge.verify import verify

        verify(self.source, self.source, **{**self.arguments, "seeds": 1})
        raise Refused(
            None,
            f"the grown model was not written, for {error.problem}",
            "this is a defect: please report it with the model",
        ) from error


def _comparable(report: Report) -> bool:
    ran = bool(report.outputs) and not report.problems
    return (
        ran
        and all(output.differences for output in report.outputs)
        and not any(
            difference.problem and difference.used <= 1  # its shape, its type, NaN
            for output in report.outputs
            for difference in output.differences
        )
    )
