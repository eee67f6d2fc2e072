"""Sizes that only a run tells, as tensors of the graph; the analysis says what they are.

sizes = SizeTensors(program)
sizes.along("sequence")                      # zeros, as many as the axis of an input is long
sizes.size(2 * sequence + 1)                 # a scalar
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from onnx_net2net.algebra.sizes import AnySize, Size
from onnx_net2net.frameworks.keras.arranged import Arranged
from onnx_net2net.frameworks.keras.program import is_derived, proven_sizes, symbols
from onnx_net2net.frameworks.keras.run_time_sizes import Sizes
from onnx_net2net.frameworks.keras.types import type_name
from onnx_net2net.frameworks.program import Program

__all__ = ["SizeTensors"]


class SizeTensors:
    """The sizes of a network's tensors; ``inputs`` are those of the Keras model."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.inputs: list[Arranged] = []
        self._along: dict[str, Any] = {}

    def sizes(self, name: str) -> tuple[AnySize, ...] | None:
        """Return the sizes of a tensor, symbols where they vary; None where they are not known."""
        return proven_sizes(self.program, name)

    def is_size(self, name: str) -> bool:
        """Return whether a tensor that is left holds sizes, which a layer had better compute."""
        graph = self.program.graph
        if self.program.is_constant(name) or name not in graph.producer:
            return False
        if graph.producer[name].position in self.program.shapes.computed:
            return True
        readers = graph.consumers.get(name, ())
        return any(index in node.facts.extents for node, index in readers)

    def is_settled(self, name: str) -> bool:
        """Return whether a tensor holds sizes that are always the same."""
        graph, shapes = self.program.graph, self.program.shapes
        node = graph.producer.get(name)
        if self.program.is_constant(name):
            return True
        if node is None or node.position not in shapes.computed or not shapes.settled(name):
            return False
        if node.facts.measures:
            return proven_sizes(self.program, node.inputs[0]) is not None
        return all(
            n in shapes.formula or self.is_settled(n) for n in node.inputs if n in graph.producer
        )

    def sized(self, name: str) -> Arranged:
        """Return sizes as a tensor of the graph. Raise ValueError where there is no formula."""
        formula = self.program.shapes.formula.get(name)
        kind = self.program.dtype(name)
        if formula is None or kind is None:
            raise ValueError("a size that only a run tells")
        items = [self.size(item) for item in formula.reshape(-1)]
        value = ops.reshape(ops.stack(items), formula.shape) if formula.shape else items[0]
        return Arranged.plain(ops.cast(value, type_name(kind)))

    def size(self, size: AnySize) -> Any:
        """Return a size as a scalar of the graph, an int32."""
        if not is_derived(size, self.program.shapes.binding.keys()):
            raise ValueError("a size that only a run tells")
        if not isinstance(size, Size):
            return ops.add(self.zero(), int(size))
        scalars = {
            one: ops.size(self.along(one.operator)) for one in symbols(size) if not one.operands
        }
        return Sizes(np.array(size, object), np.dtype("int32"), scalars).elements()[0]

    def along(self, symbol: str) -> Any:
        """Return zeros, int32, as many as there are along the axis of an input of that name.

        Raise ValueError where no input has one.
        """
        if symbol not in self._along:
            for name, x in zip(self.program.main.inputs, self.inputs, strict=True):
                sizes = [str(size) for size in self.program.shapes.sizes.get(name, ())]
                if symbol in sizes:
                    axis = x.axes.index(sizes.index(symbol))
                    rows = ops.zeros_like(x.value, dtype="int32")
                    others = tuple(a for a in range(len(sizes)) if a != axis)
                    self._along[symbol] = ops.sum(rows, axis=others) if others else rows
                    break
            else:
                raise ValueError("no input has an axis of that size")
        return self._along[symbol]

    def spread(self, sizes: Sequence[AnySize], axes: Sequence[int]) -> Any:
        """Return zeros, int32, of the sizes along some axes, and of size 1 along the others."""
        total: Any = None
        for axis in axes:
            size, shape = sizes[axis], [1] * len(sizes)
            shape[axis] = -1
            if isinstance(size, int):
                row: Any = np.zeros(size, np.int32).reshape(shape)
            else:
                row = ops.reshape(self.along(str(size)), shape)
            total = row if total is None else ops.maximum(total, row)
        return total

    def zero(self) -> Any:
        """Return 0 as a tensor of the graph."""
        return ops.multiply(ops.size(self.inputs[0].value), 0)
