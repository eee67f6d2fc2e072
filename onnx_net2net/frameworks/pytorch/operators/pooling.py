"""Pools."""

from __future__ import annotations

from onnx_net2net.frameworks.pytorch.operation import Entry, Operation
from onnx_net2net.frameworks.pytorch.operators.linear import padded, padding, pair
from onnx_net2net.frameworks.pytorch.types import FLOATS, Untranslated


def _kernel(op: Operation) -> tuple[list[int], list[int], list[int], int]:
    kernel = list(op.attribute("kernel_shape"))
    rank = len(kernel)
    if rank not in (1, 2, 3):
        raise Untranslated(f"it has {rank} axes to slide along")
    strides = list(op.attribute("strides") or [1] * rank)
    return kernel, strides, list(op.attribute("dilations") or [1] * rank), rank


def _ceil(op: Operation) -> bool:
    return bool(op.attribute("ceil_mode", 0)) and op.attribute("auto_pad", "NOTSET") == "NOTSET"


def max_pool(op: Operation) -> list[str]:
    """Padding never wins; indices count through the whole tensor."""
    kernel, strides, dilations, rank = _kernel(op)
    pads, even = padding(op, kernel)
    x = op.tensor(0)
    if op.dtype() not in FLOATS:
        return [_integer_pool(op, kernel)]
    small = even and all(
        p.isdigit() and 2 * int(p) <= k for p, k in zip(pads, kernel, strict=False)
    )
    if not small and any(p != "0" for p in pads):
        x = padded(x, pads, ', value=float("-inf")')
        pads = ["0"] * (2 * rank)
    options = "" if strides == kernel else f", stride={pair(strides)}"
    if any(p != "0" for p in pads):
        options += f", padding={pair([int(p) for p in pads[:rank]])}"
    if any(d != 1 for d in dilations):
        options += f", dilation={pair(dilations)}"
    options += ", ceil_mode=True" if _ceil(op) else ""
    by_column = op.attribute("storage_order", 0)
    if not op.wants(1):
        return [f"F.max_pool{rank}d({x}, {pair(kernel)}{options})"]
    if not small:
        raise Untranslated("it gives indices into a tensor with uneven pads")
    if by_column:
        raise Untranslated("its indices count column by column")
    code = f"F.max_pool{rank}d({x}, {pair(kernel)}{options}, return_indices=True)"
    pooled, indices = op.translator.block.unpack(code, [op.hint, "indices"])
    return [pooled, op.kernel("whole_indices", indices, op.tensor(0))]


def _integer_pool(op: Operation, kernel: list[int]) -> str:
    """Integers through float64, which holds them exactly up to 2**53."""
    if op.wants(1):
        raise Untranslated("it pools integers and gives indices")
    _, strides, dilations, rank = _kernel(op)
    pads, _ = padding(op, kernel)
    x = padded(f"({op.tensor(0)}).double()", pads, ', value=float("-inf")')
    options = f"stride={pair(strides)}, dilation={pair(dilations)}, ceil_mode={_ceil(op)}"
    return f"F.max_pool{rank}d({x}, {pair(kernel)}, {options}).to({op.gives()})"


def average_pool(op: Operation) -> str:
    """Padding counts where ``count_include_pad`` says so."""
    kernel, strides, dilations, rank = _kernel(op)
    pads, even = padding(op, kernel)
    include = bool(op.attribute("count_include_pad", 0))
    none = all(p == "0" for p in pads)
    small = all(p.isdigit() and 2 * int(p) <= k for p, k in zip(pads, kernel, strict=False))
    if any(d != 1 for d in dilations) or not ((even and small) or none):
        given = [op.tensor(0), tuple(kernel), tuple(strides), tuple(dilations)]
        listed = f"({', '.join(pads)},)"
        return op.kernel("average_pool", *given, listed, f"include={include}", f"ceil={_ceil(op)}")
    options = "" if strides == kernel else f", stride={pair(strides)}"
    if not none:
        options += f", padding={pair([int(p) for p in pads[:rank]])}"
    options += ", ceil_mode=True" if _ceil(op) else ""
    options += "" if include or (none and not _ceil(op)) else ", count_include_pad=False"
    return f"F.avg_pool{rank}d({op.tensor(0)}, {pair(kernel)}{options})"


def lp_pool(op: Operation) -> str:
    """The norm of each window."""
    kernel, strides, dilations, _ = _kernel(op)
    pads, _ = padding(op, kernel)
    given = [op.tensor(0), op.attribute("p", 2), tuple(kernel), tuple(strides), tuple(dilations)]
    return op.kernel("lp_pool", *given, f"({', '.join(pads)},)", f"ceil={_ceil(op)}")


def over_everything(code: str) -> Entry:
    """A pool over all spatial axes."""

    def entry(op: Operation) -> str:
        dims = tuple(range(2, op.axes_of(0)))
        return code.format(x=op.tensor(0), dims=dims, p=op.attribute("p", 2))

    return entry


def max_unpool(op: Operation) -> str:
    """Values back to where a pool found them, zeros elsewhere."""
    kernel, strides, _, rank = _kernel(op)
    pads = list(op.attribute("pads") or [0] * (2 * rank))
    size = op.kernel("unpooled_size", op.tensor(0), tuple(kernel), tuple(strides), tuple(pads))
    if not op.has(2):
        return op.kernel("max_unpool", op.tensor(0), op.tensor(1), size, "None")
    wanted = ", ".join(map(str, op.sizes(2)))
    return op.kernel("max_unpool", op.tensor(0), op.tensor(1), size, f"({wanted},)")


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "AveragePool": average_pool,
        "GlobalAveragePool": over_everything("({x}).mean({dims}, keepdim=True)"),
        "GlobalLpPool": over_everything(
            "torch.linalg.vector_norm({x}, {p}, dim={dims}, keepdim=True)"
        ),
        "GlobalMaxPool": over_everything("torch.amax({x}, {dims}, keepdim=True)"),
        "LpPool": lp_pool,
        "MaxPool": max_pool,
        "MaxUnpool": max_unpool,
    },
}
