"""Reductions along axes, and running sums.

"a0 a1 a2 -> a0 1 a2"      ReduceMean(axes=[1]), a1 reduced
"""

from __future__ import annotations

import numpy as np

from onnx_net2net.operators import lower_bounds, values
from onnx_net2net.operators.language import Entry, Kind, Op, Rule, line, names, place_of
from onnx_net2net.operators.record import Operator, Table


def reduction(kind: str) -> Entry:
    """Return the rule of a reduction whose copies ``kind`` undoes (none: its axes are fixed)."""

    def rule(op: Op) -> Rule:
        axes = names("a", op.rank())
        # An attribute, or an input (ReduceSum from opset 13, all from opset 18).
        stated = op.known(1).ravel().tolist() if op.has(1) else op.attr("axes", ())
        if not stated and not op.attr("noop_with_empty_axes", 0):
            stated = range(op.rank())
        over = [axes[i] for i in sorted({place_of(axis, op.rank()) for axis in stated})]
        rest = ["1" if a in over else a for a in axes if op.attr("keepdims", 1) or a not in over]
        text = line([axes, ["_"]], [rest])
        if kind:
            return Rule(text, reduce=dict.fromkeys(over, kind))
        return Rule(text, fixed=dict.fromkeys(over, "a product runs over it"))

    return rule


def running(op: Op) -> Rule:
    """Fix the axis: every entry depends on those before it."""
    axes = names("a", op.rank())
    axis = axes[place_of(op.known(1).item(), op.rank())]
    return Rule(line([axes, ["_"]], [axes]), fixed={axis: f"{op.node.op_type} runs along it"})


TABLES: dict[str, Table] = {
    "": {
        "CumProd": Operator(running),
        "CumSum": Operator(running),
        "Det": Operator(
            Rule("... m n -> ...", fixed=dict.fromkeys("mn", "a determinant is taken of it"))
        ),
        # How copies are undone: see Rule.reduce.
        "ReduceL1": Operator(reduction("l1"), lower_bound=lower_bounds.zero),
        "ReduceL2": Operator(reduction("l2"), lower_bound=lower_bounds.zero),
        "ReduceLogSum": Operator(reduction("sum"), singular=0),  # its summands are rescaled
        "ReduceLogSumExp": Operator(reduction("logsumexp")),
        "ReduceMax": Operator(
            reduction("max"), compares=True, lower_bound=lower_bounds.first, value=values.largest
        ),
        "ReduceMean": Operator(reduction("mean"), Kind.SCALE, lower_bound=lower_bounds.first),
        "ReduceMin": Operator(
            reduction("max"), compares=True, lower_bound=lower_bounds.first, value=values.smallest
        ),
        "ReduceProd": Operator(reduction(""), value=values.reduction(np.prod)),
        "ReduceSum": Operator(
            reduction("sum"),
            Kind.SCALE,
            lower_bound=lower_bounds.summed,
            value=values.reduction(np.sum),
        ),
        "ReduceSumSquare": Operator(reduction("sumsquare"), lower_bound=lower_bounds.zero),
    }
}
