"""Numbers in the types of 8 and fewer bits that ONNX has."""

from __future__ import annotations

import torch
from torch import Tensor


def small_float(x: Tensor, dtype: torch.dtype, saturate: bool) -> Tensor:
    """Convert to float8; what is too large becomes the largest number, or none."""
    largest = torch.finfo(dtype).max
    wide = x.float()
    y = wide.clamp(-largest, largest).to(dtype)
    if saturate:
        return y
    # Halfway to where the next number would be; of float8_e4m3fn that tie is the largest number.
    ties = {torch.float8_e4m3fn: 464.00003, torch.float8_e4m3fnuz: 248.0}
    beyond = wide.abs() >= ties.get(dtype, 61440.0)
    y = torch.where(beyond, torch.full_like(wide, float("nan")), y.float())
    if dtype is torch.float8_e5m2:  # ONNX Runtime finds no number between 61440 and 65536
        y = torch.where(wide.abs() >= 65536.0, wide.sign() * float("inf"), y)
    return y.to(dtype)


def few_bits(x: Tensor, bits: int, signed: bool) -> Tensor:
    """Convert to integers of 2 or 4 bits, in bytes; floats are rounded, and high bits are lost."""
    if x.is_floating_point():
        x = (x.float() + torch.where(x < 0, -0.5, 0.5)).trunc()
    y = x.to(torch.int64) & (2**bits - 1)
    if signed:
        half = 2 ** (bits - 1)
        return ((y ^ half) - half).to(torch.int8)
    return y.to(torch.uint8)
