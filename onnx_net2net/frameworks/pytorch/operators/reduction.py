"""Sums, means and extremes over axes."""

from __future__ import annotations

from onnx_net2net.frameworks.pytorch.operation import Entry, Operation
from onnx_net2net.frameworks.pytorch.types import FLOATS, literal


def axes(op: Operation) -> tuple[int, ...] | None:
    """The axes, an attribute or an operand; None for all."""
    if op.attribute("axes") is not None:
        return tuple(op.attribute("axes"))
    if not op.has(1):
        return None
    return tuple(int(i) for i in op.needed(1, "axes").reshape(-1))


def reduction(template: str, one: bool = False) -> Entry:
    """``{x}``, ``{dims}`` and ``{keep}`` are filled in; ``one``: PyTorch takes one axis only."""

    def entry(op: Operation) -> str:
        dims, keep = axes(op), bool(op.attribute("keepdims", 1))
        if op.attribute("noop_with_empty_axes", 0) and not dims:
            return _each(op, template)
        rank = op.axes_of(0) if dims or op.rank(0) is not None or one else None
        if rank is None:  # all axes, however many
            x = op.add(op.tensor(0), "x", inline=False)
            return _filled(template, x, f"tuple(range({x}.dim()))", keep)
        if rank == 0:
            return _each(op, template)
        dims = dims or tuple(range(rank))
        x = op.tensor(0)
        if one and len(dims) > 1:
            return _one_by_one(template, x, [d % rank for d in dims], keep)
        listed = str(dims[0]) if one or len(dims) == 1 else str(dims)
        code = _filled(template, x, listed, keep)
        exact = op.dtype() in FLOATS or "sum" not in template
        return code if exact else f"({code}).to({op.gives()})"

    return entry


def _filled(template: str, x: str, dims: str, keep: bool) -> str:
    keeping = ", keepdim=True" if keep else ""
    return template.replace("{x}", f"({x})").replace("{dims}", dims).replace("{keep}", keeping)


def _one_by_one(template: str, x: str, dims: list[int], keep: bool) -> str:
    for dim in sorted(dims, reverse=True):
        x = _filled(template, x, str(dim), keep)
    return x


def _each(op: Operation, template: str) -> str:
    """Over no axis at all: only what is done to each element remains."""
    x = op.tensor(0)
    if "abs" in template or "norm" in template:
        return f"torch.abs({x})"
    if "logsumexp" in template or "torch.sum" in template or ".sum" not in template:
        return x
    if "square" in template or "** 2" in template:
        return f"torch.square({x})"
    return f"torch.log({x})" if "log" in template else x


def arg(name: str) -> Entry:
    """The first, or with ``select_last_index`` the last, of the extremes."""

    def entry(op: Operation) -> str:
        axis, keep = op.attribute("axis", 0), bool(op.attribute("keepdims", 1))
        if op.attribute("select_last_index", 0):
            return op.kernel(
                "last_extreme", op.tensor(0), axis, f"keep={keep}", f"name={literal(name)}"
            )
        return f"torch.{name}({op.tensor(0)}, {axis}{', keepdim=True' if keep else ''})"

    return entry


def truth(op: Operation, all_of: bool) -> str:
    """Max and Min of truth values."""
    return reduction("{x}.all({dims}{keep})" if all_of else "{x}.any({dims}{keep})")(op)  # type: ignore[operator,return-value]


def extreme(name: str) -> Entry:
    """ReduceMax and ReduceMin."""

    def entry(op: Operation) -> str:
        if op.dtype() == 9:
            return truth(op, name == "amin")
        return reduction(f"torch.{name}({{x}}, {{dims}}{{keep}})")(op)  # type: ignore[operator,return-value]

    return entry


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "ArgMax": arg("argmax"),
        "ArgMin": arg("argmin"),
        "ReduceL1": reduction("torch.abs({x}).sum({dims}{keep})"),
        "ReduceL2": reduction("torch.linalg.vector_norm({x}, dim={dims}{keep})"),
        "ReduceLogSum": reduction("torch.log({x}.sum({dims}{keep}))"),
        "ReduceLogSumExp": reduction("torch.logsumexp({x}, {dims}{keep})"),
        "ReduceMax": extreme("amax"),
        "ReduceMean": reduction("{x}.mean({dims}{keep})"),
        "ReduceMin": extreme("amin"),
        "ReduceProd": reduction("torch.prod({x}, {dims}{keep})", one=True),
        "ReduceSum": reduction("{x}.sum({dims}{keep})"),
        "ReduceSumSquare": reduction("torch.square({x}).sum({dims}{keep})"),
    },
}
