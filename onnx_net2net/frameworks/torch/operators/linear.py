"""Matrix products and convolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx_net2net.frameworks.torch.codegen import computed
from onnx_net2net.frameworks.torch.operation import Entry, Operation
from onnx_net2net.frameworks.torch.types import Untranslated, literal, short, torch_dtype


def typed(op: Operation, index: int) -> str:
    """``, dtype=torch.float16`` for a module that does not hold float32."""
    dtype = op.dtype(index)
    return "" if dtype == 1 else f", dtype={torch_dtype(dtype)}"


def layer(op: Operation, module: str, x: str, weight: int, bias: int | None) -> str | None:
    """``x`` through a module that has just these weights; None where they are no module's."""
    if bias is None:
        found = op.layer(f"{module[:-1]}, bias=False{typed(op, weight)})", weight=weight)
    else:
        found = op.layer(f"{module[:-1]}{typed(op, weight)})", weight=weight, bias=bias)
    return None if found is None else f"{found}({x})"


def options_of(given: Mapping[str, Sequence[Any]], usual: Mapping[str, Any]) -> str:
    """Keyword arguments, but for those that are as usual.

    >>> options_of({"stride": [2, 2], "groups": [1]}, {"stride": 1, "groups": 1})
    ', stride=2'
    """
    return "".join(
        f", {name}={pair(values)}"
        for name, values in given.items()
        if any(value != usual[name] for value in values)
    )


def gemm(op: Operation) -> str:
    """A layer where the weight lies as PyTorch's does, else a product and a sum."""
    alpha, beta = op.attribute("alpha", 1.0), op.attribute("beta", 1.0)
    a = f"({op.tensor(0)}).T" if op.attribute("transA", 0) else op.tensor(0)
    shape = op.shape(1)
    bias = op.shape(2) if op.has(2) else None
    columns = None if shape is None else shape[0 if op.attribute("transB", 0) else 1]
    plain_bias = not op.has(2) or (beta == 1.0 and bias == (columns,))
    if alpha == 1.0 and plain_bias and shape is not None:
        return linear(op, a, 1, 2 if op.has(2) else None, bool(op.attribute("transB", 0)))
    b = f"({op.tensor(1)}).T" if op.attribute("transB", 0) else op.tensor(1)
    product = f"({a}) @ ({b})"
    if alpha != 1.0:
        product = f"{short(alpha)} * ({product})"
    if not op.has(2):
        return product
    c = op.tensor(2) if beta == 1.0 else f"{short(beta)} * {op.tensor(2)}"
    return f"({product}) + ({c})"


def linear(op: Operation, x: str, weight: int, bias: int | None, transposed: bool) -> str:
    """``x`` times a weight, which is stored as (out, in) where ``transposed``."""
    shape = op.shape(weight)
    if transposed and shape is not None:
        found = layer(op, f"nn.Linear({shape[1]}, {shape[0]})", x, weight, bias)
        if found is not None:
            return found
    op.named(op.path(weight))
    w = op.tensor(weight) if transposed else f"({op.tensor(weight)}).T"
    b = "" if bias is None else f", {op.tensor(bias)}"
    return f"F.linear({x}, {w}{b})"


def linear_step(op: Operation) -> str:
    """What the idiom of a product and a sum stands for."""
    bias = 2 if op.has(2) else None
    return linear(op, op.tensor(0), 1, bias, bool(op.attribute("transposed", 0)))


def pair(values: Sequence[int]) -> str:
    """Equal values as one number."""
    if len(set(values)) == 1:
        return str(values[0])
    return f"({', '.join(map(str, values))})"


def same_pads(op: Operation, kernel: Sequence[int], pooled: bool = False) -> list[str]:
    """Pads of SAME_UPPER and SAME_LOWER, computed from the sizes: begins, then ends.

    Pools of ONNX Runtime leave dilations out of account, and cut where a stride skips entries.
    """
    rank = len(kernel)
    strides = op.attribute("strides") or [1] * rank
    dilations = [1] * rank if pooled else op.attribute("dilations") or [1] * rank
    upper = op.attribute("auto_pad") == "SAME_UPPER"
    begins, ends = [], []
    for axis in range(rank):
        size, stride = op.size(0, axis + 2), strides[axis]
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        if isinstance(size, int):
            total = (-(-size // stride) - 1) * stride + reach - size
            total = total if pooled else max(total, 0)
            less = int(total / 2) if upper else int((total + 1) / 2)
            begins.append(str(less))
            ends.append(str(total - less))
            continue
        code = f"((({size}) + {stride - 1}) // {stride} - 1) * {stride} + {reach} - ({size})"
        code = code if pooled else f"max({code}, 0)"
        whole = op.translator.expression(code, "padding")
        half = f"int(({whole}{'' if upper else ' + 1'}) / 2)"
        half = half if pooled else f"({whole}{'' if upper else ' + 1'}) // 2"
        begins.append(half)
        ends.append(f"{whole} - {half}")
    return begins + ends


def padding(op: Operation, kernel: Sequence[int], pooled: bool = False) -> tuple[list[str], bool]:
    """Pads, begins then ends, and whether both are equal on every axis."""
    rank = len(kernel)
    mode = op.attribute("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        op.attribute("pads")
        pads = same_pads(op, kernel, pooled)
    elif mode == "VALID":
        op.attribute("pads")
        pads = ["0"] * (2 * rank)
    else:
        pads = [str(p) for p in op.attribute("pads") or [0] * (2 * rank)]
    return pads, pads[:rank] == pads[rank:]


def padded(x: str, pads: Sequence[str], value: str = "") -> str:
    """``x`` with these pads; F.pad counts from the last axis."""
    rank = len(pads) // 2
    order = [p for axis in reversed(range(rank)) for p in (pads[axis], pads[axis + rank])]
    return f"F.pad({x}, ({', '.join(order)}){value})"


def conv(op: Operation) -> str:
    """A convolution module where the weights are one's, else the function."""
    rank = op.axes_of(1) - 2
    if rank not in (1, 2, 3):
        raise Untranslated(f"it has {rank} axes to slide along")
    shape = op.program.dims(op.name(1)) or ()
    kernel = op.attribute("kernel_shape") or [op.fixed(1, a) for a in range(2, rank + 2)]
    pads, even = padding(op, kernel)
    given = {
        "stride": list(op.attribute("strides") or [1] * rank),
        "padding": pads[:rank] if even else ["0"] * rank,
        "dilation": list(op.attribute("dilations") or [1] * rank),
        "groups": [op.attribute("group", 1)],
    }
    usual = {"stride": 1, "padding": "0", "dilation": 1, "groups": 1}
    options = options_of(given, usual)
    x = op.tensor(0) if even else padded(op.tensor(0), pads)
    bias = 2 if op.has(2) else None
    if all(isinstance(size, int) for size in shape) and not any(map(computed, pads)):
        channels = int(shape[1] or 0) * op.attribute("group", 1)
        module = f"nn.Conv{rank}d({channels}, {shape[0]}, {pair(kernel)}{options})"
        found = layer(op, module, x, 1, bias)
        if found is not None:
            return found
    op.named(op.path(1))
    b = "" if bias is None else f", {op.tensor(bias)}"
    return f"F.conv{rank}d({x}, {op.tensor(1)}{b}{options})"


def conv_transpose(op: Operation) -> str:
    """ConvTranspose; what no padding of PyTorch's does is cut from the whole result, or added."""
    rank = op.axes_of(1) - 2
    if rank not in (1, 2, 3):
        raise Untranslated(f"it has {rank} axes to slide along")
    kernel = op.attribute("kernel_shape") or [op.fixed(1, a) for a in range(2, rank + 2)]
    strides = list(op.attribute("strides") or [1] * rank)
    dilations = list(op.attribute("dilations") or [1] * rank)
    begins, ends = _cuts(op, kernel, strides, dilations)
    extra = [b - e for b, e in zip(begins, ends, strict=True)]
    most = map(max, strides, dilations)
    fits = min(begins) >= 0 and all(0 <= e < m for e, m in zip(extra, most, strict=True))
    given = {
        "stride": strides,
        "padding": begins if fits else [0] * rank,
        "output_padding": extra if fits else [0] * rank,
        "groups": [op.attribute("group", 1)],
        "dilation": dilations,
    }
    usual = {"stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1}
    options = options_of(given, usual)
    if fits:
        return _transposed(op, rank, kernel, options)
    pads = [str(-cut) for cut in (*begins, *ends)]
    if min(*begins, *ends) >= 0 or not op.has(2):
        return padded(_transposed(op, rank, kernel, options), pads)
    op.named(op.path(1))  # the bias stands in what is added, too
    code = padded(f"F.conv_transpose{rank}d({op.tensor(0)}, {op.tensor(1)}{options})", pads)
    return f"{code} + ({op.tensor(2)}).reshape({', '.join(['-1', *['1'] * rank])})"


def _transposed(op: Operation, rank: int, kernel: Sequence[int], options: str) -> str:
    shape = op.program.dims(op.name(1)) or ()
    bias = 2 if op.has(2) else None
    if all(isinstance(size, int) for size in shape):
        channels = int(shape[1] or 0) * op.attribute("group", 1)
        module = f"nn.ConvTranspose{rank}d({shape[0]}, {channels}, {pair(kernel)}{options})"
        found = layer(op, module, op.tensor(0), 1, bias)
        if found is not None:
            return found
    op.named(op.path(1))
    b = "" if bias is None else f", {op.tensor(2)}"
    return f"F.conv_transpose{rank}d({op.tensor(0)}, {op.tensor(1)}{b}{options})"


def _cuts(
    op: Operation, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[int], list[int]]:
    """What is cut from both ends of all that the windows cover; negative numbers are added."""
    rank = len(kernel)
    mode, wanted = op.attribute("auto_pad", "NOTSET"), op.attribute("output_shape")
    extra = list(op.attribute("output_padding") or [0] * rank)
    pads = list(op.attribute("pads") or [0] * (2 * rank))
    if not wanted and mode in ("NOTSET", "VALID"):
        pads = pads if mode == "NOTSET" else [0] * (2 * rank)
        return pads[:rank], [e - more for e, more in zip(pads[rank:], extra, strict=True)]
    begins, ends = [], []
    for axis in range(rank):
        surplus = (kernel[axis] - 1) * dilations[axis] + 1 - strides[axis]
        if wanted:
            surplus += strides[axis] * op.fixed(0, axis + 2) - wanted[-rank:][axis]
        total = max(surplus + extra[axis], 0)
        begins.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
        # SAME never makes the result longer than what the windows cover.
        whole = surplus if wanted else total - extra[axis]
        ends.append(whole - begins[-1])
    return begins, ends


def matmul_integer(op: Operation) -> str:
    """Products of integers less their zero points."""
    a, b = (f"({op.tensor(i)}).to(torch.int32)" for i in (0, 1))
    if op.has(2):
        point = op.tensor(2)
        point = f"({point}).unsqueeze(-1)" if op.rank(2) == 1 and op.axes_of(0) > 1 else point
        a = f"({a} - {point})"
    if op.has(3):
        b = f"({b} - {op.tensor(3)})"
    return f"torch.matmul({a}, {b})"


def conv_integer(op: Operation) -> str:
    """A convolution of integers less their zero points, exact in float64."""
    x, w = (f"({op.tensor(i)}).double()" for i in (0, 1))
    if op.has(2):
        x = f"({x} - {op.tensor(2)})"
    if op.has(3):
        point = op.tensor(3)
        shaped = f"{point}.reshape(-1, *[1] * {op.axes_of(1) - 1})" if op.rank(3) else point
        w = f"({w} - {shaped})"
    rank = op.axes_of(1) - 2
    kernel = op.attribute("kernel_shape") or [op.fixed(1, a) for a in range(2, rank + 2)]
    pads, _ = padding(op, kernel)
    strides = list(op.attribute("strides") or [1] * rank)
    dilations = list(op.attribute("dilations") or [1] * rank)
    options = f"stride={pair(strides)}, dilation={pair(dilations)}"
    options += f", groups={op.attribute('group', 1)}"
    return f"F.conv{rank}d({padded(x, pads)}, {w}, {options}).round().to(torch.int32)"


def einsum(op: Operation) -> str:
    """PyTorch reads the same equations."""
    names = ", ".join(op.tensor(i) for i in range(len(op.step.inputs)))
    equation = "".join(op.attribute("equation").split())
    return f"torch.einsum({literal(equation)}, {names})"


def matmul(op: Operation) -> str:
    """A product; a weight on the right names the result."""
    if op.path(1):
        op.named(op.path(1))
    return op.filled("{t0} @ {t1}")


def determinant(op: Operation) -> str:
    """Determinants; PyTorch has none of float16."""
    if op.dtype() in (10, 16):
        return f"torch.linalg.det(({op.tensor(0)}).float()).to({op.gives()})"
    return f"torch.linalg.det({op.tensor(0)})"


def deform(op: Operation) -> str:
    """Sampled where the offsets say, then an ordinary product."""
    rank = op.axes_of(1) - 2
    if rank != 2:
        raise Untranslated("it does not slide along two axes")
    options = {
        "strides": op.attribute("strides") or [1, 1],
        "pads": op.attribute("pads") or [0, 0, 0, 0],
        "dilations": op.attribute("dilations") or [1, 1],
        "group": op.attribute("group", 1),
        "offset_group": op.attribute("offset_group", 1),
    }
    given = [op.tensor(0), op.tensor(1), op.tensor(2), op.optional(3), op.optional(4)]
    return op.kernel("deform_conv", *given, *(f"{k}={v}" for k, v in options.items()))


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "Conv": conv,
        "ConvInteger": conv_integer,
        "ConvTranspose": conv_transpose,
        "DeformConv": deform,
        "Det": determinant,
        "Einsum": einsum,
        "Gemm": gemm,
        "MatMul": matmul,
        "MatMulInteger": matmul_integer,
    },
    "com.microsoft": {
        "Inverse": "torch.linalg.inv({0})",
    },
    "idiom": {
        "Linear": linear_step,
    },
}
