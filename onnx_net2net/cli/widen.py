"""``widen``: dimensions of a network, by names and widths, or by a factor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnx_net2net.cli.options import FOLD, OUTCOME, PATH, Factor, InOrder, arguments
from onnx_net2net.cli.outcome import Outcome, folded
from onnx_net2net.step import Widen


@click.command(cls=InOrder)
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
@arguments(Widen, "split", "amplitude", "noise", "mapping", "seed")
@FOLD
@OUTCOME
def widen(
    model: Path,
    order: Any,
    factor: Any,
    everything: bool,
    fold: bool,
    split: str,
    amplitude: float,
    noise: float,
    mapping: str,
    seed: int,
    **outcome: Any,
) -> int:
    """Grow dimensions of a network; the function it computes stays the same.

    The result is written only after onnxruntime has confirmed that it computes what MODEL does.

    \b
    onnx-net2net widen model.onnx --node conv5 --width 512
    onnx-net2net widen model.onnx --node conv5 --width 512 --node conv6 --width 640 -o wide.onnx
    onnx-net2net widen model.onnx --factor 1.5 --all --dry-run
    onnx-net2net widen model.onnx --factor 2 --node 'layer2.*' --seed 7

    The splits: "project" draws random shares that add up exactly, so that copies learn apart from
    the first step; "even" makes equal copies, which never part; "fresh" copies nothing: new units
    have shuffled weights, and are read with zeros; "noise" is that of Net2Net, even with a little
    noise, not exact, and copies part slowly by 1 % of it.
    """  # fmt: skip
    from onnx_net2net.cli import render, tables
    from onnx_net2net.plan.steps import run
    from onnx_net2net.widening.dimensions import analyse
    from onnx_net2net.widening.targets import check_wishes, explicit, wishes

    asked = wishes(order)
    check_wishes(asked, factor, everything)
    result = Outcome(model, **outcome)
    source = folded(result.source) if fold else result.source
    analysis = analyse(source)
    widths = explicit(analysis, asked) if factor is None else None
    names = [wish.name for wish in asked] if factor is not None else ()
    step = Widen(seed, split, amplitude, noise, mapping, widths, factor, names, everything)
    grown = run(source, step)
    return result.deliver(
        grown,
        lambda: tables.text(render.change_table(grown.changes, analysis.dimensions, source, grown)),
        lambda: render.change_values(grown.changes, source, grown),
        exact=step.exact,
    )
