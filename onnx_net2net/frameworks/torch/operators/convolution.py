"""Convolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx_net2net.frameworks.codegen import computed
from onnx_net2net.frameworks.torch.operation import Entry, TorchOperation
from onnx_net2net.frameworks.torch.operators.linear import layer
from onnx_net2net.frameworks.windows import same_pads, transposed_pads


def options_of(given: Mapping[str, Sequence[Any]], usual: Mapping[str, Any]) -> str:
    """Return keyword arguments, but for those that are as usual.

    >>> options_of({"stride": [2, 2], "groups": [1]}, {"stride": 1, "groups": 1})
    ', stride=2'
    """
    return "".join(
        f", {name}={pair(values)}"
        for name, values in given.items()
        if any(value != usual[name] for value in values)
    )


def pair(values: Sequence[Any]) -> str:
    """Return equal values as one number."""
    if len(set(values)) == 1:
        return str(values[0])
    return f"({', '.join(map(str, values))})"


def _same_pads(op: TorchOperation, kernel: Sequence[int], pooled: bool = False) -> list[str]:
    """Compute the pads of SAME_UPPER and SAME_LOWER from the sizes: begins, then ends.

    Pools of ONNX Runtime leave dilations out of account, and cut where a stride skips entries.
    """
    rank = len(kernel)
    strides = op.strides(rank)
    dilations = [1] * rank if pooled else op.dilations(rank)
    upper = op.attribute("auto_pad") == "SAME_UPPER"
    begins, ends = [], []
    for axis in range(rank):
        size, stride = op.size(0, axis + 2), strides[axis]
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        if isinstance(size, int):
            before, after = same_pads(size, reach, stride, not upper, cuts=pooled)
            begins.append(str(before))
            ends.append(str(after))
            continue
        n = op.code(size)
        code = f"((({n}) + {stride - 1}) // {stride} - 1) * {stride} + {reach} - ({n})"
        code = code if pooled else f"max({code}, 0)"
        whole = op.translator.expression(code, "padding")
        half = f"int(({whole}{'' if upper else ' + 1'}) / 2)"
        half = half if pooled else f"({whole}{'' if upper else ' + 1'}) // 2"
        begins.append(half)
        ends.append(f"{whole} - {half}")
    return begins + ends


def padding(
    op: TorchOperation, kernel: Sequence[int], pooled: bool = False
) -> tuple[list[str], bool]:
    """Return pads, begins then ends, and whether both are equal on every axis."""
    rank = len(kernel)
    mode, pads = op.attribute("auto_pad", "NOTSET"), list(map(str, op.pads(rank)))
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same_pads(op, kernel, pooled)
    elif mode == "VALID":
        pads = ["0"] * (2 * rank)
    return pads, pads[:rank] == pads[rank:]


def padded(x: str, pads: Sequence[str], value: str = "") -> str:
    """Pad ``x``; F.pad counts from the last axis."""
    rank = len(pads) // 2
    order = [p for axis in reversed(range(rank)) for p in (pads[axis], pads[axis + rank])]
    return f"F.pad({x}, ({', '.join(order)}){value})"


def kernel_of(op: TorchOperation, weight: int) -> list[int]:
    """Return the sizes of a kernel, which slides along one to three axes."""
    rank = op.axes_of(weight) - 2
    if rank not in (1, 2, 3):
        op.refuse(f"it has {rank} axes to slide along")
    return list(op.attribute("kernel_shape") or [op.fixed(weight, a) for a in range(2, rank + 2)])


def convolved(op: TorchOperation, x: str, w: str, weight: int, bias: str = "") -> str:
    """Call the function with all its options, for tensors that are computed."""
    kernel = kernel_of(op, weight)
    pads, _ = padding(op, kernel)
    rank = len(kernel)
    options = f"stride={pair(op.strides(rank))}, dilation={pair(op.dilations(rank))}"
    options += f", groups={op.attribute('group', 1)}"
    return f"F.conv{rank}d({padded(x, pads)}, {w}{bias}, {options})"


def conv(op: TorchOperation) -> str:
    """Call a convolution module where the weights are one's, else the function."""
    kernel = kernel_of(op, 1)
    rank = len(kernel)
    shape = op.program.dims(op.name(1)) or ()
    pads, even = padding(op, kernel)
    given: dict[str, Sequence[Any]] = {
        "stride": op.strides(rank),
        "padding": pads[:rank] if even else ["0"] * rank,
        "dilation": op.dilations(rank),
        "groups": [op.attribute("group", 1)],
    }
    usual = {"stride": 1, "padding": "0", "dilation": 1, "groups": 1}
    options = options_of(given, usual)
    x = op.tensor(0) if even else padded(op.tensor(0), pads)
    bias = 2 if op.has(2) else None
    if all(isinstance(size, int) for size in shape) and not any(map(computed, pads)):
        channels = int(shape[1] or 0) * op.attribute("group", 1)
        module = f"nn.Conv{rank}d({channels}, {shape[0]}, {pair(kernel)}{options})"
        called = layer(op, module, x, 1, bias)
        if called is not None:
            return called
    op.named(op.path(1))
    b = "" if bias is None else f", {op.tensor(bias)}"
    return f"F.conv{rank}d({x}, {op.tensor(1)}{b}{options})"


def conv_transpose(op: TorchOperation) -> str:
    """Cut from the whole result, or add to it, what no padding of PyTorch's does."""
    kernel = kernel_of(op, 1)
    rank = len(kernel)
    strides, dilations = op.strides(rank), op.dilations(rank)
    pads = transposed_pads(op, kernel, lambda axis: op.fixed(0, axis + 2))
    begins, ends = [b for b, _ in pads], [e for _, e in pads]
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
    cuts = [str(-cut) for cut in (*begins, *ends)]
    if min(*begins, *ends) >= 0 or not op.has(2):
        return padded(_transposed(op, rank, kernel, options), cuts)
    op.named(op.path(1))  # the bias stands in what is added, too
    code = padded(f"F.conv_transpose{rank}d({op.tensor(0)}, {op.tensor(1)}{options})", cuts)
    return f"{code} + ({op.tensor(2)}).reshape({', '.join(['-1', *['1'] * rank])})"


def _transposed(op: TorchOperation, rank: int, kernel: Sequence[int], options: str) -> str:
    shape = op.program.dims(op.name(1)) or ()
    bias = 2 if op.has(2) else None
    if all(isinstance(size, int) for size in shape):
        channels = int(shape[1] or 0) * op.attribute("group", 1)
        module = f"nn.ConvTranspose{rank}d({shape[0]}, {channels}, {pair(kernel)}{options})"
        called = layer(op, module, op.tensor(0), 1, bias)
        if called is not None:
            return called
    op.named(op.path(1))
    b = "" if bias is None else f", {op.tensor(2)}"
    return f"F.conv_transpose{rank}d({op.tensor(0)}, {op.tensor(1)}{b}{options})"


def col2im(op: TorchOperation) -> str:
    """Sum overlapping blocks into an image."""
    rank = op.length(1)
    if rank is None:
        op.refuse("the number of axes of its image is not known")
    pads = op.pads(rank)
    options = [list(op.attribute(n) or [1] * rank) for n in ("dilations", "strides")]
    image, block = f"({op.listed(op.sizes(1))},)", f"({op.listed(op.sizes(2))},)"
    if rank == 2 and pads[:2] == pads[2:]:
        given = f"{image}, {block}, dilation={tuple(options[0])}"
        given += f", padding={tuple(pads[:2])}, stride={tuple(options[1])}"
        return f"F.fold({op.tensor(0)}, {given})"
    return op.kernel("folded", op.tensor(0), image, block, *map(tuple, options), tuple(pads))


TABLES: dict[str, dict[str, Entry]] = {
    "": {"Col2Im": col2im, "Conv": conv, "ConvTranspose": conv_transpose},
}
