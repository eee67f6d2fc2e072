"""Fourier transforms."""

from __future__ import annotations

from onnx_net2net.frameworks.pytorch.operation import Entry, Operation
from onnx_net2net.frameworks.pytorch.types import Untranslated


def dft(op: Operation) -> str:
    """Numbers, or pairs of real and imaginary parts, along one axis."""
    if op.opset >= 20:
        axis = int(op.needed(2, "axis").reshape(())) if op.has(2) else -2
    else:
        axis = op.attribute("axis", 1)
    length = op.number(1) if op.has(1) else "None"
    length = length if length is not None else f"int({op.tensor(1)})"
    inverse, onesided = bool(op.attribute("inverse", 0)), bool(op.attribute("onesided", 0))
    return op.kernel("fourier", op.tensor(0), length, axis, inverse, onesided)


def stft(op: Operation) -> str:
    """Windows of a signal, transformed."""
    step = op.number(1)
    length = op.number(3) if op.has(3) else None
    if length is None and op.has(2):
        length = str(op.fixed(2, 0))
    if step is None or length is None:
        raise Untranslated("its steps are computed")
    onesided = bool(op.attribute("onesided", 1))
    return op.kernel("short_fourier", op.tensor(0), step, op.optional(2), length, onesided)


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "DFT": dft,
        "STFT": stft,
    },
}
