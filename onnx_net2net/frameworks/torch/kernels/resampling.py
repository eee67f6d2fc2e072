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
    """Return the sizes of ``axes``, and by what they are scaled, in float32."""
    have = torch.tensor([shape[axis] for axis in axes], dtype=torch.float32)
    if sizes is None:
        factors = torch.tensor(scales, dtype=torch.float32)
        return tuple((have * factors).floor().int().tolist()), tuple(factors.tolist())
    factors = torch.tensor(sizes, dtype=torch.float32) / have
    if policy == "stretch":
        return sizes, tuple(factors.tolist())
    factors = (factors.amin() if policy == "not_larger" else factors.amax()).expand(len(axes))
    return tuple((factors * have + 0.5).floor().int().tolist()), tuple(factors.tolist())


def source_coordinates(
    size: int, new: int, scale: float, mode: str, region: tuple[float, float], device: torch.device
) -> Tensor:
    """Return where each of ``new`` elements lies among ``size`` old ones, in float32."""
    place = torch.arange(new, dtype=torch.float32, device=device)
    if mode == "align_corners":
        return place * (size - 1) / (new - 1) if new > 1 else place * 0
    if mode == "asymmetric":
        return place / scale
    if mode == "tf_half_pixel_for_nn":
        return (place + 0.5) / scale
    if mode == "pytorch_half_pixel" and new == 1:
        return place * 0
    if mode == "tf_crop_and_resize":
        start, end = torch.tensor(region, dtype=torch.float32, device=device)
        if new == 1:
            return place + 0.5 * (start + end) * (size - 1)
        return start * (size - 1) + place * (end - start) * (size - 1) / (new - 1)
    place = (place + 0.5) / scale
    if mode == "half_pixel_symmetric":
        whole = torch.tensor(scale, dtype=torch.float32, device=device) * size
        place = (1 - new / whole) * (size / 2) + place
    return place - 0.5


def nearest_index(place: Tensor, how: str, shrinks: bool) -> Tensor:
    """Round coordinates to positions."""
    if how == "floor" or (how == "simple" and not shrinks):
        return place.floor()
    if how in ("ceil", "simple"):
        return place.ceil()
    low = place.floor()
    part = place - low
    # ONNX Runtime takes for a half what is as near to it as this.
    tie = (part - 0.5).abs() <= 1e-6
    return low + torch.where(tie, float(how == "round_prefer_ceil"), (part > 0.5).to(low.dtype))


def cubic_weight(distance: Tensor, a: float) -> Tensor:
    """Return the weight of an element at a distance."""
    x = distance.abs()
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def taps(
    place: Tensor, size: int, scale: float, mode: str, cubic: float, outside: bool, smooth: bool
) -> tuple[Tensor, Tensor]:
    """Return which elements each place is made of, and their weights: both (taps, places)."""
    wide = max(1 / scale, 1.0) if smooth else 1.0  # a shrunk image sees more of the old one
    support = wide * (1 if mode == "linear" else 2)
    steps = torch.arange(2 * math.ceil(support) + 1, device=place.device)[:, None]
    if smooth:
        first = (place - support + 1).floor()
        last = (place + support + 1).floor()
    else:
        first = place.floor() - (0 if mode == "linear" else 1)
        last = first + 2 * support
    index = first + steps
    distance = (index - place) / wide
    weight = cubic_weight(distance, cubic) if mode == "cubic" else (1 - distance.abs()).clamp(min=0)
    weight = weight * (index < last)
    if outside:
        weight = weight * ((index >= 0) & (index < size))
    if outside or smooth:
        total = weight.sum(0)
        weight = weight / torch.where(total == 0, torch.ones_like(total), total)
    return index.long().clamp(0, size - 1), weight


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
    smooth: bool,
    roi: list[float] | None = None,
    value: float = 0.0,
) -> Tensor:
    """Resize ``x`` one axis after the other; ``value`` stands beyond a region's edge."""
    new_sizes, factors = resized_shape(tuple(x.shape), axes, sizes, scales, policy)
    beyond: list[tuple[int, Tensor]] = []
    dtype = x.dtype
    if roi is None and all(x.shape[a] == n for a, n in zip(axes, new_sizes, strict=True)):
        return x  # as ONNX Runtime does, whatever the scales
    for position, (axis, new, scale) in enumerate(zip(axes, new_sizes, factors, strict=True)):
        size = x.shape[axis]
        region = (0.0, 1.0) if roi is None else (roi[position], roi[position + len(axes)])
        if new == size and (scale == 1 or smooth) and region == (0.0, 1.0):
            continue
        place = source_coordinates(size, new, scale, coordinates, region, x.device)
        if roi is not None:
            beyond.append((axis, (place < 0) | (place > size - 1)))
        if mode == "nearest":
            index = nearest_index(place, nearest, scale < 1).long().clamp(0, size - 1)
            x = x.index_select(axis, index)
            continue
        if mode == "linear" and not smooth:
            place = place.clamp(0, size - 1)
        index, weight = taps(place, size, scale, mode, cubic, outside, smooth)
        view = [1] * x.dim()
        view[axis] = -1
        x = x if x.is_floating_point() else x.float()
        x = sum(
            (
                x.index_select(axis, i) * w.to(x.dtype).reshape(view)
                for i, w in zip(index, weight, strict=True)
            ),
            start=x.new_zeros(()),
        )
    for axis, outer in beyond:
        x = x.masked_fill(outer.reshape(-1, *[1] * (x.dim() - 1 - axis)), value)
    return x.to(dtype)


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
    """Resample regions of images to one size."""
    regions = []
    for roi, sample in zip(rois, samples.tolist(), strict=True):
        left, top, right, bottom = (roi * scale - offset).unbind()
        width, height = right - left, bottom - top
        if offset == 0:
            width, height = width.clamp(min=1.0), height.clamp(min=1.0)
        grids, counts = [], []
        for start, length, bins in ((top, height, size[0]), (left, width, size[1])):
            count = ratio if ratio > 0 else max(math.ceil(float(length) / bins), 0)
            steps = torch.arange(bins * count, device=x.device) + 0.5
            grids.append(start + steps * (length / bins / max(count, 1)))
            counts.append(count)
        if 0 in counts:  # a region without extent
            regions.append(x.new_zeros(x.shape[1], *size))
            continue
        # Largest of the four weighted neighbours for "max", their sum for "avg".
        parts = bilinear_parts(x[sample], grids[0], grids[1])
        values = parts.amax(0) if mode == "max" else parts.sum(0)
        values = values.reshape(-1, size[0], counts[0], size[1], counts[1])
        regions.append(values.amax((2, 4)) if mode == "max" else values.mean((2, 4)))
    if not regions:
        return x.new_zeros(0, x.shape[1], *size)
    return torch.stack(regions)


def bilinear_parts(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the four neighbours of each point of a grid times their weights; zero outside."""
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
    """Return the largest element of each part of each region (sample, left, top, right, bottom)."""
    regions = []
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
        regions.append(torch.stack(rows, dim=1).reshape(x.shape[1], *size))
    return torch.stack(regions) if regions else x.new_zeros(0, x.shape[1], *size)


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
    """Convolve samples that are taken where the offsets say, zero outside."""
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
