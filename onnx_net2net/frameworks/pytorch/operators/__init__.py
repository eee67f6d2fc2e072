"""How each operator is written in PyTorch: (domain, operator) -> a template or a function."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from onnx_net2net.frameworks.program import Step
from onnx_net2net.frameworks.pytorch.operation import Entry

# One file a family; each holds a TABLE of operators by domain.
FAMILIES = (
    "attention",
    "classical",
    "control",
    "elementwise",
    "indexing",
    "linear",
    "microsoft",
    "movement",
    "normalisation",
    "pooling",
    "quantization",
    "random",
    "recurrent",
    "reduction",
    "resampling",
    "signal",
)


@cache
def tables() -> dict[tuple[str, str], Entry]:
    """All entries by (domain, operator)."""
    found: dict[tuple[str, str], Entry] = {}
    for family in FAMILIES:
        module = import_module(f"{__name__}.{family}")
        for domain, table in module.TABLES.items():
            for name, entry in table.items():
                if (domain, name) in found:
                    raise ValueError(f"two entries for {domain or 'ai.onnx'}.{name}")
                found[domain, name] = entry
    return found


def entry_of(step: Step) -> Entry | None:
    """The entry for this step; None where there is none."""
    return tables().get((step.domain, step.op))
