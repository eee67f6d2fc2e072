"""``export`` and ``absorb``: into the frameworks, and trained weights back into the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_net2net.cli.options import FORCE, JSON, PATH
from onnx_net2net.cli.outcome import DONE, UNEQUAL, load, print_json
from onnx_net2net.errors import UsageError

if TYPE_CHECKING:
    from onnx_net2net.verification.report import Report

_SUFFIX = {"torch": "-torch", "keras": ".keras", "safetensors": ".safetensors"}


@click.command()
@click.argument("model", type=PATH)
@click.option(
    "--to",
    "framework",
    type=click.Choice(list(_SUFFIX)),
    required=True,
    help="torch: a folder with model.py and model.safetensors; keras: a .keras file; "
    "safetensors: the weights under their author's names.",
)
@click.option(
    "-o", "--output", metavar="PATH", type=PATH, help="What to write.  [default: beside MODEL]"
)
@click.option(
    "--like",
    metavar="PATH",
    type=PATH,
    help="With --to safetensors: the original weights, to recover lost names from.",
)
@click.option(
    "--base",
    metavar="PATH",
    type=PATH,
    help="With --like: the ONNX file that was exported from them.",
)
@click.option(
    "--layout",
    type=click.Choice(["nchw", "nhwc"]),
    help="With --to keras: where images have their channels.  [default: as in MODEL]",
)
@click.option("--no-verify", is_flag=True, help="Write without comparing with onnxruntime.")
@FORCE
@JSON
def export(
    model: Path,
    framework: str,
    output: Path | None,
    like: Path | None,
    base: Path | None,
    layout: str | None,
    no_verify: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Write a model for PyTorch or Keras, to train on, or its weights alone.

    What is written is loaded again and must compute what onnxruntime says MODEL does, else it is
    removed.

    \b
    onnx-net2net export grown.onnx --to torch -o grown/
    onnx-net2net export grown.onnx --to keras -o grown.keras
    onnx-net2net export grown.onnx --to safetensors -o grown.safetensors
    onnx-net2net export grown.onnx --to safetensors --like original.safetensors --base model.onnx

    The PyTorch package is code to read and to change. With a .keras file comes a Python file of the
    layers that Keras does not have, if there are any. Neither needs MODEL or this program.
    """  # fmt: skip
    source = load(model)
    target = output or model.with_name(model.stem + _SUFFIX[framework])
    _check_options(framework, target, layout, like, base)
    if framework == "keras":
        from onnx_net2net.frameworks.keras.quiet import import_keras

        import_keras()
    report, unverified = None, "--no-verify" if no_verify else None
    epsilons: Sequence[str] = ()
    files = [target]
    if framework != "torch":
        from onnx_net2net.model.atomic_write import check_free

        check_free(source, target, force=force, read=filter(None, (like, base)))
    if framework == "safetensors":
        from onnx_net2net.frameworks.state_dict import save_safetensors
        from onnx_net2net.widening.epsilons import epsilon_lines

        save_safetensors(source, target, like, None if base is None else load(base), force=force)
        epsilons = epsilon_lines(source.history)
    else:
        from onnx_net2net.frameworks.export import unjudged, write

        unverified = unverified or unjudged(source)
        report, files = write(
            source, framework, target, force=force, verify=not no_verify, layout=layout or "nchw"
        )
    return _show(files, report, unverified, epsilons, as_json)


def _check_options(
    framework: str, target: Path, layout: str | None, like: Path | None, base: Path | None
) -> None:
    """Raise UsageError for options of another framework, and for a name that Keras cannot write."""
    if framework != "safetensors" and (like or base):
        raise UsageError("--like and --base go with --to safetensors", "leave them out")
    if framework != "keras" and layout:
        raise UsageError("--layout goes with --to keras", "leave it out")
    if framework == "keras" and target.suffix != ".keras":
        raise UsageError(f"{target}: Keras writes .keras files", "choose a name that ends so")


def _show(
    files: list[Path],
    report: Report | None,
    unverified: str | None,
    epsilons: Sequence[str],
    as_json: bool,
) -> int:
    """Say what was written, or why nothing was; return the exit code."""
    from onnx_net2net.cli import render, render_report

    done = report is None or report.equivalent
    if as_json:
        values: dict[str, Any] = {"verification": None if report is None else report.as_dict()}
        values |= {"unverified": unverified} if unverified else {}
        values |= {"epsilons": list(epsilons)} if epsilons else {}
        values |= {"layers": str(files[1])} if done and files[1:] else {}
        print_json({**values, "output": str(files[0]) if done else None})
        return DONE if done else UNEQUAL
    if report is not None:
        click.echo(render_report.verified(report) if done else render_report.report_text(report))
    elif unverified:
        click.echo(f"not verified: {unverified}")
    for line in epsilons:
        click.echo(f"{line}: set it in the author's class")
    if not done:
        problem = "nothing was written, for the exported network does not compute the same"
        click.echo(f"error: {problem}\n  remedy: please report it with the model", err=True)
        return UNEQUAL
    click.echo(f"wrote {render.written(files)}")
    if files[1:]:
        click.echo(
            f"import {files[1].stem} before Keras loads {files[0].name}: it needs Keras alone"
        )
    return DONE


@click.command()
@click.argument("model", type=PATH)
@click.argument("weights", type=PATH)
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    type=PATH,
    help="The file to write.  [default: MODEL-trained.onnx beside it]",
)
@click.option("--cast", is_flag=True, help="Convert weights of another precision.")
@click.option("--ignore", metavar="GLOB", multiple=True, help="Names to leave out; repeats.")
@FORCE
@JSON
def absorb(
    model: Path,
    weights: Path,
    output: Path | None,
    cast: bool,
    ignore: tuple[str, ...],
    force: bool,
    as_json: bool,
) -> int:
    """Write trained weights back into the ONNX file they came from: same graph, new values.

    WEIGHTS is a .safetensors, .npz, .pt or .keras file that holds every parameter and BatchNorm
    statistic of MODEL, under its name in the file or in the exported module.

    \b
    onnx-net2net absorb grown.onnx trained.safetensors -o trained.onnx
    onnx-net2net absorb grown.onnx trained.keras
    """  # fmt: skip
    from onnx_net2net.frameworks.absorb import absorb as filled
    from onnx_net2net.model.atomic_write import check_free, deliver, files_of

    source = load(model)
    target = output or model.with_name(f"{model.stem}-trained.onnx")
    check_free(source, target, force=force, read=[weights])
    given: Any = weights
    if weights.suffix == ".keras":
        from onnx_net2net.frameworks.export import load_keras
        from onnx_net2net.frameworks.keras.quiet import import_keras

        import_keras()
        given = load_keras(weights, source)
    trained = filled(source, given, cast=cast, ignore=ignore)
    deliver(trained, target, judge=lambda draft: True, force=force)
    changed = trained.history[-1]["weights"]
    if as_json:
        print_json({"weights": changed, "output": str(target)})
        return DONE
    from onnx_net2net.cli import render

    click.echo(f"{changed} weights have new values")
    click.echo(f"wrote {render.written(files_of(target))}")
    return DONE
