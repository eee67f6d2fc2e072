"""Pools."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnx_net2net.frameworks.torch.operation import Entry, TorchOperation
from onnx_net2net.frameworks.torch.operators.convolution import padding, pair
from onnx_net2net.operators.types import FLOATS


@dataclass
class Windows:
    """The windows of a pool. ``plain``: PyTorch's pools have such pads."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[str]
    ceil: bool
    plain: bool

    @property
    def rank(self) -> int:
        """The number of axes to slide along."""
        return len(self.kernel)

    @property
    def padded(self) -> bool:
        """Whether there are pads."""
        return any(p != "0" for p in self.pads)

    def options(self) -> str:
        """Return arguments of PyTorch's pools, but for those that are as usual."""
        found = "" if self.strides == self.kernel else f", stride={pair(self.strides)}"
        if self.padded:
            found += f", padding={pair([int(p) for p in self.pads[: self.rank]])}"
        if any(d != 1 for d in self.dilations):
            found += f", dilation={pair(self.dilations)}"
        return found + (", ceil_mode=True" if self.ceil else "")

    def listed(self) -> list[str]:
        """Return arguments of the functions in kernels/pools.py."""
        sizes = (tuple(self.kernel), tuple(self.strides), tuple(self.dilations))
        return [*map(str, sizes), f"({', '.join(self.pads)},)", str(self.ceil)]


def windows(op: TorchOperation) -> Windows:
    """Return what the attributes say. Raises Refused."""
    kernel = list(op.attribute("kernel_shape"))
    rank = len(kernel)
    if rank not in (1, 2, 3):
        op.refuse(f"it has {rank} axes to slide along")
    strides = op.strides(rank)
    dilations = op.dilations(rank)
    pads, even = padding(op, kernel, pooled=True)
    fixed = op.attribute("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    plain = even and fixed and all(2 * int(p) <= k for p, k in zip(pads, kernel, strict=False))
    ceil = bool(op.attribute("ceil_mode", 0))
    return Windows(kernel, strides, dilations, pads, ceil, plain)


def max_pool(op: TorchOperation) -> list[str]:
    """Write MaxPool: padding never wins; indices count through the whole tensor."""
    w = windows(op)
    by_column = bool(op.attribute("storage_order", 0))
    exact = op.dtype() in FLOATS  # integers go through float64, which holds bytes exactly
    x = op.tensor(0) if exact else f"({op.tensor(0)}).double()"
    name = f"F.max_pool{w.rank}d"
    if op.wants(1):
        given = [*w.listed(), by_column]
        found = op.kernel("max_pool_with_indices", x, *given)
        pooled, indices = op.translator.block.unpack(found, [op.hint, "indices"])
        return [pooled if exact else f"({pooled}).to({op.gives()})", indices]
    if w.plain:
        code = f"{name}({x}, {pair(w.kernel)}{w.options()})"
    else:
        x = op.kernel("fitted", x, *w.listed(), 'float("-inf")')
        rest = replace(w, pads=["0"] * (2 * w.rank), ceil=False)
        code = f"{name}({x}, {pair(w.kernel)}{rest.options()})"
    return [code if exact else f"({code}).to({op.gives()})"]


def average_pool(op: TorchOperation) -> str:
    """Write AveragePool: padding counts where ``count_include_pad`` says so."""
    w, include = windows(op), bool(op.attribute("count_include_pad", 0))
    skips = any(s > k for s, k in zip(w.strides, w.kernel, strict=True))
    if op.attribute("auto_pad", "NOTSET").startswith("SAME") and w.ceil and skips:
        op.refuse("its last windows begin behind its pads")
    if any(d != 1 for d in w.dilations) or not w.plain:
        return op.kernel("average_pool", op.tensor(0), *w.listed(), include)
    options = w.options()
    options += "" if include or not (w.padded or w.ceil) else ", count_include_pad=False"
    return f"F.avg_pool{w.rank}d({op.tensor(0)}, {pair(w.kernel)}{options})"


def lp_pool(op: TorchOperation) -> str:
    """Write the norm of each window."""
    return op.kernel("lp_pool", op.tensor(0), op.attribute("p", 2), *windows(op).listed())


def over_everything(code: str) -> Entry:
    """Pool over all spatial axes."""

    def entry(op: TorchOperation) -> str:
        dims = tuple(range(2, op.axes_of(0)))
        return code.format(x=op.tensor(0), dims=dims, p=op.attribute("p", 2))

    return entry


def max_unpool(op: TorchOperation) -> str:
    """Put values back to where a pool took them, zeros elsewhere."""
    kernel = list(op.attribute("kernel_shape"))
    strides = op.strides(len(kernel))
    pads = op.pads(len(kernel))
    x, indices = op.tensor(0), op.tensor(1)
    if op.has(2):
        return op.kernel("max_unpool", x, indices, f"({op.listed(op.sizes(2))},)")
    shape = op.kernel("unpooled_shape", x, tuple(kernel), tuple(strides), tuple(pads))
    return op.kernel("max_unpool", x, indices, shape)


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
