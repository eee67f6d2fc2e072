"""The command line: options in, calls of the library, text out. Only this module prints.

Everything heavier than click is imported inside the commands, so that ``--help`` is immediate.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_net2net import __version__
from onnx_net2net.cli.deepen import deepen, show_blocks
from onnx_net2net.cli.export import absorb, export
from onnx_net2net.cli.grow import grow
from onnx_net2net.cli.lineage import diff, history
from onnx_net2net.cli.options import (
    FOLD,
    FORCE,
    JSON,
    PATH,
    RUNNING,
    Factor,
    InOrder,
    Setting,
    verify_arguments,
)
from onnx_net2net.cli.steps import (
    DONE,
    UNEQUAL,
    deliver_to,
    folded,
    load,
    opened,
    print_json,
    show_end,
)
from onnx_net2net.errors import UsageError

if TYPE_CHECKING:
    from fractions import Fraction

    from onnx_net2net.model.model import Model
    from onnx_net2net.plan.invariant import LayersReport
    from onnx_net2net.verification.draft import Judge
    from onnx_net2net.widening.targets import Wish


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code.

    Raises Net2NetError for what the user can mend, KeyboardInterrupt for Ctrl-C.
    """
    try:
        result = main.main(list(arguments), "onnx-net2net", standalone_mode=False)
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        name = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
        remedy = f"see {name or 'onnx-net2net'} --help"
        raise UsageError(error.format_message().rstrip("."), remedy) from None
    return result if isinstance(result, int) else DONE


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Make a trained ONNX network wider or deeper without changing what it computes.

    \b
    onnx-net2net inspect model.onnx
    onnx-net2net widen model.onnx --node conv5 --width 512
    onnx-net2net deepen model.onnx --block encoder.layer.3 --copies 2
    onnx-net2net grow model.onnx --params 2x
    onnx-net2net verify model.onnx model-grown.onnx
    onnx-net2net export model-grown.onnx --to torch -o grown/
    onnx-net2net absorb model-grown.onnx trained.safetensors -o trained.onnx

    Exit codes: 0 done; 1 not equivalent, or refused; 2 bad usage or bad input.
    """


@main.command()
@click.argument("model", type=PATH)
@click.option("--node", "nodes", metavar="NAME", multiple=True, help="Only what it is made of.")
@click.option("--all", "everything", is_flag=True, help="Kernel windows and the like, too.")
@click.option("--blocks", is_flag=True, help="List the blocks instead, which deepen copies.")
@FOLD
@JSON
def inspect(
    model: Path,
    nodes: tuple[str, ...],
    everything: bool,
    blocks: bool,
    fold: bool,
    as_json: bool,
) -> int:
    """List the dimensions of a network and how they may grow.

    A dimension is a set of tensor axes that resize together: the filters of a convolution, its
    bias, the normalisation behind it, and the input channels of whatever reads them. It is named
    after the module, parameter or node that writes it first.

    \b
    onnx-net2net inspect model.onnx
    onnx-net2net inspect model.onnx --node layer1.0.conv2
    onnx-net2net inspect model.onnx --all --json
    onnx-net2net inspect model.onnx --blocks
    """
    source = folded(load(model)) if fold else load(model)
    if blocks:
        return show_blocks(source, as_json)
    from onnx_net2net.cli import render
    from onnx_net2net.widening.dimensions import analyse
    from onnx_net2net.widening.naming import matching

    analysis = analyse(source)
    found = analysis.dimensions
    if nodes:
        touched = {d.name for name in nodes for d in matching(analysis, name)}
        found = [d for d in found if d.name in touched]
    listed = found if everything or as_json or nodes else render.shown(found)
    if as_json:
        print_json(
            {
                "dimensions": [render.dimension_values(d, source) for d in listed],
                "parameters": render.parameters(source),
                "growable": round(render.growable_share(analysis.dimensions, source), 6),
                "obstacles": render.obstacles(analysis.dimensions),
            }
        )
        return DONE
    click.echo(render.dimension_text(listed, source))
    click.echo("\n" + render.summary(analysis.dimensions, source, len(found) - len(listed)))
    return DONE


@main.command(cls=InOrder)
@click.argument("model", type=PATH)
@click.option(
    "--node",
    metavar="NAME",
    multiple=True,
    help="What to grow: a node, tensor, parameter or module; repeats.",
)
@click.option(
    "--dim",
    metavar="NAME",
    multiple=True,
    help="What to grow, by the name that inspect gives it; repeats.",
)
@click.option(
    "--width",
    metavar="N",
    type=int,
    multiple=True,
    help="The width of the --node or --dim before it.",
)
@click.option(
    "--factor",
    metavar="X",
    type=Factor(),
    help="In place of widths: X times the present one, or the next that is possible.",
)
@click.option("--all", "everything", is_flag=True, help="With --factor: all that can grow.")
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    type=PATH,
    help="The file to write.  [default: MODEL-grown.onnx beside it]",
)
@FORCE
@click.option(
    "--split",
    type=click.Choice(["project", "even", "noise"]),
    default="project",
    show_default=True,
    help="How copies of a unit share what reads it.",
)
@click.option(
    "--noise",
    type=float,
    default=0.01,
    show_default=True,
    help="With --split noise: its standard deviation, relative to the weight.",
)
@click.option(
    "--mapping",
    type=click.Choice(["random", "round-robin"]),
    default="random",
    show_default=True,
    help="Which units are copied.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of all that is random.",
)
@click.option("--dry-run", is_flag=True, help="Say what would change; write nothing.")
@click.option("--no-verify", is_flag=True, help="Write without asking onnxruntime.")
@FOLD
@RUNNING
@JSON
def widen(model: Path, output: Path | None, as_json: bool, **options: Any) -> int:
    """Grow dimensions of a network; the function it computes stays the same.

    The result is written only after onnxruntime has confirmed that it computes what MODEL does.

    \b
    onnx-net2net widen model.onnx --node conv5 --width 512
    onnx-net2net widen model.onnx --node conv5 --width 512 --node conv6 --width 640 -o wide.onnx
    onnx-net2net widen model.onnx --factor 1.5 --all --dry-run
    onnx-net2net widen model.onnx --factor 2 --node 'layer2.*' --seed 7

    The splits: "project" draws random shares that add up exactly, so that copies learn apart from
    the first step; "even" makes equal copies, which never part; "noise" is that of Net2Net, even
    with a little noise, and not exact.
    """  # fmt: skip
    from onnx_net2net.widening.targets import check_wishes, wishes

    asked = wishes(options.pop("order"))
    factor, everything = options.pop("factor"), options.pop("everything")
    check_wishes(asked, factor, everything)
    return _widen(model, output, asked, factor, as_json, **options)


@main.command()
@click.argument("first", metavar="A", type=PATH)
@click.argument("second", metavar="B", type=PATH)
@RUNNING
@click.option(
    "--rtol",
    metavar="[NAME=]X",
    multiple=True,
    type=Setting(float, "NAME=1e-3 or 1e-3"),
    help="Relative tolerance, of an output or of all, where it exceeds rounding noise.",
)
@click.option(
    "--atol",
    metavar="[NAME=]X",
    multiple=True,
    type=Setting(float, "NAME=1e-5 or 1e-5"),
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
    found = _layers(a, b, arguments["provider"]) if layers else None
    if as_json:
        print_json(report.as_dict() | ({} if found is None else {"layers": found.as_dict()}))
    else:
        if found is not None:
            click.echo(render.layers_text(found) + "\n")
        click.echo(render.report_text(report))
    return DONE if report and (found is None or found) else UNEQUAL


# The steps of the commands ---------------------------------------------------------------------


def _widen(
    path: Path,
    output: Path | None,
    asked: Sequence[Wish],
    factor: Fraction | None,
    as_json: bool,
    *,
    force: bool,
    dry_run: bool,
    no_verify: bool,
    fold: bool,
    split: str,
    noise: float,
    mapping: str,
    seed: int,
    **running: Any,
) -> int:
    """Grow, write a draft, let it be judged, and put it in place."""
    arguments = verify_arguments(**running)
    from onnx_net2net.verification.draft import Judge

    read = running["inputs"]
    original, target = opened(path, output, force=force, dry_run=dry_run, read=read)
    source = folded(original) if fold else original
    grown = _grown(source, asked, factor, split=split, noise=noise, mapping=mapping, seed=seed)
    if dry_run:
        return _show_growth(source, grown, None, None, as_json)
    exact = split != "noise"
    judge = None if no_verify else Judge(original, exact=exact, arguments=arguments)
    written = deliver_to(target, grown, judge, force)
    return _show_growth(source, grown, written, judge, as_json)


def _grown(source: Model, asked: Sequence[Wish], factor: Fraction | None, **options: Any) -> Model:
    from onnx_net2net.widening.dimensions import analyse
    from onnx_net2net.widening.targets import targets
    from onnx_net2net.widening.widen import widen as grow

    analysis = analyse(source)
    widths = targets(analysis, asked, factor)
    return grow(source, widths, **options)


def _show_growth(
    source: Model, grown: Model, target: Path | None, judge: Judge | None, as_json: bool
) -> int:
    """Say what changed, what onnxruntime says of it, and where it is; the exit code."""
    from onnx_net2net.cli import render, tables
    from onnx_net2net.widening.dimensions import analyse

    if as_json:
        report = judge.report if judge is not None else None
        values = render.change_values(grown.changes, source, grown)
        verification = None if report is None else report.as_dict()
        print_json({**values, "verification": verification, "output": target and str(target)})
        return UNEQUAL if judge is not None and target is None else DONE
    dimensions = analyse(source).dimensions
    click.echo(tables.text(render.change_table(grown.changes, dimensions, source, grown)))
    return show_end(target, judge)


def _layers(parent: Model, grown: Model, provider: str | None) -> LayersReport:
    from onnx_net2net.plan.invariant import verify_layers

    return verify_layers(parent, grown, provider=provider)


for _command in (deepen, grow, export, absorb, history, diff):
    main.add_command(_command)
