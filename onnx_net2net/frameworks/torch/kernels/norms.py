"""Norms that PyTorch has no function for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def normalised_by(
    x: Tensor, mean: Tensor, variance: Tensor, scale: Tensor, bias: Tensor, epsilon: float
) -> Tensor:
    """Apply BatchNorm with a mean and a variance that are trained, or computed."""
    shape = [1, -1, *[1] * (x.dim() - 2)]
    factor = scale * torch.rsqrt(variance + epsilon)
    return x * factor.reshape(shape) + (bias - mean * factor).reshape(shape)


def layer_norm_with_statistics(
    x: Tensor, axis: int, epsilon: float, scale: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise over the axes from ``axis`` on; return the mean and the inverse deviation, too."""
    dims = list(range(axis, x.dim()))
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    mean = wide.mean(dims, keepdim=True)
    inverse = torch.rsqrt((wide - mean).square().mean(dims, keepdim=True) + epsilon)
    y = ((wide - mean) * inverse).to(x.dtype)
    y = y if scale is None else y * scale
    return (y if bias is None else y + bias), mean.float(), inverse.float()


def hardmax(x: Tensor, axis: int, flat: bool) -> Tensor:
    """Return one at the first largest element along an axis (or all axes from it on), else 0."""
    shape = x.shape
    if flat:
        x, axis = x.flatten(axis), -1
    best = x.argmax(axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, best, 1.0).reshape(shape)


def mean_variance_norm(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Subtract the mean, and divide by the deviation plus 1e-9."""
    mean = x.mean(axes, keepdim=True)
    deviation = (x.square().mean(axes, keepdim=True) - mean.square()).sqrt()
    return (x - mean) / (deviation + 1e-9)


def local_response_norm(x: Tensor, size: int, alpha: float, beta: float, bias: float) -> Tensor:
    """Divide by a power of the sum of squares over the channels nearby."""
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    squares = F.pad(x.square().flatten(2).movedim(1, -1), (before, after))
    total = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1).reshape(x.shape)
    return x / (bias + alpha / size * total) ** beta
