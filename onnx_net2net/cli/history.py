"""``history`` and ``diff``: where a model came from, and what sets two models apart."""

from __future__ import annotations

from pathlib import Path

import click

from onnx_net2net.cli.options import FORCE, JSON, PATH
from onnx_net2net.cli.outcome import DONE, UNEQUAL, load, print_json
from onnx_net2net.errors import UsageError


@click.command()
@click.argument("model", type=PATH)
@click.option(
    "--replay", metavar="PARENT", type=PATH, help="Grow PARENT again, as the history of MODEL says."
)
@click.option("-o", "--output", metavar="PATH", type=PATH, help="With --replay: the file to write.")
@FORCE
@JSON
def history(
    model: Path, replay: Path | None, output: Path | None, force: bool, as_json: bool
) -> int:
    """Show how a model was grown, step by step; or grow its parent again.

    The result of --replay is the same file, byte for byte.

    \b
    onnx-net2net history grown.onnx
    onnx-net2net history grown.onnx --replay model.onnx -o again.onnx
    """  # fmt: skip
    source = load(model)
    if (replay is None) != (output is None):
        raise UsageError("--replay and -o go together", "give both, or neither")
    from onnx_net2net.cli import render

    if replay is None or output is None:
        if as_json:
            print_json({"history": source.history, "sha256": source.sha256()})
        else:
            click.echo(render.history_text(source))
        return DONE
    from onnx_net2net.model.atomic_write import check_free, deliver, files_of
    from onnx_net2net.plan.steps import replay as grow_again

    parent = load(replay)
    check_free(parent, output, force=force)
    again = grow_again(parent, source.history)
    deliver(again, output, judge=lambda draft: True, force=force)
    if as_json:
        print_json({"output": str(output), "sha256": again.sha256()})
    else:
        click.echo(f"wrote {render.written(files_of(output))}, sha256 {again.sha256()}")
    return DONE


@click.command()
@click.argument("first", metavar="A", type=PATH)
@click.argument("second", metavar="B", type=PATH)
@JSON
def diff(first: Path, second: Path, as_json: bool) -> int:
    """List what sets two models apart: operators, widths, parameters and weights.

    Exit code 0 if nothing does, else 1.

    \b
    onnx-net2net diff model.onnx grown.onnx
    """
    from onnx_net2net.cli import render
    from onnx_net2net.plan.diff import diff as compare

    difference = compare(load(first), load(second))
    if as_json:
        print_json(difference.as_dict())
    else:
        click.echo(render.diff_text(difference))
    return DONE if difference.alike else UNEQUAL
