"""Gathering and scattering as ONNX defines them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gather_elements(x: Tensor, index: Tensor, axis: int) -> Tensor:
    """Take one index of ``x`` for each element; negative ones count from the end."""
    return torch.gather(x, axis, torch.where(index < 0, index + x.shape[axis], index))


def gather_nd(x: Tensor, index: Tensor, batch: int) -> Tensor:
    """Take slices of ``x`` at vectors of indices; the first ``batch`` axes go together."""
    lead = x.shape[:batch]
    flat, places = x.flatten(0, batch - 1), index.flatten(0, batch - 1)
    rows = torch.arange(flat.shape[0], device=x.device)
    rows = rows.reshape(-1, *[1] * (places.dim() - 2)).expand(places.shape[:-1])
    taken = flat[(rows, *places.unbind(-1))]
    return taken.reshape(*lead, *taken.shape[1:])


def scatter_elements(x: Tensor, index: Tensor, updates: Tensor, axis: int, how: str) -> Tensor:
    """Replace elements of ``x`` along ``axis``, or combine them with what is there."""
    index = torch.where(index < 0, index + x.shape[axis], index)
    if how == "none":
        return x.scatter(axis, index, updates)
    names = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    return x.scatter_reduce(axis, index, updates, names[how])


def scatter_nd(x: Tensor, index: Tensor, updates: Tensor, how: str) -> Tensor:
    """Replace slices of ``x``, or combine them with what is there."""
    depth = index.shape[-1]
    if how == "none":
        return x.index_put(index.unbind(-1), updates)
    if how == "add":
        return x.index_put(index.unbind(-1), updates, accumulate=True)
    place = torch.zeros_like(index[..., 0])
    for axis in range(depth):
        one = index[..., axis]
        place = place * x.shape[axis] + torch.where(one < 0, one + x.shape[axis], one)
    names = {"mul": "prod", "max": "amax", "min": "amin"}
    rows = x.flatten(0, depth - 1) if depth > 1 else x
    given = updates.reshape(-1, *rows.shape[1:])
    where = place.reshape(-1, *[1] * (rows.dim() - 1)).expand(given.shape)
    return rows.scatter_reduce(0, where, given, names[how]).reshape(x.shape)


def tensor_scatter(
    cache: Tensor, updates: Tensor, start: Tensor | None, axis: int, mode: str
) -> Tensor:
    """Write ``updates`` into a cache along ``axis``, from each sample's ``start`` on."""
    axis = axis % cache.dim()
    steps = torch.arange(updates.shape[axis], device=cache.device)
    first = torch.zeros_like(steps[:1]) if start is None else start.reshape(-1)
    place = first[:, None] + steps
    if mode == "circular":
        place = place % cache.shape[axis]
    shape = [1] * cache.dim()
    shape[0], shape[axis] = place.shape
    return cache.scatter(axis, place.reshape(shape).expand(updates.shape), updates)


def one_hot(index: Tensor, depth: int, values: Tensor, axis: int) -> Tensor:
    """Return the second of ``values`` at the index, the first elsewhere."""
    index = torch.where(index < 0, index + depth, index)
    axis = axis % (index.dim() + 1)
    steps = torch.arange(depth, device=index.device)
    hit = index.unsqueeze(axis) == steps.reshape(-1, *[1] * (index.dim() - axis))
    return torch.where(hit, values[1], values[0])


def top_k(x: Tensor, count: int, axis: int, largest: bool) -> tuple[Tensor, Tensor]:
    """Return the best elements in order; of equal ones the first comes first."""
    values, places = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)


def last_extreme(x: Tensor, axis: int, keep: bool, name: str) -> Tensor:
    """Return where the largest or smallest element stands last."""
    flipped = x.flip(axis)
    best = flipped.argmax(axis, keep) if name == "argmax" else flipped.argmin(axis, keep)
    return x.shape[axis] - 1 - best


def cumulative(
    x: Tensor, axis: int, function: Callable[..., Tensor], exclusive: bool, reverse: bool
) -> Tensor:
    """Sum or multiply up, from the end where ``reverse``, without the element itself or with it."""
    x = x.flip(axis) if reverse else x
    if exclusive and x.shape[axis]:
        first = torch.full_like(x.narrow(axis, 0, 1), 1 if function is torch.cumprod else 0)
        x = torch.cat((first, x.narrow(axis, 0, x.shape[axis] - 1)), dim=axis)
    total = function(x, axis)
    return total.flip(axis) if reverse else total


def unique(x: Tensor, axis: int | None, ordered: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the different elements, where each stands first, which is where, and how often."""
    values, inverse, counts = torch.unique(
        x, sorted=True, return_inverse=True, return_counts=True, dim=axis
    )
    inverse = inverse.flatten()
    places = torch.arange(inverse.numel(), device=x.device)
    first = torch.full_like(counts, inverse.numel()).scatter_reduce(0, inverse, places, "amin")
    if not ordered:
        order = first.argsort()
        values = values[order] if axis is None else values.index_select(axis, order)
        first, counts, inverse = first[order], counts[order], order.argsort()[inverse]
    return values, first, inverse, counts


def non_max_suppression(
    boxes: Tensor,
    scores: Tensor,
    most: int | Tensor,
    overlap: float | Tensor,
    least: float | Tensor | None,
    center: bool,
) -> Tensor:
    """Return rows of (sample, class, box), the best first, that no better box overlaps."""
    if center:
        middle, half = boxes[..., :2], boxes[..., 2:] / 2
        boxes = torch.cat((middle - half, middle + half), dim=-1)
    low = torch.minimum(boxes[..., :2], boxes[..., 2:])
    high = torch.maximum(boxes[..., :2], boxes[..., 2:])
    area = (high - low).prod(-1)
    kept = []
    for sample in range(scores.shape[0]):
        for label in range(scores.shape[1]):
            score, room = scores[sample, label], int(most)
            left = torch.sort(score, descending=True, stable=True).indices
            if least is not None:
                left = left[~(score[left] <= least)]
            while left.numel() and room > 0:
                best, left, room = int(left[0]), left[1:], room - 1
                kept.append((sample, label, best))
                edges = torch.minimum(high[sample, best], high[sample, left])
                edges = edges - torch.maximum(low[sample, best], low[sample, left])
                shared = edges.clamp(min=0).prod(-1)
                union = area[sample, best] + area[sample, left] - shared
                left = left[~(shared > overlap * union)]
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device).reshape(-1, 3)
