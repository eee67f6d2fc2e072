"""What several commands do: load, deliver what was judged, say what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from onnx_net2net.model.model import Model
    from onnx_net2net.verification.draft import Judge

DONE, UNEQUAL = 0, 1


def load(path: Path) -> Model:
    """The model of a file."""
    from onnx_net2net.model.model import load

    return load(path)


def opened(
    path: Path, output: Path | None, *, force: bool, dry_run: bool, read: Iterable[Path] = ()
) -> tuple[Model, Path]:
    """The model to grow, and where the result goes, a place that must be free to be written to."""
    from onnx_net2net.model.atomic_write import check_free

    source = load(path)  # before a name is made of its own: a folder may have none
    target = output or path.with_name(f"{path.stem}-grown.onnx")
    if not dry_run:
        check_free(source, target, force=force, read=read)
    return source, target


def folded(model: Model) -> Model:
    """``model`` with what it computes from weights alone computed."""
    from onnx_net2net.analysis.folding import fold

    return fold(model)


def print_json(value: Any) -> None:
    """One JSON document."""
    import json

    click.echo(json.dumps(value, indent=2))


def deliver_to(
    target: Path, grown: Model, judge: Callable[[Path], bool] | None, force: bool
) -> Path | None:
    """Write ``grown`` if ``judge`` agrees, or none is asked; where it is then."""
    from onnx_net2net.model.atomic_write import deliver

    written = deliver(grown, target, judge=judge or (lambda draft: True), force=force)
    return target if written else None


def show_end(target: Path | None, judge: Judge | None) -> int:
    """Say what onnxruntime says of a grown model, and where it is; the exit code."""
    from onnx_net2net.cli import render
    from onnx_net2net.model.atomic_write import files_of

    click.echo()
    report = judge.report if judge is not None else None
    code = UNEQUAL if judge is not None and target is None else DONE
    if judge is None or report is None:
        click.echo("not written: a dry run" if target is None else "not verified")
    elif code == UNEQUAL:
        click.echo(render.report_text(report))
        problem = "nothing was written, for the grown model does not compute the same"
        click.echo(f"error: {problem}\n  remedy: please report it with the model", err=True)
    else:
        click.echo(render.verified(report) if judge.exact else render.perturbed(report))
    if target is not None:
        click.echo(f"wrote {render.written(files_of(target))}")
    return code
