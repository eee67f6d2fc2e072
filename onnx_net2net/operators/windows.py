"""Sizes of what windows that slide over an image yield: convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_net2net.algebra.sizes import AnySize
from onnx_net2net.operators.language import Op, Unsupported


def sliding(op: Op, kernel: Sequence[AnySize], name: str) -> dict[str, AnySize]:
    """The output's spatial axes, called ``name`` and a number, with their sizes."""
    image = op.shape(0)[2:]
    rank = len(image)
    if len(kernel) != rank:
        raise Unsupported("its kernel and its image have different ranks")
    strides = op.attr("strides") or [1] * rank
    dilations = op.attr("dilations") or [1] * rank
    pads = op.attr("pads") or [0] * 2 * rank
    mode = op.attr("auto_pad", "NOTSET") or "NOTSET"
    found: dict[str, AnySize] = {}
    for i in range(rank):
        extent = dilations[i] * (kernel[i] - 1) + 1
        if mode.startswith("SAME"):
            size = -(-image[i] // strides[i])
        else:
            padding = pads[i] + pads[rank + i] if mode == "NOTSET" else 0
            room = image[i] + padding - extent
            size = (-(-room // strides[i]) if op.attr("ceil_mode", 0) else room // strides[i]) + 1
        found[f"{name}{i}"] = size
    return found


def spreading(op: Op, kernel: Sequence[AnySize], name: str) -> dict[str, AnySize]:
    """The same for a transposed convolution."""
    image = op.shape(0)[2:]
    rank = len(image)
    if stated := op.attr("output_shape", ()):
        return {f"{name}{i}": size for i, size in enumerate(stated[-rank:])}
    strides = op.attr("strides") or [1] * rank
    dilations = op.attr("dilations") or [1] * rank
    pads = op.attr("pads") or [0] * 2 * rank
    more = op.attr("output_padding") or [0] * rank
    mode = op.attr("auto_pad", "NOTSET") or "NOTSET"
    found: dict[str, AnySize] = {}
    for i in range(rank):
        whole = strides[i] * (image[i] - 1) + more[i] + dilations[i] * (kernel[i] - 1) + 1
        padding = pads[i] + pads[rank + i] if mode == "NOTSET" else 0
        found[f"{name}{i}"] = strides[i] * image[i] if mode.startswith("SAME") else whole - padding
    return found
