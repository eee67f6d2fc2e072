"""Sizes of what windows that slide over an image yield: convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_net2net.algebra.sizes import AnySize
from onnx_net2net.operators.language import Op, Unsupported


def sliding(op: Op, kernel: Sequence[AnySize], name: str) -> dict[str, AnySize]:
    """Return the sizes of the output's spatial axes, called ``name`` and a number."""
    image, strides, extents, padding = _frame(op, kernel)
    sizes: dict[str, AnySize] = {}
    for i, stride in enumerate(strides):
        if padding is None:
            sizes[f"{name}{i}"] = -(-image[i] // stride)
        else:
            room = image[i] + padding[i] - extents[i]
            steps = -(-room // stride) if op.attr("ceil_mode", 0) else room // stride
            sizes[f"{name}{i}"] = steps + 1
    return sizes


def spreading(op: Op, kernel: Sequence[AnySize], name: str) -> dict[str, AnySize]:
    """Return the same for a transposed convolution."""
    if stated := op.attr("output_shape", ()):
        return {f"{name}{i}": size for i, size in enumerate(stated[-(op.rank() - 2) :])}
    image, strides, extents, padding = _frame(op, kernel)
    more = op.attr("output_padding") or [0] * len(image)
    if padding is None:
        return {f"{name}{i}": stride * image[i] for i, stride in enumerate(strides)}
    return {
        f"{name}{i}": stride * (image[i] - 1) + more[i] + extents[i] - padding[i]
        for i, stride in enumerate(strides)
    }


def _frame(
    op: Op, kernel: Sequence[AnySize]
) -> tuple[Sequence[AnySize], list[int], list[AnySize], list[int] | None]:
    """Return image, strides, extents of the dilated kernel, and both pads of each axis in sum.

    There are no pads to state where they are chosen so that strides alone decide.
    """
    image, rank = op.shape(0)[2:], op.rank() - 2
    if len(kernel) != rank:
        raise Unsupported("its kernel and its image have different ranks")
    strides = op.attr("strides") or [1] * rank
    dilations = op.attr("dilations") or [1] * rank
    extents = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    mode = op.attr("auto_pad", "NOTSET") or "NOTSET"
    pads = (op.attr("pads") if mode == "NOTSET" else None) or [0] * 2 * rank
    padding = [pads[i] + pads[rank + i] for i in range(rank)]
    return image, strides, extents, None if mode.startswith("SAME") else padding
