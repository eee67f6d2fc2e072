"""Rows of a table of weights, looked up by numbers of the graph."""

from __future__ import annotations

from typing import Any

from keras import layers, ops

from onnx_net2net.frameworks.keras.arranged import Arranged
from onnx_net2net.frameworks.keras.builder import Builder
from onnx_net2net.frameworks.keras.layers import Maker
from onnx_net2net.frameworks.step import ProgramStep

__all__ = ["TABLES"]


def gather(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return what Embedding makes of indices; those that the graph computes may be negative."""
    table, name = build.sole(step.inputs[0]), step.inputs[1]
    if table is None or len(table.shape) != 2 or step.attributes.get("axis", 0):
        return None
    x = build.symbolic(name)
    index = x.value
    if name not in build.program.main.inputs:
        index = ops.where(ops.less(index, 0), ops.add(index, table.shape[0]), index)
    layer = layers.Embedding(*table.shape, dtype=table.dtype, name=build.layer_name(step, table))
    y = layer(index)
    build.hold(layer.embeddings, table)
    return [Arranged(y, (*x.axes, x.rank), x.rank + 1)]


TABLES: dict[str, dict[str, Maker]] = {"": {"Gather": gather}}
