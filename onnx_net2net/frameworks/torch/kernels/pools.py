"""Pools with uneven pads, dilations, norms or indices."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def fitted(
    x: Tensor,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
    ceil: bool,
    fill: float,
) -> Tensor:
    """Pad ``x``, exactly as far as the windows reach that lie in it.

    With ``ceil`` the last window may reach beyond the pads, and never begins in those behind.
    """
    rank = len(kernel)
    ends: list[int] = []
    for axis in reversed(range(rank)):
        before, after, stride = pads[axis], pads[axis + rank], strides[axis]
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        size = x.shape[axis + 2]
        room = size + before + after - reach
        steps = -(-room // stride) if ceil else room // stride
        if ceil and steps * stride >= size + before:
            steps -= 1
        ends += [before, steps * stride + reach - size - before]
    return F.pad(x, ends, value=fill)


def windows(
    x: Tensor, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> Tensor:
    """Return the elements of each window in the last axes, one for each spatial axis."""
    for axis, (size, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True)):
        x = x.unfold(axis + 2, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return x


def max_pool_with_indices(
    x: Tensor,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
    ceil: bool,
    by_column: bool,
) -> tuple[Tensor, Tensor]:
    """Return the largest elements, and where they stand in the whole tensor."""
    rank = len(kernel)
    whole = fitted(x, kernel, strides, dilations, pads, ceil, float("-inf"))
    taken = windows(whole, kernel, strides, dilations)
    best = taken.flatten(-rank).max(-1)
    place = best.indices
    total = torch.zeros_like(place)
    sizes = x.shape[2:]
    for axis in reversed(range(rank)):
        taps = torch.arange(taken.shape[axis + 2], device=x.device) * strides[axis] - pads[axis]
        taps = taps.reshape(-1, *[1] * (rank - 1 - axis))
        along = taps + place % kernel[axis] * dilations[axis]
        place = place // kernel[axis]
        step = math.prod(sizes[:axis]) if by_column else math.prod(sizes[axis + 1 :])
        total = total + along * step
    starts = torch.arange(x.shape[0] * x.shape[1], device=x.device) * math.prod(sizes)
    return best.values, total + starts.reshape(x.shape[0], x.shape[1], *[1] * rank)


def average_pool(
    x: Tensor,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
    ceil: bool,
    include: bool,
) -> Tensor:
    """Average windows; ``include`` counts pads, never what lies behind them."""
    rank = len(kernel)
    dims = tuple(range(-rank, 0))
    whole = fitted(x, kernel, strides, dilations, pads, ceil, 0.0)
    ends = [p for axis in reversed(range(rank)) for p in (pads[axis], pads[axis + rank])]
    ones = F.pad(torch.ones_like(x[:1, :1]), ends, value=float(include))
    spatial = zip(reversed(whole.shape[2:]), reversed(ones.shape[2:]), strict=True)
    rest = [p for size, counted in spatial for p in (0, size - counted)]
    counted = windows(F.pad(ones, rest), kernel, strides, dilations).sum(dims)
    return windows(whole, kernel, strides, dilations).sum(dims) / counted


def lp_pool(
    x: Tensor,
    p: int,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
    ceil: bool,
) -> Tensor:
    """Return the p-norm of each window."""
    whole = fitted(x, kernel, strides, dilations, pads, ceil, 0.0)
    dims = tuple(range(-len(kernel), 0))
    return torch.linalg.vector_norm(windows(whole, kernel, strides, dilations), p, dim=dims)


def unpooled_shape(
    x: Tensor, kernel: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the shape of what a pool has made ``x`` from."""
    rank = len(kernel)
    sizes = (
        (x.shape[a + 2] - 1) * strides[a] + kernel[a] - pads[a] - pads[a + rank]
        for a in range(rank)
    )
    return (x.shape[0], x.shape[1], *sizes)


def max_unpool(x: Tensor, indices: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Put values at their indices into the whole tensor, zeros elsewhere."""
    flat = x.new_zeros(math.prod(shape))
    return flat.scatter(0, indices.flatten().long(), x.flatten()).reshape(shape)
