"""Normalisations and softmax.

"b c *s, c, c, c, c -> b c *s"             BatchNormalization
"a0 a1 n0, n0, n0 -> a0 a1 n0, a0 a1 1, a0 a1 1"  LayerNormalization(axis=-1), n0 normalised
"""

from __future__ import annotations

from onnx_net2net.operators import lower_bounds
from onnx_net2net.operators.broadcast import broadcast
from onnx_net2net.operators.language import Norm, Op, Rule, Unsupported, line, names, size_ref
from onnx_net2net.operators.record import SCALE_SHIFT, Operand, Operator, Table


def batch_normalization(op: Op) -> Rule:
    """Map each channel by numbers of its own, in inference."""
    if op.attr("training_mode", 0) or any(op.node.output[1:]):
        raise Unsupported("BatchNormalization in training mode")
    if not op.attr("spatial", 1):
        raise Unsupported("statistics for every activation (spatial=0)")
    return Rule("b c *s, c, c, c, c -> b c *s")


def group_normalization(op: Op) -> Rule:
    """Normalise groups; scale and bias are per group in opset 18, per channel from opset 21 on."""
    groups = int(op.attr("num_groups", 0))
    if groups < 1 or op.shape(0)[1] % groups:
        raise Unsupported("num_groups does not divide the channels")
    affine = "(g c)" if op.opset >= 21 else "g"
    spatial = names("s", op.rank() - 2)
    data = ["b", "(g c)", *spatial]
    return Rule(
        line([data, [affine], [affine]], [data]),
        sizes={"g": groups},
        normalised=["c", *spatial],
        size_refs=[size_ref("num_groups", "g")],
        parts={"g": "groups", "c": "channels"},
    )


def instance_normalization(op: Op) -> Rule:
    """Normalise every channel of every image over its spatial axes."""
    spatial = names("s", op.rank() - 2)
    data = ["b", "c", *spatial]
    return Rule(line([data, ["c"], ["c"]], [data]), normalised=spatial)


def layer_normalization(op: Op) -> Rule:
    """Normalise axes from ``axis`` on; mean and deviation keep them with size 1."""
    outer, inner = _from_axis(op)
    affine = [broadcast([*outer, *inner], op.shape(i)) for i in (1, 2) if op.has(i)]
    statistics = [*outer, *["1"] * len(inner)]
    text = line([[*outer, *inner], *affine], [[*outer, *inner], statistics, statistics])
    norm = Norm(inner[0], True, 1e-5, bias=2 if op.has(2) else None) if len(inner) == 1 else None
    return Rule(text, normalised=inner, norm=norm)


def rms_normalization(op: Op) -> Rule:
    """Normalise like LayerNormalization without mean and bias."""
    outer, inner = _from_axis(op)
    affine = broadcast([*outer, *inner], op.shape(1))
    norm = Norm(inner[0], False, 1e-5) if len(inner) == 1 else None
    return Rule(line([[*outer, *inner], affine], [[*outer, *inner]]), normalised=inner, norm=norm)


def _from_axis(op: Op) -> tuple[list[str], list[str]]:
    axis = op.axis(default=-1)
    return names("a", axis), names("n", op.rank() - axis)


def lp_normalization(op: Op) -> Rule:
    """Fix the axis: copies would make the norm larger, which is not a mean."""
    axes = names("a", op.rank())
    return Rule(line([axes], [axes]), fixed={axes[op.axis()]: "it is divided by its own norm"})


def mean_variance_normalization(op: Op) -> Rule:
    """Normalise over ``axes``."""
    axes, given = names("a", op.rank()), op.attr("axes", (0, 2, 3))
    if any(axis >= len(axes) for axis in given):
        raise Unsupported("it normalises over axes that its input does not have")
    chosen = [axes[axis] for axis in given]
    return Rule(line([axes], [axes]), normalised=chosen)


def softmax(op: Op) -> Rule:
    """Fix the axis; before opset 13 all axes from ``axis`` on, which are one."""
    axes = names("a", op.rank())
    over = axes[op.axis(default=1) :] if op.opset < 13 else [axes[op.axis()]]
    return Rule(line([axes], [axes]), fixed=dict.fromkeys(over, f"{op.node.op_type} runs over it"))


TABLES: dict[str, Table] = {
    "": {
        "BatchNormalization": Operator(
            batch_normalization,
            weights={**SCALE_SHIFT, 3: Operand.STATISTIC, 4: Operand.STATISTIC},
        ),
        "GroupNormalization": Operator(group_normalization, weights=SCALE_SHIFT),
        "Hardmax": Operator(softmax),
        "InstanceNormalization": Operator(instance_normalization, weights=SCALE_SHIFT),
        "LayerNormalization": Operator(layer_normalization, weights=SCALE_SHIFT),
        "LogSoftmax": Operator(softmax),
        "LpNormalization": Operator(lp_normalization),
        "MeanVarianceNormalization": Operator(mean_variance_normalization),
        "RMSNormalization": Operator(rms_normalization, weights={1: Operand.AFFINE}),
        "Softmax": Operator(softmax, lower_bound=lower_bounds.zero),
    }
}
