"""Numbers so far from zero that sums of them overflow: what attention masks add to its scores.

A layer that sums over them gives NaN, be its weights zero: 0 * inf.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

from onnx_net2net.model.model import Model
from onnx_net2net.operators.language import Kind
from onnx_net2net.operators.types import FLOATS
from onnx_net2net.widening.dimensions import Analysis, analyse

__all__ = ["mask_in"]

# Kinds of operators that pass on what is large; the others bound it, or sum over it.
_PASSING = (Kind.LINEAR, Kind.MOVE, Kind.PRODUCT, Kind.SCALE)
_ROOM = 64  # for sums of what is large


def mask_in(analysis: Analysis, tensor: str) -> str | None:
    """Return the constant far from zero that ``tensor`` may hold entries of, if there is one."""
    return analysis.model.derived(_origins).get(tensor)


def _origins(model: Model) -> dict[str, str]:
    """Return, for tensors that may hold numbers far from zero, the constants they come from."""
    analysis = analyse(model)
    origins: dict[str, str] = {}
    for node in analysis.graph.nodes:
        applied = analysis.solution.applied.get(node.position)
        if applied is None or applied.pattern.contracted:
            continue
        handed = node.facts.carries and not node.facts.activation  # which bounds them
        if applied.rule.kind in _PASSING or handed:
            read = [name for name in node.inputs if name]
            sources = (origins.get(n) or (n if _is_far(analysis, n) else None) for n in read)
            if source := next(filter(None, sources), None):
                origins.update(dict.fromkeys(filter(None, node.outputs), source))
    return origins


def _is_far(analysis: Analysis, name: str) -> bool:
    """Return whether a constant has an entry that is far from zero, or not finite."""
    solution = analysis.solution
    value, weight = solution.shapes.known(name), solution.graph.model.weights.get(name)
    if value is None and weight is not None and weight.given and weight.dtype in FLOATS:
        value = weight.array()
    if value is None or not value.size or value.dtype.kind != "f":
        return False
    return not np.abs(value).max() <= float(ml_dtypes.finfo(value.dtype).max) / _ROOM
