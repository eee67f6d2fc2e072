"""Pointwise operators: every output entry depends on one entry of each operand.

"..., ... -> ..."      Add: NumPy broadcasting, whatever the number of operands
"""

from __future__ import annotations

from onnx import TensorProto

from onnx_net2net.operators.language import Entry, Op, Rule, Table, Unsupported, line, names

UNARY = (
    "Acos Acosh BitCast BitwiseNot Cos Cosh Exp HardSigmoid IsInf IsNaN Log Not Reciprocal Shrink "
    "Sigmoid Softplus"
)
# f(0) = 0, whatever their attributes are.
ZERO = (
    "Abs Asin Asinh Atan Atanh Ceil Celu Elu Erf Floor Gelu HardSwish LeakyRelu Mish Relu Round "
    "Selu Sign Sin Sinh Softsign Sqrt Swish Tan Tanh ThresholdedRelu"
)
BINARY = (
    "And BitShift BitwiseAnd BitwiseOr BitwiseXor Equal Greater GreaterOrEqual Less LessOrEqual "
    "Mod Or Pow Where Xor"
)
RANDOM = "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike"

REAL = (TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.FLOAT, TensorProto.FLOAT16)


def pointwise(kind: str = "") -> Entry:
    """The rule of a pointwise operator with any number of operands."""

    def rule(op: Op) -> Rule:
        if op.attr("broadcast", 0):
            raise Unsupported("the broadcasting of opset 6 aligns axes on the left")
        return Rule(line([["..."]] * len(op.node.input), [["..."]]), kind=kind)

    return rule


def cast(op: Op) -> Rule:
    """Only among real numbers is a cast a mere copy: integers do not add up as shares do."""
    return Rule("... -> ...", kind="move" if op.attr("to") in REAL else "")


def cast_like(op: Op) -> Rule:
    """Only the type of the second operand is read, so its axes are nobody's business."""
    like = names("l", op.rank(1))
    reduce = dict.fromkeys(like, "max")
    return Rule(line([["..."], like], [["..."]]), reduce=reduce, kind="zero")


def clip(op: Op) -> Rule:
    """Bounds are attributes (opset 6) or scalars (opset 11); ReLU6 keeps zeros."""
    low, high = op.attr("min", -1.0), op.attr("max", 1.0)
    if op.has(1):
        low = 1.0 if op.value(1) is None else op.known(1).item()
    if op.has(2):
        high = -1.0 if op.value(2) is None else op.known(2).item()
    return Rule("..., _, _ -> ...", kind="zero" if low <= 0 <= high else "")


def dropout(op: Op) -> Rule:
    """In inference the identity; its mask is all ones."""
    if op.has(2) and bool(op.known(2)):
        raise Unsupported("Dropout in training mode is random")
    return Rule("..., _, _ -> ..., ...", kind="move")


def random(op: Op) -> Rule:
    """Copied units would draw different numbers."""
    raise Unsupported("its output is random")


TABLES: dict[str, Table] = {
    "": {
        **dict.fromkeys(UNARY.split(), "... -> ..."),
        **dict.fromkeys(ZERO.split(), Rule("... -> ...", kind="zero")),
        **dict.fromkeys(BINARY.split(), pointwise()),
        **dict.fromkeys(RANDOM.split(), random),
        "Add": pointwise("linear"),
        "Cast": cast,
        "CastLike": cast_like,
        "Clip": clip,
        "Div": pointwise("scale"),
        "Dropout": dropout,
        "Max": pointwise(),
        "Mean": pointwise("linear"),
        "Min": pointwise(),
        "Mul": pointwise("product"),
        "Neg": Rule("... -> ...", kind="linear"),
        "PRelu": pointwise("zero"),
        "Sub": pointwise("linear"),
        "Sum": pointwise("linear"),
    }
}
