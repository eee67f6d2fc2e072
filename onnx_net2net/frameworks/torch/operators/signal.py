"""Fourier transforms, and the scale of hearing."""

from __future__ import annotations

from onnx_net2net.frameworks.torch.operation import Entry, TorchOperation


def _whole(op: TorchOperation, index: int, default: str = "None") -> str:
    """Return a whole number as code."""
    return op.integer(index) if op.has(index) else default


def dft(op: TorchOperation) -> str:
    """Transform numbers, or pairs of real and imaginary parts, along one axis."""
    axis = _whole(op, 2, "-2") if op.opset >= 20 else str(op.attribute("axis", 1))
    inverse, onesided = bool(op.attribute("inverse", 0)), bool(op.attribute("onesided", 0))
    length = _whole(op, 1)
    if inverse and onesided and length.isdecimal():
        bins = op.fixed(0, int(axis)) if axis.lstrip("-").isdecimal() else 0
        if int(length) != 2 * (bins - 1):
            op.refuse("it is the inverse of half a spectrum, and of another length")
    return op.kernel("fourier", op.tensor(0), length, axis, inverse, onesided)


def stft(op: TorchOperation) -> str:
    """Transform windows of a signal."""
    length = _whole(op, 3)
    if length == "None":
        length = f"{op.tensor(2)}.shape[0]"
    onesided = bool(op.attribute("onesided", 1))
    given = [op.tensor(0), _whole(op, 1), op.optional(2), length, onesided]
    return op.kernel("short_fourier", *given)


def mel_weights(op: TorchOperation) -> str:
    """Write how much each frequency counts in each band."""
    numbers = [op.scalar(i) for i in range(5)]
    given = [f"int({n})" for n in numbers[:3]] + [f"float({n})" for n in numbers[3:]]
    return op.kernel("mel_weights", *given, op.output_dtype(), op.device())


TABLES: dict[str, dict[str, Entry]] = {
    "": {"DFT": dft, "MelWeightMatrix": mel_weights, "STFT": stft},
}
