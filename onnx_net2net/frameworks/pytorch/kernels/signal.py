"""Fourier transforms of ONNX, whose last axis holds real and imaginary parts."""

from __future__ import annotations

import torch
from torch import Tensor


def fourier(x: Tensor, length: int | None, axis: int, inverse: bool, onesided: bool) -> Tensor:
    """The discrete Fourier transform along ``axis``."""
    axis = axis % x.dim()
    z = (
        torch.view_as_complex(x.contiguous())
        if x.shape[-1] == 2
        else torch.complex(x[..., 0], torch.zeros_like(x[..., 0]))
    )
    function = torch.fft.ifft if inverse else torch.fft.fft
    y = function(z, length, axis)
    if onesided:
        y = y.narrow(axis, 0, y.shape[axis] // 2 + 1)
    return torch.view_as_real(y)


def short_fourier(
    x: Tensor, step: int, window: Tensor | None, length: int, onesided: bool
) -> Tensor:
    """The transform of windows of a signal (b, n, 1 or 2): (b, windows, frequencies, 2)."""
    z = (
        torch.view_as_complex(x.contiguous())
        if x.shape[-1] == 2
        else torch.complex(x[..., 0], torch.zeros_like(x[..., 0]))
    )
    frames = z.unfold(1, length, step)
    if window is not None:
        frames = frames * window
    y = torch.fft.fft(frames)
    if onesided:
        y = y[..., : length // 2 + 1]
    return torch.view_as_real(y)
