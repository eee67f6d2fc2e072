"""Pads, blocks and orders."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def unsqueezed(x: Tensor, axes: list[int]) -> Tensor:
    """Insert new axes, which are counted in the result."""
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def backwards(x: Tensor, start: int, end: int, step: int, axis: int) -> Tensor:
    """Take ``x[start:end:step]`` along ``axis`` for a negative step; the start is never below 0."""
    start = max(start, -x.shape[axis])
    places = range(
        *slice(start, end if end >= -x.shape[axis] else None, step).indices(x.shape[axis])
    )
    index = torch.tensor(list(places), dtype=torch.int64, device=x.device)
    return x.index_select(axis, index)


def sliced(
    x: Tensor, starts: list[int], ends: list[int], axes: list[int], steps: list[int]
) -> Tensor:
    """Take ranges along axes."""
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 0:
            x = backwards(x, start, end, step, axis)
        else:
            x = x.movedim(axis, 0)[start:end:step].movedim(0, axis)
    return x


def padded(x: Tensor, pads: tuple[tuple[int, ...], tuple[int, ...]], mode: str) -> Tensor:
    """Extend each axis by its edge, its reflection, or its other end; negative pads cut."""
    for axis, (before, after) in enumerate(zip(*pads, strict=True)):
        if before == 0 and after == 0:
            continue
        # A pad that cuts is done first: what is left is repeated.
        cut = x.narrow(axis, max(-before, 0), x.shape[axis] + min(before, 0) + min(after, 0))
        size, before, after = cut.shape[axis], max(before, 0), max(after, 0)
        places = torch.arange(-before, size + after, device=x.device)
        if mode == "edge":
            places = places.clamp(0, size - 1)
        elif mode == "wrap":
            places = places % size
        else:
            period = max(2 * (size - 1), 1)
            places = places % period
            places = torch.where(places >= size, period - places, places)
        x = cut.index_select(axis, places)
    return x


def padded_axes(x: Tensor, pads: list[int], axes: list[int], value: float, mode: str) -> Tensor:
    """Pad some axes, which are known at run time only."""
    begins, ends = [0] * x.dim(), [0] * x.dim()
    for index, axis in enumerate(axes):
        begins[axis], ends[axis] = pads[index], pads[index + len(axes)]
    if mode != "constant":
        return padded(x, (tuple(begins), tuple(ends)), mode)
    order = [p for axis in reversed(range(x.dim())) for p in (begins[axis], ends[axis])]
    return F.pad(x, order, value=value)


def depth_to_space(x: Tensor, block: int) -> Tensor:
    """Turn channels (block, block, c) into squares of pixels."""
    n, channels, height, width = x.shape
    x = x.reshape(n, block, block, channels // block**2, height, width)
    x = x.permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, channels // block**2, height * block, width * block)


def space_to_depth(x: Tensor, block: int) -> Tensor:
    """Turn squares of pixels into channels (block, block, c)."""
    n, channels, height, width = x.shape
    x = x.reshape(n, channels, height // block, block, width // block, block)
    x = x.permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, channels * block**2, height // block, width // block)


def center_crop_pad(x: Tensor, sizes: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    """Cut, or fill with zeros, to these sizes, about the centre."""
    for size, axis in zip(sizes, axes, strict=True):
        have = x.shape[axis]
        if size <= have:
            x = x.narrow(axis, (have - size) // 2, size)
        else:
            before = (size - have) // 2
            pads = [0, 0] * (x.dim() - 1 - axis % x.dim()) + [before, size - have - before]
            x = F.pad(x, pads)
    return x


def eye(rows: int, columns: int, offset: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return ones on a diagonal."""
    down = torch.arange(rows, device=device)[:, None]
    return (torch.arange(columns, device=device) - down == offset).to(dtype)


def reverse_sequence(x: Tensor, lengths: Tensor, batch: int, time: int) -> Tensor:
    """Turn each sequence backwards up to its length."""
    steps = torch.arange(x.shape[time], device=x.device)
    places = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    shape = [1] * x.dim()
    shape[batch], shape[time] = x.shape[batch], x.shape[time]
    places = places if batch < time else places.T
    return torch.gather(x, time, places.reshape(shape).expand(x.shape))


def reshaped(x: Tensor, sizes: list[int]) -> Tensor:
    """Reshape ``x``; 0 keeps the size that stands there."""
    return x.reshape([size or x.shape[axis] for axis, size in enumerate(sizes)])


def folded(
    x: Tensor,
    image: tuple[int, ...],
    block: tuple[int, ...],
    dilations: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
) -> Tensor:
    """Add up columns of blocks (n, c * block, places) to images of any number of axes."""
    rank = len(image)
    taps, starts = [], []
    for axis in range(rank):
        reach = dilations[axis] * (block[axis] - 1) + 1
        count = (image[axis] + pads[axis] + pads[axis + rank] - reach) // strides[axis] + 1
        taps.append(torch.arange(block[axis], device=x.device) * dilations[axis])
        starts.append(torch.arange(count, device=x.device) * strides[axis] - pads[axis])
    place = torch.zeros(1, 1, dtype=torch.int64, device=x.device)
    inside = torch.ones(1, 1, dtype=torch.bool, device=x.device)
    for size, tap, start in zip(image, taps, starts, strict=True):
        along = tap[:, None] + start
        kept = (along >= 0) & (along < size)
        place = (place[:, None, :, None] * size + along[None, :, None]).flatten(0, 1).flatten(1)
        inside = (inside[:, None, :, None] & kept[None, :, None]).flatten(0, 1).flatten(1)
    columns = x.reshape(x.shape[0], -1, place.numel()) * inside.flatten()
    whole = x.new_zeros(*columns.shape[:2], int(torch.tensor(image).prod()))
    whole = whole.index_add(2, place.flatten().where(inside.flatten(), 0), columns)
    return whole.reshape(*columns.shape[:2], *image)
