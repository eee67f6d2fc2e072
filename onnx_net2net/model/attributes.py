"""Are the attributes of every node what its operator takes? Checked once, when a model is read.

Whoever reads an attribute later may rely on its type, on texts from a closed set, and on numbers
that make sense: growing, both imports, and what counts operations. Local functions are checked
twice: how their attributes are written before they are inlined, and all else afterwards.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto

from onnx_net2net.errors import InvalidModel
from onnx_net2net.model import schemas
from onnx_net2net.model.schemas import domain_of
from onnx_net2net.model.tensors import check_tensor, nodes

__all__ = ["check_attributes", "check_attributes_as_written"]

A = AttributeProto
# The field that holds the value of each type; those of messages must be there.
_FIELDS = {
    A.FLOAT: "f", A.INT: "i", A.STRING: "s", A.TENSOR: "t", A.GRAPH: "g",
    A.SPARSE_TENSOR: "sparse_tensor", A.TYPE_PROTO: "tp", A.FLOATS: "floats", A.INTS: "ints",
    A.STRINGS: "strings", A.TENSORS: "tensors", A.GRAPHS: "graphs",
    A.SPARSE_TENSORS: "sparse_tensors", A.TYPE_PROTOS: "type_protos",
}  # fmt: skip
_MESSAGES = frozenset({A.TENSOR, A.GRAPH, A.SPARSE_TENSOR, A.TYPE_PROTO})
_ABOUT = frozenset({"name", "doc_string", "type", "ref_attr_name"})
_WINDOWS = ("kernel_shape", "strides", "dilations", "output_padding")
# Letters, spaces and one ellipsis a term: onnx's shape inference never ends on anything else.
_TERM = r"[A-Za-z ]*(?:\.\.\.[A-Za-z ]*)?"
_EQUATION = re.compile(rf"{_TERM}(?:,{_TERM})*(?:->{_TERM})?")
_EXPORT = "export the model again, with a newer exporter if there is one"


def check_attributes_as_written(proto: ModelProto) -> None:
    """Raise :class:`InvalidModel` unless each attribute holds one value, of the type it says.

    Only the body of a local function may take a value from the function's caller.
    """
    for holder in (proto.graph, *proto.functions):
        for node in nodes(holder):
            _check_form(node, inside=isinstance(holder, FunctionProto))


def check_attributes(proto: ModelProto, opsets: dict[str, int]) -> None:
    """Raise :class:`InvalidModel` unless every attribute is one that its operator takes.

    For a model whose local functions were inlined. What onnx has no schema for has at least the
    types that this program relies on.
    """
    for node in nodes(proto.graph):
        domain = domain_of(node)
        version = opsets.get(domain, 1)
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                raise _wrong(node, attribute, "refers to an attribute outside a local function")
            types = schemas.types(node.op_type, domain, version, attribute.name)
            _check_type(node, attribute, types)
        if node.op_type == "Constant" and domain == "":
            # Its value has had a name for each type since opset 12; old files use them, too.
            if len(node.attribute) != 1:
                raise InvalidModel(f"{_title(node)} states {len(node.attribute)} values", _EXPORT)
            continue
        missing = set(schemas.required(node.op_type, domain, version)).difference(
            attribute.name for attribute in node.attribute
        )
        if missing:
            raise InvalidModel(f"{_title(node)} lacks its attribute {min(missing)!r}", _EXPORT)
        if domain == "":
            _check_lists(node)


def _title(node: NodeProto) -> str:
    name = node.name or next((output for output in node.output if output), "")
    return f"node {name!r} ({node.op_type})"


def _wrong(node: NodeProto, attribute: AttributeProto, what: str) -> InvalidModel:
    return InvalidModel(f"{_title(node)}: attribute {attribute.name!r} {what}", _EXPORT)


# ---- as written ---------------------------------------------------------------------------------


def _check_form(node: NodeProto, inside: bool) -> None:
    seen: set[str] = set()
    for attribute in node.attribute:
        if not attribute.name or attribute.name in seen:
            what = "is given twice" if attribute.name else "has no name"
            raise _wrong(node, attribute, what)
        seen.add(attribute.name)
        held = {field.name for field, _ in attribute.ListFields()} - _ABOUT
        if attribute.ref_attr_name:
            if not inside or held:
                raise _wrong(node, attribute, "refers to an attribute outside a local function")
            continue
        field = _FIELDS.get(attribute.type)
        if field is None:
            raise _wrong(node, attribute, "has no type, or one that is not known")
        if held - {field} or (attribute.type in _MESSAGES and not held):
            kind = A.AttributeType.Name(attribute.type)
            raise _wrong(node, attribute, f"says that it is {kind} and holds something else")


# ---- against the schema -------------------------------------------------------------------------


def _check_type(node: NodeProto, attribute: AttributeProto, types: frozenset[int]) -> None:
    if not types:
        return  # nobody looks at it
    if attribute.type not in types:
        wanted = " or ".join(A.AttributeType.Name(kind) for kind in sorted(types))
        stated = A.AttributeType.Name(attribute.type)
        raise _wrong(node, attribute, f"is {stated} where {node.op_type} takes {wanted}")
    value = getattr(attribute, _FIELDS[attribute.type])
    if attribute.type in (A.STRING, A.STRINGS):
        _check_texts(node, attribute, [value] if attribute.type == A.STRING else value)
    elif attribute.type == A.FLOAT and attribute.name in schemas.FINITE:
        if not math.isfinite(value):
            raise _wrong(node, attribute, f"is {value}, which is no number to compute with")
    elif attribute.type in (A.INT, A.INTS):
        _check_integers(node, attribute, [value] if attribute.type == A.INT else value)
    elif attribute.type == A.TENSOR:
        check_tensor(value, f"{_title(node)}: attribute {attribute.name!r}")
        if node.op_type == "ConstantOfShape" and list(value.dims) not in ([1], []):
            raise _wrong(node, attribute, f"has shape {list(value.dims)} instead of [1]")


def _check_texts(node: NodeProto, attribute: AttributeProto, values: Iterable[bytes]) -> None:
    allowed = schemas.texts(node.op_type, node.domain, attribute.name)
    for value in values:
        try:
            text = value.decode()
        except UnicodeDecodeError:
            raise _wrong(node, attribute, "is no UTF-8 text") from None
        if allowed is None:
            if attribute.name == "equation" and not _EQUATION.fullmatch(text):
                raise _wrong(node, attribute, f"is no equation: {text[:60]!r}")
        elif text not in allowed and not (
            attribute.name == "activations" and text.lower() in allowed
        ):
            known = ", ".join(repr(word) for word in sorted(allowed) if word)
            raise _wrong(node, attribute, f"is {text[:60]!r}; {node.op_type} knows {known}")


def _check_integers(node: NodeProto, attribute: AttributeProto, values: Sequence[int]) -> None:
    name = attribute.name
    if name in schemas.ELEMENT_TYPES:
        for value in values:
            if value not in schemas.KNOWN_TYPES:
                raise _wrong(node, attribute, f"is {value}, which is no element type")
    if name in schemas.FLAGS and any(value not in (0, 1) for value in values):
        raise _wrong(node, attribute, f"is {values[0]}; it is 0 or 1")
    smallest = schemas.LEAST.get(name)
    if smallest is not None and any(value < smallest for value in values):
        shown = list(values) if attribute.type == A.INTS else values[0]
        raise _wrong(node, attribute, f"is {shown}; the least is {smallest}")


def _check_lists(node: NodeProto) -> None:
    """Raise where lists that belong together differ in length; an empty one says nothing."""
    lists: dict[str, Any] = {a.name: a.ints for a in node.attribute if a.ints}
    perm = lists.get("perm")
    if perm is not None and sorted(perm) != list(range(len(perm))):
        raise InvalidModel(f"{_title(node)}: perm {list(perm)} is no permutation", _EXPORT)
    windows = {name: len(lists[name]) for name in _WINDOWS if name in lists}
    if "pads" in lists and (windows or node.op_type != "Pad"):
        windows["pads"] = len(lists["pads"]) / 2  # type: ignore[assignment]
    if len(set(windows.values())) > 1 or any(n != int(n) for n in windows.values()):
        stated = ", ".join(f"{name} {list(lists[name])}" for name in windows)
        raise InvalidModel(f"{_title(node)}: its {stated} are of different lengths", _EXPORT)
