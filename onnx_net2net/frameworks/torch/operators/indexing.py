"""Operators that read, write or pick elements by position."""

from __future__ import annotations

from onnx_net2net.frameworks.torch.operation import Entry, TorchOperation
from onnx_net2net.frameworks.torch.operators.linear import typed
from onnx_net2net.frameworks.torch.operators.movement import indexed
from onnx_net2net.frameworks.torch.types import literal


def gather(op: TorchOperation) -> str:
    """Take rows of a table; a weight that is a layer's is an embedding."""
    rank = op.axes_of(0)
    axis = op.attribute("axis", 0) % rank
    index = op.number(1)
    if index is not None and op.rank(1) == 0:
        return indexed(op.tensor(0), [":"] * axis + [index], rank)
    shape = op.shape(0)
    if axis == 0 and shape is not None and rank == 2 and op.path(0):
        module = f"nn.Embedding({shape[0]}, {shape[1]}{typed(op, 0)})"
        layer = op.layer(module, weight=0)
        if layer is not None:
            return f"{layer}({op.tensor(1)})"
    listed = op.listed_constant(1) if op.rank(1) == 1 else None
    indices = op.tensor(1) if listed is None else str(listed)
    return indexed(op.tensor(0), [":"] * axis + [indices], rank)


def long(op: TorchOperation, index: int) -> str:
    """Return indices as int64, which scatters and gathers ask for."""
    code = op.tensor(index)
    return code if op.dtype(index) == 7 else f"({code}).long()"


def gather_elements(op: TorchOperation) -> str:
    """Take one index for each element of the result."""
    axis = op.attribute("axis", 0)
    return op.kernel("gather_elements", op.tensor(0), long(op, 1), axis)


def gather_nd(op: TorchOperation) -> str:
    """Take the place of each vector of indices."""
    depth = op.fixed(1, -1)
    batch = op.attribute("batch_dims", 0)
    if batch == 0:
        index = op.add(op.tensor(1), "index")
        if depth == 1:
            return f"({op.tensor(0)})[({index})[..., 0]]"
        return f"({op.tensor(0)})[({index}).unbind(-1)]"
    return op.kernel("gather_nd", op.tensor(0), long(op, 1), batch)


def scatter(op: TorchOperation) -> str:
    """Replace, add or compare elements at given places."""
    axis, how = op.attribute("axis", 0), op.attribute("reduction", "none")
    return op.kernel(
        "scatter_elements", op.tensor(0), long(op, 1), op.tensor(2), axis, literal(how)
    )


def scatter_nd(op: TorchOperation) -> str:
    """Replace, add or compare slices at given places."""
    how = op.attribute("reduction", "none")
    return op.kernel("scatter_nd", op.tensor(0), long(op, 1), op.tensor(2), literal(how))


def tensor_scatter(op: TorchOperation) -> str:
    """Write new elements of a cache, from a position of each sample on."""
    axis, mode = op.attribute("axis", -2), op.attribute("mode", "linear")
    return op.kernel(
        "tensor_scatter", op.tensor(0), op.tensor(1), op.optional(2), axis, literal(mode)
    )


def one_hot(op: TorchOperation) -> str:
    """Write ``on`` at the index, ``off`` elsewhere and for an index out of range."""
    depth = op.code(op.sizes(1)[0])
    return op.kernel("one_hot", op.tensor(0), depth, op.tensor(2), op.attribute("axis", -1))


def nonzero(op: TorchOperation) -> str:
    """Return the places of what is not zero, one column each."""
    x = f"torch.atleast_1d({op.tensor(0)})" if op.rank(0) == 0 else op.tensor(0)
    return f"torch.nonzero({x}).T"


def top_k(op: TorchOperation) -> list[str]:
    """Return the largest or smallest elements and where they stand; the first of equals wins."""
    count = op.code(op.attribute("k") if "k" in op.step.attributes else op.sizes(1)[0])
    options = f"largest={bool(op.attribute('largest', 1))}"
    code = op.kernel("top_k", op.tensor(0), count, op.attribute("axis", -1), options)
    return op.unpack(code, ["values", "indices"])


def compress(op: TorchOperation) -> str:
    """Take elements where a condition holds; it may be shorter than the axis."""
    axis = op.attribute("axis")
    x = op.tensor(0) if axis is not None else f"({op.tensor(0)}).flatten()"
    index = f"torch.nonzero({op.tensor(1)}).squeeze(1)"
    return f"torch.index_select({x}, {axis or 0}, {index})"


def unique(op: TorchOperation) -> list[str]:
    """Return different elements, sorted or in order of appearance, with where they stand."""
    axis = op.attribute("axis")
    code = op.kernel("unique", op.tensor(0), axis, f"ordered={bool(op.attribute('sorted', 1))}")
    return op.unpack(code, ["unique", "first", "inverse", "counts"])


def non_max_suppression(op: TorchOperation) -> str:
    """Keep boxes that no better one overlaps."""
    given = [op.tensor(0), op.tensor(1)]
    for index, default in ((2, "0"), (3, "0.0"), (4, "None")):
        given.append(op.scalar(index) if op.has(index) else default)
    center = bool(op.attribute("center_point_box", 0))
    return op.kernel("non_max_suppression", *given, f"center={center}")


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "Compress": compress,
        "Gather": gather,
        "GatherElements": gather_elements,
        "GatherND": gather_nd,
        "NonMaxSuppression": non_max_suppression,
        "NonZero": nonzero,
        "OneHot": one_hot,
        "Scatter": scatter,
        "ScatterElements": scatter,
        "ScatterND": scatter_nd,
        "TensorScatter": tensor_scatter,
        "TopK": top_k,
        "Unique": unique,
    },
}
