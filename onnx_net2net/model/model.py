"""Loading and saving: the only owner of model files.

    model = load("resnet18.onnx")
    model.weights["conv1.weight"].array()      # read now, and only this one
    model.save("copy.onnx")                    # byte for byte the same

A :class:`Model` is a *skeleton*, the parsed ``ModelProto`` without its big payloads, and the
weights by name, unread. So a model larger than memory can be loaded, changed and saved.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from onnx import ModelProto, TensorProto

from onnx_net2net.errors import InvalidModel, Net2NetError, UsageError
from onnx_net2net.model import history
from onnx_net2net.model.attributes import check_attributes, check_attributes_as_written
from onnx_net2net.model.external import Folder
from onnx_net2net.model.initializers import change_inner, declare, weights_of
from onnx_net2net.model.inlining import inline_functions
from onnx_net2net.model.interchange import reader_of
from onnx_net2net.model.loading import (
    absent,
    embed_external,
    lift,
    open_sizes,
    opened,
    serialised,
    skeleton,
)
from onnx_net2net.model.saving import SINGLE_FILE_LIMIT, message, stream, whole, write
from onnx_net2net.model.shards import file_size
from onnx_net2net.model.sparse import densify, sparsify
from onnx_net2net.model.tensors import (
    check_tensor,
    constants,
    data_fields,
    graphs,
)
from onnx_net2net.model.validation import check_model, opset_versions
from onnx_net2net.model.weights import Absent, Computed, Inline, Source, Weight
from onnx_net2net.model.wire import THRESHOLD
from onnx_net2net.progress import work

if TYPE_CHECKING:
    import onnx_graphsurgeon
    import onnx_ir

__all__ = ["Absent", "AnyModel", "Computed", "Model", "Weight", "load", "load_shape"]

_SMALL = 4096  # elements
_FLOATS = frozenset(
    kind
    for name, kind in TensorProto.DataType.items()
    if "FLOAT" in name or name in ("DOUBLE", "COMPLEX64", "COMPLEX128")
)


T = TypeVar("T")

# How often a file that somebody replaces while it is read is tried again.
_RETRIES = 5


class Model:
    """A network: its skeleton and its weights. Never changed in place; see :meth:`with_changes`.

    ``proto`` is the skeleton: everything but the payloads above 1 KiB of the main graph's
    initializers. ``weights`` gives the contents of those initializers, of Constant nodes, and of
    tensors in subgraphs whose name is unique; ``sources`` is what they are read from. ``changes``
    tells what was done to get here.
    """

    def __init__(
        self,
        proto: ModelProto,
        lifted: Mapping[str, Weight],
        *,
        path: Path | None = None,
        sources: tuple[Source, ...] = (),
        original: Source | None = None,
        external: bool = False,
        inlined: bool = False,
        opened_sizes: bool = False,
        changes: Iterable[Any] = (),
    ) -> None:
        self.proto = proto
        self.path = path
        self.inlined = inlined
        self.changes = list(changes)
        self.opset = opset_versions(proto)
        self.weights: Mapping[str, Weight] = MappingProxyType(weights_of(proto, lifted))
        self._lifted = dict(lifted)
        self.sources = sources
        self._original = original
        self._external = external
        self._opened_sizes = opened_sizes
        self._sha256: str | None = None
        self._derived: dict[Callable[[Model], Any], Any] = {}

    def __repr__(self) -> str:
        where = f"{str(self.path)!r}, " if self.path else ""
        return f"Model({where}{len(self.proto.graph.node)} nodes, {self.parameters} parameters)"

    @property
    def metadata(self) -> dict[str, str]:
        """The model's ``metadata_props``."""
        return {entry.key: entry.value for entry in self.proto.metadata_props}

    @property
    def files(self) -> set[Path]:
        """The files that it is read from: its own, and all with external data."""
        return {source.path for source in self.sources if source.path is not None}

    @property
    def file(self) -> Path | None:
        """The file that holds this very model to this day, data and all; else None."""
        return self.path if self.is_current and not self._opened_sizes else None

    @property
    def is_current(self) -> bool:
        """Whether the files that it was loaded from are there still, and unchanged."""
        return all(source.current for source in self.sources)

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was done to the model, oldest step first. Raises InvalidModel if unreadable."""
        return history.read(self.proto)

    @property
    def parameters(self) -> int:
        """Number of weight elements: all initializers, and Constants of a floating-point type."""
        total = 0
        for graph in graphs(self.proto.graph):
            total += sum(math.prod(entry.dims) for entry in graph.initializer)
            for _, value, _ in constants(graph):
                total += math.prod(value.dims) if value.data_type in _FLOATS else 0
        return total

    def small(self, name: str) -> np.ndarray[Any, Any] | None:
        """Return the contents of a weight small enough to say how much is computed, else None."""
        weight = self.weights.get(name)
        return weight.array() if weight is not None and weight.size <= _SMALL else None

    def editable(self) -> ModelProto:
        """Return a copy of :attr:`proto`, for :meth:`with_changes`."""
        return deepcopy(self.proto)

    def derived(self, compute: Callable[[Model], T]) -> T:
        """Return ``compute(self)``, computed once: a model never changes."""
        if compute not in self._derived:
            self._derived[compute] = compute(self)
        result: T = self._derived[compute]
        return result

    def with_changes(
        self, proto: ModelProto, weights: Mapping[str, Weight], extra: Iterable[Any] = ()
    ) -> Model:
        """Make a model from an edited *copy* of :attr:`proto` (which it keeps) and new contents.

        ``weights`` gives contents by initializer name or Constant output; every other initializer
        keeps its own, shared and unread. Dims and type of each entry follow its contents. ``extra``
        becomes the new model's ``changes``. Raises ``KeyError`` for an initializer without
        contents, and for contents whose name the graph does not have.
        """
        unused = set(weights)
        lifted: dict[str, Weight] = {}
        for entry in proto.graph.initializer:
            name = entry.name
            if name in weights:
                unused.discard(name)
                weight = weights[name]
            elif data_fields(entry) or 0 in entry.dims or entry.HasField("segment"):
                continue
            else:
                weight = self._lifted[name]
            declare(entry, weight)
            if weight.nbytes > THRESHOLD or not weight.given:
                lifted[name] = weight if weight.name == name else weight.renamed(name)
            else:
                entry.raw_data = bytes(weight.payload())
        unused -= change_inner(proto.graph, {name: weights[name] for name in unused})
        if unused:
            raise KeyError(f"no initializer or Constant named {', '.join(sorted(unused))}")
        return Model(
            proto,
            lifted,
            sources=self.sources,
            external=self._external,
            inlined=self.inlined,
            changes=extra,
        )

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        force: bool = True,
        external: bool | None = None,
        shards: str | int | None = None,
    ) -> Path:
        """Write the model and return its path.

        One file, or with ``external=True`` a small one and its data in ``<name>.<digest>.data``
        beside it; by default as the source was, and external whenever one file could not hold it.
        ``shards`` such as "5GB" makes that several files, none of them larger, but where a single
        tensor is: ``<name>.<digest>-00001-of-00003.data``.
        Whoever reads an existing file meanwhile finds the old model or the new one, whole;
        ``force=False`` keeps it. Raises :class:`OutputError`, and then nothing has changed.
        """
        path = Path(path)
        limit = None if shards is None else file_size(shards)
        if limit is not None and external is False:
            raise UsageError("shards are external data", "leave out external=False, or shards")
        if external is None and (self._external or limit is not None):
            external = True
        original = None if self.inlined else self._original
        if original is not None and _load(original).proto != self.proto:
            original = None  # somebody edited the proto
        proto, lifted = self._written()
        write(path, proto, lifted, original=original, external=external, force=force, limit=limit)
        return path

    def to_bytes(self) -> bytes:
        """Return the whole model as one protobuf message, for sessions in memory.

        Raises :class:`Net2NetError` above protobuf's limit of 2 GiB.
        """
        _, pieces = message(*self._written())
        if sum(piece.nbytes for piece in pieces) > SINGLE_FILE_LIMIT:
            raise Net2NetError(
                "the model is above the 2 GiB that a single protobuf message can hold",
                "save it to a file, with its weights as external data",
            )
        buffer = io.BytesIO()
        stream(pieces, buffer.write)
        return buffer.getvalue()

    def to_proto(self) -> ModelProto:
        """Return the whole model, weights and all, as onnx has it.

        >>> onnx.checker.check_model(widen("model.onnx", {"conv5": 512}).to_proto())

        Raises :class:`Net2NetError` above protobuf's limit of 2 GiB.
        """
        proto: ModelProto = ModelProto.FromString(self.to_bytes())
        return proto

    def to_graphsurgeon(self) -> onnx_graphsurgeon.Graph:
        """Return a copy as a Graph of onnx_graphsurgeon, its weights unread until asked for.

        >>> graph = load("model.onnx").to_graphsurgeon()
        >>> graph.outputs = [graph.tensors()["hidden"].to_variable(np.float32, ("N", 64))]
        >>> headless = load(graph.cleanup().toposort())

        :func:`load`, and all that takes a model, takes such a Graph back. What was not changed is
        still unread then, and has the metadata that onnx_graphsurgeon does not know.
        """
        from onnx_net2net.model.interchange import to_graphsurgeon

        graph: onnx_graphsurgeon.Graph = to_graphsurgeon(self)
        return graph

    def to_ir(self) -> onnx_ir.Model:
        """Return a copy as a Model of onnx_ir, its weights unread until asked for.

        >>> ir_model = load("model.onnx").to_ir()
        >>> onnx_ir.passes.common.RemoveUnusedNodesPass()(ir_model)
        >>> smaller = load(ir_model)

        :func:`load`, and all that takes a model, takes it back.
        """
        from onnx_net2net.model.interchange import to_ir

        copy: onnx_ir.Model = to_ir(self)
        return copy

    def sha256(self) -> str:
        """Return the digest of its one file, else of what it would be as one file.

        So external data counts, and not how it is spread over files. Every weight is read, and
        knows from then on whether it is finite.
        """
        if self._sha256 is None:
            digest, source = hashlib.sha256(), self._original
            pieces = (
                message(*self._written())[1]
                if source is None
                else whole(source, self._lifted.values())
            )
            name = "the model" if self.path is None else self.path.name
            total = sum(piece.nbytes for piece in pieces)
            with (
                work(f"reading {name}", total, in_bytes=True) as reading,
                ThreadPoolExecutor(1) as helper,
            ):
                for piece in pieces:
                    if isinstance(piece, Weight):
                        for chunk in piece.examined(self._external, helper):
                            digest.update(chunk)
                            reading.advance(chunk.nbytes)
                    else:
                        digest.update(piece)
                        reading.advance(piece.nbytes)
            self._sha256 = digest.hexdigest()
        return self._sha256

    def _written(self) -> tuple[ModelProto, dict[int, Weight]]:
        """Return the skeleton as files have it, and the contents that it lacks, by position."""
        proto, lifted = sparsify(self.proto, self._lifted)
        return proto, {
            index: lifted[entry.name]
            for index, entry in enumerate(proto.graph.initializer)
            if entry.name in lifted
        }


AnyModel: TypeAlias = (
    "Model | str | os.PathLike[str] | ModelProto | bytes | onnx_graphsurgeon.Graph | onnx_ir.Model"
)


def load(model: AnyModel) -> Model:
    """Load a model from a file, from its contents, or from an object of another library.

    >>> load("model.onnx"), load(onnx.load("model.onnx")), load(onnx_ir.load("model.onnx"))

    Takes a ``ModelProto``, a ``Graph`` of onnx_graphsurgeon and a ``Model`` of onnx_ir, which are
    copied, and returns a :class:`Model` as it is: so does every function that takes a model.
    Big tensors are not read; external data must lie in the model's folder. Local functions
    are inlined. Raises :class:`InvalidModel` for anything that is not a whole, sound model.
    """
    return _loaded(model, _load)


def load_shape(model: AnyModel) -> Model:
    """Load a model of which some weights may be missing: initializers without contents, and those
    whose file is not there. Such a weight is :class:`Absent`; the model cannot be saved or run.
    """
    return _loaded(model, partial(_load, lacking=True))


def _loaded(model: AnyModel, read: Callable[[Source], Model]) -> Model:
    if isinstance(model, Model):
        return model
    name = os.fspath(model) if isinstance(model, str | os.PathLike) else "the model"
    try:
        if isinstance(model, str | os.PathLike):
            return _load_file(Path(model), read)
        if (reader := reader_of(model)) is not None:
            given = reader(model)
            source = Source(None, serialised(given.proto))
            return _load(source, given.weights, given.sources)
        return read(Source(None, serialised(model)))
    except InvalidModel as error:
        raise InvalidModel(f"{name}: {error.problem}", error.remedy) from None


def _load_file(path: Path, read: Callable[[Source], Model]) -> Model:
    """Load a file; the new one where it is replaced, data and all, while it is read."""
    for _ in range(_RETRIES):
        source = opened(path)
        try:
            return read(source)
        except InvalidModel:
            if source.current:
                raise
    return read(opened(path))


def _load(
    source: Source,
    given: Mapping[str, Weight] = MappingProxyType({}),
    sources: tuple[Source, ...] = (),
    *,
    lacking: bool = False,
) -> Model:
    """Load a message that lacks the contents that are ``given``, which lie in other ``sources``."""
    if not len(source.view):
        raise InvalidModel("is empty", "export or download the model again")
    proto, spans = skeleton(source)
    check_model(proto)
    check_attributes_as_written(proto)
    folder = Folder(source.path)
    missing = {**given, **(absent(proto, spans, folder) if lacking else {})}
    lifted = missing | lift(proto, spans, source, folder)
    embed_external(proto, folder)
    plain = inline_functions(proto)
    check_attributes(plain, opset_versions(plain))
    lifted |= densify(plain)
    opened_sizes = open_sizes(plain)
    model = Model(
        plain,
        lifted,
        path=source.path,
        sources=(source, *folder.sources.values(), *sources),
        original=None if folder.sources or missing else source,
        external=bool(folder.sources),
        inlined=plain is not proto,
        opened_sizes=opened_sizes,
    )
    for name, weight in model.weights.items():
        if isinstance(weight, Inline):
            check_tensor(weight.tensor, f"tensor {name!r}")
    return model
