"""The translations, assembled from their families: (domain, operator) -> function.

function(call, *operands) -> output, or a list of outputs
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from onnx_net2net.frameworks.keras3.trace import Entry

__all__ = ["FAMILIES", "registry"]

# One file a family; each has TABLES by domain, and may have FORMS that it cannot translate.
FAMILIES = (
    "attention",
    "chance",
    "classical",
    "control",
    "convolution",
    "elementwise",
    "indexing",
    "linear",
    "microsoft",
    "microsoft_attention",
    "movement",
    "normalisation",
    "pooling",
    "quantization",
    "rearranging",
    "recurrent",
    "reduction",
    "resizing",
    "sampling",
    "scattering",
    "sequences",
    "signal",
)


@cache
def registry() -> dict[tuple[str, str], Entry]:
    """All translations."""
    found: dict[tuple[str, str], Entry] = {}
    for family in FAMILIES:
        module = import_module(f"{__name__}.{family}")
        for domain, table in module.TABLES.items():
            for name, entry in table.items():
                if (domain, name) in found:
                    raise ValueError(f"two translations of {domain or 'ai.onnx'}.{name}")
                found[domain, name] = entry
    return found
