"""Zeros around the spatial axes, and whole copies of elements along them."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import layers

from onnx_net2net.frameworks.keras.arranged import Arranged, channels_last
from onnx_net2net.frameworks.keras.builder import Builder
from onnx_net2net.frameworks.keras.layers import Maker
from onnx_net2net.frameworks.keras.layers.convolution import padded
from onnx_net2net.frameworks.keras.values import dtype_of, policy_of
from onnx_net2net.frameworks.step import ProgramStep

__all__ = ["TABLES"]

KINDS = (layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D)


def upsample(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return what UpSampling makes, where each element is repeated a whole number of times."""
    old = step.op == "Upsample" or step.opset < 11
    rounding = "floor" if old else step.attributes.get("nearest_mode", "round_prefer_floor")
    place = "asymmetric" if old else "half_pixel"
    place = place if old else step.attributes.get("coordinate_transformation_mode", place)
    step.attributes.get("cubic_coeff_a")
    # An element's middle is nearest to that of what it copies, so there is nothing to round.
    copies = (place, rounding) == ("asymmetric", "floor") or (
        place in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")
        and rounding.startswith("round_prefer_")
    )
    if step.attributes.get("mode", "nearest") != "nearest" or not copies:
        return None
    x, factors = build.symbolic(step.inputs[0]), _factors(build, step)
    if factors is None or len(factors) != x.rank or not 3 <= x.rank <= 5:
        return None
    if factors[:2] != [1, 1] or "float" not in dtype_of(x.value):
        return None
    axes, given = channels_last(x.rank), factors[2:]
    value = x.stored(axes)
    form = {} if x.rank == 3 else {"data_format": "channels_last"}
    size = given[0] if x.rank == 3 else tuple(given)
    layer = KINDS[x.rank - 3](size, **form, dtype=policy_of(value), name=build.layer_name(step))
    return [Arranged(layer(value), axes, x.rank)]


def _factors(build: Builder, step: ProgramStep) -> list[int] | None:
    """Return how often each element is repeated along each axis; None where it is not."""
    place = 1 if step.op == "Upsample" or step.opset < 11 else 2
    scales = _stated(build, step, place, "scales", ())
    if np.size(scales):
        factors = np.asarray(scales, np.float64).reshape(-1).tolist()
    else:
        own, wanted = build.sizes(step.inputs[0]), build.sizes(step.output)
        if own is None or wanted is None or len(own) != len(wanted):
            return None
        factors = []
        for before, after in zip(own, wanted, strict=True):
            if isinstance(before, int) and isinstance(after, int) and before:
                factors.append(after / before)
            elif type(before) is type(after) and before == after:
                factors.append(1.0)
            else:
                return None
    if any(factor < 1 or factor != int(factor) for factor in factors):
        return None
    return [int(factor) for factor in factors]


def pad(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return what ZeroPadding makes, where neither the first nor the last axis is padded."""
    fill = _stated(build, step, 2, "value", 0.0)
    given = _stated(build, step, 1, "pads", None)
    axes = _stated(build, step, 3, "axes", None)
    if step.attributes.get("mode", "constant") != "constant" or given is None or np.any(fill):
        return None
    x = build.symbolic(step.inputs[0])
    chosen = range(x.rank) if axes is None else [int(a) % x.rank for a in np.ravel(axes)]
    numbers = [int(n) for n in np.ravel(given)]
    pads = [(0, 0)] * x.rank
    for place, axis in enumerate(chosen):
        pads[axis] = numbers[place], numbers[place + len(chosen)]
    if any(n < 0 for pair in pads for n in pair) or "float" not in dtype_of(x.value):
        return None
    if x.axes == tuple(range(x.rank)) and x.rank > 3 and not any(map(any, pads[:2])):
        x = Arranged(x.stored(channels_last(x.rank)), channels_last(x.rank), x.rank)
    own = [pads[axis] for axis in x.axes]
    left = [pads[axis] for axis in range(x.rank) if axis not in x.axes]
    if not 3 <= len(own) <= 5 or any(map(any, [own[0], own[-1], *left])):
        return None
    return [Arranged(padded(x.value, own[1:-1]), x.axes, x.rank)]


def _stated(build: Builder, step: ProgramStep, place: int, name: str, default: Any) -> Any:
    """Return an attribute or a constant operand. Raise ValueError where a run tells."""
    if place < len(step.inputs) and step.inputs[place]:
        value = build.constant(step.inputs[place])
        if value is None:
            raise ValueError("it is computed by the graph")
        return value
    return step.attributes.get(name, default)


TABLES: dict[str, dict[str, Maker]] = {"": {"Pad": pad, "Resize": upsample, "Upsample": upsample}}
