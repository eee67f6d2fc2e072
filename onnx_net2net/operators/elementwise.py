"""Pointwise operators: every output entry depends on one entry of each operand.

"..., ... -> ..."      Add: NumPy broadcasting, whatever the number of operands
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from onnx_net2net.algebra import sizes
from onnx_net2net.operators import formulas, hazards, lower_bounds, values
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


def _compared(name: str, function: Any, symbolic: Any) -> Table:
    return _several(
        name,
        differentiable=False,
        unlimited=True,
        compares=True,
        value=values.folded(function),
        formula=formulas.of(symbolic),
    )


COPY: dict[str, Any] = {
    "in_order": True, "in_place": True, "carries": FIRST, "computes": False, "unlimited": True,
}  # fmt: skip
DRAWN: dict[str | int, str] = {"seed": "a framework's own generator draws"}
MULTINOMIAL: dict[str | int, str] = {"dtype": "the output is declared with this type"}
DROPOUT: dict[str | int, str] = {**DRAWN, 2: "a framework's own mode decides whether it trains"}

TABLES: dict[str, Table] = {
    "": {
        **_unary("Acos BitwiseNot Cos Cosh Shrink"),
        **_unary("Not", value=values.mapped(np.logical_not), formula=formulas.unknown),
        **_unary("Exp", lower_bound=lower_bounds.zero),
        **_unary("BitCast", computes=False),
        **_unary("HardSigmoid", activation=True),
        **_unary("Sigmoid Softplus", activation=True, lower_bound=lower_bounds.zero),
        **_unary("IsInf IsNaN", differentiable=False),
        **_unary("Acosh Log", singular=0),
        **_unary(
            "Reciprocal", singular=0, lower_bound=lower_bounds.quotient, value=values.reciprocal,
            formula=formulas.unknown,
        ),
        **_unary(
            "Neg", Kind.LINEAR, value=values.mapped(np.negative), formula=formulas.of(operator.neg)
        ),
        # f(0) = 0, whatever their attributes are.
        **_unary("Asin Asinh Atan Atanh Erf Sign Sin Sinh Tan", Kind.ZERO),
        **_unary(
            "Abs", Kind.ZERO, lower_bound=lower_bounds.rectified, value=values.mapped(np.abs),
            formula=formulas.of(lambda item: sizes.maximum(item, -item)),
        ),
        **_unary(
            "Sqrt", Kind.ZERO, lower_bound=lower_bounds.root, value=values.mapped(np.sqrt),
            formula=formulas.unknown,
        ),
        **_unary(
            "Ceil", Kind.ZERO, value=values.mapped(np.ceil), formula=formulas.rounded_up
        ),
        **_unary(
            "Floor", Kind.ZERO, carries=FIRST, value=values.mapped(np.floor),
            formula=formulas.rounded_down,
        ),
        **_unary(
            "Round", Kind.ZERO, carries=FIRST, value=values.mapped(np.round),
            formula=formulas.unknown,
        ),
        **_unary(
            "Celu Elu Gelu HardSwish LeakyRelu Mish Selu Softsign Swish Tanh ThresholdedRelu",
            Kind.ZERO,
            activation=True,
        ),
        **_unary(
            "Relu", Kind.ZERO, activation=True, idempotent=True,
            lower_bound=lower_bounds.rectified,
        ),
        **_several("BitwiseAnd BitwiseOr BitwiseXor Xor", commutes=True),
        **_several(
            "And", commutes=True, value=values.folded(np.logical_and),
            formula=formulas.joined(False),
        ),
        **_several(
            "Or", commutes=True, value=values.folded(np.logical_or), formula=formulas.joined(True)
        ),
        **_several("BitShift", choices={"direction": ("LEFT", "RIGHT")}),
        **_compared("Greater", np.greater, operator.gt),
        **_compared("GreaterOrEqual", np.greater_equal, operator.ge),
        **_compared("Less", np.less, operator.lt),
        **_compared("LessOrEqual", np.less_equal, operator.le),
        **_several(
            "Equal", differentiable=False, unlimited=True, commutes=True,
            value=values.folded(np.equal), formula=formulas.of(sizes.same),
        ),
        **_several(
            "Max", compares=True, carries=EVERY, unlimited=True, commutes=True,
            lower_bound=lower_bounds.highest, value=values.folded(np.maximum),
            formula=formulas.folded(sizes.maximum),
        ),
        **_several(
            "Min", compares=True, carries=FIRST, unlimited=True, commutes=True,
            lower_bound=lower_bounds.lowest,
            value=values.folded(np.minimum), formula=formulas.folded(sizes.minimum),
        ),
        **_several("Mod", singular=1, value=values.remainder, formula=formulas.remainder),
        **_several(
            "Pow", singular=0, lower_bound=lower_bounds.power, value=values.power,
            formula=formulas.unknown
        ),
        **_several(
            "Where", carries=(1, 2), terms=(1, 2), unlimited=True, value=values.where,
            formula=formulas.where,
        ),
        **_several(
            "Add", Kind.LINEAR, terms=(0, 1), summands=(0, 1), commutes=True,
            hazard=hazards.large_factor,
            lower_bound=lower_bounds.total, value=values.folded(np.add),
            formula=formulas.folded(operator.add),
        ),
        **_several(
            "Sub", Kind.LINEAR, terms=(0, 1), summands=FIRST, value=values.folded(np.subtract),
            formula=formulas.folded(operator.sub),
        ),
        **_several(
            "Sum", Kind.LINEAR, terms=EVERY, summands=EVERY, commutes=True,
            lower_bound=lower_bounds.total
        ),
        **_several("Mean", Kind.LINEAR, commutes=True),
        **_several(
            "Mul", Kind.PRODUCT, terms=(0, 1), commutes=True,
            hazard=hazards.large_factor,
            lower_bound=lower_bounds.product,
            value=values.folded(np.multiply), formula=formulas.folded(operator.mul),
        ),
        **_several(
            "Div", Kind.SCALE, terms=(0, 1), singular=1, lower_bound=lower_bounds.quotient,
            value=values.quotient, formula=formulas.quotient,
        ),
        **_several("PRelu", Kind.ZERO, activation=True, weights={1: Operand.WEIGHT}),
        **family(
            "Bernoulli RandomNormal RandomNormalLike RandomUniform RandomUniformLike",
            Operator(random, random=True, implied=DRAWN),
        ),
        "Cast": Operator(
            cast, lower_bound=lower_bounds.cast, value=values.cast, formula=formulas.cast, **COPY
        ),
        "CastLike": Operator(
            cast_like, value=values.cast_like, formula=formulas.cast, **COPY
        ),
        "Clip": Operator(
            clip, activation=True, compares=True, idempotent=True, carries=FIRST, unlimited=True,
            lower_bound=lower_bounds.clipped, value=values.clip, formula=formulas.clip,
        ),
        "Dropout": move(
            dropout, in_order=True, in_place=True, random=True, training=2, implied=DROPOUT,
            lower_bound=None,
        ),
        "Multinomial": Operator(random, random=True, implied=DRAWN | MULTINOMIAL),
    }
}  # fmt: skip
