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
        code = "" if self.strides == self.kernel else f", stride={pair(self.strides)}"
        if self.padded:
            code += f", padding={pair([int(p) for p in self.pads[: self.rank]])}"
        if any(d != 1 for d in self.dilations):
            code += f", dilation={pair(self.dilations)}"
        return code + (", ceil_mode=True" if self.ceil else "")

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
    pads, even = padding(op, kernel, pooled=True)
    fixed = op.attribute("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    plain = even and fixed and all(2 * int(p) <= k for p, k in zip(pads, kernel, strict=False))
    ceil = bool(op.attribute("ceil_mode", 0))
    return Windows(kernel, op.strides(rank), op.dilations(rank), pads, ceil, plain)


def max_pool(op: TorchOperation) -> list[str]:
    """Write MaxPool: padding never wins; indices count through the whole tensor."""
    w = windows(op)
    by_column = bool(op.attribute("storage_order", 0))
    x = op.tensor(0)
    if op.dtype() not in FLOATS:
        x = f"({x}).double()"  # it holds bytes exactly
    if op.wants(1):
        code = op.kernel("max_pool_with_indices", x, *w.listed(), by_column)
        pooled, indices = op.unpack(code, [op.hint, "indices"])
        return [op.typed(pooled), indices]
    if not w.plain:
        x = op.kernel("fitted", x, *w.listed(), 'float("-inf")')
        w = replace(w, pads=["0"] * (2 * w.rank), ceil=False)
    return [op.typed(f"F.max_pool{w.rank}d({x}, {pair(w.kernel)}{w.options()})")]


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
    kernel, x = op.attribute("kernel_shape"), op.tensor(0)
    windows = (kernel, op.strides(len(kernel)), op.pads(len(kernel)))
    stated = f"({op.listed(op.sizes(2))},)" if op.has(2) else None
    shape = stated or op.kernel("unpooled_shape", x, *map(tuple, windows))
    return op.kernel("max_unpool", x, op.tensor(1), shape)


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
