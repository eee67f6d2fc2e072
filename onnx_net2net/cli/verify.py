"""``verify``: do two models compute the same?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_net2net.cli.options import (
    FORCE,
    JSON,
    PATH,
    RUNNING,
    NamedValue,
    together,
    verify_arguments,
)
from onnx_net2net.cli.outcome import DONE, UNEQUAL, load, print_json
from onnx_net2net.errors import UsageError

if TYPE_CHECKING:
    from onnx_net2net.model.model import Model
    from onnx_net2net.verification.report import Report

TERMS = together(
    click.option("--rtol", metavar="[NAME=]X", multiple=True,
                 type=NamedValue(float, "NAME=1e-3 or 1e-3"),
                 help="Relative tolerance, of an output or of all, where it exceeds rounding "
                      "noise."),
    click.option("--atol", metavar="[NAME=]X", multiple=True,
                 type=NamedValue(float, "NAME=1e-5 or 1e-5"),
                 help="Absolute tolerance, likewise. Both together replace the measured noise by "
                      "atol + rtol * |A's output|, as in numpy.allclose."),
    click.option("--as", "precision", metavar="TYPE",
                 help="fp16: B may differ by what a copy of A in float16 does."),
    click.option("--require", metavar="[NAME=]MEASURE>=X", multiple=True,
                 help="What must hold besides: cosine, sqnr, psnr (decibels) or top1 >= X; max, "
                      "mean, median, p90, p99 (quantiles of differences) or relative <= X."),
    click.option("--require-only", is_flag=True,
                 help="What is required decides in place of rounding noise."),
)  # fmt: skip
MATCHING = together(
    click.option("--by-position", is_flag=True,
                 help="Match inputs and outputs by position, not by name."),
    click.option("--map", "names", metavar="A=B", multiple=True,
                 type=NamedValue(str, "logits=output_0", named=True),
                 help="An input or output of A, and what B calls it."),
)  # fmt: skip
# What is written besides.
FILES = together(
    click.option("--junit", metavar="PATH", type=PATH, help="Write a JUnit XML file, too."),
    click.option("--markdown", metavar="PATH", type=PATH,
                 help="Write a summary in Markdown, too."),
    click.option("--save-inputs", metavar="PATH", type=PATH,
                 help="Write the inputs of all trials to an .npz file, for --inputs."),
    click.option("--save-outputs", metavar="PATH", type=PATH,
                 help="Write the outputs of A to an .npz file, for --against."),
    FORCE,
)  # fmt: skip


@click.command()
@click.argument("first", metavar="A", type=PATH)
@click.argument("second", metavar="[B]", type=PATH, required=False)
@click.option("--against", metavar="PATH", type=PATH,
              help="Outputs that were recorded on the same --inputs, in place of B.")  # fmt: skip
@RUNNING
@TERMS
@MATCHING
@FILES
@click.option("--github", is_flag=True, help="Print annotations for GitHub's workflows, too.")
@click.option("--bisect", metavar="FOLDER", type=PATH,
              help="Where the models differ, write the smallest parts that do: a.onnx, b.onnx and "
                   "inputs.npz.")  # fmt: skip
@click.option("--layers", is_flag=True,
              help="B was grown from A: compare every tensor between, too, and name the first "
                   "node at which they part.")  # fmt: skip
@JSON
def verify(first: Path, second: Path | None, as_json: bool, **options: Any) -> int:
    """Do two models compute the same? onnxruntime runs both on the same inputs.

    What is allowed is rounding noise, measured on the models themselves, and what you allow
    beyond it. Models of other precision (float16) are compared after a cast. Nothing needs to be
    known of how B came about. Without B, what A computes is recorded, or compared with what was.

    \b
    onnx-net2net verify a.onnx b.onnx
    onnx-net2net verify a.onnx b.onnx --size batch=1,8 --range image=0:1 --seeds 10
    onnx-net2net verify a.onnx b.onnx --inputs samples.npz --provider cuda --rtol logits=1e-3
    onnx-net2net verify a.onnx half.onnx --by-position --as fp16
    onnx-net2net verify a.onnx int8.onnx --require 'cosine>=0.999' --require-only
    onnx-net2net verify a.onnx --save-inputs x.npz --save-outputs y.npz
    onnx-net2net verify b.onnx --inputs x.npz --against y.npz
    onnx-net2net verify a.onnx b.onnx --junit report.xml --json
    onnx-net2net verify a.onnx b.onnx --bisect parted
    onnx-net2net verify model.onnx model-grown.onnx --layers
    """  # fmt: skip
    files = {name: options.pop(name) for name in ("junit", "markdown", "save_inputs",
                                                  "save_outputs")}  # fmt: skip
    layers, folder, force, github = map(options.pop, ("layers", "bisect", "force", "github"))
    arguments = _arguments(**options)
    from onnx_net2net.cli.render_report import layers_text, report_text
    from onnx_net2net.verification.verify import verify as judge

    a = load(first)
    recording = bool(files["save_inputs"] or files["save_outputs"])
    b = _second(a, second, options["against"], recording=recording)
    if b is None and (layers or folder is not None):
        raise UsageError("recorded outputs have no graph to look into", "give a second model")
    read = [*(b.files if b is not None else [options["against"]]), *options["inputs"]]
    write = _writer(a, files, read, force=force)
    if folder is not None:
        _check_folder(folder, force=force)
    report = judge(a, b, **arguments)
    write(report)
    parting = place = None
    if layers and b is not None:
        from onnx_net2net.plan.invariant import verify_layers

        parting = verify_layers(a, b, provider=arguments["provider"])
    if folder is not None and b is not None and not report:
        place = _bisected(a, b, report, arguments, folder, force=force)
    if as_json:
        more = {} if parting is None else {"layers": parting.as_dict()}
        print_json(report.as_dict() | more | ({} if folder is None else {"bisect": place}))
    else:
        click.echo("" if parting is None else layers_text(parting) + "\n\n", nl=False)
        click.echo(report_text(report, place))
    click.echo(report.github() if github else "", nl=False)
    return DONE if report and (parting is None or parting) else UNEQUAL


def _second(
    a: Model, second: Path | None, against: Path | None, *, recording: bool
) -> Model | None:
    """Return what A is compared with: B, A itself where it is only recorded, None for a record."""
    if second is not None:
        return load(second)
    if against is None and not recording:
        raise UsageError(
            "there is nothing to compare it with",
            "give a second model, --against outputs.npz, or record it with --save-outputs",
        )
    return a if against is None else None


def _bisected(
    a: Model, b: Model, report: Report, arguments: dict[str, Any], folder: Path, *, force: bool
) -> str:
    """Write the smallest parts that differ into a folder; say where the models part."""
    from onnx_net2net.verification.divergence import locate

    how = {name: arguments[name] for name in ("provider", "by_position", "names")}
    divergence = locate(a, b, report, **how)
    if divergence is None:
        return "nothing smaller than the models differs on equal inputs"
    divergence.save(folder, force=force)
    return f"{divergence} (written to {folder})"


def _check_folder(folder: Path, *, force: bool) -> None:
    """Raise OutputError unless the parts of two models may be written into a folder."""
    from onnx_net2net.model.placing import check_target

    for name in ("a.onnx", "b.onnx", "inputs.npz") if folder.is_dir() else ("",):
        check_target(folder / name, force)


def _arguments(**options: Any) -> dict[str, Any]:
    """Turn options into arguments of :func:`onnx_net2net.verify`."""
    own = {name: options.pop(name) for name in ("against", "by_position", "names", "require",
                                                "require_only", "precision")}  # fmt: skip
    return verify_arguments(**options) | own | {"names": dict(own["names"])}


def _writer(
    a: Model, files: dict[str, Path | None], read: list[Path], *, force: bool
) -> Callable[[Report], None]:
    """Return what writes the ``files``, each named by the method of a report that it is made by.

    Raises OutputError before any work is done if one of them cannot be written.
    """
    from onnx_net2net.model.atomic_write import check_free, write_text

    targets = {name: path for name, path in files.items() if path is not None}
    for path in targets.values():
        check_free(a, path, force=force, read=read)
    if len({path.resolve() for path in targets.values()}) < len(targets):
        raise UsageError("two results are to be written to one file", "give each its own name")

    def write(report: Report) -> None:
        for name, path in targets.items():
            if name.startswith("save_"):
                getattr(report, name)(path, force=force)
            else:
                write_text(path, getattr(report, name)(), force=force)

    return write
