"""Is this a model at all, and one that this program may read? One clear error each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from math import inf

import onnx
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from onnx_net2net.errors import InvalidModel
from onnx_net2net.model.schemas import domain_of, schema
from onnx_net2net.model.tensors import DAMAGED, carried, graphs, nodes, subgraphs
from onnx_net2net.model.wire import Bytes

__all__ = [
    "OLDEST_OPSET", "check_model", "check_nodes", "check_operands", "opset_versions",
    "wrong_format",
]  # fmt: skip

OLDEST_OPSET = 7
_EXPORT = "export the model to ONNX and give that file"
_KNOWN_STARTS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run `git lfs pull`"),
    (b"PK\x03\x04", "a zip archive: a PyTorch checkpoint, or a Keras model?", _EXPORT),
    (b"\x89HDF", "an HDF5 file: a Keras model?", _EXPORT),
    (b"\x80\x02", "a Python pickle: an old PyTorch checkpoint?", _EXPORT),
    (b"<", "an XML or HTML file", "give the .onnx file itself"),
    (b"{", "a JSON file", "give the .onnx file itself"),
    (b"ir_version", "an ONNX model as text", "convert it: onnx.save(onnx.load(path), other_path)"),
)
_UPGRADE = "upgrade onnx and onnxruntime (pip install -U onnx onnxruntime)"


def wrong_format(view: Bytes, detail: str) -> InvalidModel:
    """Return the error for bytes that are no model, by how they begin."""
    start = bytes(view[:64])
    for prefix, what, remedy in _KNOWN_STARTS:
        if start.startswith(prefix):
            return InvalidModel(f"not an ONNX model but {what}", remedy)
    if start[4:8] == b"ORTM":
        return InvalidModel("not an ONNX model but one in onnxruntime's own format", _EXPORT)
    return InvalidModel(
        f"not an ONNX model, or a truncated one: {detail}",
        "check that this is the right file; if so, export or download it again",
    )


def opset_versions(proto: ModelProto) -> dict[str, int]:
    """Return the version of each operator set; ``"ai.onnx"`` is the default domain ``""``."""
    return {
        "" if entry.domain == "ai.onnx" else entry.domain: entry.version
        for entry in proto.opset_import
    }


def check_model(proto: ModelProto) -> None:
    """Raise :class:`InvalidModel` unless versions are supported and names are usable."""
    _check_versions(proto)
    seen: set[str] = set()
    for entry in proto.graph.initializer:
        if not entry.name:
            raise InvalidModel("an initializer without a name", DAMAGED)
        if entry.name in seen:
            raise InvalidModel(f"two initializers named {entry.name!r}", "export the model again")
        seen.add(entry.name)
    for value in (*proto.graph.input, *proto.graph.output):
        kind = value.type.tensor_type.elem_type
        if kind not in TensorProto.DataType.values():
            raise InvalidModel(f"{value.name!r} is of unknown type {kind}", DAMAGED)
    for name in _names(proto):
        # Protobuf hands out bytes for what is no UTF-8, and everybody else expects str.
        if not isinstance(name, str):
            raise InvalidModel(f"a name that is no UTF-8 text: {name!r}", DAMAGED)


def check_nodes(proto: ModelProto) -> None:
    """Raise :class:`InvalidModel` unless every tensor is written once, before it is read.

    Every operator must have the inputs that it needs, too. For a model without local functions.
    """
    _check_scope(proto.graph, (), opset_versions(proto))


def _check_scope(graph: GraphProto, outer: tuple[set[str], ...], opsets: Mapping[str, int]) -> None:
    known = {value.name for value in (*graph.input, *graph.initializer)}
    scopes = (known, *outer)
    for node in graph.node:
        for name in node.input:
            if name and name not in known and not any(name in scope for scope in outer):
                problem = f"{_title(node)} reads {name!r}, which nothing before it writes"
                raise InvalidModel(problem, "export the model again, or sort its nodes")
        _check_arity(node, opsets)
        for inner in carried(node):
            _check_scope(inner, scopes, opsets)
        for name in node.output:
            if name and name in known:
                raise InvalidModel(f"{_title(node)} writes {name!r}, which is there", DAMAGED)
            known.add(name)
    for value in graph.output:
        if not any(value.name in scope for scope in scopes):
            raise InvalidModel(f"nothing writes the output {value.name!r}", DAMAGED)


def check_operands(proto: ModelProto) -> None:
    """Raise :class:`InvalidModel` unless every operator has the inputs that it needs.

    onnxruntime finds the order of the nodes by itself, but dies of some operands that are absent.
    """
    opsets = opset_versions(proto)
    for node in nodes(proto.graph):
        _check_arity(node, opsets)


def _title(node: NodeProto) -> str:
    return f"node {node.name or node.op_type!r}"


def _check_arity(node: NodeProto, opsets: Mapping[str, int]) -> None:
    if not node.output:
        raise InvalidModel(f"{_title(node)} writes nothing", DAMAGED)
    domain = domain_of(node)
    newest = onnx.defs.onnx_opset_version()
    known = _operands(node.op_type, opsets.get(domain, 0 if domain else newest), domain)
    if known is None:
        return
    (fewest, most, outputs), must, rest = known
    given = list(node.input)
    if len(given) < fewest:
        raise InvalidModel(f"{_title(node)}: {node.op_type} needs more inputs", DAMAGED)
    if len(given) > most or len(node.output) > outputs:
        what = "inputs" if len(given) > most else "outputs"
        raise InvalidModel(f"{_title(node)}: {node.op_type} has fewer {what}", DAMAGED)
    for index, name in enumerate(given):
        if not name and (index in must or index >= rest):
            raise InvalidModel(f"{_title(node)}: its input {index} must not be absent", DAMAGED)


@cache
def _operands(
    op_type: str, version: int, domain: str
) -> tuple[tuple[int, int, int], frozenset[int], float] | None:
    """Return how many operands an operator takes; None where onnx does not know it.

    That is: the least and most inputs and the most outputs, the inputs that must be there, and the
    position from which on all must.
    """
    known = schema(op_type, domain, version)
    if known is None:
        return None
    option = onnx.defs.OpSchema.FormalParameterOption
    kinds = [(entry.option, entry.is_homogeneous) for entry in known.inputs]
    must = frozenset(index for index, (kind, _) in enumerate(kinds) if kind == option.Single)
    variadic = [index for index, kind in enumerate(kinds) if kind == (option.Variadic, True)]
    counts = known.min_input, known.max_input, known.max_output
    return counts, must, variadic[0] if variadic else inf


def _check_versions(proto: ModelProto) -> None:
    if not proto.ir_version:
        raise InvalidModel("not an ONNX model, or a truncated one: it has no IR version", DAMAGED)
    if proto.ir_version > onnx.IR_VERSION:
        raise InvalidModel(
            f"IR version {proto.ir_version} is newer than onnx {onnx.__version__} knows "
            f"({onnx.IR_VERSION})",
            _UPGRADE,
        )
    if not proto.opset_import:
        raise InvalidModel(
            "it names no operator set (opset_import), as files before 2018 or truncated ones do",
            "export the model again",
        )
    versions = {entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")}
    if len(versions) > 1:
        raise InvalidModel(f"two versions of one operator set: {sorted(versions)}", DAMAGED)
    for entry in proto.opset_import:
        if not 0 <= entry.version < 2**31:
            where = f"operator set {entry.domain!r}"
            raise InvalidModel(f"{where}: version {entry.version} is none", DAMAGED)
    newest = onnx.defs.onnx_opset_version()
    for version in versions:
        if version < OLDEST_OPSET:
            raise InvalidModel(
                f"opset {version} is too old: {OLDEST_OPSET} and later are supported",
                "convert it: onnx.version_converter.convert_version(model, 17)",
            )
        if version > newest:
            raise InvalidModel(
                f"opset {version} is newer than onnx {onnx.__version__} knows ({newest})",
                _UPGRADE,
            )


def _names(proto: ModelProto) -> Iterator[str]:
    """Yield every name and key of the model that somebody will look at."""
    for entry in proto.opset_import:
        yield entry.domain
    for prop in proto.metadata_props:
        yield prop.key
        yield prop.value
    for function in proto.functions:
        yield from (function.name, function.domain, function.overload)
        yield from (*function.input, *function.output, *function.attribute)
        yield from _graph_names(function)
        for inner in subgraphs(function):
            yield from _graph_names(inner)
            yield from _value_names(inner)
    for graph in graphs(proto.graph):
        yield from _graph_names(graph)
        yield from _value_names(graph)


def _graph_names(graph: GraphProto | FunctionProto) -> Iterator[str]:
    yield graph.name
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain)
        yield from node.input
        yield from node.output
        for attribute in node.attribute:
            yield attribute.name
        for prop in node.metadata_props:
            yield prop.key
            yield prop.value


def _value_names(graph: GraphProto) -> Iterator[str]:
    yield from (tensor.name for tensor in graph.initializer)
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name
        for dim in value.type.tensor_type.shape.dim:
            yield dim.dim_param
