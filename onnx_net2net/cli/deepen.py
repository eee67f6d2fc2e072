"""``deepen``: more layers, or copies of blocks; and the list of blocks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_net2net.cli.options import FORCE, JSON, PATH, RUNNING, Window, verify_arguments
from onnx_net2net.cli.steps import DONE, UNEQUAL, deliver_to, opened, print_json, show_end

if TYPE_CHECKING:
    from onnx_net2net.model.model import Model
    from onnx_net2net.verification.draft import Judge


@click.command()
@click.argument("model", type=PATH)
@click.option(
    "--after",
    metavar="NAME",
    multiple=True,
    help="Insert behind this node, tensor, parameter or module, or a glob; repeats.",
)
@click.option(
    "--count",
    metavar="N",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Layers at each place.",
)
@click.option(
    "--init",
    type=click.Choice(["auto", "identity", "residual", "factor"]),
    default="auto",
    show_default=True,
    help="How inserted layers begin.",
)
@click.option(
    "--kernel",
    metavar="K[xK]",
    type=Window(),
    help="The window of inserted convolutions.  [default: as the neighbour's]",
)
@click.option(
    "--norm/--no-norm", default=None, help="With or without BatchNorm.  [default: as the neighbour]"
)
@click.option(
    "--calibrate",
    metavar="PATH",
    multiple=True,
    type=PATH,
    help="Inputs to measure BatchNorm statistics on: an .npz file, or a folder.",
)
@click.option(
    "--block",
    metavar="NAME",
    multiple=True,
    help="Copy this block, or a glob; repeats. See inspect --blocks.",
)
@click.option(
    "--copies",
    metavar="N",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Copies behind each block; with --spread in all.",
)
@click.option(
    "--every",
    metavar="K",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Only behind every K-th of the blocks.",
)
@click.option("--spread", is_flag=True, help="Spread the copies evenly over the blocks.")
@click.option(
    "--zero",
    type=click.Choice(["last", "cancel"]),
    default="last",
    show_default=True,
    help="How copies vanish: zeros, or equal units that cancel.",
)
@click.option(
    "--no-renumber", is_flag=True, help="Keep the names of later blocks; copies are NAME_copy1."
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of all that is random.",
)
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    type=PATH,
    help="The file to write.  [default: MODEL-grown.onnx beside it]",
)
@FORCE
@click.option("--dry-run", is_flag=True, help="Say what would change; write nothing.")
@click.option("--no-verify", is_flag=True, help="Write without asking onnxruntime.")
@RUNNING
@JSON
def deepen(
    model: Path,
    output: Path | None,
    force: bool,
    dry_run: bool,
    no_verify: bool,
    as_json: bool,
    seeds: int,
    ranges: Any,
    sizes: Any,
    inputs: Any,
    provider: str | None,
    **options: Any,
) -> int:
    """Insert layers, or copies of blocks; the function of the network stays the same.

    The result is written only after onnxruntime has confirmed that it computes what MODEL does.

    \b
    onnx-net2net deepen model.onnx --after conv5
    onnx-net2net deepen model.onnx --after 'layer2.*' --kernel 1 --calibrate batches.npz
    onnx-net2net deepen model.onnx --block encoder.layer.3 --copies 2
    onnx-net2net deepen model.onnx --block 'h.*' --copies 4 --spread

    The inits: "identity" is exact behind ReLU and Clip, "residual" anywhere; "factor" makes two
    linear layers of the one before; "auto" takes identity where it is exact, else residual.
    Copied blocks begin with their last projections at zero.
    """  # fmt: skip
    arguments = verify_arguments(seeds, ranges, sizes, inputs, provider)
    from onnx_net2net.verification.draft import Judge

    read = [*inputs, *options["calibrate"]]
    source, target = opened(model, output, force=force, dry_run=dry_run, read=read)
    deeper = _deeper(source, **options)
    if dry_run:
        return _show(source, deeper, None, None, as_json)
    judge = None if no_verify else Judge(source, exact=True, arguments=arguments)
    written = deliver_to(target, deeper, judge, force)
    return _show(source, deeper, written, judge, as_json)


def _deeper(source: Model, calibrate: tuple[Path, ...], no_renumber: bool, **options: Any) -> Model:
    from onnx_net2net.deepening.deepen import deepen as grow

    if calibrate:
        from onnx_net2net.verification.feeds import user_feeds
        from onnx_net2net.verification.sizes import input_specs

        specs = input_specs(source.proto.graph)
        options["calibration"] = [feeds for _, feeds in user_feeds(list(calibrate), specs)]
    return grow(source, renumber=not no_renumber, **options)


def _show(
    source: Model, deeper: Model, target: Path | None, judge: Judge | None, as_json: bool
) -> int:
    from onnx_net2net.cli import render

    if as_json:
        report = judge.report if judge is not None else None
        print_json(
            {
                "changes": [asdict(change) for change in deeper.changes],
                "parameters": {"before": source.parameters, "after": deeper.parameters},
                "verification": None if report is None else report.as_dict(),
                "output": target and str(target),
            }
        )
        return UNEQUAL if judge is not None and target is None else DONE
    click.echo(render.insertion_text(deeper.changes, source, deeper))
    return show_end(target, judge)


def show_blocks(source: Model, as_json: bool) -> int:
    """The blocks of a network: their names, sizes, and whether copies can be exact."""
    from onnx_net2net.cli import render
    from onnx_net2net.deepening.blocks import blocks

    found = blocks(source)
    if as_json:
        print_json({"blocks": [render.block_values(block, source) for block in found]})
    else:
        click.echo(render.block_text(found, source))
    return DONE
