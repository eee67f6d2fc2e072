"""Pools with uneven pads, dilations or norms."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def windows(
    x: Tensor,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
    ceil: bool,
    fill: float,
) -> Tensor:
    """The entries of each window in the last axes, one for each spatial axis."""
    rank = len(kernel)
    for axis in range(rank):
        before, after = pads[axis], pads[axis + rank]
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        size = x.shape[axis + 2]
        room = size + before + after - reach
        steps = -(-room // strides[axis]) if ceil else room // strides[axis]
        if ceil and steps * strides[axis] >= size + before:
            steps -= 1  # a window that would begin behind the tensor
        more = max(steps * strides[axis] + reach - size - before, after)
        ends = [0, 0] * (x.dim() - 3 - axis) + [before, more]
        x = F.pad(x, ends, value=fill).unfold(axis + 2, reach, strides[axis])
        x = x.narrow(axis + 2, 0, steps + 1)[..., :: dilations[axis]]
    return x


def average_pool(
    x: Tensor,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
    include: bool,
    ceil: bool,
) -> Tensor:
    """Means of windows; ``include`` counts pads, never what lies behind them."""
    rank = len(kernel)
    dims = tuple(range(-rank, 0))
    inside = torch.ones_like(x[:1, :1])
    if include:
        ends = [p for axis in reversed(range(rank)) for p in (pads[axis], pads[axis + rank])]
        x, inside = F.pad(x, ends), F.pad(inside, ends, value=1.0)
        room = tuple([0] * (2 * rank))
    else:
        room = pads
    total = windows(x, kernel, strides, dilations, room, ceil, 0.0).sum(dims)
    return total / windows(inside, kernel, strides, dilations, room, ceil, 0.0).sum(dims)


def lp_pool(
    x: Tensor,
    p: int,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
    ceil: bool,
) -> Tensor:
    """The p-norm of each window."""
    dims = tuple(range(-len(kernel), 0))
    return torch.linalg.vector_norm(
        windows(x, kernel, strides, dilations, pads, ceil, 0.0), p, dim=dims
    )


def whole_indices(indices: Tensor, x: Tensor) -> Tensor:
    """Indices into one channel as indices into the whole tensor."""
    area = math.prod(x.shape[2:])
    starts = torch.arange(x.shape[0] * x.shape[1], device=x.device) * area
    return indices + starts.reshape(x.shape[0], x.shape[1], *[1] * (x.dim() - 2))


def unpooled_size(
    x: Tensor, kernel: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...]
) -> tuple[int, ...]:
    """The spatial sizes that a pool has made ``x`` from."""
    rank = len(kernel)
    return tuple(
        (x.shape[a + 2] - 1) * strides[a] + kernel[a] - pads[a] - pads[a + rank]
        for a in range(rank)
    )


def max_unpool(
    x: Tensor, indices: Tensor, sizes: tuple[int, ...], shape: tuple[int, ...] | None
) -> Tensor:
    """Values at their indices into the whole tensor, zeros elsewhere."""
    first = (x.shape[0], x.shape[1], *sizes)
    flat = x.new_zeros(math.prod(first))
    y = flat.scatter(0, indices.flatten().long(), x.flatten()).reshape(first)
    if shape is not None:
        ends = [p for have, want in zip(first, shape, strict=True) for p in (want - have, 0)]
        y = F.pad(y, ends[::-1])
    return y
