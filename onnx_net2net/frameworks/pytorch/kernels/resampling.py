"""Resizing by explicit coordinates, for what F.interpolate does not offer; regions of images."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def resized_shape(
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    sizes: tuple[int, ...] | None,
    scales: tuple[float, ...] | None,
    policy: str,
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The sizes of ``axes``, and by what they are scaled."""
    have = [shape[axis] for axis in axes]
    if sizes is None:
        assert scales is not None
        return tuple(math.floor(h * s) for h, s in zip(have, scales, strict=True)), scales
    if policy == "stretch":
        return sizes, tuple(s / h for s, h in zip(sizes, have, strict=True))
    choose = min if policy == "not_larger" else max
    scale = choose(s / h for s, h in zip(sizes, have, strict=True))
    return tuple(math.floor(scale * h + 0.5) for h in have), (scale,) * len(have)


def source_coordinates(
    size: int, new: int, scale: float, mode: str, device: torch.device
) -> Tensor:
    """Where each of ``new`` entries lies among ``size`` old ones."""
    place = torch.arange(new, dtype=torch.float32, device=device)
    if mode == "align_corners":
        return place * ((size - 1) / (new - 1) if new > 1 else 0.0)
    if mode == "asymmetric":
        return place / scale
    if mode == "tf_half_pixel_for_nn":
        return (place + 0.5) / scale
    if mode == "pytorch_half_pixel" and new == 1:
        return place * 0
    place = (place + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        place = place + size / 2 * (1 - new / (scale * size))
    return place


def nearest_index(place: Tensor, how: str) -> Tensor:
    """Coordinates as positions."""
    if how == "floor":
        return place.floor()
    if how == "ceil":
        return place.ceil()
    return (place - 0.5).ceil() if how == "round_prefer_floor" else (place + 0.5).floor()


def cubic_weights(part: Tensor, a: float) -> Tensor:
    """Weights of the four entries about a coordinate."""
    far = torch.stack((part + 1, 2 - part))
    near = torch.stack((part, 1 - part))
    outer = a * (far**3 - 5 * far**2 + 8 * far - 4)
    inner = (a + 2) * near**3 - (a + 3) * near**2 + 1
    return torch.stack((outer[0], inner[0], inner[1], outer[1]))


def resized(
    x: Tensor,
    axes: tuple[int, ...],
    sizes: tuple[int, ...] | None,
    scales: tuple[float, ...] | None,
    mode: str,
    coordinates: str,
    nearest: str,
    cubic: float,
    outside: bool,
    policy: str,
) -> Tensor:
    """``x`` with other sizes, one axis after the other."""
    new_sizes, factors = resized_shape(tuple(x.shape), axes, sizes, scales, policy)
    for axis, new, scale in zip(axes, new_sizes, factors, strict=True):
        size = x.shape[axis]
        if new == size and scale == 1:
            continue
        place = source_coordinates(size, new, scale, coordinates, x.device)
        if mode == "nearest":
            index = nearest_index(place, nearest).long().clamp(0, size - 1)
            x = x.index_select(axis, index)
            continue
        if mode == "linear":
            place = place.clamp(0, size - 1)
        first = place.floor()
        part = place - first
        taps = torch.stack((1 - part, part)) if mode == "linear" else cubic_weights(part, cubic)
        start = first.long() - (1 if mode == "cubic" else 0)
        view = [1] * x.dim()
        view[axis] = -1
        if outside:
            reached = torch.stack([start + i for i in range(len(taps))])
            taps = taps * ((reached >= 0) & (reached < size))
            taps = taps / taps.sum(0)
        x = sum(
            (
                x.index_select(axis, (start + i).clamp(0, size - 1)) * tap.to(x.dtype).reshape(view)
                for i, tap in enumerate(taps)
            ),
            start=x.new_zeros(()),
        )
    return x


def roi_align(
    x: Tensor,
    rois: Tensor,
    samples: Tensor,
    size: tuple[int, int],
    ratio: int,
    scale: float,
    offset: float,
    mode: str,
) -> Tensor:
    """Regions of images, resampled to one size."""
    found = []
    for roi, sample in zip(rois, samples.tolist(), strict=True):
        left, top, right, bottom = (roi * scale - offset).unbind()
        width, height = right - left, bottom - top
        if offset == 0:
            width, height = width.clamp(min=1.0), height.clamp(min=1.0)
        grids, counts = [], []
        for start, length, bins in ((top, height, size[0]), (left, width, size[1])):
            count = ratio if ratio > 0 else max(math.ceil(float(length) / bins), 1)
            steps = torch.arange(bins * count, device=x.device) + 0.5
            grids.append(start + steps * (length / bins / count))
            counts.append(count)
        # Largest of the four weighted neighbours for "max", their sum for "avg".
        parts = bilinear_parts(x[sample], grids[0], grids[1])
        values = parts.amax(0) if mode == "max" else parts.sum(0)
        shape = (-1, size[0], counts[0], size[1], counts[1])
        values = values.reshape(shape)
        pooled = values.amax((2, 4)) if mode == "max" else values.mean((2, 4))
        found.append(pooled)
    if not found:
        return x.new_zeros(0, x.shape[1], *size)
    return torch.stack(found)


def bilinear_parts(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The four neighbours of each point of a grid times their weights; zero outside."""
    height, width = image.shape[-2:]
    inside = ((rows >= -1) & (rows <= height))[:, None] & (columns >= -1) & (columns <= width)
    edges = []
    for place, size in ((rows, height), (columns, width)):
        place = place.clamp(0, size - 1)
        low = place.floor().long()
        high = (low + 1).clamp(max=size - 1)
        part = torch.where(low == high, torch.zeros_like(place), place - low)
        edges.append(((low, 1 - part), (high, part)))
    parts = [
        image[:, row[0]][:, :, column[0]] * row[1][:, None] * column[1]
        for row in edges[0]
        for column in edges[1]
    ]
    return torch.stack(parts) * inside


def max_roi_pool(x: Tensor, rois: Tensor, size: tuple[int, int], scale: float) -> Tensor:
    """The largest entry of each part of each region (sample, left, top, right, bottom)."""
    found = []
    for roi in rois:
        sample = int(roi[0])
        left, top, right, bottom = (int(v) for v in torch.floor(roi[1:] * scale + 0.5).tolist())
        height, width = max(bottom - top + 1, 1), max(right - left + 1, 1)
        rows = []
        for i in range(size[0]):
            first = min(max(math.floor(i * height / size[0]) + top, 0), x.shape[2])
            last = min(max(math.ceil((i + 1) * height / size[0]) + top, 0), x.shape[2])
            for j in range(size[1]):
                start = min(max(math.floor(j * width / size[1]) + left, 0), x.shape[3])
                end = min(max(math.ceil((j + 1) * width / size[1]) + left, 0), x.shape[3])
                part = x[sample, :, first:last, start:end].flatten(1)
                rows.append(part.amax(1) if part.shape[1] else x.new_zeros(x.shape[1]))
        found.append(torch.stack(rows, dim=1).reshape(x.shape[1], *size))
    return torch.stack(found) if found else x.new_zeros(0, x.shape[1], *size)


def deform_conv(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    strides: list[int],
    pads: list[int],
    dilations: list[int],
    group: int,
    offset_group: int,
) -> Tensor:
    """A convolution whose samples are taken where the offsets say, zero outside."""
    n, channels, height, width = x.shape
    out, _, kh, kw = weight.shape
    oh = (height + pads[0] + pads[2] - dilations[0] * (kh - 1) - 1) // strides[0] + 1
    ow = (width + pads[1] + pads[3] - dilations[1] * (kw - 1) - 1) // strides[1] + 1
    offset = offset.reshape(n, offset_group, kh * kw, 2, oh, ow)
    device = x.device
    base_y = torch.arange(oh, device=device) * strides[0] - pads[0]
    base_x = torch.arange(ow, device=device) * strides[1] - pads[1]
    tap_y = (torch.arange(kh, device=device) * dilations[0]).repeat_interleave(kw)
    tap_x = (torch.arange(kw, device=device) * dilations[1]).repeat(kh)
    y = base_y[:, None] + tap_y[:, None, None] + offset[:, :, :, 0]
    at = base_x + tap_x[:, None, None] + offset[:, :, :, 1]
    grid = torch.stack((2 * at / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1), dim=-1)
    images = x.reshape(n * offset_group, channels // offset_group, height, width)
    points = grid.reshape(n * offset_group, kh * kw * oh, ow, 2)
    taken = torch.nn.functional.grid_sample(images, points, align_corners=True)
    taken = taken.reshape(n, offset_group, channels // offset_group, kh * kw, oh, ow)
    if mask is not None:
        taken = taken * mask.reshape(n, offset_group, 1, kh * kw, oh, ow)
    columns = taken.reshape(n, group, channels // group * kh * kw, oh * ow)
    result = weight.reshape(group, out // group, -1) @ columns
    result = result.reshape(n, out, oh, ow)
    return result if bias is None else result + bias[:, None, None]
