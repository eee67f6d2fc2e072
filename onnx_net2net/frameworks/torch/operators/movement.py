"""Operators that move, cut and repeat elements, or make tensors of a shape."""

from __future__ import annotations

from onnx_net2net.algebra.sizes import AnySize, Size
from onnx_net2net.frameworks.torch.operation import Entry, Listed, TorchOperation
from onnx_net2net.frameworks.torch.size_code import is_natural, read
from onnx_net2net.frameworks.torch.types import literal

LAST = 2**31 - 1


def same(op: TorchOperation) -> list[str | Listed]:
    """Return the value itself, which may be a sequence."""
    return [op.value(0)]


def reshape(op: TorchOperation) -> str:
    """Reshape; 0 keeps the size that stands there, unless ``allowzero``."""
    x = op.tensor(0)
    keeps = not op.attribute("allowzero", 0)
    if "shape" in op.step.attributes:
        sizes: list[AnySize] = list(op.attribute("shape"))
    elif op.translator.known_sizes(op.name(1)) is None:
        wanted = f"{op.tensor(1)}.tolist()"
        return op.kernel("reshaped", x, wanted) if keeps else f"({x}).reshape({wanted})"
    else:
        sizes = op.sizes(1)
    if keeps:
        if any(isinstance(size, Size) and not is_natural(size) for size in sizes):
            return op.kernel("reshaped", x, f"[{op.listed(sizes)}]")
        for axis, size in enumerate(sizes):
            if not isinstance(size, Size) and size == 0:
                sizes[axis] = op.size(0, axis)
    return f"({x}).reshape({op.listed(sizes)})" if sizes else f"({x}).reshape(())"


def transpose(op: TorchOperation) -> str:
    """Swap two axes, or permute all of them."""
    rank = op.axes_of(0)
    perm = list(op.attribute("perm") or reversed(range(rank)))
    moved = [axis for axis, source in enumerate(perm) if axis != source]
    if not moved:
        return op.tensor(0)
    if len(moved) == 2:
        if rank == 2:
            return f"({op.tensor(0)}).T"
        return f"({op.tensor(0)}).transpose({moved[0]}, {moved[1]})"
    return f"({op.tensor(0)}).permute({', '.join(map(str, perm))})"


def axes(op: TorchOperation, index: int = 1) -> list[AnySize] | None:
    """Return the axes, an attribute or an operand."""
    if op.attribute("axes") is not None:
        return list(op.attribute("axes"))
    return op.sizes(index) if op.has(index) else None


def unsqueeze(op: TorchOperation) -> str:
    """Insert new axes; several are counted in the result."""
    new = axes(op) or []
    if any(isinstance(axis, Size) for axis in new):
        return op.kernel("unsqueezed", op.tensor(0), f"[{op.listed(new)}]")
    rank = op.axes_of(0) + len(new)
    code = op.tensor(0)
    for axis in sorted(a % rank for a in new):
        code = f"({code}).unsqueeze({axis if axis < rank - 1 or rank == 1 else -1})"
    return code


def squeeze(op: TorchOperation) -> str:
    """Remove axes of size 1: those named, or all."""
    gone = axes(op)
    if gone is None:
        return f"({op.tensor(0)}).squeeze()"
    if len(gone) == 1:
        return f"({op.tensor(0)}).squeeze({op.code(gone[0])})"
    return f"({op.tensor(0)}).squeeze(({op.listed(gone)}))" if gone else op.tensor(0)


def flatten(op: TorchOperation) -> str:
    """Merge all axes before ``axis``, and all after."""
    rank = op.axes_of(0)
    axis = op.attribute("axis", 1)
    axis = axis + rank if axis < 0 else axis
    if axis == 0:
        return f"({op.tensor(0)}).reshape(1, -1)"
    if axis == rank:
        return f"({op.tensor(0)}).reshape(-1, 1)"
    code = op.tensor(0)
    if axis > 1:
        code = f"({code}).flatten(0, {axis - 1})"
    return f"({code}).flatten(1)" if axis < rank - 1 or (axis > 1 and rank - axis > 1) else code


def concat(op: TorchOperation) -> str:
    """Put one behind the other."""
    axis, names = op.attribute("axis", 1), ", ".join(op.tensors())
    return f"torch.cat(({names}), dim={axis})" if len(op.step.inputs) > 1 else names


def split(op: TorchOperation) -> list[str]:
    """Split into parts of given or of equal sizes."""
    axis, count = op.attribute("axis", 0), len(op.step.outputs)
    x = op.tensor(0)
    if "split" in op.step.attributes:
        sizes: list[AnySize] = list(op.attribute("split"))
    elif op.has(1):
        sizes = op.sizes(1)
    else:
        if op.rank(0) is None:
            whole: AnySize = read(op.translator.expression(f"({x}).shape[{axis}]", "size"))
        else:
            whole = op.size(0, axis)
        if isinstance(whole, int):
            each = -(-whole // count)
            sizes = [min(each, max(whole - each * i, 0)) for i in range(count)]
        else:
            part = read(op.code((whole + count - 1) // count, "part"))
            sizes = [part] * (count - 1) + [whole - part * (count - 1)]
    if count == 1:
        return [x]
    equal = len(set(sizes)) == 1 and (isinstance(sizes[0], Size) or sizes[0])
    parts = op.code(sizes[0]) if equal else f"[{op.listed(sizes)}]"
    return op.unpack(f"torch.split({x}, {parts}, dim={axis})")


def slice_(op: TorchOperation) -> str:
    """Take ranges along axes; a negative step runs backwards."""
    if op.opset < 10 or "starts" in op.step.attributes:
        starts, ends = list(op.attribute("starts")), list(op.attribute("ends"))
        chosen = list(op.attribute("axes") or range(len(starts)))
        steps: list[AnySize] = [1] * len(starts)
    else:
        starts, ends = op.sizes(1), op.sizes(2)
        chosen = op.sizes(3) if op.has(3) else list(range(len(starts)))
        steps = op.sizes(4) if op.has(4) else [1] * len(starts)
    if any(isinstance(item, Size) for item in (*chosen, *steps)):
        ranges = (f"[{op.listed(items)}]" for items in (starts, ends, chosen, steps))
        return op.kernel("sliced", op.tensor(0), *ranges)
    rank = op.axes_of(0)
    parts = [":"] * rank
    x, backwards = op.tensor(0), {}
    for start, end, axis, step in zip(starts, ends, chosen, steps, strict=True):
        if step > 0:
            first = "" if start == 0 else op.code(start)
            last = "" if not isinstance(end, Size) and end >= LAST else op.code(end)
            parts[axis % rank] = f"{first}:{last}" + (f":{step}" if step != 1 else "")
        else:
            backwards[axis % rank] = (start, end, step)
    for axis, (start, end, step) in backwards.items():
        x = op.kernel("backwards", x, op.code(start), op.code(end), step, axis)
    return x if all(part == ":" for part in parts) else indexed(x, parts, rank)


def indexed(x: str, parts: list[str], rank: int) -> str:
    """Return ``x[..., 2:]`` or ``x[:, 2:]``, whichever is shorter."""
    used = [axis for axis, part in enumerate(parts) if part != ":"]
    if used == [rank - 1] and rank > 2:
        return f"({x})[..., {parts[-1]}]"
    return f"({x})[{', '.join(parts[: used[-1] + 1])}]"


def expand(op: TorchOperation) -> str:
    """Expand to a shape that both broadcast to."""
    if not op.has_sizes(1):
        x = op.add(op.tensor(0), "x", inline=False)
        return f"{x}.expand(torch.broadcast_shapes({x}.shape, {op.tensor(1)}.tolist()))"
    sizes = op.sizes(1)
    rank = op.axes_of(0)
    x = op.tensor(0)
    lead = max(len(sizes) - rank, 0)
    wanted: list[str] = []
    for axis, size in enumerate([1] * max(rank - len(sizes), 0) + sizes):
        own = 1 if axis < lead else op.program.size(op.name(0), axis - lead)
        if size == 1 and not isinstance(size, Size):
            wanted.append("1" if axis < lead else "-1")
        elif own in (1, size) or (axis >= lead and op.has_size(0, axis - lead, size)):
            wanted.append(op.code(size))
        else:
            shape = f"({op.listed(sizes)},)"
            return f"({x}).expand(torch.broadcast_shapes({x}.shape, {shape}))"
    if all(w == "-1" for w in wanted):
        return x
    return f"({x}).expand({', '.join(wanted)})"


def tile(op: TorchOperation) -> str:
    """Repeat along each axis."""
    if op.opset < 6:
        op.refuse("its repeats are along one axis (opset 1)")
    repeats = op.sizes(1)
    return f"({op.tensor(0)}).repeat({op.listed(repeats)})" if repeats else op.tensor(0)


def constant_of_shape(op: TorchOperation) -> str:
    """Write one value everywhere."""
    value = op.attribute("value")
    fill = "0.0" if value is None else literal(value.reshape(-1)[0])
    device = op.device()
    if not op.has_sizes(0):
        shape = f"{op.tensor(0)}.tolist()"
    else:
        sizes = op.sizes(0)
        shape = f"({op.listed(sizes)},)" if sizes else "()"
    return f"torch.full({shape}, {fill}, dtype={op.output_dtype()}, device={device})"


def arange(op: TorchOperation) -> str:
    """Count from start to limit."""
    parts = [op.number(i) for i in range(3)]
    start, limit, step = (
        part if part is not None else f"({op.tensor(i)}).item()" for i, part in enumerate(parts)
    )
    options = f"dtype={op.output_dtype()}, device={op.device()}"
    if step in ("1", "1.0"):
        bounds = limit if start in ("0", "0.0") else f"{start}, {limit}"
        return f"torch.arange({bounds}, {options})"
    return f"torch.arange({start}, {limit}, {step}, {options})"


def eye(op: TorchOperation) -> str:
    """Write ones on a diagonal."""
    rows, columns = op.size(0, 0), op.size(0, 1)
    options = f"dtype={op.output_dtype()}, device={op.device()}"
    offset = op.attribute("k", 0)
    op.attribute("dtype")  # what the output is declared with
    return op.kernel("eye", op.code(rows), op.code(columns), offset, options)


def triangle(op: TorchOperation) -> str:
    """Keep the upper or the lower triangle; zero elsewhere."""
    name = "triu" if op.attribute("upper", 1) else "tril"
    offset = op.integer(1) if op.has(1) else "0"
    return f"torch.{name}({op.tensor(0)}{'' if offset == '0' else f', {offset}'})"


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "Concat": concat,
        "ConstantOfShape": constant_of_shape,
        "Expand": expand,
        "EyeLike": eye,
        "Flatten": flatten,
        "Identity": same,
        "Range": arange,
        "Reshape": reshape,
        "Slice": slice_,
        "Split": split,
        "Squeeze": squeeze,
        "Tile": tile,
        "Transpose": transpose,
        "Trilu": triangle,
        "Unsqueeze": unsqueeze,
    },
}
