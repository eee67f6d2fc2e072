"""What is zero in a network since weights of it are: its branches in copies of blocks, say.

zero_tensors(analysis, {"h.1.mlp.c_proj.weight", "h.1.mlp.c_proj.bias"})
"""

from __future__ import annotations

from collections.abc import Collection

from onnx_net2net.operators.language import Kind
from onnx_net2net.operators.types import FLOATS
from onnx_net2net.plan.pairing import original
from onnx_net2net.widening.dimensions import Analysis

__all__ = ["zero_tensors"]


def zero_tensors(analysis: Analysis, zeros: Collection[str]) -> set[str]:
    """Return the tensors that are zero since these weights are."""
    graph, dtype = analysis.graph, analysis.solution.shapes.dtype
    known = {name for name in graph.model.weights if original(graph, name) in zeros}
    for node in graph.nodes if known else ():
        applied = analysis.solution.applied.get(node.position)
        operands = [name in known for name in node.inputs if dtype.get(name) in FLOATS]
        match applied.rule.kind if applied and operands else Kind.OTHER:
            case Kind.MOVE | Kind.LINEAR | Kind.ZERO:
                zero = all(operands)
            case Kind.PRODUCT:
                zero = any(operands)
            case Kind.SCALE | Kind.AFFINE:
                factors = operands[:1] if node.facts.singular == 1 else operands[:2]
                zero = any(factors) and all(operands[2:])
            case _:
                zero = False
        if zero:
            known.update(filter(None, node.outputs))
    return known
