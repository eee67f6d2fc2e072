"""Quantised arithmetic, through floats and exact integers."""

from __future__ import annotations

import torch
from torch import Tensor

from onnx_net2net.frameworks.torch.kernels.rounding import small_float


def along(x: Tensor, like: Tensor, axis: int, block: int = 0) -> Tensor:
    """Shape a scale or zero point to go with ``like``: whole, by axis, or by block."""
    if x.dim() == 0 or x.numel() == 1:
        return x.reshape(())
    if block:
        return x.repeat_interleave(block, dim=axis).narrow(axis, 0, like.shape[axis])
    return x.reshape(-1, *[1] * (like.dim() - 1 - axis % like.dim()))


def quantized(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    dtype: torch.dtype,
    limits: tuple[int, int],
    axis: int,
    block: int,
) -> Tensor:
    """Return round(x / scale) + zero, within the type."""
    y = torch.round(x / along(scale, x, axis, block))
    y = y if zero is None else y + along(zero, x, axis, block).to(y.dtype)
    return y.clamp(*limits).to(dtype)


def quantized_float(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    dtype: torch.dtype,
    axis: int,
    block: int,
    saturate: bool,
) -> Tensor:
    """Return x / scale + zero as float8."""
    y = x / along(scale, x, axis, block)
    y = y if zero is None else y + along(zero, x, axis, block).to(y.dtype)
    return small_float(y, dtype, saturate)


def dequantized(x: Tensor, scale: Tensor, zero: Tensor | None, axis: int, block: int) -> Tensor:
    """Return (x - zero) * scale."""
    wide = scale.dtype if x.is_floating_point() else torch.int32
    y = x.to(wide)
    y = y if zero is None else y - along(zero, x, axis, block).to(wide)
    return y.to(scale.dtype) * along(scale, x, axis, block)


def dynamically_quantized(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Quantise over the range of ``x`` and zero: bytes, their scale and zero point."""
    low, high = x.min().clamp(max=0.0), x.max().clamp(min=0.0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = torch.round((0 - low) / scale).clamp(0, 255)
    y = (torch.round(x / scale) + zero).clamp(0, 255)
    return y.to(torch.uint8), scale, zero.to(torch.uint8)


def requantized(y: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Round a float result to the type of its zero point."""
    limits = torch.iinfo(zero.dtype)
    return (torch.round(y / scale) + zero).clamp(limits.min, limits.max).to(zero.dtype)


def fake_quantized(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    limits: tuple[int, int],
    axis: int,
    block: int,
) -> Tensor:
    """Quantise and back; gradients pass within the range as if nothing had happened."""
    low, high = limits
    step = along(scale, x, axis, block)
    start = 0 if zero is None else along(zero, x, axis, block).to(x.dtype)
    inside = x.clamp((low - start) * step, (high - start) * step)
    y = ((torch.round(x / step) + start).clamp(low, high) - start) * step
    return y.detach() + (inside - inside.detach())


def unpacked_bits(packed: Tensor, bits: int, columns: int) -> Tensor:
    """Unpack small unsigned numbers that lie in bytes, the lowest bits first."""
    parts = [(packed >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    return torch.stack(parts, dim=-1).flatten(-2)[..., :columns]


def matmul_n_bits(
    x: Tensor,
    packed: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    sizes: tuple[int, int],
    bits: int,
    block: int,
) -> Tensor:
    """Multiply ``x`` by a weight (n, k) of small integers that are scaled by blocks of k."""
    k, n = sizes
    blocks = -(-k // block)
    weight = unpacked_bits(packed.reshape(n, blocks, -1), bits, block).to(x.dtype)
    if zeros is None:
        middle = x.new_full((n, blocks, 1), 2.0 ** (bits - 1))
    elif zeros.dtype == torch.uint8:
        middle = unpacked_bits(zeros.reshape(n, -1), bits, blocks).to(x.dtype).unsqueeze(-1)
    else:
        middle = zeros.reshape(n, blocks, 1)
    weight = (weight - middle) * scales.reshape(n, blocks, 1)
    return x @ weight.reshape(n, -1)[:, :k].T
