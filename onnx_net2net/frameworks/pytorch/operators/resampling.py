"""Resizing, sampling at given places, and regions of images."""

from __future__ import annotations

from typing import Any

from onnx_net2net.frameworks.pytorch.hosted import Size, number
from onnx_net2net.frameworks.pytorch.operation import Entry, Operation
from onnx_net2net.frameworks.pytorch.types import Untranslated, literal, short

Factors = tuple[list[int], list[Any] | None, list[float] | None]


def resize(op: Operation) -> str:
    """F.interpolate where that means the same, else by explicit coordinates."""
    if op.opset < 11:
        return _scaled(op, 1, "asymmetric", "floor")
    if op.attribute("antialias", 0):
        raise Untranslated("it is antialiased")
    mode = op.attribute("coordinate_transformation_mode", "half_pixel")
    if mode == "tf_crop_and_resize":
        raise Untranslated("it resizes a region of the image")
    return _scaled(op, 2, mode, op.attribute("nearest_mode", "round_prefer_floor"))


def upsample(op: Operation) -> str:
    """Resize of opset 7 and 9."""
    return _scaled(op, 1, "asymmetric", "floor")


def _factors(op: Operation, index: int) -> Factors:
    """Axes, and either sizes or scales for them, without axes that stay."""
    rank = op.axes_of(0)
    axes = [a % rank for a in op.attribute("axes") or range(rank)]
    scales = op.attribute("scales")
    if scales is None and op.has(index):
        found = op.constant(index)
        if found is None:
            raise Untranslated("its scales are computed")
        scales = [float(s) for s in found.reshape(-1)] or None
    if scales is not None:
        kept = [(a, s) for a, s in zip(axes, scales, strict=True) if s != 1.0]
        return [a for a, _ in kept], None, [s for _, s in kept]
    sizes = op.sizes(index + 1)
    return axes, sizes, None


def _scaled(op: Operation, index: int, coordinates: str, nearest: str) -> str:
    axes, sizes, scales = _factors(op, index)
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(
        op.attribute("mode", "nearest"), op.attribute("mode", "nearest")
    )
    rank, policy = op.axes_of(0), op.attribute("keep_aspect_ratio_policy", "stretch")
    if sizes is not None and policy == "stretch":
        kept = [(a, s) for a, s in zip(axes, sizes, strict=True) if not _stays(op, a, s)]
        axes, sizes = [a for a, _ in kept], [s for _, s in kept]
    if not axes:
        return op.tensor(0)
    spatial = axes == list(range(2, rank)) and policy == "stretch"
    cubic, outside = op.attribute("cubic_coeff_a", -0.75), op.attribute("exclude_outside", 0)
    name = _own(mode, coordinates, nearest, rank, (cubic, outside)) if spatial else None
    x = op.tensor(0)
    if name is not None:
        aligned = ", align_corners=True" if coordinates == "align_corners" else ""
        if scales is not None:
            factor = f"scale_factor={_numbers(scales)}"
        else:
            factor = f"size=({', '.join(map(number, sizes or []))},)"
        how = "" if name == "nearest" else f", mode={literal(name)}"
        return f"F.interpolate({x}, {factor}{how}{aligned})"
    if mode not in ("nearest", "linear", "cubic"):
        raise Untranslated(f"its mode is {mode}")
    given_sizes = f"({', '.join(map(number, sizes))},)" if sizes is not None else "None"
    given_scales = f"({', '.join(map(short, scales))},)" if scales is not None else "None"
    return op.kernel(
        "resized", x, tuple(axes), given_sizes, given_scales, literal(mode), literal(coordinates),
        literal(nearest), short(cubic), bool(outside), literal(policy),
    )  # fmt: skip


def _stays(op: Operation, axis: int, size: Any) -> bool:
    own = op.size(0, axis)
    if isinstance(own, Size) and isinstance(size, Size):
        return own.code == size.code
    return not isinstance(own, Size) and own == size


def _numbers(scales: list[float]) -> str:
    plain = [int(s) if s == int(s) else s for s in scales]
    if len(set(plain)) == 1:
        return str(plain[0]) if isinstance(plain[0], int) else short(plain[0])
    return f"({', '.join(str(p) if isinstance(p, int) else short(p) for p in plain)})"


def _own(
    mode: str, coordinates: str, nearest: str, rank: int, options: tuple[float, int]
) -> str | None:
    """The mode of F.interpolate that does this, or None."""
    if mode == "nearest":
        own = coordinates == "asymmetric" and nearest == "floor"
        return "nearest" if own and 3 <= rank <= 5 else None
    if coordinates not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return None
    if mode == "linear":
        return {3: "linear", 4: "bilinear", 5: "trilinear"}.get(rank)
    own = mode == "cubic" and options == (-0.75, 0)
    return "bicubic" if own and rank == 4 else None


def grid_sample(op: Operation) -> str:
    """Entries at coordinates from -1 to 1."""
    mode = op.attribute("mode", "bilinear")
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    options = "" if mode == "bilinear" else f", mode={literal(mode)}"
    padding = op.attribute("padding_mode", "zeros")
    options += "" if padding == "zeros" else f", padding_mode={literal(padding)}"
    options += f", align_corners={bool(op.attribute('align_corners', 0))}"
    return f"F.grid_sample({op.tensor(0)}, {op.tensor(1)}{options})"


def affine_grid(op: Operation) -> str:
    """Coordinates of a grid that is turned and moved."""
    sizes = ", ".join(map(number, op.sizes(1)))
    aligned = bool(op.attribute("align_corners", 0))
    return f"F.affine_grid({op.tensor(0)}, ({sizes}), align_corners={aligned})"


def roi_align(op: Operation) -> str:
    """Regions of images, resampled to one size."""
    mode = op.attribute("coordinate_transformation_mode", "half_pixel")
    offset = 0.5 if op.opset >= 16 and mode == "half_pixel" else 0.0
    size = op.attribute("output_height", 1), op.attribute("output_width", 1)
    return op.kernel(
        "roi_align", op.tensor(0), op.tensor(1), op.tensor(2), size,
        op.attribute("sampling_ratio", 0), short(op.attribute("spatial_scale", 1.0)), offset,
        literal(op.attribute("mode", "avg")),
    )  # fmt: skip


def max_roi_pool(op: Operation) -> str:
    """The largest entry of each part of each region."""
    scale = short(op.attribute("spatial_scale", 1.0))
    size = tuple(op.attribute("pooled_shape"))
    return op.kernel("max_roi_pool", op.tensor(0), op.tensor(1), size, scale)


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "AffineGrid": affine_grid,
        "GridSample": grid_sample,
        "MaxRoiPool": max_roi_pool,
        "Resize": resize,
        "RoiAlign": roi_align,
        "Upsample": upsample,
    },
}
