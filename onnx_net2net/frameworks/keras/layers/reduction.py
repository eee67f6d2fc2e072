"""Means over all that is no channel, however they are written."""

from __future__ import annotations

from typing import Any

from onnx_net2net.frameworks.keras.builder import Builder
from onnx_net2net.frameworks.keras.layers import Maker
from onnx_net2net.frameworks.keras.layers.pooling import ALL_MEANS, over_space
from onnx_net2net.frameworks.step import ProgramStep

__all__ = ["TABLES"]


def mean(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return what global pooling makes, where that is what is averaged over."""
    axes = step.attributes.get("axes")
    keep = step.attributes.get("keepdims", 1)
    step.attributes.get("noop_with_empty_axes")
    if len(step.inputs) > 1 and step.inputs[1]:
        given = build.constant(step.inputs[1])
        axes = None if given is None else given.reshape(-1).tolist()
    rank = build.program.rank(step.inputs[0])
    if not axes or rank is None or rank < 3:
        return None
    over = sorted(axis % rank for axis in axes)
    if len(set(over)) != rank - 2:
        return None
    y = over_space(build, step.inputs[0], ALL_MEANS, over)
    if y is None:
        return None
    return [y if keep else y.squeezed(over)]


TABLES: dict[str, dict[str, Maker]] = {"": {"ReduceMean": mean}}
