"""How each operator is computed by Keras: a function that is called while a model is traced.

function(operation, *operands) -> output, or a list of outputs
"""

from __future__ import annotations

from functools import cache

from onnx_net2net.frameworks import FAMILIES
from onnx_net2net.frameworks.keras.operation import Entry
from onnx_net2net.operators.assembly import assembled


@cache
def translations() -> dict[tuple[str, str], Entry]:
    """Return all translations by (domain, operator)."""
    return assembled(__name__, FAMILIES)
