"""Protobuf's wire format, as far as it takes to lift big payloads out of a model and put them back.

    skeleton, spans = strip(memoryview(file_contents))
    pieces = splice(skeleton, {span.index: (span.field, payload) for span in spans})

A model file is one protobuf message in which almost every byte belongs to the ``raw_data`` of an
initializer. Parsing it with protobuf copies all of them; walking the tags and lengths of the
enclosing messages touches a few bytes per field. So :func:`strip` gives the same message without
those payloads, small enough to parse, and says where each payload lies; :func:`splice` is its
inverse on a serialised skeleton. Nothing here knows more of ONNX than the field numbers below
(onnx.proto, which never renumbers them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import count
from typing import Protocol, TypeVar, overload

__all__ = [
    "RAW_DATA", "THRESHOLD", "Bytes", "Payload", "Span", "WireError", "fields", "nesting", "splice",
    "strip",
]  # fmt: skip

# Payloads up to this size stay in the skeleton: shapes, axes, small biases are read all the time.
THRESHOLD = 1024

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
MODEL_GRAPH, MODEL_FUNCTIONS = 7, 25
GRAPH_NODE, FUNCTION_NODE, NODE_ATTRIBUTE = 1, 7, 5
ATTRIBUTE_GRAPHS = frozenset({6, 11})
GRAPH_INITIALIZER = 5
FLOAT_DATA, STRING_DATA, RAW_DATA, DOUBLE_DATA, DATA_LOCATION = 4, 6, 9, 10, 14
# Packed floats and doubles lie in the file exactly as raw_data does; packed integers are varints.
_PAYLOAD_FIELDS = frozenset({FLOAT_DATA, RAW_DATA, DOUBLE_DATA})
_VALUE_FIELDS = frozenset({4, 5, 6, 7, 9, 10, 11})

_FIXED_SIZE = {FIXED64: 8, FIXED32: 4}
_MAX_VARINT = 10

Field = tuple[int, int, int, int, int]
"""Number, wire type, position of the tag, first and one past the last position of the value."""


class WireError(ValueError):
    """The bytes are no protobuf message."""


class Bytes(Protocol):
    """Bytes in memory, or in a file that is read where it is looked at."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, key: int) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> memoryview: ...


class Payload(Protocol):
    """What :func:`splice` needs to know of contents to be written later."""

    @property
    def nbytes(self) -> int: ...


P = TypeVar("P", bound=Payload)


@dataclass(frozen=True, slots=True)
class Span:
    """Where the payload of the ``index``-th initializer lies: ``field`` at ``offset``."""

    index: int
    field: int
    offset: int
    length: int


def fields(view: Bytes, start: int, end: int) -> Iterator[Field]:
    """Yield the fields of the message ``view[start:end]``, values unread.

    >>> [(number, bytes(b"\\x0a\\x02hi"[a:b])) for number, _, _, a, b
    ...  in fields(memoryview(b"\\x0a\\x02hi"), 0, 4)]
    [(1, b'hi')]
    """
    position = start
    while position < end:
        at = position
        tag = view[position]
        position += 1
        if tag > 0x7F:
            tag, position = _varint(view, at, end)
        wire_type = tag & 7
        if tag < 8 or tag >> 3 > 0x1FFFFFFF:
            raise WireError(f"impossible field number at byte {at}")
        value = position
        if wire_type == LENGTH_DELIMITED:
            length, value = _varint(view, position, end)
            position = value + length
        elif wire_type == VARINT:
            _, position = _varint(view, position, end)
        elif wire_type in _FIXED_SIZE:
            position += _FIXED_SIZE[wire_type]
        else:
            raise WireError(f"impossible wire type {wire_type} at byte {at}")
        if position > end:
            raise WireError(f"a field at byte {at} ends {position - end} bytes past its message")
        yield tag >> 3, wire_type, at, value, position


def _varint(view: Bytes, position: int, end: int) -> tuple[int, int]:
    """Return the base-128 number at ``position``, and the position after it."""
    number = 0
    for shift in range(0, 7 * _MAX_VARINT, 7):
        if position >= end:
            raise WireError(f"the message ends within a number, at byte {position}")
        byte = view[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise WireError(f"endless number before byte {position}")


def _encoded(number: int) -> bytes:
    """Return ``number`` as a varint."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _header(field: int, length: int) -> memoryview:
    """Return tag and length of a length-delimited field."""
    return memoryview(_encoded(field << 3 | LENGTH_DELIMITED) + _encoded(length))


def _rewritten(
    view: Bytes,
    start: int,
    end: int,
    edit: Callable[[int, int, int], list[memoryview | P] | None],
) -> list[memoryview | P] | None:
    """Return the message with some sub-messages replaced, in pieces; ``None`` if none was.

    ``edit(number, start, end)`` returns the new pieces of one length-delimited field, or ``None``
    to keep it.
    """
    pieces: list[memoryview | P] = []
    kept = start
    for number, wire_type, tag, value, stop in fields(view, start, end):
        if wire_type != LENGTH_DELIMITED:
            continue
        new = edit(number, value, stop)
        if new is None:
            continue
        pieces.append(view[kept:tag])
        pieces.append(_header(number, sum(piece.nbytes for piece in new)))
        pieces.extend(new)
        kept = stop
    if not pieces:
        return None
    pieces.append(view[kept:end])
    return pieces


def _edit_initializers(
    view: Bytes, edit: Callable[[int, int, int], list[memoryview | P] | None]
) -> list[memoryview | P] | None:
    """Replace some initializers of a model; ``edit(index, start, end)`` as above."""
    index = count()

    def edit_graph(number: int, start: int, end: int) -> list[memoryview | P] | None:
        return edit(next(index), start, end) if number == GRAPH_INITIALIZER else None

    def edit_model(number: int, start: int, end: int) -> list[memoryview | P] | None:
        return _rewritten(view, start, end, edit_graph) if number == MODEL_GRAPH else None

    return _rewritten(view, 0, len(view), edit_model)


def strip(view: Bytes) -> tuple[bytes, list[Span]]:
    """Return the serialised model without the big payloads of initializers, and where those lie.

    Raises :class:`WireError` if the bytes are no protobuf message.
    """
    spans: list[Span] = []

    def edit(index: int, start: int, end: int) -> list[memoryview] | None:
        if end - start <= THRESHOLD:
            return None
        payload = _payload(view, start, end)
        if payload is None:
            return None
        number, _, tag, value, stop = payload
        spans.append(Span(index, number, value, stop - value))
        return [view[start:tag], view[stop:end]]

    pieces = _edit_initializers(view, edit)
    return (bytes(view[:]) if pieces is None else b"".join(pieces)), spans


def nesting(view: Bytes) -> int:
    """Return how many graphs lie within one another in the nodes of a model and its functions."""
    whole = [(0, len(view))]
    nodes = _held(view, whole, {MODEL_GRAPH}, {GRAPH_NODE})
    nodes += _held(view, whole, {MODEL_FUNCTIONS}, {FUNCTION_NODE})
    depth = 0
    while graphs := _held(view, nodes, {NODE_ATTRIBUTE}, ATTRIBUTE_GRAPHS):
        depth += 1
        nodes = _held(view, graphs, {GRAPH_NODE})
    return depth


def _held(view: Bytes, spans: list[tuple[int, int]], *path: Set[int]) -> list[tuple[int, int]]:
    """Return where messages lie within those at ``spans``, a step down for each set of numbers."""
    for numbers in path:
        spans = [
            (value, stop)
            for start, end in spans
            for number, wire_type, _, value, stop in fields(view, start, end)
            if number in numbers and wire_type == LENGTH_DELIMITED
        ]
    return spans


def _payload(view: Bytes, start: int, end: int) -> Field | None:
    """Return the one big payload field of a tensor, ``None`` where protobuf had better parse it."""
    payload: Field | None = None
    for field in fields(view, start, end):
        number, wire_type, _, value, stop = field
        if number == DATA_LOCATION and wire_type == VARINT and view[value] != 0:
            return None
        if number not in _VALUE_FIELDS:
            continue
        # Two value fields, or values one by one: legal protobuf, but no single run of bytes.
        if payload is not None or wire_type != LENGTH_DELIMITED or number == STRING_DATA:
            return None
        if number not in _PAYLOAD_FIELDS or stop - value <= THRESHOLD:
            return None
        payload = field
    return payload


def splice(skeleton: bytes, payloads: Mapping[int, tuple[int, P]]) -> list[memoryview | P]:
    """Put payloads back into a serialised model. Returns pieces to be written one after another.

    ``payloads`` maps an initializer's index to (field, contents). Each lands where protobuf itself
    would write that field: before the first field of a higher number.
    """
    view = memoryview(skeleton)

    def edit(index: int, start: int, end: int) -> list[memoryview | P] | None:
        if index not in payloads:
            return None
        number, payload = payloads[index]
        later = (tag for other, _, tag, _, _ in fields(view, start, end) if other > number)
        at = next(later, end)
        return [view[start:at], _header(number, payload.nbytes), payload, view[at:end]]

    pieces = _edit_initializers(view, edit)
    return [view] if pieces is None else pieces
