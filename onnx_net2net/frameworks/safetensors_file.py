"""Tensors in safetensors files, read lazily and written one at a time, with NumPy alone.

    weights = read(Path("model.safetensors"))           # name -> Weight, unread
    write(Path("copy.safetensors"), weights, force=False)

Format: eight bytes with the length of a JSON header, the header, the contents; see
https://github.com/huggingface/safetensors. bfloat16 and float8 are ``ml_dtypes``.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx import TensorProto

from onnx_net2net.errors import OutputError, UsageError
from onnx_net2net.model.saving import write_plain
from onnx_net2net.model.weights import Source, Stored, Weight, dtype_name, is_possible, raw_size

__all__ = ["read", "write"]

MOST_HEADER = 100_000_000  # bytes, as the format allows
DTYPES: Mapping[str, int] = {
    "BF16": TensorProto.BFLOAT16, "BOOL": TensorProto.BOOL, "F16": TensorProto.FLOAT16,
    "F32": TensorProto.FLOAT, "F64": TensorProto.DOUBLE, "F8_E4M3": TensorProto.FLOAT8E4M3FN,
    "F8_E5M2": TensorProto.FLOAT8E5M2, "I16": TensorProto.INT16, "I32": TensorProto.INT32,
    "I64": TensorProto.INT64, "I8": TensorProto.INT8, "U16": TensorProto.UINT16,
    "U32": TensorProto.UINT32, "U64": TensorProto.UINT64, "U8": TensorProto.UINT8,
}  # fmt: skip
NAMES = {number: name for name, number in DTYPES.items()}
REMEDY = "write or download it again"


def read(path: Path) -> dict[str, Weight]:
    """Return the tensors of a file by name, unread. Raises UsageError if it is damaged."""
    try:
        source = Source.open(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}", "check the path") from None
    header, start = _header(source, path)
    size = len(source.view) - start
    tensors: dict[str, Weight] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape, begin, end = _entry(name, entry, path)
        if not 0 <= begin <= end <= size or end - begin != raw_size(dtype, shape):
            raise UsageError(f"{path}: tensor '{name}' does not fit its place", REMEDY)
        tensors[name] = Stored(name, dtype, shape, source=source, offset=start + begin)
    return tensors


def _header(source: Source, path: Path) -> tuple[dict[str, Any], int]:
    """Return the parsed header, and where the contents start."""
    view = source.view
    length = struct.unpack("<Q", view[:8])[0] if len(view) >= 8 else -1
    if not 2 <= length <= min(MOST_HEADER, len(view) - 8):
        raise UsageError(f"{path}: is no safetensors file", "give a .safetensors, .npz or .pt file")
    try:
        header = json.loads(bytes(view[8 : 8 + length]))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise UsageError(f"{path}: its header is damaged", REMEDY)
    return header, 8 + length


def _entry(name: str, entry: Any, path: Path) -> tuple[int, tuple[int, ...], int, int]:
    """Return type, shape, begin and end of a tensor."""
    whole = isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "data_offsets"}
    lists = whole and all(isinstance(entry[key], list) for key in ("shape", "data_offsets"))
    whole = lists and isinstance(entry["dtype"], str) and len(entry["data_offsets"]) == 2
    numbers = [*entry["shape"], *entry["data_offsets"]] if whole else []
    if not whole or not all(type(n) is int and n >= 0 for n in numbers):
        raise UsageError(f"{path}: tensor '{name}' is described wrongly", REMEDY)
    if not is_possible(entry["shape"]):
        raise UsageError(f"{path}: tensor '{name}' has an impossible shape", REMEDY)
    if entry["dtype"] not in DTYPES:
        raise UsageError(f"{path}: tensor '{name}' is of unknown type {entry['dtype']}", None)
    begin, end = entry["data_offsets"]
    return DTYPES[entry["dtype"]], tuple(entry["shape"]), begin, end


def write(path: Path, weights: Mapping[str, Weight], *, force: bool) -> None:
    """Write ``weights`` under their keys. Raises OutputError."""
    odd = {dtype_name(w.dtype) for w in weights.values() if w.dtype not in NAMES}
    if odd:
        raise OutputError(f"{path}: safetensors holds no {', '.join(sorted(odd))}", "use .onnx")
    # Widest elements first, so that each tensor is aligned.
    order = sorted(weights, key=lambda name: -_width(weights[name]))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in order:
        weight = weights[name]
        ends = [offset, offset + weight.nbytes]
        header[name] = {
            "dtype": NAMES[weight.dtype],
            "shape": list(weight.shape),
            "data_offsets": ends,
        }
        offset = ends[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = memoryview(struct.pack("<Q", len(text)) + text)
    write_plain(path, [head, *(weights[name] for name in order)], force=force)


def _width(weight: Weight) -> int:
    return weight.nbytes // max(1, math.prod(weight.shape))
