"""``deepen``: more layers, or copies of blocks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from onnx_net2net.cli.options import OUTCOME, PATH, arguments
from onnx_net2net.cli.outcome import Outcome
from onnx_net2net.step import Deepen

_ARGUMENTS = (
    "after", "count", "init", "kernel", "norm", "calibrate", "block", "copies", "every", "spread",
    "zero", "renumber", "seed",
)  # fmt: skip


@click.command()
@click.argument("model", type=PATH)
@arguments(Deepen, *_ARGUMENTS)
@OUTCOME
def deepen(model: Path, **options: Any) -> int:
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
    step = Deepen(**{name: options.pop(name) for name in _ARGUMENTS})
    from onnx_net2net.cli import render
    from onnx_net2net.plan.steps import run

    result = Outcome(model, read=map(Path, step.calibrate), **options)
    source = result.source
    deeper = run(source, step)
    return result.deliver(
        deeper,
        lambda: render.insertion_text(deeper.changes, source, deeper),
        lambda: {
            "changes": [asdict(change) for change in deeper.changes],
            "parameters": {"before": source.parameters, "after": deeper.parameters},
        },
        exact=step.exact,
    )
