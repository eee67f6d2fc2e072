"""Pointwise operators: every output entry depends on one entry of each operand.

"..., ... -> ..."      Add: NumPy broadcasting, whatever the number of operands
"""

from __future__ import annotations

from typing import Any

from onnx_net2net.operators import hazards, lower_bounds
from onnx_net2net.operators.language import Kind, Op, Rule, Unsupported, line, names
from onnx_net2net.operators.record import EVERY, FIRST, Operand, Operator, Table, family, move
from onnx_net2net.operators.types import FLOATS


def pointwise(op: Op) -> str:
    """Broadcast any number of operands to one another."""
    if op.attr("broadcast", 0):
        raise Unsupported("the broadcasting of opset 6 aligns axes on the left")
    return line([["..."]] * len(op.node.input), [["..."]])


def cast(op: Op) -> Rule:
    """Copy among real numbers only: integers do not add up as shares do."""
    return Rule("... -> ...", kind=Kind.MOVE if op.attr("to") in FLOATS else Kind.OTHER)


def cast_like(op: Op) -> Rule:
    """Read only the type of the second operand, so its axes are nobody's business."""
    like = names("l", op.rank(1))
    reduce = dict.fromkeys(like, "unread")
    return Rule(line([["..."], like], [["..."]]), reduce=reduce, kind=Kind.ZERO)


def clip(op: Op) -> Rule:
    """Keep zeros between the bounds: attributes (opset 6) or scalars (opset 11)."""
    low, high = op.attr("min", -1.0), op.attr("max", 1.0)
    if op.has(1):
        low = 1.0 if op.value(1) is None else op.known(1).item()
    if op.has(2):
        high = -1.0 if op.value(2) is None else op.known(2).item()
    return Rule("..., _, _ -> ...", kind=Kind.ZERO if low <= 0 <= high else Kind.OTHER)


def dropout(op: Op) -> Rule:
    """Pass everything in inference; the mask is then all ones."""
    if op.has(2) and bool(op.known(2)):
        raise Unsupported("Dropout in training mode is random")
    return Rule("..., _, _ -> ..., ...")


def random(op: Op) -> Rule:
    """Refuse: copied units would draw different numbers."""
    raise Unsupported("its output is random")


def _unary(names: str, kind: Kind = Kind.OTHER, **facts: Any) -> Table:
    return family(names, Operator("... -> ...", kind, **facts))


def _several(names: str, kind: Kind = Kind.OTHER, **facts: Any) -> Table:
    return family(names, Operator(pointwise, kind, **facts))


COPY: dict[str, Any] = {
    "in_order": True, "in_place": True, "carries": FIRST, "computes": False, "unlimited": True,
}  # fmt: skip
DRAWN: dict[str | int, str] = {"seed": "a framework's own generator draws"}
MULTINOMIAL: dict[str | int, str] = {"dtype": "the output is declared with this type"}
DROPOUT: dict[str | int, str] = {**DRAWN, 2: "a framework's own mode decides whether it trains"}

TABLES: dict[str, Table] = {
    "": {
        **_unary("Acos BitwiseNot Cos Cosh Not Shrink"),
        **_unary("Exp", lower_bound=lower_bounds.zero),
        **_unary("BitCast", computes=False),
        **_unary("HardSigmoid", activation=True),
        **_unary("Sigmoid Softplus", activation=True, lower_bound=lower_bounds.zero),
        **_unary("IsInf IsNaN", differentiable=False),
        **_unary("Acosh Log", singular=0),
        **_unary("Reciprocal", singular=0, lower_bound=lower_bounds.quotient),
        **_unary("Neg", Kind.LINEAR),
        # f(0) = 0, whatever their attributes are.
        **_unary("Asin Asinh Atan Atanh Ceil Erf Sign Sin Sinh Tan", Kind.ZERO),
        **_unary("Abs", Kind.ZERO, lower_bound=lower_bounds.rectified),
        **_unary("Sqrt", Kind.ZERO, lower_bound=lower_bounds.root),
        **_unary("Floor Round", Kind.ZERO, carries=FIRST),
        **_unary(
            "Celu Elu Gelu HardSwish LeakyRelu Mish Selu Softsign Swish Tanh ThresholdedRelu",
            Kind.ZERO,
            activation=True,
        ),
        **_unary(
            "Relu",
            Kind.ZERO,
            activation=True,
            idempotent=True,
            lower_bound=lower_bounds.rectified,
        ),
        **_several("And BitwiseAnd BitwiseOr BitwiseXor Or Xor"),
        **_several("BitShift", choices={"direction": ("LEFT", "RIGHT")}),
        **_several(
            "Greater GreaterOrEqual Less LessOrEqual",
            differentiable=False,
            unlimited=True,
            compares=True,
        ),
        **_several("Equal", differentiable=False, unlimited=True),
        **_several(
            "Max", compares=True, carries=EVERY, unlimited=True, lower_bound=lower_bounds.highest
        ),
        **_several(
            "Min", compares=True, carries=FIRST, unlimited=True, lower_bound=lower_bounds.lowest
        ),
        **_several("Mod", singular=1),
        **_several("Pow", singular=0, lower_bound=lower_bounds.power),
        **_several("Where", carries=(1, 2), terms=(1, 2), unlimited=True),
        **_several(
            "Add",
            Kind.LINEAR,
            terms=(0, 1),
            summands=(0, 1),
            hazard=hazards.large_factor,
            lower_bound=lower_bounds.total,
        ),
        **_several("Sub", Kind.LINEAR, terms=(0, 1), summands=FIRST),
        **_several("Sum", Kind.LINEAR, terms=EVERY, summands=EVERY, lower_bound=lower_bounds.total),
        **_several("Mean", Kind.LINEAR),
        **_several(
            "Mul",
            Kind.PRODUCT,
            terms=(0, 1),
            hazard=hazards.large_factor,
            lower_bound=lower_bounds.product,
        ),
        **_several("Div", Kind.SCALE, terms=(0, 1), singular=1, lower_bound=lower_bounds.quotient),
        **_several("PRelu", Kind.ZERO, activation=True, weights={1: Operand.WEIGHT}),
        **family(
            "Bernoulli RandomNormal RandomNormalLike RandomUniform RandomUniformLike",
            Operator(random, random=True, implied=DRAWN),
        ),
        "Cast": Operator(cast, lower_bound=lower_bounds.cast, **COPY),
        "CastLike": Operator(cast_like, **COPY),
        "Clip": Operator(
            clip, activation=True, compares=True, idempotent=True, carries=FIRST, unlimited=True,
            lower_bound=lower_bounds.clipped,
        ),
        "Dropout": move(
            dropout, in_order=True, in_place=True, random=True, implied=DROPOUT, lower_bound=None
        ),
        "Multinomial": Operator(random, random=True, implied=DRAWN | MULTINOMIAL),
    }
}  # fmt: skip
