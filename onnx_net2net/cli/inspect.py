"""``inspect``: the dimensions of a network, or its blocks."""

from __future__ import annotations

from pathlib import Path

import click

from onnx_net2net.cli.options import FOLD, JSON, PATH
from onnx_net2net.cli.outcome import DONE, folded, load, print_json


@click.command()
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
    from onnx_net2net.cli import render

    if blocks:
        from onnx_net2net.deepening.blocks import blocks as repeated

        series = repeated(source)
        if as_json:
            print_json({"blocks": [render.block_values(block, source) for block in series]})
        else:
            click.echo(render.block_text(series, source))
        return DONE
    from onnx_net2net.plan.costs import parameters
    from onnx_net2net.widening.dimensions import analyse
    from onnx_net2net.widening.naming import matching

    analysis = analyse(source)
    asked = analysis.dimensions
    if nodes:
        touched = {d.name for name in nodes for d in matching(analysis, name)}
        asked = [d for d in asked if d.name in touched]
    listed = asked if everything or as_json or nodes else render.shown(asked)
    if as_json:
        print_json(
            {
                "dimensions": [render.dimension_values(d, source) for d in listed],
                "parameters": parameters(source),
                "growable": round(render.growable_share(analysis.dimensions, source), 6),
                "obstacles": render.obstacles(analysis.dimensions),
            }
        )
        return DONE
    click.echo(render.dimension_text(listed, source))
    click.echo("\n" + render.summary(analysis.dimensions, source, len(asked) - len(listed)))
    return DONE
