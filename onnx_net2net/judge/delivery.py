"""A grown model becomes a file only after that very file has been judged.

    report = deliver(grown, Path("grown.onnx"), judge=lambda draft: verify(model, draft))

The draft lies in a folder of its own beside the target, so that it has its final name (which a
model with external data repeats) and can be renamed into place. Whatever happens on the way,
Ctrl-C included, the folder is removed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_net2net.errors import InvalidModel, OutputError, Refused, UsageError
from onnx_net2net.files.drafts import draft_folder
from onnx_net2net.files.placing import (
    check_target,
    followed,
    place_file,
    place_folder,
    place_model,
    reported,
)
from onnx_net2net.model import Model, load

if TYPE_CHECKING:
    from onnx_net2net.judge.report import Report

__all__ = ["Judge", "check_free", "deliver", "files_of", "place", "write_text"]


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
