"""Normalisations, along whichever axis of the tensor their features lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import layers

from onnx_net2net.frameworks.keras.arranged import Arranged
from onnx_net2net.frameworks.keras.builder import Builder
from onnx_net2net.frameworks.keras.layers import Maker
from onnx_net2net.frameworks.keras.moved import Moved
from onnx_net2net.frameworks.keras.values import dtype_of
from onnx_net2net.frameworks.roles import Role
from onnx_net2net.frameworks.step import ProgramStep

__all__ = ["TABLES"]


def affine(build: Builder, name: str, neutral: float) -> Moved | bool | None:
    """Return weights, False where it is a constant that does nothing, None for anything else."""
    if not name:
        return False
    value = build.constant(name)
    if value is not None:
        return False if np.all(value == neutral) else None
    return build.sole(name)


def _plain(step: ProgramStep) -> bool:
    """Return whether only the first output is asked for."""
    return not any(step.outputs[1:])


def batch_norm(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return what BatchNormalization makes, whose statistics move as Keras has it."""
    attributes = step.attributes
    epsilon, momentum = attributes.get("epsilon", 1e-5), attributes.get("momentum", 0.9)
    if attributes.get("training_mode", 0) or not _plain(step):
        return None
    if not attributes.get("spatial", 1):
        return None
    gamma, beta = affine(build, step.inputs[1], 1.0), affine(build, step.inputs[2], 0.0)
    mean, variance = (build.sole(name, Role.STATISTIC) for name in step.inputs[3:])
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    x = build.symbolic(step.inputs[0])
    if 1 not in x.axes or dtype_of(x.value) != mean.dtype:
        return None
    axis = x.axes.index(1)
    layer = layers.BatchNormalization(
        axis=-1 if axis == len(x.axes) - 1 else axis,
        momentum=momentum,
        epsilon=epsilon,
        center=beta is not False,
        scale=gamma is not False,
        dtype=mean.dtype,
        name=build.layer_name(step, gamma, beta, mean),
    )
    y = layer(x.value)
    _hold(build, layer, {"gamma": gamma, "beta": beta})
    build.hold(layer.moving_mean, mean)
    build.hold(layer.moving_variance, variance)
    return [Arranged(y, x.axes, x.rank)]


def _hold(build: Builder, layer: Any, weights: dict[str, Moved | bool | None]) -> None:
    for attribute, weight in weights.items():
        if isinstance(weight, Moved):
            build.hold(getattr(layer, attribute), weight)


def _trailing(x: Arranged, axis: int) -> list[int] | None:
    """Return where the axes from one on lie in the tensor, None where they are not its last."""
    first = axis + x.rank if axis < 0 else axis
    wanted = tuple(range(first, x.rank))
    count = len(wanted)
    return list(range(-count, 0)) if count and x.axes[-count:] == wanted else None


def layer_norm(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return what LayerNormalization makes."""
    return _trailing_norm(build, step, layers.LayerNormalization, ("gamma", "beta"))


def rms_norm(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return what RMSNormalization makes."""
    return _trailing_norm(build, step, layers.RMSNormalization, ("scale",))


def _trailing_norm(
    build: Builder, step: ProgramStep, kind: Any, names: Sequence[str]
) -> list[Any] | None:
    """Return what a norm over the last axes makes."""
    axis, epsilon = step.attributes.get("axis", -1), step.attributes.get("epsilon", 1e-5)
    if not _plain(step) or step.attributes.get("stash_type", 1) != 1:
        return None
    given = (*step.inputs[1:], "", "")[:2]
    weights = [
        affine(build, name, neutral) for name, neutral in zip(given, (1.0, 0.0), strict=True)
    ]
    if None in weights:
        return None
    gamma, beta = weights
    x = build.symbolic(step.inputs[0])
    over = _trailing(x, axis)
    if over is None:
        x = Arranged.plain(x.stored())
        over = _trailing(x, axis)
    shape = [x.value.shape[place] for place in over or ()]
    fits = [w.shape == tuple(shape) for w in weights if isinstance(w, Moved)]
    if over is None or None in shape or not all(fits):
        return None
    options: dict[str, Any] = {"axis": over if len(over) > 1 else -1, "epsilon": epsilon}
    if len(names) == 2:
        options |= {"center": beta is not False, "scale": gamma is not False}
    elif gamma is False or beta is not False:
        return None
    kinds = {w.dtype for w in weights if isinstance(w, Moved)} | {dtype_of(x.value)}
    if len(kinds) > 1:
        return None
    layer = kind(**options, dtype=dtype_of(x.value), name=build.layer_name(step, gamma, beta))
    y = layer(x.value)
    _hold(build, layer, dict(zip(names, weights, strict=False)))
    return [Arranged(y, x.axes, x.rank)]


def group_norm(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return what GroupNormalization makes, where each channel has a scale of its own."""
    groups = step.attributes.get("num_groups")
    if step.opset < 21 or step.attributes.get("stash_type", 1) != 1:
        return None
    return _grouped(build, step, groups)


def instance_norm(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return what GroupNormalization makes of as many groups as there are channels."""
    size = build.symbolic(step.inputs[0]).size(1)
    return None if size is None else _grouped(build, step, size)


def _grouped(build: Builder, step: ProgramStep, groups: int) -> list[Any] | None:
    epsilon = step.attributes.get("epsilon", 1e-5)
    gamma, beta = affine(build, step.inputs[1], 1.0), affine(build, step.inputs[2], 0.0)
    if gamma is None or beta is None:
        return None
    x = build.symbolic(step.inputs[0])
    if len(x.axes) != x.rank or x.axes[0] != 0 or dtype_of(x.value) != "float32":
        return None
    axis = x.axes.index(1)
    layer = layers.GroupNormalization(
        groups,
        axis=-1 if axis == x.rank - 1 else axis,
        epsilon=epsilon,
        center=beta is not False,
        scale=gamma is not False,
        dtype=dtype_of(x.value),
        name=build.layer_name(step, gamma, beta),
    )
    y = layer(x.value)
    _hold(build, layer, {"gamma": gamma, "beta": beta})
    return [Arranged(y, x.axes, x.rank)]


TABLES: dict[str, dict[str, Maker]] = {
    "": {
        "BatchNormalization": batch_norm,
        "GroupNormalization": group_norm,
        "InstanceNormalization": instance_norm,
        "LayerNormalization": layer_norm,
        "RMSNormalization": rms_norm,
    }
}
