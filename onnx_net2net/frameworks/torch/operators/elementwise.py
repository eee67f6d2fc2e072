"""Operators that work element by element."""

from __future__ import annotations

from onnx import TensorProto, helper

from onnx_net2net.frameworks.torch.operation import Entry, TorchOperation
from onnx_net2net.frameworks.torch.types import (
    FLOATS8,
    INTEGERS,
    SMALL,
    UNSIGNED,
    literal,
    short,
    torch_dtype,
)
from onnx_net2net.operators.types import FLOATS

BOOL = 9
UINT64 = 13


def divide(op: TorchOperation) -> str:
    """Round integers towards zero."""
    if op.dtype() in FLOATS:
        return op.filled("{0} / {1}")
    if op.dtype() == UINT64:
        return op.kernel("unsigned_divided", op.tensor(0), op.tensor(1))
    return op.filled('torch.div({0}, {1}, rounding_mode="trunc")')


def modulo(op: TorchOperation) -> str:
    """Keep the divisor's sign, or with ``fmod`` the dividend's."""
    fmod = bool(op.attribute("fmod", 0))
    if op.dtype() == UINT64:
        if fmod:
            op.refuse("ONNX Runtime rounds what it divides")
        return op.kernel("unsigned_remainder", op.tensor(0), op.tensor(1))
    if fmod and op.dtype() == TensorProto.INT64:  # through float64, as ONNX Runtime does
        return op.filled("torch.fmod({t0}.double(), {t1}.double()).to(torch.int64)")
    name = "fmod" if fmod else "remainder"
    left = "{0}" if op.number(0) is None else "{t0}"
    return op.filled(f"torch.{name}({left}, {{1}})")


def power(op: TorchOperation) -> str:
    """Keep the type of the base."""
    if op.dtype() == UINT64:
        op.refuse("PyTorch has no powers of UINT64")
    exponent = op.number(1)
    rank, other = op.rank(0), op.rank(1)
    if exponent is not None and (other == 0 or (None not in (rank, other) and other <= rank)):  # type: ignore[operator]
        exponent = exponent.removesuffix(".0")
        code = f"({op.tensor(0)}) ** ({exponent})"
    else:
        code = f"torch.pow({op.tensor(0)}, {op.tensor(1)})"
    wider = op.dtype(1) in (*FLOATS, *UNSIGNED) and op.dtype(1) != op.dtype(0)
    return f"({code}).to({op.output_dtype()})" if wider or op.dtype(0) not in FLOATS else code


def extreme(name: str) -> Entry:
    """Write Max or Min of any number of tensors."""
    bound = "min" if name == "maximum" else "max"

    def entry(op: TorchOperation) -> str:
        if len(op.step.inputs) == 2:
            for known, other in ((1, 0), (0, 1)):
                if op.rank(known) == 0 and op.number(known) is not None:
                    return f"({op.tensor(other)}).clamp({bound}={op.number(known)})"
        code, *others = op.tensors()
        for one in others:
            code = f"torch.{name}({code}, {one})"
        return code

    return entry


def clip(op: TorchOperation) -> str:
    """Write Clip, whose bounds are attributes or operands."""
    bounds, numbers = [], set()
    for index, name in ((1, "min"), (2, "max")):
        if name in op.step.attributes:
            number: str | None = short(op.attribute(name))
        elif op.has(index):
            number = op.number(index)
        else:
            continue
        numbers.add(number is not None)
        bounds.append(f"{name}={number or op.tensor(index)}")
    if not bounds:
        return op.tensor(0)
    if len(numbers) > 1:  # PyTorch takes numbers or tensors, not one of each
        lower, upper = bounds
        return f"torch.clamp(torch.clamp({op.tensor(0)}, {lower}), {upper})"
    if [op.number(i) for i in (1, 2) if op.has(i)] == ["0.0", "6.0"]:
        return f"F.relu6({op.tensor(0)})"
    return f"torch.clamp({op.tensor(0)}, {', '.join(bounds)})"


def cast(op: TorchOperation) -> str:
    """Convert to a type, or to that of another tensor; from a float, towards zero."""
    to = op.dtype(1) if op.has(1) else op.attribute("to")
    wanted, saturate = torch_dtype(to), bool(op.attribute("saturate", 1))
    source = op.program.dtype(op.name(0))
    if source == to:
        return op.tensor(0)
    if to in FLOATS8:
        return op.kernel("small_float", op.tensor(0), wanted, saturate)
    if to in SMALL:
        return op.kernel("few_bits", op.tensor(0), SMALL[to], wanted == "torch.int8")
    if source is not None:
        torch_dtype(source)  # text is no number
    return f"({op.tensor(0)}).to({wanted})"


def where(op: TorchOperation) -> str:
    """Write Where; numbers on both sides have to be given their type."""
    condition = op.tensor(0)
    numbers = [op.number(1), op.number(2)]
    wide = op.rank(0)
    narrow = [wide is not None and (r := op.rank(i)) is not None and r <= wide for i in (1, 2)]
    if None not in numbers and all(narrow):
        code = f"torch.where({condition}, {numbers[0]}, {numbers[1]})"
        plain = op.output_dtype() in ("torch.float32", "torch.int64")
        return code if plain else f"{code}.to({op.output_dtype()})"
    parts = []
    for index, other in ((1, 2), (2, 1)):
        number, rank = numbers[index - 1], op.rank(index)
        limit = max((r for r in (op.rank(0), op.rank(other)) if r is not None), default=-1)
        parts.append(number if number and rank is not None and rank <= limit else op.tensor(index))
    return f"torch.where({condition}, {parts[0]}, {parts[1]})"


def gelu(op: TorchOperation) -> str:
    """Write GELU, exact or by the tanh formula."""
    form = op.attribute("approximate", "none")
    options = "" if form == "none" else ', approximate="tanh"'
    return f"F.gelu({op.tensor(0)}{options})"


def bounded(template: str, **defaults: float) -> Entry:
    """Fill float attributes into a template, as ``{alpha}``."""

    def entry(op: TorchOperation) -> str:
        code = template
        for name, default in defaults.items():
            code = code.replace(f"{{{name}}}", short(op.attribute(name, default)))
        return op.filled(code)

    return entry


def hard_sigmoid(op: TorchOperation) -> str:
    """Call PyTorch's own where the slope is 1/6."""
    alpha, beta = op.attribute("alpha", 0.2), op.attribute("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-7 and beta == 0.5:
        return f"F.hardsigmoid({op.tensor(0)})"
    return f"torch.clamp({short(alpha)} * ({op.tensor(0)}) + {short(beta)}, 0, 1)"


def prelu(op: TorchOperation) -> str:
    """Write PRelu, whose slope broadcasts; a single one is PyTorch's module."""
    x, layer = op.tensor(0), None
    if op.shape(1) == (1,):
        layer = op.layer("nn.PReLU()", weight=1)
    return f"{layer}({x})" if layer else f"torch.where(({x}) >= 0, {x}, ({x}) * {op.tensor(1)})"


def shrink(op: TorchOperation) -> str:
    """Write nothing between -lambd and lambd, and what is beyond nearer by the bias."""
    bias, limit = short(op.attribute("bias", 0.0)), short(op.attribute("lambd", 0.5))
    x = op.add(op.tensor(0), "x", inline=False)
    inner = f"torch.where({x} > {limit}, {x} - {bias}, torch.zeros_like({x}))"
    code = f"torch.where({x} < -{limit}, {x} + {bias}, {inner})"
    return op.typed(code)


def absolute(op: TorchOperation) -> str:
    """Drop the sign."""
    return op.tensor(0) if op.dtype() == UINT64 else f"torch.abs({op.tensor(0)})"


def sign(op: TorchOperation) -> str:
    """Write -1, 0 or 1; what is not a number stays so."""
    if op.dtype() == UINT64:
        return f"({op.tensor(0)} != 0).to(torch.int64)"
    if op.dtype() in FLOATS:
        return op.filled("torch.where({t0} != {t0}, {t0}, torch.sign({t0}))")
    return f"torch.sign({op.tensor(0)})"


def is_inf(op: TorchOperation) -> str:
    """Write IsInf; either sign may be left out."""
    negative, positive = op.attribute("detect_negative", 1), op.attribute("detect_positive", 1)
    if negative and positive:
        return f"torch.isinf({op.tensor(0)})"
    if not negative and not positive:
        return f"torch.zeros_like({op.tensor(0)}, dtype=torch.bool)"
    return f"torch.is{'neg' if negative else 'pos'}inf({op.tensor(0)})"


def shift(op: TorchOperation) -> str:
    """Shift bits to the left or right."""
    bits = 8 * helper.tensor_dtype_to_np_dtype(op.dtype()).itemsize
    if op.attribute("direction") == "LEFT":
        return op.kernel("shifted_left", op.tensor(0), op.tensor(1), bits)
    signed = helper.tensor_dtype_to_np_dtype(op.dtype()).kind == "i"
    return op.kernel("shifted_right", op.tensor(0), op.tensor(1), bits, signed)


def variadic(mean: bool) -> Entry:
    """Write the sum or mean of any number of tensors."""

    def entry(op: TorchOperation) -> str:
        total = " + ".join(f"({name})" for name in op.tensors())
        return f"({total}) / {len(op.step.inputs)}" if mean else total

    return entry


def equal(op: TorchOperation) -> str:
    """Compare numbers or truth values; no text."""
    if op.dtype() not in (*FLOATS, *INTEGERS, BOOL):
        op.refuse("it compares text")
    return op.filled("{0} == {1}")


def bits(op: TorchOperation) -> str:
    """View the same bytes as another type."""
    return f"({op.tensor(0)}).view({torch_dtype(op.attribute('to'))})"


def swish(op: TorchOperation) -> str:
    """Write x * sigmoid(alpha * x)."""
    alpha = op.attribute("alpha", 1.0)
    if alpha == 1.0:
        return f"F.silu({op.tensor(0)})"
    return f"({op.tensor(0)}) * torch.sigmoid({literal(alpha)} * ({op.tensor(0)}))"


def dropout(op: TorchOperation) -> list[str]:
    """Follow ``train()`` and ``eval()``, whatever mode the file was exported in."""
    stated = op.attribute("ratio", 0.5)
    ratio = short(stated)
    if op.has(1):
        constant = op.program.constant(op.name(1)) if op.program.is_constant(op.name(1)) else None
        stated = constant.item() if constant is not None and constant.size == 1 else stated
        ratio = op.number(1) or f"float({op.tensor(1)})"
    op.check_ratio(stated)
    x = op.tensor(0)
    if not op.wants(1):
        return [f"F.dropout({x}, {ratio}, self.training)"]
    ones = f"torch.ones_like({x})"
    kept = op.add(f"F.dropout({ones}, {ratio}, self.training)", "kept", inline=False)
    mask = f"{kept} != 0"  # before opset 12 a float where the ratio is an attribute
    return [f"{x} * {kept}", mask if op.opset >= 10 else f"({mask}).to({op.output_dtype(1)})"]


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "Abs": absolute,
        "Acos": "torch.acos({0})",
        "Acosh": "torch.acosh({0})",
        "Add": "{0} + {1}",
        "And": "{0} & {1}",
        "Asin": "torch.asin({0})",
        "Asinh": "torch.asinh({0})",
        "Atan": "torch.atan({0})",
        "Atanh": "torch.atanh({0})",
        "BitCast": bits,
        "BitShift": shift,
        "BitwiseAnd": "{0} & {1}",
        "BitwiseNot": "~{0}",
        "BitwiseOr": "{0} | {1}",
        "BitwiseXor": "{0} ^ {1}",
        "Cast": cast,
        "CastLike": cast,
        "Ceil": "torch.ceil({0})",
        "Celu": bounded("F.celu({0}, {alpha})", alpha=1.0),
        "Clip": clip,
        "Cos": "torch.cos({0})",
        "Cosh": "torch.cosh({0})",
        "Div": divide,
        "Dropout": dropout,
        "Elu": bounded("F.elu({0}, {alpha})", alpha=1.0),
        "Equal": equal,
        "Erf": "torch.erf({0})",
        "Exp": "torch.exp({0})",
        "Floor": "torch.floor({0})",
        "Gelu": gelu,
        "Greater": "{0} > {1}",
        "GreaterOrEqual": "{0} >= {1}",
        "HardSigmoid": hard_sigmoid,
        "HardSwish": "F.hardswish({0})",
        "IsInf": is_inf,
        "IsNaN": "torch.isnan({0})",
        "LeakyRelu": bounded("F.leaky_relu({0}, {alpha})", alpha=0.01),
        "Less": "{0} < {1}",
        "LessOrEqual": "{0} <= {1}",
        "Log": "torch.log({0})",
        "Max": extreme("maximum"),
        "Mean": variadic(mean=True),
        "Min": extreme("minimum"),
        "Mish": "F.mish({0})",
        "Mod": modulo,
        "Mul": "{0} * {1}",
        "Neg": "-{t0}",
        "Not": "torch.logical_not({0})",
        "Or": "{0} | {1}",
        "PRelu": prelu,
        "Pow": power,
        "Reciprocal": "torch.reciprocal({0})",
        "Relu": "F.relu({0})",
        "Round": "torch.round({t0})",
        "Selu": bounded(
            "{gamma} * torch.where({0} > 0, {0}, {alpha} * torch.expm1({0}))",
            gamma=1.05070102214813232421875,
            alpha=1.67326319217681884765625,
        ),
        "Shrink": shrink,
        "Sigmoid": "torch.sigmoid({0})",
        "Sign": sign,
        "Sin": "torch.sin({0})",
        "Sinh": "torch.sinh({0})",
        "Softplus": "F.softplus({0}, threshold=40)",
        "Softsign": "F.softsign({0})",
        "Sqrt": "torch.sqrt({0})",
        "Sub": "{0} - {1}",
        "Sum": variadic(mean=False),
        "Swish": swish,
        "Tan": "torch.tan({0})",
        "Tanh": "torch.tanh({0})",
        "ThresholdedRelu": bounded("F.threshold({0}, {alpha}, 0.0)", alpha=1.0),
        "Where": where,
        "Xor": "{0} ^ {1}",
    },
}
