"""What the commands do alike: load, deliver what was judged, say what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_net2net.cli.options import verify_arguments

if TYPE_CHECKING:
    from onnx_net2net.model.model import Model
    from onnx_net2net.verification.draft import Judge

DONE, UNEQUAL = 0, 1


def load(path: Path) -> Model:
    """Return the model of a file."""
    from onnx_net2net.model.model import load

    return load(path)


def folded(model: Model) -> Model:
    """Fold subgraphs that depend on weights only."""
    from onnx_net2net.analysis.folding import fold

    return fold(model)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    import json

    click.echo(json.dumps(value, indent=2))


class Outcome:
    """Where a grown model goes, who judges it, and how it is shown: the options of OUTCOME."""

    def __init__(
        self,
        path: Path,
        *,
        output: Path | None,
        force: bool,
        dry_run: bool,
        no_verify: bool,
        as_json: bool,
        shards: str | None = None,
        read: Iterable[Path] = (),
        **running: Any,
    ) -> None:
        """Load the model to grow; the place of the result must be free to be written to."""
        from onnx_net2net.model.atomic_write import check_free
        from onnx_net2net.model.shards import file_size

        self.shards = None if shards is None else file_size(shards)
        self.arguments = verify_arguments(**running)
        self.force, self.dry_run, self.as_json = force, dry_run, as_json
        self.verify = not (no_verify or dry_run)
        self.source = load(path)  # before a name is made of its own: a folder may have none
        self.target = output or path.with_name(f"{path.stem}-grown.onnx")
        self.read = [*running["inputs"], *read]
        if not dry_run:
            check_free(self.source, self.target, force=force, read=self.read)

    def deliver(
        self,
        grown: Model,
        text: Callable[[], str],
        values: Callable[[], dict[str, Any]],
        *,
        exact: bool,
        count: Callable[[Path], None] = lambda draft: None,
        emit: Callable[[], None] = lambda: None,
        **files: Path | None,
    ) -> int:
        """Write ``grown`` if onnxruntime agrees, say what changed, and return the exit code.

        ``count`` may object to the written draft; ``emit`` writes what belongs to the model: if it
        fails, no model is left behind either. ``files`` are named besides.
        """
        from onnx_net2net.model.atomic_write import deliver
        from onnx_net2net.verification.draft import Judge
        from onnx_net2net.widening.epsilons import epsilon_lines

        judge = Judge(self.source, exact=exact, arguments=self.arguments) if self.verify else None

        def agrees(draft: Path) -> bool:
            count(draft)
            if agreed := judge is None or judge(draft):
                emit()
            return agreed

        written = None
        if self.dry_run:
            emit()
        elif deliver(grown, self.target, judge=agrees, force=self.force, shards=self.shards):
            written = self.target
        code = UNEQUAL if judge is not None and written is None else DONE
        if self.as_json:
            report = judge.report if judge is not None else None
            verification = None if report is None else report.as_dict()
            paths = {name: path and str(path) for name, path in files.items()}
            output = written and str(written)
            print_json({**values(), "verification": verification, "output": output, **paths})
            return code
        told = "\n".join([text(), *epsilon_lines(grown.history[len(self.source.history) :])])
        click.echo(f"{told}\n")
        _show_end(written, judge, code)
        for path in filter(None, files.values()) if code == DONE else ():
            click.echo(f"wrote {path}")
        return code


def _show_end(target: Path | None, judge: Judge | None, code: int) -> None:
    """Say what onnxruntime says of a grown model, and where it is."""
    from onnx_net2net.cli import render, render_report
    from onnx_net2net.model.atomic_write import files_of

    report = judge.report if judge is not None else None
    if judge is None or report is None:
        click.echo("not written: a dry run" if target is None else "not verified")
    elif code == UNEQUAL:
        click.echo(render_report.report_text(report))
        problem = "nothing was written, for the grown model does not compute the same"
        click.echo(f"error: {problem}\n  remedy: please report it with the model", err=True)
    else:
        click.echo(
            render_report.verified(report) if judge.exact else render_report.perturbed(report)
        )
    if target is not None:
        click.echo(f"wrote {render.written(files_of(target))}")
