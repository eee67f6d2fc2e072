"""Padding of windows that slide along axes, for sizes that are numbers or a framework's own.

    same_pads(length=7, span=3, stride=2, lower=False)      # (1, 1)
    transposed_pads(op, kernel, lengths)                    # of a ConvTranspose

``positive`` is what is used for ``max(n, 0)`` where a size is no number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from onnx_net2net.frameworks.operation import Operation


def _positive(number: Any) -> Any:
    return max(number, 0)


def same_pads(
    length: Any, span: int, stride: int, lower: bool, *, cuts: bool = False,
    positive: Callable[[Any], Any] = _positive,
) -> tuple[Any, Any]:  # fmt: skip
    """Return the padding before and behind for as many outputs as there are strides.

    ``lower`` puts the odd one in front. With ``cuts``, where strides exceed the span, it is less
    than nothing.
    """
    total = span - 1 if stride == 1 else (-(-length // stride) - 1) * stride + span - length
    total = total if cuts else positive(total)
    odd = total + int(lower)
    before = positive(odd) // 2 - positive(-odd) // 2  # half of it, cut towards zero
    return before, total - before


def transposed_pads(
    op: Operation, kernel: Sequence[int], length: Callable[[int], Any],
    positive: Callable[[Any], Any] = _positive,
) -> list[tuple[Any, Any]]:  # fmt: skip
    """Return what a ConvTranspose cuts from both ends of each axis, or adds below 0.

    ``length`` gives the size of an axis of its input. As onnxruntime does: the odd one is cut in
    front but for SAME_UPPER, and what a stated shape has beyond the full result is added behind.
    """
    rank = len(kernel)
    mode, shape = op.attribute("auto_pad", "NOTSET"), op.attribute("output_shape")
    extra = op.attribute("output_padding") or [0] * rank
    stated = op.pads(rank)
    if not shape and mode in ("NOTSET", "VALID"):
        stated = [0] * (2 * rank) if mode == "VALID" else stated
        return [(stated[i], stated[i + rank] - extra[i]) for i in range(rank)]
    pads = []
    steps = zip(kernel, op.strides(rank), op.dilations(rank), strict=True)
    for axis, (size, stride, dilation) in enumerate(steps):
        total = (size - 1) * dilation + 1 - stride + extra[axis]
        if shape:
            total = total + stride * length(axis) - shape[-rank:][axis]
        cut = positive(total)
        before = cut // 2 if mode == "SAME_UPPER" else cut - cut // 2
        pads.append((before, (total if shape else cut) - before - extra[axis]))
    return pads
