"""Reading a model: a small message without the big payloads, and where those lie.

    source = opened(Path("model.onnx"))
    proto, spans = skeleton(source)
    lifted = lift(proto, spans, source, Folder(source.path))

Nothing of the payloads is read.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from google.protobuf.message import DecodeError, EncodeError
from onnx import ModelProto, TypeProto

from onnx_net2net.errors import InvalidModel, UsageError
from onnx_net2net.model.external import Folder
from onnx_net2net.model.saving import SINGLE_FILE_LIMIT
from onnx_net2net.model.tensors import (
    DAMAGED,
    MOST_NESTED,
    attribute_tensors,
    check_data_size,
    check_header,
    clear_data,
    data_fields,
    fits_field,
    graphs,
    is_external,
    nested_too_deep,
)
from onnx_net2net.model.validation import wrong_format
from onnx_net2net.model.weights import Absent, Source, Stored, Weight
from onnx_net2net.model.wire import THRESHOLD, Span, WireError, nesting, strip

__all__ = ["absent", "embed_external", "lift", "open_sizes", "opened", "serialised", "skeleton"]


def serialised(model: object) -> memoryview:
    """Return the bytes of a message, or bytes as they are; InvalidModel where there are too many.

    Raise UsageError for anything else.
    """
    try:
        return memoryview(model.SerializeToString() if isinstance(model, ModelProto) else model)  # type: ignore[arg-type]
    except TypeError:
        raise UsageError(
            f"a {type(model).__name__} is no model",
            "give a path, bytes, a ModelProto, or a model of onnx_graphsurgeon or onnx_ir",
        ) from None
    except (EncodeError, ValueError):
        raise InvalidModel(
            "a ModelProto above protobuf's limit of 2 GiB",
            "save it with external data and load it by its path",
        ) from None


def opened(path: Path) -> Source:
    """Open a model file. Raises InvalidModel."""
    try:
        if path.is_dir():
            raise InvalidModel("is a folder", "give the path of an .onnx file")
        return Source.open(path)
    except FileNotFoundError:
        raise InvalidModel("no such file", "check the path") from None
    except OSError as error:
        raise InvalidModel(
            f"cannot be read: {error.strerror}", "check the file and its permissions"
        ) from None
    except ValueError:  # a null byte in the path
        raise InvalidModel("no possible path", "check the path") from None


def skeleton(source: Source) -> tuple[ModelProto, list[Span]]:
    """Return the model without the big payloads of its initializers, and where those lie."""
    try:
        contents, spans = strip(source.view)
        proto = ModelProto()
        proto.ParseFromString(contents)
    except (WireError, DecodeError) as error:
        with suppress(WireError):
            if nesting(source.view) > MOST_NESTED:
                raise nested_too_deep() from None
        raise wrong_format(source.view, str(error)) from None
    if not proto.HasField("graph"):
        raise wrong_format(source.view, "there is no graph in it")
    return proto, spans


def lift(proto: ModelProto, spans: list[Span], source: Source, folder: Folder) -> dict[str, Weight]:
    """Return the contents of initializers that the skeleton does not hold, checked for size."""
    entries = proto.graph.initializer
    lifted: dict[str, Weight] = {}
    for span in spans:
        entry = entries[span.index]
        where = f"initializer {entry.name!r}"
        if entry.HasField("segment"):
            raise InvalidModel(f"{where}: a segment of a tensor", "export the model again")
        check_data_size(entry, span.length, where)
        if not fits_field(entry, span.field):
            raise InvalidModel(f"{where}: contents in a field of another type", DAMAGED)
        lifted[entry.name] = Stored(
            entry.name,
            entry.data_type,
            tuple(entry.dims),
            source=source,
            offset=span.offset,
            field=span.field,
        )
    for entry in entries:
        if is_external(entry):
            where = f"initializer {entry.name!r}"
            weight = folder.stored(entry, where)
            if weight.nbytes > THRESHOLD:
                clear_data(entry)
                lifted[entry.name] = weight
            else:
                folder.embed(entry, where)
    return lifted


def absent(proto: ModelProto, spans: list[Span], folder: Folder) -> dict[str, Weight]:
    """Return the weights that have no contents, here or in a file that is there."""
    held = {span.index for span in spans}
    weights: dict[str, Weight] = {}
    for index, entry in enumerate(proto.graph.initializer):
        lies_here = index in held or data_fields(entry) or 0 in entry.dims
        if folder.lacks(entry) if is_external(entry) else not lies_here:
            check_header(entry, f"initializer {entry.name!r}")
            clear_data(entry)
            weights[entry.name] = Absent(entry.name, entry.data_type, tuple(entry.dims))
    return weights


def embed_external(proto: ModelProto, folder: Folder) -> None:
    """Read external tensors of nodes and subgraphs, which onnx rarely writes, into the skeleton."""
    total = 0
    for tensor in attribute_tensors(proto):
        if is_external(tensor):
            where = f"tensor {tensor.name!r}"
            total += folder.stored(tensor, where).nbytes
            # The same bytes can be referred to any number of times.
            if total > SINGLE_FILE_LIMIT:
                raise InvalidModel(
                    "over 2 GiB of external data in attributes of nodes",
                    "export the model with its weights as initializers",
                )
            folder.embed(tensor, where)


def open_sizes(proto: ModelProto) -> bool:
    """Drop sizes of -1 and 0, which old exporters wrote for "not known".

    Returns whether one was 0, which onnxruntime takes at its word.
    """
    zero = False
    for graph in graphs(proto.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            for dim in _tensor_type(value.type).shape.dim:
                if dim.HasField("dim_value") and dim.dim_value <= 0:
                    zero = zero or dim.dim_value == 0
                    dim.ClearField("dim_value")
    return zero


def _tensor_type(kind: TypeProto) -> TypeProto.Tensor:
    """Return the type of the tensors, of sequences and optional values as well."""
    held = kind.WhichOneof("value")
    if held in ("sequence_type", "optional_type"):
        return _tensor_type(getattr(kind, held).elem_type)
    return kind.tensor_type
