"""Resize and Upsample."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_net2net.algebra.sizes import AnySize
from onnx_net2net.frameworks.torch.operation import Entry, TorchOperation
from onnx_net2net.frameworks.torch.operators.convolution import pair
from onnx_net2net.frameworks.torch.types import literal, short

MODES = {"bilinear": "linear", "bicubic": "cubic"}


def resize(op: TorchOperation) -> str:
    """Call F.interpolate where that means the same, else resize by explicit coordinates."""
    if op.opset < 11:
        return _scaled(op, 1, "asymmetric", "simple")
    mode = op.attribute("coordinate_transformation_mode", "half_pixel")
    return _scaled(op, 2, mode, op.attribute("nearest_mode", "round_prefer_floor"))


def upsample(op: TorchOperation) -> str:
    """Write Resize of opset 7 and 9."""
    return _scaled(op, 1, "asymmetric", "floor")


def _scales(op: TorchOperation, index: int) -> list[float] | str | None:
    """Return numbers where scales are constant, else the code of a tensor; None for sizes."""
    stated = op.attribute("scales")
    if stated is not None:
        return [float(s) for s in stated]
    if not op.has(index):
        return None
    constant = op.constant(index)
    if constant is None:
        # Before opset 13 an empty tensor stood for no scales where there are sizes.
        return None if op.has(index + 1) else f"tuple({op.tensor(index)}.tolist())"
    return [float(s) for s in constant.ravel()] or None


def _scaled(op: TorchOperation, index: int, coordinates: str, nearest: str) -> str:
    rank, policy = op.axes_of(0), op.attribute("keep_aspect_ratio_policy", "stretch")
    axes = list(op.attribute("axes") or range(rank))
    if policy != "stretch" and min(axes, default=0) < 0:
        op.refuse("it keeps the aspect ratio of axes that are counted from the end")
    axes = [a % rank for a in axes]
    scales = _scales(op, index)
    sizes = op.sizes(index + 1) if scales is None else None
    mode = MODES.get(op.attribute("mode", "nearest"), op.attribute("mode", "nearest"))
    if mode not in ("nearest", "linear", "cubic"):
        op.refuse(f"its mode is {mode}")
    if (mode, coordinates) == ("nearest", "half_pixel_symmetric") and nearest in ("floor", "ceil"):
        op.refuse("the last digit decides which entry its symmetric places fall on")
    cubic, outside = op.attribute("cubic_coeff_a", -0.75), op.attribute("exclude_outside", 0)
    smooth, region = bool(op.attribute("antialias", 0)), coordinates == "tf_crop_and_resize"
    if policy == "stretch" and not region:
        axes, sizes, scales = _changed(op, axes, sizes, scales)
        if not axes:
            return op.tensor(0)
    spatial = axes == list(range(2, rank)) and policy == "stretch" and not smooth
    if spatial and not isinstance(scales, str):
        name = _own(op, mode, coordinates, nearest, (cubic, outside), sizes, scales)
        if name is not None:
            aligned = ", align_corners=True" if coordinates == "align_corners" else ""
            if scales is not None:
                numbers = [str(int(s)) if s == int(s) else short(s) for s in scales]
                factor = f"scale_factor={pair(numbers)}"
            else:
                factor = f"size=({op.listed(sizes or [])},)"
            how = "" if name == "nearest" else f", mode={literal(name)}"
            return f"F.interpolate({op.tensor(0)}, {factor}{how}{aligned})"
    given = [op.tensor(0), tuple(axes)]
    given.append("None" if sizes is None else f"({op.listed(sizes)},)")
    listed = scales if isinstance(scales, str) else f"({', '.join(map(short, scales or []))},)"
    given += ["None" if scales is None else listed, literal(mode), literal(coordinates)]
    options: list[Any] = [literal(nearest), short(cubic), bool(outside), literal(policy), smooth]
    if region:
        value = short(op.attribute("extrapolation_value", 0.0))
        options += [f"{op.tensor(index - 1)}.tolist()", value]
    return op.kernel("resized", *given, *options)


def _changed(
    op: TorchOperation,
    axes: list[int],
    sizes: list[AnySize] | None,
    scales: list[float] | str | None,
) -> tuple[list[int], list[AnySize] | None, list[float] | str | None]:
    """Drop the axes that stay as they are."""
    if isinstance(scales, str):
        return axes, None, scales
    if scales is not None:
        kept = [(a, s) for a, s in zip(axes, scales, strict=True) if s != 1.0]
        return [a for a, _ in kept], None, [s for _, s in kept]
    moved = [(a, s) for a, s in zip(axes, sizes or [], strict=True) if op.size(0, a) != s]
    return [a for a, _ in moved], [s for _, s in moved], None


def _own(
    op: TorchOperation, mode: str, coordinates: str, nearest: str, options: tuple[float, int],
    sizes: list[AnySize] | None, scales: list[float] | None,
) -> str | None:  # fmt: skip
    """Return the mode of F.interpolate that does this, or None."""
    rank = op.axes_of(0)
    if scales is not None and not all(s >= 1 and (s * 64).is_integer() for s in scales):
        return None  # ONNX Runtime finds the sizes in float32
    if mode == "nearest":
        # Whole scales whose reciprocal in float32, times a multiple of it, is not too small.
        exact = scales is not None and all(
            s.is_integer() and float(np.float32(1 / s)) >= 1 / s for s in scales
        )
        own = exact and coordinates == "asymmetric" and nearest in ("floor", "simple")
        return "nearest" if own and 3 <= rank <= 5 else None
    if coordinates == "pytorch_half_pixel":  # one entry is taken from the start, not the middle
        before = [op.program.size(op.name(0), axis) for axis in range(2, rank)]
        known = sizes if sizes is not None else [b and b * 2 for b in before]
        if not all(isinstance(size, int) and size > 1 for size in known):
            return None
    elif coordinates not in ("half_pixel", "align_corners"):
        return None
    if mode == "linear":
        return {3: "linear", 4: "bilinear", 5: "trilinear"}.get(rank)
    own = mode == "cubic" and abs(options[0] + 0.75) < 1e-6 and not options[1]
    return "bicubic" if own and rank == 4 else None


TABLES: dict[str, dict[str, Entry]] = {
    "": {"Resize": resize, "Upsample": upsample},
}
