"""What onnxruntime is given of a model: the name of its file, or a message and its big weights.

onnxruntime maps external data, and a process dies of a mapped file that somebody truncates. So a
file is named only where it was asked about, and only while it is the one that was loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from onnx_net2net.errors import InvalidModel
from onnx_net2net.model.model import AnyModel, Model
from onnx_net2net.model.tensors import data_fields

__all__ = ["Contents", "check_files", "contents"]

_BIG = 1 << 20  # bytes: smaller weights are copied into the message


@dataclass(frozen=True)
class Contents:
    """A serialised model, and those of its weights that it declares as external data, by name."""

    message: bytes
    weights: dict[str, np.ndarray[Any, Any]]


def contents(model: Model, *, as_file: bool) -> str | Contents:
    """Return the path of the model's file, or its contents."""
    path = str(model.file or "") if as_file else ""
    if path and path == path.encode(errors="ignore").decode():
        return path
    proto = model.editable()
    weights = {}
    for entry in proto.graph.initializer:
        if data_fields(entry) or 0 in entry.dims:
            continue
        weight = model.weights[entry.name]
        in_bytes = weight.size * helper.tensor_dtype_to_np_dtype(weight.dtype).itemsize
        if weight.nbytes < _BIG or weight.nbytes != in_bytes:  # elements that share bytes
            entry.raw_data = bytes(weight.payload())
            continue
        weights[entry.name] = weight.array()
        entry.data_location = TensorProto.EXTERNAL
        entry.external_data.add(key="location", value="weights")
        entry.external_data.add(key="length", value=str(weight.nbytes))
    return Contents(proto.SerializeToString(), weights)


def check_files(given: AnyModel, loaded: Model) -> None:
    """Raise where onnxruntime may have read another file than this program did."""
    if given is not loaded and loaded.path is not None and not loaded.is_current:
        raise InvalidModel(
            f"{loaded.path} was changed by another program while it was read",
            "run this again when nobody writes to it",
        )
