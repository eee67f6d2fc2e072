"""Arithmetic of unsigned 64-bit integers, whose bits lie in int64."""

from __future__ import annotations

import torch
from torch import Tensor


def unsigned_divided(a: Tensor, b: Tensor) -> Tensor:
    """Return the quotient, rounded down."""
    high = -(2**63)
    half = (a >> 1) & ~high
    safe = torch.where(b > 0, b, torch.ones_like(b))
    quotient = torch.div(half, safe, rounding_mode="floor") << 1
    rest = a - quotient * safe
    quotient = quotient + ((rest ^ high) >= (safe ^ high)).to(a.dtype)
    # A divisor with the highest bit goes once or not at all.
    return torch.where(b < 0, ((a ^ high) >= (b ^ high)).to(a.dtype), quotient)


def unsigned_remainder(a: Tensor, b: Tensor) -> Tensor:
    """Return what division leaves."""
    return a - unsigned_divided(a, b) * b


def shifted_left(x: Tensor, by: Tensor, bits: int) -> Tensor:
    """Move bits up; those that fall out are lost."""
    beyond = (by < 0) | (by >= bits)
    return torch.where(beyond, torch.zeros_like(x), x << by.clamp(0, bits - 1))


def shifted_right(x: Tensor, by: Tensor, bits: int, signed: bool) -> Tensor:
    """Move bits down; copies of the sign come in from above, without a sign zeros."""
    beyond = (by < 0) | (by >= bits)
    down = x >> by.clamp(0, bits - 1)
    if signed:
        return torch.where(beyond, torch.where(x < 0, -1, 0).to(x.dtype), down)
    if bits == 64:
        down = torch.where(by == 0, x, down & ((1 << (64 - by.clamp(1, 63))) - 1))
    return torch.where(beyond, torch.zeros_like(x), down)
