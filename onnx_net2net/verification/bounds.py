"""What whole numbers an input may hold, read off the graph.

>>> input_uses(model.proto.graph)["input_ids"]
Use(kind='index', upper=30522)

An integer input is followed through reshapes, casts and additions to whatever reads it: the
indices of an embedding table bound it by the size of the table. Nothing is executed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import numpy_helper

from onnx_net2net.model.tensors import graphs, nodes
from onnx_net2net.operators import facts
from onnx_net2net.operators.language import Kind
from onnx_net2net.operators.record import Extent


@dataclass(frozen=True)
class Use:
    """How an input's whole numbers are used: ``index`` into a table of ``upper`` rows (``upper``
    0: unknown), ``extent`` (a size or position), ``length`` of a sequence, or ``value``."""

    kind: str
    upper: int = 0


_PRIORITY = ("index", "length", "extent", "value")


def merged(uses: list[Use]) -> Use:
    """Return the use that all of these allow: the smallest table wins."""
    kind = min((use.kind for use in uses), key=_PRIORITY.index, default="value")
    uppers = [use.upper for use in uses if use.kind == kind and use.upper]
    return Use(kind, min(uppers, default=0))


def input_uses(graph: onnx.GraphProto) -> dict[str, Use]:
    """Return the use of every graph input, floats too: some exporters feed token ids as float."""
    tracer = _Tracer(graph)
    return {value.name: merged(list(tracer.uses(value.name))) for value in graph.input}


@dataclass(frozen=True)
class _Reached:
    """A tensor holding ``scale * input + offset``; ``loose`` where something unknown was added."""

    name: str
    scale: float = 1.0
    offset: float = 0.0
    loose: bool = False

    def upper(self, rows: int) -> int:
        """Return how many values of the input stay inside a table of so many rows, at least 1."""
        if self.loose:
            rows = (rows + 1) // 2
        if self.scale <= 0:
            return 1
        return max(1, int((rows - 1 - max(self.offset, 0.0)) / self.scale) + 1)


class _Tracer:
    """The readers of every tensor, subgraphs included (names are unique within a model)."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.readers: dict[str, list[tuple[onnx.NodeProto, int]]] = defaultdict(list)
        self.writers: dict[str, onnx.NodeProto] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.tensors: dict[str, onnx.TensorProto] = {}
        for inner in graphs(graph):
            self.tensors.update((tensor.name, tensor) for tensor in inner.initializer)
            for value in (*inner.input, *inner.value_info):
                dims = value.type.tensor_type.shape.dim
                self.shapes.setdefault(value.name, tuple(dim.dim_value for dim in dims))
        for node in nodes(graph):
            for position, name in enumerate(node.input):
                self.readers[name].append((node, position))
            for name in node.output:
                self.writers[name] = node
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name == "value":
                    self.tensors[node.output[0]] = attribute.t
        self.shapes |= {name: tuple(tensor.dims) for name, tensor in self.tensors.items()}

    def uses(self, name: str) -> Iterator[Use]:
        """Yield the uses of a tensor's numbers, wherever these get."""
        todo, seen = [_Reached(name)], {name}
        while todo:
            reached = todo.pop()
            for node, position in self.readers[reached.name]:
                yield self._use(node, position, reached)
                for following in self._following(node, position, reached):
                    if following.name not in seen:
                        seen.add(following.name)
                        todo.append(following)

    def _use(self, node: onnx.NodeProto, position: int, reached: _Reached) -> Use:
        operator = facts(node.op_type, node.domain)
        table = operator.indexes.get(position)
        if table is not None and table < len(node.input):
            # Of the axis that an index selects from; in the ND forms one bound holds for all.
            shape, rows = self._shape(node.input[table]), 0
            axis = next((a.i for a in node.attribute if a.name in ("axis", "gather_axis")), 0)
            if shape and node.op_type in ("GatherND", "ScatterND"):
                rows = min(shape)
            elif -len(shape) <= axis < len(shape):
                rows = shape[axis]
            return Use("index", reached.upper(rows) if rows else 1)
        if position in operator.extents:
            return Use("length" if Extent.LENGTH in operator.extents[position] else "extent")
        if position in operator.limits:
            limit = self._scalar(node.input[operator.limits[position]])
            return Use("index", reached.upper(int(limit)) if limit else 1)
        return Use("value")

    def _rows(self, node: onnx.NodeProto, table: str) -> int:
        """Return the size of the axis that an index selects from, 0 if it is not known."""
        shape = self._shape(table)
        if not shape:
            return 0
        if facts(node.op_type, node.domain).multi_index:
            return min(shape)  # one bound for every column of the indices
        axis = next((a.i for a in node.attribute if a.name in ("axis", "gather_axis")), 0)
        return shape[axis] if -len(shape) <= axis < len(shape) else 0

    def _shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, through operators that do not change it; () if unknown."""
        for _ in range(len(self.writers) + 1):
            if name in self.shapes:
                return self.shapes[name]
            node = self.writers.get(name)
            if node is None or not node.input:
                return ()
            operator = facts(node.op_type, node.domain)
            if node.op_type == "Transpose":
                shape = self._shape(node.input[0])
                perm = next((a.ints for a in node.attribute if a.name == "perm"), None)
                order = range(len(shape))[::-1] if perm is None else perm
                return tuple(shape[i] for i in order) if shape else ()
            if not operator.in_place and not operator.quantizes:
                return ()
            name = node.input[0]
        return ()

    def _scalar(self, name: str) -> float | None:
        """Return the value of a one-element constant, through casts and reshapes; else None."""
        node = self.writers.get(name)
        while node is not None and facts(node.op_type, node.domain).in_order:
            name = node.input[0]
            node = self.writers.get(name)
        tensor = self.tensors.get(name)
        if tensor is not None:
            small = all(dim == 1 for dim in tensor.dims) and tensor.data_location == 0
            return float(numpy_helper.to_array(tensor).reshape(())) if small else None
        for attribute in node.attribute if node is not None else ():
            if attribute.name in ("value_int", "value_float"):
                return float(attribute.i or attribute.f)
        return None

    def _following(
        self, node: onnx.NodeProto, position: int, reached: _Reached
    ) -> Iterator[_Reached]:
        """Yield the tensors behind this node that still hold the input's values."""
        scale, offset, loose = reached.scale, reached.offset, reached.loose
        operator = facts(node.op_type, node.domain)
        if node.op_type in ("Loop", "Scan"):
            body = next(attribute.g for attribute in node.attribute if attribute.name == "body")
            if position < len(body.input):
                yield _Reached(body.input[position].name, scale, offset, loose)
        elif position in operator.carries:
            yield from (_Reached(name, scale, offset, loose) for name in node.output)
        elif (operator.summands or operator.kind is Kind.PRODUCT) and len(node.input) == 2:
            constant = self._scalar(node.input[1 - position])
            if operator.kind is Kind.PRODUCT and constant is not None:
                scale, offset = scale * constant, offset * constant
            elif operator.summands:
                sign, other = (
                    1 if i in operator.summands else -1 for i in (position, 1 - position)
                )
                scale, offset = sign * scale, sign * offset + other * (constant or 0.0)
            yield _Reached(node.output[0], scale, offset, loose or constant is None)
