"""Resize and Upsample: per axis a few entries, weighed.

The same formulas compute places and weights with NumPy where sizes are fixed, and with the
backend where they are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation
from onnx_net2net.frameworks.keras.traced import ops
from onnx_net2net.frameworks.keras.values import (
    axis_of,
    cast,
    dtype_of,
    ints,
    known,
    sizes,
    tensor,
)

__all__ = ["TABLES"]


@dataclass(frozen=True)
class Axis:
    """One axis to resize: its size before and after, the scale, and where the region lies."""

    before: Any
    after: Any
    scale: Any
    start: float = 0.0
    end: float = 1.0


def upsample(op: KerasOperation, x: Any, scales: Any = None) -> Any:
    """Resize by the old operator, which rounds places down."""
    x = tensor(x)
    given = op.attribute("scales") if scales is None else scales
    given = np.asarray(given, np.float32) if scales is None else given
    method = Method(op.attribute("mode", "nearest"), "asymmetric", "simple")
    regions = [(0.0, 1.0)] * len(x.shape)
    for axis, frame in enumerate(_frames(op, sizes(x), given, None, regions)):
        x = _along(x, axis, frame, method)
    return x


def _scaled(size: Any, scale: float) -> Any:
    """Return a size after scaling; onnxruntime does not ask how much of it is cropped."""
    if scale == 1:
        return size
    if isinstance(size, int):
        return int(np.float32(size) * np.float32(scale))
    return ops.cast(ops.floor(ops.cast(size, "float32") * scale), "int32")


@dataclass(frozen=True)
class Method:
    """How an entry between two others is made."""

    mode: str
    coordinates: str
    rounding: str
    cubic: float = -0.75
    exclude: bool = False
    antialias: bool = False
    outside: float = 0.0


def resize(op: KerasOperation, x: Any, *operands: Any) -> Any:
    """Resize in all modes and coordinate systems of opset 10 to 19."""
    x = tensor(x)
    if op.opset < 11:
        return upsample(op, x, *operands)
    roi, scales, wanted = op.padded(operands, 3)
    method = Method(
        op.attribute("mode", "nearest"),
        op.attribute("coordinate_transformation_mode", "half_pixel"),
        op.attribute("nearest_mode", "round_prefer_floor"),
        op.attribute("cubic_coeff_a", -0.75),
        bool(op.attribute("exclude_outside", 0)),
        bool(op.attribute("antialias", 0)),
        op.attribute("extrapolation_value", 0.0),
    )
    given = op.attribute("axes", range(len(x.shape)))
    if min(given, default=0) < 0 and op.attribute("keep_aspect_ratio_policy", "stretch")[0] == "n":
        op.refuse("onnxruntime does not resize negative axes with an aspect ratio to keep")
    axes = [axis_of(a, x) for a in given]
    regions: list[tuple[Any, Any]] = [(0.0, 1.0)] * len(axes)
    if method.coordinates == "tf_crop_and_resize":
        region = known(roi)
        if region is None:
            corners = tensor(roi, "float32")
            regions = [(corners[i], corners[i + len(axes)]) for i in range(len(axes))]
        else:
            regions = [(float(a), float(b)) for a, b in region.reshape(2, -1).T]
    before = [sizes(x)[axis] for axis in axes]
    for axis, frame in zip(axes, _frames(op, before, scales, wanted, regions), strict=True):
        if method.antialias and not isinstance(frame.scale, float):
            op.refuse("antialiasing needs a scale that is known ahead, and the graph computes it")
        x = _along(x, axis, frame, method)
    return x


def _frames(
    op: KerasOperation,
    before: list[Any],
    scales: Any,
    wanted: Any,
    regions: Sequence[tuple[Any, Any]],
) -> list[Axis]:
    given = known(scales)
    if given is not None and given.size:
        factors = [float(s) for s in given.reshape(-1)]
        return [
            Axis(n, _scaled(n, s), s, a, b)
            for n, s, (a, b) in zip(before, factors, regions, strict=True)
        ]
    if wanted is None:
        if scales is None:
            op.refuse("it has neither scales nor sizes")
        vector = tensor(scales)
        return [
            Axis(n, ops.cast(ops.floor(ops.cast(n, "float32") * vector[i]), "int32"), vector[i], *r)
            for i, (n, r) in enumerate(zip(before, regions, strict=True))
        ]
    after = ints(wanted)
    policy = op.attribute("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        ratios = [_ratio(m, n) for n, m in zip(before, after, strict=True)]
        ratio = reduce(_less if policy == "not_larger" else _more, ratios)
        after = [_nearest(ratio, n) for n in before]
        return [Axis(n, m, ratio, *r) for n, m, r in zip(before, after, regions, strict=True)]
    return [Axis(n, m, _ratio(m, n), *r) for n, m, r in zip(before, after, regions, strict=True)]


def _ratio(after: Any, before: Any) -> Any:
    if isinstance(after, int) and isinstance(before, int):
        return float(np.float32(after) / np.float32(before))
    return ops.cast(after, "float32") / ops.cast(before, "float32")


def _less(a: Any, b: Any) -> Any:
    return min(a, b) if isinstance(a, float) and isinstance(b, float) else ops.minimum(a, b)


def _more(a: Any, b: Any) -> Any:
    return max(a, b) if isinstance(a, float) and isinstance(b, float) else ops.maximum(a, b)


def _nearest(ratio: Any, size: Any) -> Any:
    """Multiply a size by a ratio, and round in float32 as onnxruntime does."""
    if isinstance(ratio, float) and isinstance(size, int):
        return int(np.floor(np.float32(ratio) * np.float32(size) + np.float32(0.5)))
    return ops.cast(ops.floor(_float(size) * ratio + 0.5), "int32")


def _along(x: Any, axis: int, frame: Axis, method: Method) -> Any:
    """Resize one axis."""
    both = isinstance(frame.before, int) and isinstance(frame.after, int)
    same = frame.before == frame.after if both else frame.before is frame.after
    same = same and isinstance(frame.scale, float) and frame.scale == 1
    if same:  # cropped or not: onnxruntime leaves such an axis alone
        return x
    fixed = all(isinstance(n, int) for n in (frame.before, frame.after))
    fixed = fixed and all(isinstance(n, float) for n in (frame.scale, frame.start, frame.end))
    xp: Any = np if fixed else ops
    place = _coordinates(xp, frame, method)
    if xp is ops:
        steps = ops.cast(ops.arange(frame.after), "float32")
        place = ops.where(ops.equal(frame.scale, 1), steps, place)
    if method.mode == "nearest":
        rounding = method.rounding
        if rounding == "simple":  # of old operators: onnxruntime's way where it shrinks an image
            chosen = xp.where(frame.scale < 1, xp.ceil(place), xp.floor(place))
        else:
            chosen = _rounded(xp, place, rounding)
        chosen = _clipped(xp, chosen, frame.before)
        y = ops.take(x, ops.cast(chosen, "int32"), axis=axis)
    else:
        y = _weighed(xp, x, axis, place, frame, method)
    if method.coordinates != "tf_crop_and_resize":
        return y
    last = frame.before - 1
    inside = xp.logical_and(place >= 0, place <= (last if xp is np else _float(last)))
    return ops.where(_column(inside, axis, x), y, ops.cast(method.outside, dtype_of(x)))


def _float(value: Any) -> Any:
    return ops.cast(value, "float32")


def _coordinates(xp: Any, frame: Axis, method: Method) -> Any:
    """Return where the entries of the result lie among those of the operand."""
    name = method.coordinates
    if xp is np:  # in float32, for rounding decides which entry is the nearest
        steps: Any = np.arange(frame.after, dtype=np.float32)
        before, after, scale = (np.float32(n) for n in (frame.before, frame.after, frame.scale))
    else:
        steps = ops.cast(ops.arange(frame.after), "float32")
        before, after, scale = (_float(n) for n in (frame.before, frame.after, frame.scale))
    several = xp.cast(after > 1, "float32") if xp is ops else np.float32(after > 1)
    half = xp.float32(0.5) if xp is np else 0.5
    if name == "asymmetric":
        return steps / scale
    if name == "align_corners":
        return steps * (before - 1) / xp.maximum(after - 1, 1)
    if name == "tf_crop_and_resize":
        return _cropped(xp, frame, steps, before, after)
    if name == "tf_half_pixel_for_nn":
        return (steps + half) / scale
    place = (steps + half) / scale - half
    if name == "pytorch_half_pixel":
        return place * several
    if name == "half_pixel_symmetric":
        adjusted = after / (scale * before)
        return before / 2 * (1 - adjusted) + place
    return place


def _cropped(xp: Any, frame: Axis, steps: Any, before: Any, after: Any) -> Any:
    """Walk from the start of a region to its end; one entry alone is in its middle."""
    start, end = (np.float32(n) if xp is np else _float(n) for n in (frame.start, frame.end))
    spread = start * (before - 1) + steps * (end - start) * (before - 1) / xp.maximum(after - 1, 1)
    middle = (start + end) * (before - 1) / 2 + steps * 0
    return xp.where(after > 1, spread, middle)


def _rounded(xp: Any, place: Any, mode: str) -> Any:
    if mode == "floor":
        return xp.floor(place)
    if mode == "ceil":
        return xp.ceil(place)
    return xp.ceil(place - 0.5) if mode == "round_prefer_floor" else xp.floor(place + 0.5)


def _clipped(xp: Any, place: Any, size: Any) -> Any:
    last = size - 1 if xp is np else _float(size - 1)
    return xp.minimum(xp.maximum(place, 0), last)


def _column(vector: Any, axis: int, x: Any) -> Any:
    """Shape a vector along one axis."""
    shape = [1] * len(x.shape)
    shape[axis] = -1
    vector = tensor(vector) if isinstance(vector, np.ndarray) else vector
    return ops.reshape(vector, shape)


def _weighed(xp: Any, x: Any, axis: int, place: Any, frame: Axis, method: Method) -> Any:
    """Weigh neighbours and add them; those beyond an end are the last, or left out."""
    cubic = method.mode == "cubic"
    stretch = 1.0
    if method.antialias:
        stretch = max(1.0, 1.0 / frame.scale)
    reach = math.ceil((2 if cubic else 1) * stretch)
    base = xp.floor(place)
    weights, places = [], []
    for offset in range(1 - reach, reach + 1):
        at = base + offset
        distance = xp.abs(place - at) / stretch
        weight = cubic_weight(xp, distance, method.cubic) if cubic else xp.maximum(1 - distance, 0)
        if method.exclude:
            last = frame.before - 1 if xp is np else _float(frame.before - 1)
            weight = xp.where(xp.logical_and(at >= 0, at <= last), weight, weight * 0)
        weights.append(weight)
        places.append(_clipped(xp, at, frame.before))
    if method.exclude or method.antialias:
        total = sum(weights)
        weights = [weight / total for weight in weights]
    kind = dtype_of(x)
    wide = ops.cast(x, "float32") if kind in ("float16", "bfloat16") or "int" in kind else x
    result: Any = 0
    for at, weight in zip(places, weights, strict=True):
        picked = ops.take(wide, ops.cast(at, "int32"), axis=axis)
        result = result + picked * _column(ops.cast(weight, dtype_of(wide)), axis, x)
    return cast(ops.round(result) if "int" in kind else result, kind)


def cubic_weight(xp: Any, d: Any, a: float = -0.75) -> Any:
    """Return the weight of an element at a distance, in cubic interpolation."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return xp.where(d <= 1, near, xp.where(d < 2, far, d * 0))


TABLES: dict[str, dict[str, Entry]] = {"": {"Resize": resize, "Upsample": upsample}}
