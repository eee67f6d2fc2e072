"""Fourier transforms of ONNX, whose last axis holds real and imaginary parts."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def complex_of(x: Tensor) -> Tensor:
    """Return complex numbers for real ones, or for pairs."""
    if x.shape[-1] == 2:
        return torch.view_as_complex(x.contiguous())
    return torch.complex(x[..., 0], torch.zeros_like(x[..., 0]))


def fourier(x: Tensor, length: int | None, axis: int, inverse: bool, onesided: bool) -> Tensor:
    """Return the Fourier transform along ``axis``; of half a spectrum the inverse is real."""
    axis, z = axis % x.dim(), complex_of(x)
    if inverse and onesided:
        whole = length or 2 * (z.shape[axis] - 1)
        return torch.fft.irfft(z, whole, axis).unsqueeze(-1)
    function = torch.fft.ifft if inverse else torch.fft.fft
    y = function(z, length, axis)
    if onesided:
        y = y.narrow(axis, 0, y.shape[axis] // 2 + 1)
    return torch.view_as_real(y)


def short_fourier(
    x: Tensor, step: int, window: Tensor | None, length: int, onesided: bool
) -> Tensor:
    """Transform windows of a signal (b, n, 1 or 2): (b, windows, frequencies, 2)."""
    frames = complex_of(x).unfold(1, length, step)
    if window is not None:
        frames = frames * window
    y = torch.fft.fft(frames)
    if onesided:
        y = y[..., : length // 2 + 1]
    return torch.view_as_real(y)


def mel_weights(
    bins: int,
    length: int,
    rate: int,
    low: float,
    high: float,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Return triangles over frequencies (length / 2 + 1, bins), evenly wide on the mel scale."""
    edges = [2595.0 * math.log10(1.0 + f / 700.0) for f in (low, high)]
    step = (edges[1] - edges[0]) / (bins + 2)
    places = [700.0 * (10.0 ** ((edges[0] + i * step) / 2595.0) - 1.0) for i in range(bins + 2)]
    places = [float(int((length + 1) * p / rate)) for p in places]
    first, middle, last = (torch.tensor(places[i : i + bins], device=device) for i in range(3))
    at = torch.arange(length // 2 + 1, device=device)[:, None]
    up = (at - first) / (middle - first).clamp(min=1.0)
    up = torch.where(middle == first, (at == middle).float(), up)
    down = (last - at) / (last - middle).clamp(min=1.0)
    y = torch.where(at <= middle, up * (at >= first), down * (at < last))
    return y.to(dtype)
