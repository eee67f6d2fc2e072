"""How each operator is written in PyTorch: (domain, operator) -> a template or a function."""

from __future__ import annotations

from functools import cache

from onnx_net2net.frameworks.program import Step
from onnx_net2net.frameworks.torch.operation import Entry
from onnx_net2net.operators.assembly import assembled

# One file a family; each holds a TABLE of operators by domain.
FAMILIES = (
    "attention",
    "classical",
    "control",
    "elementwise",
    "indexing",
    "linear",
    "movement",
    "normalisation",
    "pooling",
    "quantization",
    "random",
    "recurrent",
    "reduction",
    "resampling",
    "sequences",
    "signal",
)


@cache
def tables() -> dict[tuple[str, str], Entry]:
    """All entries by (domain, operator)."""
    return assembled(__name__, FAMILIES)


def entry_of(step: Step) -> Entry | None:
    """The entry for this step; None where there is none."""
    return tables().get((step.domain, step.op))
