"""Attention whose weights are dropped in training."""

from __future__ import annotations

import math
from typing import Any

from keras import layers, ops

from onnx_net2net.frameworks.keras.arranged import Arranged
from onnx_net2net.frameworks.keras.builder import Builder
from onnx_net2net.frameworks.keras.layers import Maker
from onnx_net2net.frameworks.keras.operators.linear import scaled, swapped
from onnx_net2net.frameworks.keras.values import dtype_of
from onnx_net2net.frameworks.step import ProgramStep

__all__ = ["TABLES"]


def attention(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return products, a softmax and Dropout; without Dropout an operation does it."""
    ratio = step.attributes.get("dropout")
    scale, guarded = step.attributes.get("scale"), step.attributes.get("guarded")
    if not ratio:
        return None
    q, k, v, *mask = (build.symbolic(name).stored() for name in step.inputs)
    scores, blind = scaled(ops.matmul(q, swapped(k)), scale), None
    if mask and guarded:
        blind = ops.equal(ops.max(mask[0], axis=-1, keepdims=True), -math.inf)
        mask = [ops.where(blind, ops.zeros_like(mask[0]), mask[0])]
    scores = scores + mask[0] if mask else scores
    kind = dtype_of(scores)
    dropped = layers.Dropout(ratio, dtype=kind, name=build.layer_name(step))
    y = ops.matmul(dropped(ops.softmax(scores, axis=-1)), v)
    return [Arranged.plain(y if blind is None else ops.where(blind, ops.zeros_like(y), y))]


TABLES: dict[str, dict[str, Maker]] = {"fusion": {"Attention": attention}}
