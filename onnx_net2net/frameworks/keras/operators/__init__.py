"""The translations, assembled from their families: (domain, operator) -> function.

function(call, *operands) -> output, or a list of outputs
"""

from __future__ import annotations

from functools import cache

from onnx_net2net.frameworks.keras.trace import Entry
from onnx_net2net.operators.assembly import assembled

__all__ = ["FAMILIES", "registry"]

# One file a family; each has TABLES by domain, and may have FORMS that it cannot translate.
FAMILIES = (
    "attention",
    "random",
    "classical",
    "control",
    "convolution",
    "elementwise",
    "indexing",
    "linear",
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
    return assembled(__name__, FAMILIES)
