"""What onnxruntime is given of a model: its bytes, or the name of a file.

onnxruntime maps external data, and a process dies of a mapped file that somebody truncates. So a
file is named only where it was asked about, or where memory cannot hold it; and only while it is
the one that was loaded.
"""

from __future__ import annotations

from pathlib import Path

from onnx_net2net.errors import InvalidModel
from onnx_net2net.model.model import AnyModel, Model

__all__ = ["MESSAGE_LIMIT", "check_files", "contents"]

MESSAGE_LIMIT = (2 << 30) - (1 << 20)  # what one protobuf message can hold


def contents(model: Model, *, as_file: bool, spare: Path) -> str | bytes:
    """Return the path of the model's file, or its bytes.

    What fits into no message is written to ``spare``, a folder to be made, where its file cannot be
    named.
    """
    large = sum(weight.nbytes for weight in model.weights.values()) > MESSAGE_LIMIT
    path = str(model.file or "") if large or as_file else ""
    if path and path == path.encode(errors="ignore").decode():
        return path
    if not large:
        return model.to_bytes()
    target = spare / "model.onnx"
    if not target.exists():
        spare.mkdir(exist_ok=True)
        model.save(target, external=True)
    return str(target)


def check_files(given: AnyModel, loaded: Model) -> None:
    """Raise where onnxruntime may have read another file than this program did."""
    if given is not loaded and loaded.path is not None and not loaded.is_current:
        raise InvalidModel(
            f"{loaded.path} was changed by another program while it was read",
            "run this again when nobody writes to it",
        )
