"""How each operator is written in PyTorch: a template, or a function that returns code.

function(operation) -> code, or the code of each output
"""

from __future__ import annotations

from functools import cache

from onnx_net2net.frameworks import FAMILIES
from onnx_net2net.frameworks.torch.operation import Entry
from onnx_net2net.operators.assembly import assembled


@cache
def translations() -> dict[tuple[str, str], Entry]:
    """Return all translations by (domain, operator)."""
    return assembled(__name__, FAMILIES)
