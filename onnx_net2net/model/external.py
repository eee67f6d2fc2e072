"""External data: tensors whose contents lie in a file beside the model, named by the model.

The model is untrusted, so the name is: the file must lie inside the model's folder, symbolic links
followed, and hold the bytes that the tensor's type and dims call for. Nothing is read here.

In the cache of huggingface_hub, model and data are links from a folder of names into one folder of
contents: ``snapshots/<revision>/**/model.onnx`` to ``blobs/<digest>``. Of a model that is such a
link, the data may be one, too.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from onnx import TensorProto

from onnx_net2net.errors import InvalidModel
from onnx_net2net.model.tensors import check_header, clear_data
from onnx_net2net.model.weights import Source, Stored, dtype_name, raw_size

__all__ = ["Folder", "contained"]

_MAX_DIGITS = 20
_BESIDE = "put the data file into the model's folder, under the name the model gives it"


class Folder:
    """The folder of a model file, and the data files in it that were opened so far."""

    def __init__(self, model: Path | None) -> None:
        self.model = model
        self.sources: dict[str, Source] = {}

    def stored(self, tensor: TensorProto, where: str) -> Stored:
        """Return the contents of an external tensor, checked but unread.

        Raises :class:`InvalidModel`; ``where`` names the tensor in its message.
        """
        check_header(tensor, where)
        keys = {entry.key: entry.value for entry in tensor.external_data}
        shape = tuple(tensor.dims)
        wanted = raw_size(tensor.data_type, shape)
        if wanted is None:
            raise InvalidModel(
                f"{where}: {dtype_name(tensor.data_type)} cannot be external data",
                "export the model again",
            )
        location = _checked_location(keys.get("location", ""), where)
        offset = _number(keys.get("offset", "0"), "offset", where)
        length = _number(keys.get("length", str(wanted)), "length", where)
        if length != wanted:
            raise InvalidModel(
                f"{where}: {length} bytes of external data, "
                f"but {dtype_name(tensor.data_type)} {shape} takes {wanted}",
                "model and data file do not belong together; export the model again",
            )
        source = self._source(location, where)
        if offset + length > len(source.view):
            raise InvalidModel(
                f"{where}: needs bytes {offset} to {offset + length} of {location}, "
                f"which has {len(source.view)}",
                "the data file is truncated or belongs to another model; fetch both again",
            )
        return Stored(tensor.name, tensor.data_type, shape, source=source, offset=offset)

    def lacks(self, tensor: TensorProto) -> bool:
        """Return whether the file of an external tensor is not there."""
        keys = {entry.key: entry.value for entry in tensor.external_data}
        location = _checked_location(keys.get("location", ""), f"tensor {tensor.name!r}")
        return self.model is None or not (self.model.parent / location).exists()

    def embed(self, tensor: TensorProto, where: str) -> None:
        """Read an external tensor's contents into it."""
        payload = self.stored(tensor, where).payload()
        clear_data(tensor)
        tensor.raw_data = bytes(payload)

    def _source(self, location: str, where: str) -> Source:
        """Return the data file, opened once."""
        if location not in self.sources:
            if self.model is None:
                raise InvalidModel(
                    f"{where}: lies in {location}, but a model given as an object has no folder",
                    "load the model by its path",
                )
            real = _inside(self.model, location, where)
            try:
                self.sources[location] = Source.open(real)
            except FileNotFoundError:
                raise InvalidModel(f"{where}: its file {location} is missing", _BESIDE) from None
            except OSError as error:
                raise InvalidModel(
                    f"{where}: its file {location} cannot be read: {error.strerror}",
                    "check the file and its permissions",
                ) from None
        return self.sources[location]


def _checked_location(location: str | bytes, where: str) -> str:
    """Return the location if it is a plain relative path on every system, else raise."""
    if not isinstance(location, str) or not location or "\0" in location:
        raise InvalidModel(f"{where}: external data without a usable location", _BESIDE)
    for flavour in (PurePosixPath(location), PureWindowsPath(location)):
        if flavour.anchor or ".." in flavour.parts:
            raise InvalidModel(
                f"{where}: external data at {location!r}, outside the model's folder", _BESIDE
            )
    return location


def contained(model: Path, location: str) -> Path | None:
    """Return the file, symbolic links followed, if it lies inside the model's folder, else None.

    If the model is a link into a cache of huggingface_hub, the folder of contents will do, too.
    """
    home = Path(os.path.realpath(model.parent))  # Path.resolve fails on links without an end
    real = Path(os.path.realpath(home / location))
    blobs = Path(os.path.realpath(model)).parent
    cached = blobs.name == "blobs" and blobs.parent / "snapshots" in home.parents
    return real if real.is_relative_to(home) or (cached and real.parent == blobs) else None


def _inside(model: Path, location: str, where: str) -> Path:
    """Return the file as :func:`contained` does. Raises InvalidModel where it lies elsewhere."""
    real = contained(model, location)
    if real is None:
        place = os.path.realpath(model.parent / location)
        raise InvalidModel(
            f"{where}: external data {location!r} is a link to {place}, outside the model's folder",
            "copy the file itself into the model's folder",
        )
    return real


def _number(text: str | bytes, key: str, where: str) -> int:
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS:
        return int(text)
    raise InvalidModel(f"{where}: external data with {key} {text!r}", "export the model again")
