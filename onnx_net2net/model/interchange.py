"""Models of other libraries, in memory: Graphs of onnx_graphsurgeon and Models of onnx_ir.

    graph = to_graphsurgeon(model)             # weights are read when somebody asks for them
    graph.outputs = [graph.tensors()["hidden"]]
    proto, weights = of_graphsurgeon(graph.cleanup())

What neither of them has changed comes back unread: a tensor of theirs knows the weight that it
stands for, and is written as a mark, an unguessable number, by which that weight is found again.
Nor is anything lost that onnx_graphsurgeon does not know: the file's metadata, and the
documentation and the metadata of nodes, by the names of what they write.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto

from onnx_net2net.errors import InvalidModel
from onnx_net2net.model.external import Folder
from onnx_net2net.model.tensors import attribute_tensors, clear_data, graphs, subgraphs
from onnx_net2net.model.weights import Source, Weight

if TYPE_CHECKING:
    from onnx_net2net.model.model import Model

__all__ = ["Given", "reader_of", "to_graphsurgeon", "to_ir"]

_ORIGIN = "onnx_net2net_origin"  # the attribute of a Graph that knows the model it came from


class _Marks(dict[bytes, Weight]):
    """The weights that are written as marks, and what they are read from."""

    def __init__(self) -> None:
        self.prefix = secrets.token_bytes(16)  # so that the contents of no file are taken for one
        self.sources: dict[Source, None] = {}

    def mark(self, weight: Weight, sources: tuple[Source, ...]) -> bytes:
        """Return the mark of a weight, the same each time."""
        self.sources |= dict.fromkeys(sources)
        mark = self.prefix + id(weight).to_bytes(8, "little")
        self[mark] = weight
        return mark


_marks: ContextVar[_Marks | None] = ContextVar("_marks", default=None)


def _contents(weight: Weight, sources: tuple[Source, ...]) -> bytes:
    """Return what is written for a weight: a mark while these are used, else its contents."""
    marks = _marks.get()
    return bytes(weight.payload()) if marks is None else marks.mark(weight, sources)


@contextmanager
def _marking() -> Iterator[_Marks]:
    """Have marks written for weights of ours, in place of their contents."""
    token = _marks.set(marks := _Marks())
    try:
        yield marks
    finally:
        _marks.reset(token)


class Given(NamedTuple):
    """A model of another library: its message, and the weights whose contents that lacks."""

    proto: ModelProto
    weights: dict[str, Weight]
    sources: tuple[Source, ...]


def reader_of(model: object) -> Callable[[Any], Given] | None:
    """Return what reads an object of another library, None where none knows it.

    Nothing is imported: whoever has such an object has imported its library.
    """
    for library, name, read in (
        ("onnx_graphsurgeon", "Graph", of_graphsurgeon),
        ("onnx_ir", "Model", of_ir),
    ):
        if library in sys.modules and isinstance(model, getattr(sys.modules[library], name)):
            return read
    return None


# ---- onnx_graphsurgeon ---------------------------------------------------------------------------


def to_graphsurgeon(model: Model) -> Any:
    """See :meth:`onnx_net2net.Model.to_graphsurgeon`."""
    import onnx_graphsurgeon as surgeon
    from onnx_graphsurgeon.ir.tensor import LazyValues

    graph, lazy = surgeon.import_onnx(model.proto), _lazy_values()
    for part in (graph, *graph.subgraphs(recursive=True)):
        for tensor in part.tensors().values():
            values: Any = getattr(tensor, "_values", None)
            if type(values) is LazyValues and _lacks_contents(values.tensor):
                tensor.values = lazy(values.tensor, model)
    graph.__dict__[_ORIGIN] = model
    return graph


def of_graphsurgeon(graph: Any) -> Given:
    """Return a Graph as a message, with the weights of ours that are still in it."""
    from onnx_graphsurgeon import export_onnx
    from onnx_graphsurgeon.util.exception import OnnxGraphSurgeonException

    lazy, origin = _lazy_values(), graph.__dict__.get(_ORIGIN)
    if origin is None:  # a copy of a Graph has no attributes of ours, but the same weights
        parts = (graph, *graph.subgraphs(recursive=True))
        values = (getattr(t, "_values", None) for part in parts for t in part.tensors().values())
        origin = next((value.origin for value in values if isinstance(value, lazy)), None)
    try:
        with _marking() as marks:
            proto = export_onnx(graph)
    except (OnnxGraphSurgeonException, AssertionError, TypeError, ValueError) as error:
        problem = f"onnx_graphsurgeon cannot write this graph: {error}"
        remedy = "see that graph.cleanup() and export_onnx(graph) work"
        raise InvalidModel(problem, remedy) from None
    outer = set() if origin is None else {entry.name for entry in origin.proto.graph.initializer}
    _hoist(proto.graph, outer)
    if origin is not None:
        _restore(proto, origin.proto)
    return _given(proto, marks)


def _hoist(graph: GraphProto, outer: set[str]) -> None:
    """Take out of bodies the copies of weights that they read from outside.

    onnx_graphsurgeon writes a weight into each graph that reads it. Those that were ``outer`` ones
    stay so, where bodies alone read them, too.
    """
    known = {entry.name: entry for entry in graph.initializer}
    for body in subgraphs(graph):
        for place in reversed(range(len(body.initializer))):
            entry = body.initializer[place]
            if entry.name in outer and entry.name not in known:
                known[entry.name] = graph.initializer.add()
                known[entry.name].CopyFrom(entry)
            if entry == known.get(entry.name):
                del body.initializer[place]


@cache
def _lazy_values() -> Any:
    from onnx_graphsurgeon.ir.tensor import LazyValues

    class WeightValues(LazyValues):  # type: ignore[misc]
        """A weight of a model, read when it is asked for."""

        def __init__(self, entry: TensorProto, model: Model) -> None:
            self.weight, self.origin = model.weights[entry.name], model
            with _marking():  # for its shape alone
                super().__init__(entry)

        @property
        def tensor(self) -> TensorProto:
            """Return a message of its own, whose name may be changed."""
            tensor = TensorProto()
            tensor.CopyFrom(self._entry)
            tensor.raw_data = _contents(self.weight, self.origin.sources)
            return tensor

        @tensor.setter
        def tensor(self, entry: TensorProto) -> None:
            self._entry = entry

        def load(self) -> np.ndarray[Any, Any]:
            return np.array(self.weight.array())

    return WeightValues


# ---- onnx_ir -------------------------------------------------------------------------------------


def to_ir(model: Model) -> Any:
    """See :meth:`onnx_net2net.Model.to_ir`."""
    import onnx_ir

    copy: Any = onnx_ir.from_proto(model.proto)
    lazy = _lazy_tensor()
    for name, value in copy.graph.initializers.items():
        if _lacks_contents(value.const_value.raw):
            value.const_value = lazy(model.weights[name], model.sources)
    return copy


def of_ir(model: Any) -> Given:
    """Return a Model of onnx_ir as a message; weights of ours and those in files stay unread."""
    import onnx_ir

    with _marking() as marks:
        proto = onnx_ir.to_proto(model)
    given = _given(proto, marks)
    folders: dict[Path, Folder] = {}
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    for entry in proto.graph.initializer:
        tensor = tensors[entry.name]
        if isinstance(tensor, onnx_ir.ExternalTensor):
            place = Path(tensor.base_dir) / "model.onnx"
            folder = folders.setdefault(place, Folder(place))
            stored = folder.stored(entry, f"initializer {entry.name!r}")
            clear_data(entry)
            given.weights[entry.name] = stored
    files = [source for folder in folders.values() for source in folder.sources.values()]
    return given._replace(sources=(*given.sources, *files))


@cache
def _lazy_tensor() -> Any:
    import onnx_ir

    class WeightTensor(onnx_ir.LazyTensor):
        """A weight of a model, read when it is asked for."""

        def __init__(self, weight: Weight, sources: tuple[Source, ...]) -> None:
            self.weight, self.sources = weight, sources
            dtype = onnx_ir.DataType(weight.dtype)
            super().__init__(
                lambda: onnx_ir.Tensor(np.array(weight.array()), dtype=dtype),
                dtype, onnx_ir.Shape(weight.shape), name=weight.name,
            )  # fmt: skip

        def tobytes(self) -> bytes:
            return _contents(self.weight, self.sources)

    return WeightTensor


# ---- both ----------------------------------------------------------------------------------------


def _given(proto: ModelProto, marks: _Marks) -> Given:
    """Return a message without marks: the main graph's initializers lack contents, others do not.

    Raises InvalidModel for a weight that is declared otherwise than it is.
    """
    kept: dict[str, Weight] = {}
    for entry in proto.graph.initializer:
        weight = marks.get(entry.raw_data)
        if weight is None:
            continue
        if (entry.data_type, tuple(entry.dims)) != (weight.dtype, weight.shape):
            problem = f"initializer {entry.name!r} has another type or shape than its contents"
            raise InvalidModel(problem, "give it new contents as an array")
        clear_data(entry)
        kept[entry.name] = weight if weight.name == entry.name else weight.renamed(entry.name)
    for tensor in attribute_tensors(proto):
        if (weight := marks.get(tensor.raw_data)) is not None:
            tensor.raw_data = bytes(weight.payload())
    return Given(proto, kept, (*marks.sources,))


def _lacks_contents(tensor: TensorProto) -> bool:
    """Return whether a message has no contents, though it should have some."""
    fields = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")
    return 0 not in tensor.dims and not any(
        len(getattr(tensor, field)) for field in (*fields, "string_data", "external_data")
    )


def _restore(proto: ModelProto, before: ModelProto) -> None:
    """Give back what onnx_graphsurgeon left out, to what has kept its name."""
    proto.metadata_props.extend(before.metadata_props)
    for field in ("doc_string", "domain", "model_version", "producer_name", "producer_version"):
        if not getattr(proto, field):
            setattr(proto, field, getattr(before, field))
    proto.graph.metadata_props.extend(before.graph.metadata_props)
    nodes: dict[tuple[str, ...], Any] = {}
    for graph in graphs(before.graph):
        nodes |= {(node.op_type, *node.output): node for node in graph.node}
    known = _values(before.graph)
    for graph in graphs(proto.graph):
        for node in graph.node:
            old = nodes.get((node.op_type, *node.output))
            if old is not None:
                node.doc_string, node.overload = old.doc_string, old.overload
                node.metadata_props.extend(old.metadata_props)
        for entry in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            if entry.name in known and not entry.metadata_props:
                entry.metadata_props.extend(known[entry.name].metadata_props)
    order = {entry.name: place for place, entry in enumerate(before.graph.initializer)}
    proto.graph.initializer.sort(key=lambda entry: order.get(entry.name, len(order)))
    names = _values(proto.graph)
    kept = [a for a in before.graph.quantization_annotation if a.tensor_name in names]
    proto.graph.quantization_annotation.extend(kept)


def _values(graph: GraphProto) -> Mapping[str, Any]:
    """Return what describes each tensor of the main graph, by its name."""
    return {v.name: v for v in (*graph.value_info, *graph.initializer, *graph.input, *graph.output)}
