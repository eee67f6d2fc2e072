"""``verify``: do two models compute the same?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnx_net2net.cli.options import FORCE, JSON, PATH, RUNNING, NamedValue, verify_arguments
from onnx_net2net.cli.outcome import DONE, UNEQUAL, load, print_json


@click.command()
@click.argument("first", metavar="A", type=PATH)
@click.argument("second", metavar="B", type=PATH)
@RUNNING
@click.option(
    "--rtol",
    metavar="[NAME=]X",
    multiple=True,
    type=NamedValue(float, "NAME=1e-3 or 1e-3"),
    help="Relative tolerance, of an output or of all, where it exceeds rounding noise.",
)
@click.option(
    "--atol",
    metavar="[NAME=]X",
    multiple=True,
    type=NamedValue(float, "NAME=1e-5 or 1e-5"),
    help="Absolute tolerance, likewise. Both together replace the measured noise by "
    "atol + rtol * |A's output|, as in numpy.allclose.",
)
@click.option(
    "--by-position", is_flag=True, help="Match inputs and outputs by position, not by name."
)
@click.option("--junit", metavar="PATH", type=PATH, help="Write a JUnit XML file, too.")
@FORCE
@click.option(
    "--layers",
    is_flag=True,
    help="B was grown from A: compare every tensor between, too, and name the first "
    "node at which they part.",
)
@JSON
def verify(
    first: Path,
    second: Path,
    by_position: bool,
    junit: Path | None,
    force: bool,
    layers: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Do two models compute the same? onnxruntime runs both on the same inputs.

    What is allowed is rounding noise, measured on the models themselves, and what you allow
    beyond it. Models of other precision (float16) are compared after a cast. Nothing needs to be
    known of how B came about.

    \b
    onnx-net2net verify a.onnx b.onnx
    onnx-net2net verify a.onnx b.onnx --size batch=1,8 --range image=0:1 --seeds 10
    onnx-net2net verify a.onnx b.onnx --inputs samples.npz --provider cuda --rtol logits=1e-3
    onnx-net2net verify a.onnx half.onnx --by-position --rtol 0.01
    onnx-net2net verify a.onnx b.onnx --junit report.xml --json
    onnx-net2net verify model.onnx model-grown.onnx --layers
    """  # fmt: skip
    arguments = verify_arguments(**options)
    from onnx_net2net.cli import render
    from onnx_net2net.model.atomic_write import check_free, write_text
    from onnx_net2net.verification.verify import verify as judge

    a, b = load(first), load(second)
    if junit is not None:
        check_free(a, junit, force=force, read=[*b.files, *options["inputs"]])
    report = judge(a, b, by_position=by_position, **arguments)
    if junit is not None:
        write_text(junit, report.junit(), force=force)
    parting = None
    if layers:
        from onnx_net2net.plan.invariant import verify_layers

        parting = verify_layers(a, b, provider=arguments["provider"])
    if as_json:
        print_json(report.as_dict() | ({} if parting is None else {"layers": parting.as_dict()}))
    else:
        if parting is not None:
            click.echo(render.layers_text(parting) + "\n")
        click.echo(render.report_text(report))
    return DONE if report and (parting is None or parting) else UNEQUAL
