"""Operators that move elements by blocks, from one end to the other, or beyond the ends."""

from __future__ import annotations

from onnx_net2net.algebra.sizes import AnySize, Size
from onnx_net2net.frameworks.torch.operation import Entry, TorchOperation
from onnx_net2net.frameworks.torch.types import literal


def pad(op: TorchOperation) -> str:
    """Pad with constants, reflections, edges, or the other end; negative pads cut."""
    mode = op.attribute("mode", "constant")
    rank = op.axes_of(0)
    attribute = op.attribute("pads") or op.attribute("paddings")
    pads = list(attribute) if attribute else op.sizes(1)
    chosen = op.sizes(3) if op.has(3) else list(range(rank))
    if any(isinstance(axis, Size) for axis in chosen):
        both = f"[{op.listed(pads)}], [{op.listed(chosen)}]"
        return op.kernel("padded_axes", op.tensor(0), both, _fill(op), literal(mode))
    begins: list[AnySize] = [0] * rank
    ends: list[AnySize] = [0] * rank
    for index, axis in enumerate(chosen):
        begins[axis % rank], ends[axis % rank] = pads[index], pads[index + len(chosen)]
    if mode != "constant":
        both = f"(({op.listed(begins)},), ({op.listed(ends)},))"
        return op.kernel("padded", op.tensor(0), both, literal(mode))
    value = _fill(op)
    while len(begins) > 1 and begins[0] == 0 and ends[0] == 0:
        begins, ends = begins[1:], ends[1:]
    order = [p for b, e in zip(reversed(begins), reversed(ends), strict=True) for p in (b, e)]
    options = "" if value in ("0", "0.0") else f", value={value}"
    return f"F.pad({op.tensor(0)}, ({op.listed(order)}){options})"


def _fill(op: TorchOperation) -> str:
    """Return what a pad holds."""
    if not op.has(2):
        return literal(op.attribute("value", 0.0))
    return op.number(2) or f"{op.tensor(2)}.item()"


def depth_to_space(op: TorchOperation) -> str:
    """Turn blocks of channels into squares of pixels."""
    block, mode = op.attribute("blocksize"), op.attribute("mode", "DCR")
    if mode == "CRD":
        return f"F.pixel_shuffle({op.tensor(0)}, {block})"
    return op.kernel("depth_to_space", op.tensor(0), block)


def space_to_depth(op: TorchOperation) -> str:
    """Turn squares of pixels into blocks of channels."""
    if op.attribute("mode", "DCR") == "CRD":
        return f"F.pixel_unshuffle({op.tensor(0)}, {op.attribute('blocksize')})"
    return op.kernel("space_to_depth", op.tensor(0), op.attribute("blocksize"))


def crop_or_pad(op: TorchOperation) -> str:
    """Cut or pad to a size around the centre."""
    chosen = op.attribute("axes") or list(range(op.axes_of(0)))
    return op.kernel(
        "center_crop_pad", op.tensor(0), f"({op.listed(op.sizes(1))},)", f"({op.listed(chosen)},)"
    )


def reverse_sequence(op: TorchOperation) -> str:
    """Turn each sequence backwards up to its length."""
    batch, time = op.attribute("batch_axis", 1), op.attribute("time_axis", 0)
    return op.kernel("reverse_sequence", op.tensor(0), op.tensor(1), batch, time)


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "CenterCropPad": crop_or_pad,
        "DepthToSpace": depth_to_space,
        "Pad": pad,
        "ReverseSequence": reverse_sequence,
        "SpaceToDepth": space_to_depth,
    },
}
