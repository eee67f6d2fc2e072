"""Sums, means and extremes over axes, or of all elements so far."""

from __future__ import annotations

from onnx_net2net.algebra.sizes import AnySize, Size
from onnx_net2net.frameworks.torch.operation import Entry, TorchOperation
from onnx_net2net.frameworks.torch.types import literal
from onnx_net2net.operators.types import FLOATS

BOOL = 9


def axes(op: TorchOperation) -> list[AnySize] | str | None:
    """Return the axes, an attribute or an operand; None for all, code if their number varies."""
    if op.attribute("axes") is not None:
        return list(op.attribute("axes"))
    if not op.has(1):
        return None
    if not op.has_sizes(1):
        return op.add(f"{op.tensor(1)}.tolist()", "axes", kind="list", inline=False)
    return op.sizes(1)


def reduced(op: TorchOperation, template: str, each: str, dims: list[AnySize] | str | None) -> str:
    """Fill in ``{x}``, ``{dims}`` and ``{keep}``; ``each`` is for no axis at all."""
    rank, x = op.rank(0), op.tensor(0)
    none, keeps = bool(op.attribute("noop_with_empty_axes", 0)), op.attribute("keepdims", 1)
    unchanged = x if each == "{x}" else each.replace("{x}", f"({x})")
    if none and not dims:
        return unchanged
    called = template.partition("(")[0]
    if called.isidentifier():
        op.kernel(called)
    if rank == 0:  # PyTorch takes the axis 0 of a single number
        dims = [0]
    if isinstance(dims, str):
        x = op.add(x, "x", inline=False)
        listed = f"tuple({dims} or range({x}.dim()))"
    elif dims:
        listed = op.code(dims[0]) if len(dims) == 1 else f"({op.listed(dims)})"
    elif rank is not None:
        listed = str(tuple(range(rank))) if rank > 1 else "0"
    else:
        x = op.add(x, "x", inline=False)
        listed = f"tuple(range({x}.dim()))"
    keep = ", keepdim=True" if keeps and rank != 0 else ""
    code = template.replace("{x}", f"({x})").replace("{dims}", listed).replace("{keep}", keep)
    return f"({code}) if {dims} else ({unchanged})" if none and isinstance(dims, str) else code


def reduction(floats: str, integers: str = "", each: str = "{x}") -> Entry:
    """Reduce floats and integers by their templates; by default these are the same."""

    def entry(op: TorchOperation) -> str:
        template = floats if op.dtype() in FLOATS or not integers else integers
        return op.typed(reduced(op, template, each, axes(op)))

    return entry


def arg(name: str) -> Entry:
    """Return the first, or with ``select_last_index`` the last, of the extremes."""

    def entry(op: TorchOperation) -> str:
        axis, keep = op.attribute("axis", 0), bool(op.attribute("keepdims", 1))
        if op.attribute("select_last_index", 0):
            return op.kernel(
                "last_extreme", op.tensor(0), axis, f"keep={keep}", f"name={literal(name)}"
            )
        return f"torch.{name}({op.tensor(0)}, {axis}{', keepdim=True' if keep else ''})"

    return entry


def extreme(name: str) -> Entry:
    """Write ReduceMax or ReduceMin, which have a value over no elements, too."""

    def entry(op: TorchOperation) -> str:
        dims = axes(op)
        template = f'extreme({{x}}, {{dims}}, "{name}"{{keep}})'
        if op.dtype() == BOOL:
            template = f"{{x}}.{'all' if name == 'amin' else 'any'}({{dims}}{{keep}})"
        elif _never_empty(op, dims):
            template = f"torch.{name}({{x}}, {{dims}}{{keep}})"
        return reduced(op, template, "{x}", dims)

    return entry


def _never_empty(op: TorchOperation, dims: list[AnySize] | str | None) -> bool:
    shape = op.program.dims(op.name(0))
    if shape is None or isinstance(dims, str) or any(isinstance(d, Size) for d in dims or ()):
        return False
    chosen = [shape[d] for d in dims] if dims else shape
    return all(isinstance(size, int) and size > 0 for size in chosen)


def cumulative(name: str) -> Entry:
    """Sum or multiply up, from either end, with or without the element itself."""

    def entry(op: TorchOperation) -> str:
        axis = op.integer(1)
        exclusive, reverse = bool(op.attribute("exclusive", 0)), bool(op.attribute("reverse", 0))
        if exclusive or reverse:
            code = op.kernel("cumulative", op.tensor(0), axis, f"torch.{name}", exclusive, reverse)
        else:
            code = f"torch.{name}({op.tensor(0)}, {axis})"
        return op.typed(code)

    return entry


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "ArgMax": arg("argmax"),
        "ArgMin": arg("argmin"),
        "CumProd": cumulative("cumprod"),
        "CumSum": cumulative("cumsum"),
        "ReduceL1": reduction("torch.abs({x}).sum({dims}{keep})", each="torch.abs({x})"),
        "ReduceL2": reduction(
            "torch.linalg.vector_norm({x}, dim={dims}{keep})",
            "integer_norm({x}, {dims}{keep})",
            "torch.abs({x})",
        ),
        "ReduceLogSum": reduction(
            "torch.log({x}.sum({dims}{keep}))",
            "integer_log_sum({x}, {dims}{keep})",
            "torch.log({x})",
        ),
        "ReduceLogSumExp": reduction(
            "torch.logsumexp({x}, {dims}{keep})", "integer_log_sum_exp({x}, {dims}{keep})"
        ),
        "ReduceMax": extreme("amax"),
        "ReduceMean": reduction("{x}.mean({dims}{keep})", "integer_mean({x}, {dims}{keep})"),
        "ReduceMin": extreme("amin"),
        "ReduceProd": reduction("product({x}, {dims}{keep})"),
        "ReduceSum": reduction("{x}.sum({dims}{keep})"),
        "ReduceSumSquare": reduction(
            "torch.square({x}).sum({dims}{keep})", each="torch.square({x})"
        ),
    },
}
