"""Images sampled between their pixels: grids, deformed kernels, regions."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation
from onnx_net2net.frameworks.keras.operators.convolution import add_bias
from onnx_net2net.frameworks.keras.operators.resizing import cubic_weight
from onnx_net2net.frameworks.keras.traced import ops
from onnx_net2net.frameworks.keras.values import cast, dtype_of, ints, product, sizes, tensor
from onnx_net2net.frameworks.keras.windows import window

__all__ = ["TABLES"]


def picked(x: Any, places: list[Any], inside: Any = None) -> Any:
    """Take pixels of x (N C ...) at whole places (N P) along each spatial axis: (N P C).

    Places beyond an end are those of the end; zeros where ``inside`` is false.
    """
    shape = sizes(x)
    rows = ops.reshape(ops.moveaxis(x, 1, -1), (-1, shape[1]))
    flat: Any = ops.expand_dims(ops.arange(shape[0], dtype="int32"), -1)
    for size, place in zip(shape[2:], places, strict=True):
        flat = flat * size + ops.clip(ops.cast(place, "int32"), 0, size - 1)
    pixels = ops.take(rows, flat, axis=0)
    return pixels if inside is None else pixels * ops.cast(ops.expand_dims(inside, -1), dtype_of(x))


def _within(places: list[Any], lengths: list[Any]) -> Any:
    inside: Any = True
    for place, size in zip(places, lengths, strict=True):
        here = ops.logical_and(place >= 0, place <= ops.cast(size - 1, dtype_of(place)))
        inside = ops.logical_and(inside, here)
    return inside


def between(x: Any, places: list[Any], *, zeros: bool = True) -> Any:
    """Interpolate x (N C ...) linearly at places (N P) along each axis: (N P C)."""
    lengths = sizes(x)[2:]
    lower = [ops.floor(place) for place in places]
    total: Any = 0
    for corner in itertools.product((0, 1), repeat=len(places)):
        at = [low + side for low, side in zip(lower, corner, strict=True)]
        weight: Any = 1
        for place, low, side in zip(places, lower, corner, strict=True):
            part = place - low
            weight = weight * (part if side else 1 - part)
        pixels = picked(x, at, _within(at, lengths) if zeros else None)
        total = total + pixels * ops.expand_dims(weight, -1)
    return total


def _cubic(x: Any, places: list[Any], zeros: bool) -> Any:
    """Interpolate cubically with a = -0.75."""
    lengths = sizes(x)[2:]
    lower = [ops.floor(place) for place in places]
    total: Any = 0
    for offsets in itertools.product((-1, 0, 1, 2), repeat=len(places)):
        at = [low + off for low, off in zip(lower, offsets, strict=True)]
        weight: Any = 1
        for place, here in zip(places, at, strict=True):
            weight = weight * cubic_weight(ops, ops.abs(place - here))
        pixels = picked(x, at, _within(at, lengths) if zeros else None)
        total = total + pixels * ops.expand_dims(weight, -1)
    return total


def grid_sample(op: KerasOperation, x: Any, grid: Any) -> Any:
    """Sample at a grid, whose last axis holds places from -1 to 1, last spatial axis first."""
    x, grid = tensor(x), tensor(grid)
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(m := op.attribute("mode", "linear"), m)
    padding = op.attribute("padding_mode", "zeros")
    aligned = bool(op.attribute("align_corners", 0))
    lengths, outer = sizes(x)[2:], sizes(grid)[1:-1]
    points = ops.reshape(grid, (sizes(grid)[0], product(outer), len(lengths)))
    places = []
    for axis, size in enumerate(lengths):
        if mode == "cubic" and padding == "reflection":
            op.refuse("cubic interpolation with reflected borders is not translated")
        length = ops.cast(size, dtype_of(grid))
        unit = points[..., len(lengths) - 1 - axis]
        place = (unit + 1) / 2 * (length - 1) if aligned else ((unit + 1) * length - 1) / 2
        places.append(_inside(place, length, padding, aligned, mode))
    zeros = padding == "zeros"
    if mode == "nearest":
        at = [ops.round(place) for place in places]
        y = picked(x, at, _within(at, lengths) if zeros else None)
    else:
        y = _cubic(x, places, zeros) if mode == "cubic" else between(x, places, zeros=zeros)
    return ops.reshape(ops.moveaxis(y, -1, 1), (*sizes(x)[:2], *outer))


def _inside(place: Any, length: Any, padding: str, aligned: bool, mode: str) -> Any:
    """Bring back places beyond the ends, but for a cubic, whose neighbours are."""
    if padding == "border":
        return place if mode == "cubic" else ops.minimum(ops.maximum(place, 0), length - 1)
    if padding != "reflection":
        return place
    low, high = (0.0, length - 1) if aligned else (-0.5, length - 0.5)
    span = high - low
    distance = ops.mod(ops.abs(place - low), 2 * ops.maximum(span, 1e-6))
    back = ops.minimum(distance, 2 * span - distance) + low
    return ops.minimum(ops.maximum(back, 0), length - 1)


def affine_grid(op: KerasOperation, theta: Any, size: Any) -> Any:
    """Return places of a grid from -1 to 1 under an affine map for each image."""
    theta = tensor(theta)
    lengths = ints(size)[2:]
    aligned = bool(op.attribute("align_corners", 0))
    axes = []
    for length in lengths:
        steps = ops.cast(ops.arange(length), dtype_of(theta))
        count = ops.cast(length, dtype_of(theta))
        axes.append(steps * 2 / (count - 1) - 1 if aligned else (steps * 2 + 1) / count - 1)
    mesh = ops.meshgrid(*axes, indexing="ij")
    flat = [ops.reshape(m, (-1,)) for m in mesh[::-1]]
    points = ops.stack([*flat, ops.ones_like(flat[0])], axis=-1)
    moved = ops.matmul(points, ops.swapaxes(theta, 1, 2))
    return ops.reshape(moved, (sizes(theta)[0], *lengths, len(lengths)))


def deform_conv(
    op: KerasOperation, x: Any, w: Any, offset: Any, b: Any = None, mask: Any = None
) -> Any:
    """Convolve with a kernel that reads at places of its own for each pixel of the result."""
    x, w, offset = tensor(x), tensor(w), tensor(offset)
    if len(w.shape) != 4:
        op.refuse("its kernel has not two axes, the only number that is translated")
    op.attribute("kernel_shape")  # the weight says it as well
    groups, shares = op.attribute("group", 1), op.attribute("offset_group", 1)
    frame = window(op, x, w.shape[2:])
    n, channels = sizes(x)[:2]
    high, wide = sizes(offset)[2:]
    area = math.prod(frame.kernel)
    kind = dtype_of(x)
    moves = ops.reshape(offset, (n, shares, area, 2, high, wide))
    taps = np.indices(frame.kernel).reshape(2, area, 1, 1)
    columns = []
    for share in range(shares):
        part = channels // shares
        places = []
        for axis, length in enumerate((high, wide)):
            base = ops.arange(length, dtype="int32") * frame.strides[axis]
            base = ops.expand_dims(base, -1) if axis == 0 else base
            tap = taps[axis] * frame.dilations[axis] - frame.pads[axis][0]
            base = ops.cast(base + ops.convert_to_tensor(tap, "int32"), kind)
            places.append(ops.reshape(moves[:, share, :, axis] + base, (n, area * high * wide)))
        columns.append(between(x[:, share * part : (share + 1) * part], places))
    values = ops.stack(columns, axis=1)  # N shares (area P) part
    values = ops.reshape(values, (n, shares, area, high * wide, channels // shares))
    values = ops.transpose(values, (0, 3, 1, 2, 4))
    if mask is not None:
        weight = ops.reshape(tensor(mask), (n, shares, area, high * wide))
        values = values * ops.expand_dims(ops.transpose(weight, (0, 3, 1, 2)), -1)
    values = ops.reshape(ops.transpose(values, (0, 1, 2, 4, 3)), (n, high * wide, groups, -1, area))
    kernel = ops.reshape(w, (groups, w.shape[0] // groups, w.shape[1], area))
    y = ops.einsum("npgik,goik->ngop", values, kernel)
    return add_bias(ops.reshape(y, (n, w.shape[0], high, wide)), b)


def roi_align(op: KerasOperation, x: Any, regions: Any, images: Any) -> Any:
    """Return the mean (or largest) of some samples in each cell of each region."""
    x, regions, images = tensor(x), tensor(regions), cast(tensor(images), "int32")
    rows, columns = op.attribute("output_height", 1), op.attribute("output_width", 1)
    ratio = op.attribute("sampling_ratio", 0)
    mode = op.attribute("mode", "avg")
    if ratio <= 0:
        op.refuse("only the data tell how many samples sampling_ratio=0 takes")
    if mode != "avg":
        op.refuse("mode=max with more than one sample is not translated")
    half = op.attribute("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    half = half and op.opset >= 16
    scale = op.attribute("spatial_scale", 1.0)
    box = regions * scale - (0.5 if half else 0.0)
    places = []
    for start, stop, cells in ((1, 3, rows), (0, 2, columns)):
        length = box[:, stop] - box[:, start]
        length = length if half else ops.maximum(length, 1.0)
        steps = (np.arange(cells * ratio) + 0.5) / (cells * ratio)
        unit = tensor(steps.astype(np.float64), dtype_of(x))
        places.append(ops.expand_dims(box[:, start], -1) + ops.expand_dims(length, -1) * unit)
    y, columns_at = ops.expand_dims(places[0], 2), ops.expand_dims(places[1], 1)
    count = sizes(regions)[0]
    whole = (count, rows * ratio, columns * ratio)
    spread = [ops.reshape(ops.broadcast_to(p, whole), (count, -1)) for p in (y, columns_at)]
    high, wide = (ops.cast(n, dtype_of(x)) for n in sizes(x)[2:])
    inside = ops.logical_and(
        ops.logical_and(spread[0] >= -1, spread[0] <= high),
        ops.logical_and(spread[1] >= -1, spread[1] <= wide),
    )
    kept = [
        ops.minimum(ops.maximum(p, 0), last - 1)
        for p, last in zip(spread, (high, wide), strict=True)
    ]
    samples = between(ops.take(x, images, axis=0), kept, zeros=False)
    samples = samples * ops.cast(ops.expand_dims(inside, -1), dtype_of(x))
    split = ops.reshape(samples, (count, rows, ratio, columns, ratio, x.shape[1]))
    return ops.transpose(ops.mean(split, axis=(2, 4)), (0, 3, 1, 2))


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "AffineGrid": affine_grid,
        "DeformConv": deform_conv,
        "GridSample": grid_sample,
        "RoiAlign": roi_align,
    }
}
