"""A symbolic tensor whose axes lie otherwise than in the ONNX graph.

    x = Arranged.plain(keras_tensor)                 # axes (0, 1, 2, 3)
    y = x.permuted((0, 2, 3, 1))                     # ONNX' Transpose: nothing is computed
    y.stored((0, 1, 2, 3))                           # a KerasTensor; a Permute layer if it must be

Layers of images want the channels last, and ONNX has them on axis 1; recurrent layers want the
batch first. So a tensor says which axis of the ONNX tensor each of its own axes is, and is turned
only where something reads it otherwise. Axes of size 1 need not be there at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
from keras import layers, ops

from onnx_net2net.frameworks.keras.values import policy_of

__all__ = ["Arranged", "channels_last"]

Axes = tuple[int, ...]


def channels_last(rank: int) -> Axes:
    """Return the axes of a tensor N C ... in the order N ... C."""
    return (0, *range(2, rank), 1)


@dataclass(eq=False)
class Arranged:
    """``value`` holds the axes ``axes`` of an ONNX tensor of that rank; others have size 1.

    Of a matrix that was made by merging axes, ``folded`` is the tensor before, and the sizes of
    those axes: Keras could not part them again where more than one is open.
    """

    value: keras.KerasTensor
    axes: Axes
    rank: int
    folded: tuple[Arranged, Sequence[Any]] | None = None
    _stored: dict[Axes, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.value._sparse = False  # Keras takes what is multiplied by a constant for sparse

    @classmethod
    def plain(cls, value: keras.KerasTensor) -> Arranged:
        """Return a tensor whose axes lie as in the ONNX graph."""
        return cls(value, tuple(range(len(value.shape))), len(value.shape))

    def size(self, axis: int) -> int | None:
        """Return the size of an axis of the ONNX tensor, None for an open one."""
        size: int | None = self.value.shape[self.axes.index(axis)] if axis in self.axes else 1
        return size

    @property
    def is_channels_last(self) -> bool:
        """Return whether axis 1 of the ONNX tensor lies behind others."""
        return self.rank > 2 and self.axes == channels_last(self.rank)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Return the shape of the ONNX tensor."""
        return tuple(self.size(axis) for axis in range(self.rank))

    def permuted(self, perm: Sequence[int]) -> Arranged:
        """Return what ONNX' Transpose makes of it."""
        places = [list(perm).index(axis) for axis in self.axes]
        return Arranged(self.value, tuple(places), self.rank)

    def widened(self, rank: int) -> Arranged:
        """Return it with axes of size 1 in front, as it is broadcast."""
        more = rank - self.rank
        return replace(self, axes=tuple(a + more for a in self.axes), rank=rank, _stored={})

    def unsqueezed(self, axes: Sequence[int]) -> Arranged:
        """Return what ONNX' Unsqueeze makes of it, for axes counted from the front."""
        rank = self.rank + len(axes)
        kept = [axis for axis in range(rank) if axis not in axes]
        return Arranged(self.value, tuple(kept[axis] for axis in self.axes), rank)

    def squeezed(self, axes: Sequence[int]) -> Arranged:
        """Return what ONNX' Squeeze makes of it, for axes of size 1, counted from the front."""
        left = tuple(axis for axis in self.axes if axis not in axes)
        kept = [axis for axis in range(self.rank) if axis not in axes]
        value = self.stored(left)
        return Arranged(value, tuple(kept.index(axis) for axis in left), len(kept))

    def stored(self, axes: Axes | None = None) -> keras.KerasTensor:
        """Return the tensor with just these axes, in this order; by default as ONNX has it.

        What is left out has size 1.
        """
        axes = tuple(range(self.rank)) if axes is None else axes
        if axes == self.axes:
            return self.value
        if axes not in self._stored:
            self._stored[axes] = self._turned(axes)
        return self._stored[axes]

    def _turned(self, axes: Axes) -> keras.KerasTensor:
        long = [axis for axis in self.axes if self.size(axis) != 1]
        shape, keeps = [self.size(axis) for axis in axes], self._keeps_first(axes)
        ordered = long == [axis for axis in axes if axis in long]
        if ordered and can_reshape(shape, keeps):
            return reshaped(self.value, shape, keeps)
        value, own = self.value, list(self.axes)
        for axis in [axis for axis in own if axis not in axes]:
            value = ops.squeeze(value, own.index(axis))
            own.remove(axis)
        order = [own.index(axis) for axis in axes if axis in own]
        if order != sorted(order):
            if order[0] == 0:
                value = layers.Permute(order[1:], dtype=policy_of(value))(value)
            else:
                value = ops.transpose(value, order)
        for place, axis in enumerate(axes):
            if axis not in own:
                value = ops.expand_dims(value, place)
        return value

    def _keeps_first(self, axes: Axes) -> bool:
        return bool(axes) and bool(self.axes) and axes[0] == self.axes[0]


def can_reshape(shape: Sequence[int | None], keeps_first: bool) -> bool:
    """Return whether Keras can tell the open ones of these sizes."""
    return list(shape[keeps_first:]).count(None) <= (0 not in shape)


def reshaped(value: Any, shape: Sequence[int | None], keeps_first: bool) -> Any:
    """Reshape a symbolic tensor; ``keeps_first`` says that the first size stays what it is.

    Raise ValueError where more sizes are open than Keras can tell.
    """
    if tuple(shape) == tuple(value.shape) and None not in shape[1:]:
        return value
    rest = list(shape[1:]) if keeps_first else list(shape)
    if not can_reshape(shape, keeps_first):
        raise ValueError("more than one size is open")
    wanted = tuple(-1 if size is None else size for size in rest)
    if keeps_first and wanted:
        return layers.Reshape(wanted, dtype=policy_of(value))(value)
    return ops.reshape(value, wanted if not keeps_first else (-1,))
