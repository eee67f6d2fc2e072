"""Images sampled between their pixels: grids, deformed kernels, regions."""

from __future__ import annotations

from onnx_net2net.frameworks.torch.operation import Entry, TorchOperation
from onnx_net2net.frameworks.torch.types import literal, short


def grid_sample(op: TorchOperation) -> str:
    """Take elements at coordinates from -1 to 1."""
    mode = op.attribute("mode", "bilinear")
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    options = "" if mode == "bilinear" else f", mode={literal(mode)}"
    padding = op.attribute("padding_mode", "zeros")
    options += "" if padding == "zeros" else f", padding_mode={literal(padding)}"
    options += f", align_corners={bool(op.attribute('align_corners', 0))}"
    return f"F.grid_sample({op.tensor(0)}, {op.tensor(1)}{options})"


def affine_grid(op: TorchOperation) -> str:
    """Write the coordinates of a grid that is turned and moved."""
    aligned = bool(op.attribute("align_corners", 0))
    return f"F.affine_grid({op.tensor(0)}, ({op.listed(op.sizes(1))}), align_corners={aligned})"


def roi_align(op: TorchOperation) -> str:
    """Resample regions of images to one size."""
    mode = op.attribute("coordinate_transformation_mode", "half_pixel")
    offset = 0.5 if op.opset >= 16 and mode == "half_pixel" else 0.0
    size = op.attribute("output_height", 1), op.attribute("output_width", 1)
    return op.kernel(
        "roi_align", op.tensor(0), op.tensor(1), op.tensor(2), size,
        op.attribute("sampling_ratio", 0), short(op.attribute("spatial_scale", 1.0)), offset,
        literal(op.attribute("mode", "avg")),
    )  # fmt: skip


def max_roi_pool(op: TorchOperation) -> str:
    """Take the largest element of each part of each region."""
    scale = short(op.attribute("spatial_scale", 1.0))
    size = tuple(op.attribute("pooled_shape"))
    return op.kernel("max_roi_pool", op.tensor(0), op.tensor(1), size, scale)


def deform(op: TorchOperation) -> str:
    """Sample where the offsets say, then multiply as a convolution does."""
    rank = op.axes_of(1) - 2
    if rank != 2:
        op.refuse("it does not slide along two axes")
    options = {
        "strides": op.strides(2),
        "pads": op.pads(2),
        "dilations": op.dilations(2),
        "group": op.attribute("group", 1),
        "offset_group": op.attribute("offset_group", 1),
    }
    given = [op.tensor(0), op.tensor(1), op.tensor(2), op.optional(3), op.optional(4)]
    return op.kernel("deform_conv", *given, *(f"{k}={v}" for k, v in options.items()))


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "AffineGrid": affine_grid,
        "DeformConv": deform,
        "GridSample": grid_sample,
        "MaxRoiPool": max_roi_pool,
        "RoiAlign": roi_align,
    },
}
