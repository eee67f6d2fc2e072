"""Reductions of integers, which ONNX Runtime computes in their own type, and of nothing."""

from __future__ import annotations

import torch
from torch import Tensor


def axes_of(x: Tensor, dims: int | tuple[int, ...]) -> list[int]:
    """Return axes from the last to the first, none of them negative."""
    chosen = (dims,) if isinstance(dims, int) else dims
    return sorted((d % max(x.dim(), 1) for d in chosen), reverse=True)


def product(x: Tensor, dims: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
    """Multiply over any number of axes."""
    for dim in axes_of(x, dims):
        x = torch.prod(x, dim, keepdim=keepdim, dtype=x.dtype)
    return x


def extreme(x: Tensor, dims: int | tuple[int, ...], name: str, keepdim: bool = False) -> Tensor:
    """Return the largest or smallest elements; of none, the least or the most of the type."""
    if x.numel():
        return (torch.amax if name == "amax" else torch.amin)(x, dims, keepdim=keepdim)
    shape = list(x.shape)
    for dim in axes_of(x, dims):
        shape[dim : dim + 1] = [1] if keepdim else []
    low = name == "amax"
    if x.is_floating_point():
        return x.new_full(shape, float("-inf") if low else float("inf"))
    limits = torch.iinfo(x.dtype)
    return x.new_full(shape, limits.min if low else limits.max)


def integer_mean(x: Tensor, dims: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
    """Average integers, rounded towards zero."""
    count = 1
    for dim in axes_of(x, dims):
        count *= x.shape[dim] if x.dim() else 1
    total = x.sum(dims, keepdim=keepdim, dtype=x.dtype)
    return torch.div(total, max(count, 1), rounding_mode="trunc")


def integer_norm(x: Tensor, dims: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
    """Return the square root of a sum of squares, rounded down."""
    total = torch.square(x).sum(dims, keepdim=keepdim, dtype=x.dtype)
    return total.double().sqrt().to(x.dtype)


def integer_log_sum(x: Tensor, dims: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
    """Return the logarithm of a sum, rounded towards zero."""
    return x.sum(dims, keepdim=keepdim, dtype=x.dtype).double().log().to(x.dtype)


def integer_log_sum_exp(x: Tensor, dims: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
    """Return the largest element plus the logarithm of how often it occurs, rounded down."""
    largest = extreme(x, dims, "amax", keepdim=True)
    count = (x == largest).sum(dims, keepdim=keepdim)
    largest = largest if keepdim else extreme(x, dims, "amax")
    return torch.where(count == 0, largest, largest + count.double().log().to(x.dtype))
