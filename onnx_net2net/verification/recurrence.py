"""LSTM, GRU and RNN written out in float64, which onnxruntime's own kernels of them do not know.

>>> nodes = unrolled(lstm_node, opset=17)                # a Scan over time, and what it needs
>>> {"Scan", "MatMul"} <= {node.op_type for node in nodes}
True

The formulas are those of the ONNX standard: W, R, B and P hold the gates in the order iofc (LSTM)
and zrh (GRU); sequences that are shorter than the rest keep their last state and give zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_net2net.model.schemas import domain_of

RECURRENT = {"GRU": 3, "LSTM": 4, "RNN": 1}  # gates
_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
_ACTIVATIONS = {"GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh"), "RNN": ("Tanh",)}
FIRST_OPSET = 11  # from here on Scan, Clip and ReverseSequence are what they are today


class NotWritable(RuntimeError):
    """The node has something that is not written out here, such as a rare activation."""


def is_recurrent(node: onnx.NodeProto) -> bool:
    """Return whether it is one of those that are written out here."""
    return not domain_of(node) and node.op_type in RECURRENT


@dataclass
class _Graph:
    """Nodes that are written one after the other; ``_(...)`` gives the name of the result."""

    prefix: str
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{self.prefix} ({len(self.nodes)})"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any, dtype: type = np.float64) -> str:
        return self("Constant", value=numpy_helper.from_array(np.array(value, dtype)))

    def part(self, name: str, start: int, stop: int) -> str:
        """Take columns of the last axis."""
        return self("Gather", name, self.constant(range(start, stop), np.int64), axis=-1)

    def wrapped(self, name: str, axis: int) -> str:
        """Add an axis of size 1."""
        if self.opset < 13:
            return self("Unsqueeze", name, axes=[axis])
        return self("Unsqueeze", name, self.constant([axis], np.int64))


def unrolled(node: onnx.NodeProto, opset: int) -> list[onnx.NodeProto]:
    """Return nodes that compute the same outputs from the same inputs, all floats in float64.

    Raises NotWritable where that is not known.
    """
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    cell = _Cell(node, attributes, opset)
    graph = cell.graph
    results = [cell.direction(index) for index in range(len(cell.directions))]
    for position, name in enumerate(node.output):
        if name:
            axis = 0 if position else 1
            parts = [graph.wrapped(result[position], axis) for result in results]
            graph.nodes.append(helper.make_node("Concat", parts, [name], axis=axis))
    return graph.nodes


class _Cell:
    """One recurrent node: its inputs by name, its attributes, and the graph that replaces it."""

    def __init__(self, node: onnx.NodeProto, attributes: dict[str, Any], opset: int) -> None:
        self.op = node.op_type
        names = [name or None for name in node.input]
        self.inputs: dict[str, str | None] = dict(zip(_INPUTS, names, strict=False))
        self.graph = _Graph(next(filter(None, node.output)), opset)
        rare = {"activation_alpha", "activation_beta", "layout"}
        if opset < FIRST_OPSET or "hidden_size" not in attributes or any(map(attributes.get, rare)):
            raise NotWritable(self.op)
        self.attributes = attributes
        self.size = int(attributes["hidden_size"])
        way = attributes.get("direction", b"forward").decode()
        self.directions = ["forward", "reverse"] if way == "bidirectional" else [way]
        default = _ACTIVATIONS[self.op]
        named = [name.decode() for name in attributes.get("activations", [])]
        self.activations = named or [*default] * len(self.directions)

    def taken(self, name: str) -> str:
        tensor = self.inputs.get(name)
        if tensor is None:
            raise NotWritable(f"no input {name}")
        return tensor

    def direction(self, index: int) -> tuple[str, str, str]:
        """Write one direction; return its outputs: all steps, and the last state of both kinds."""
        graph, gates, x = self.graph, RECURRENT[self.op] * self.size, self.taken("X")
        first = graph.constant(index, np.int64)
        weight, again = (
            graph("Transpose", graph("Gather", self.taken(name), first, axis=0), perm=[1, 0])
            for name in "WR"
        )
        bias, peep = (
            graph("Gather", given, first, axis=0) if given else None
            for given in map(self.inputs.get, "BP")
        )
        fed = graph("MatMul", x, weight)
        if bias:
            fed = graph("Add", fed, graph.part(bias, 0, gates))
        behind = graph.part(bias, gates, 2 * gates) if bias else graph.constant([0.0] * gates)
        backward, lengths = self.directions[index] == "reverse", self.inputs.get("sequence_lens")
        if backward and lengths:
            fed = self._reversed(fed, lengths)
        states = [self._initial(name, first, x) for name in self._states]
        body = _Step(self, f"{graph.prefix}/step{index}", (again, behind, peep), index).body()
        flip = int(backward and not lengths)
        outputs = [f"{graph.prefix}/{kind}{index}" for kind in ("t", "h", "c")[: 1 + len(states)]]
        names = [*outputs, f"{graph.prefix}/y{index}"]
        scan = helper.make_node(
            "Scan", [graph.constant(0, np.int64), *states, fed], names,
            body=body, num_scan_inputs=1,
            scan_input_directions=[flip], scan_output_directions=[flip],
        )  # fmt: skip
        graph.nodes.append(scan)
        whole = self._reversed(names[-1], lengths) if backward and lengths else names[-1]
        return whole, outputs[1], outputs[-1]

    @property
    def _states(self) -> Sequence[str]:
        return ("initial_h", "initial_c") if self.op == "LSTM" else ("initial_h",)

    def _reversed(self, name: str, lengths: str) -> str:
        whole = self.graph("Cast", lengths, to=TensorProto.INT64)
        return self.graph("ReverseSequence", name, whole, batch_axis=1, time_axis=0)

    def _initial(self, name: str, index: str, x: str) -> str:
        graph, given = self.graph, self.inputs.get(name)
        if given is not None:
            return graph("Gather", given, index, axis=0)
        batch = graph("Gather", graph("Shape", x), graph.constant([1], np.int64), axis=0)
        shape = graph("Concat", batch, graph.constant([self.size], np.int64), axis=0)
        zero = numpy_helper.from_array(np.zeros(1))
        return graph("ConstantOfShape", shape, value=zero)


class _Step:
    """The body of the Scan: one step in time of one direction."""

    def __init__(
        self, cell: _Cell, prefix: str, weights: tuple[str, str, str | None], index: int
    ) -> None:
        self.cell = cell
        self.graph = _Graph(prefix, cell.graph.opset)
        self.again, self.bias, self.peep = weights
        count = len(cell.activations) // len(cell.directions)
        self.activations = cell.activations[index * count : (index + 1) * count]

    def body(self) -> onnx.GraphProto:
        graph, lengths = self.graph, self.cell.inputs.get("sequence_lens")
        state = [f"{graph.prefix}/{name}" for name in ("h", "c")[: len(self.cell._states)]]
        time, fed = f"{graph.prefix}/time", f"{graph.prefix}/fed"
        new = getattr(self, f"_{self.cell.op.lower()}")(fed, *state)
        shown = new[0]
        if lengths:
            within = graph("Less", time, graph("Cast", lengths, to=TensorProto.INT64))
            within = graph.wrapped(within, 1)
            shown = graph("Where", within, shown, graph.constant(0.0))
            new = [graph("Where", within, n, s) for n, s in zip(new, state, strict=True)]
        later = graph("Add", time, graph.constant(1, np.int64))
        given = [(time, TensorProto.INT64), *((name, TensorProto.DOUBLE) for name in (*state, fed))]
        results = [(later, TensorProto.INT64)]
        # Each result has a name of its own, also where two are the same tensor.
        results += [(graph("Identity", name), TensorProto.DOUBLE) for name in (*new, shown)]
        return helper.make_graph(
            graph.nodes,
            "step",
            [helper.make_tensor_value_info(name, kind, None) for name, kind in given],
            [helper.make_tensor_value_info(name, kind, None) for name, kind in results],
        )

    def _gate(self, position: int, *terms: str) -> str:
        """Write the activation of the sum of some terms."""
        total = terms[0]
        for term in terms[1:]:
            total = self.graph("Add", total, term)
        limit = self.cell.attributes.get("clip", 0.0)
        if limit:
            ends = self.graph.constant(-limit), self.graph.constant(limit)
            total = self.graph("Clip", total, *ends)
        return self._activated(position, total)

    def _activated(self, position: int, x: str) -> str:
        name = self.activations[position].capitalize()
        if name not in ("Relu", "Sigmoid", "Tanh"):
            raise NotWritable(name)
        return self.graph(name, x)

    def _parts(self, name: str) -> list[str]:
        size = self.cell.size
        count = RECURRENT[self.cell.op]
        return [self.graph.part(name, i * size, (i + 1) * size) for i in range(count)]

    def _recurrent(self, h: str) -> str:
        return self.graph("Add", self.graph("MatMul", h, self.again), self.bias)

    def _rnn(self, fed: str, h: str) -> list[str]:
        return [self._gate(0, fed, self._recurrent(h))]

    def _gru(self, fed: str, h: str) -> list[str]:
        graph = self.graph
        xz, xr, xh = self._parts(fed)
        hz, hr, hh = self._parts(self._recurrent(h))
        update, reset = self._gate(0, xz, hz), self._gate(0, xr, hr)
        if self.cell.attributes.get("linear_before_reset", 0):
            candidate = self._gate(1, xh, graph("Mul", reset, hh))
        else:
            weight, bias = self._parts(self.again)[2], self._parts(self.bias)[2]
            product = graph("MatMul", graph("Mul", reset, h), weight)
            candidate = self._gate(1, xh, graph("Add", product, bias))
        fresh = graph("Mul", graph("Sub", graph.constant(1.0), update), candidate)
        return [graph("Add", fresh, graph("Mul", update, h))]

    def _lstm(self, fed: str, h: str, c: str) -> list[str]:
        graph, size = self.graph, self.cell.size
        xi, xo, xf, xc = self._parts(fed)
        hi, ho, hf, hc = self._parts(self._recurrent(h))
        peeps = (
            [graph.part(self.peep, i * size, (i + 1) * size) for i in range(3)] if self.peep else []
        )
        near = [[graph("Mul", p, c)] for p in (peeps[0], peeps[2])] if peeps else [[], []]
        i = self._gate(0, xi, hi, *near[0])
        if self.cell.attributes.get("input_forget", 0):
            f = graph("Sub", graph.constant(1.0), i)
        else:
            f = self._gate(0, xf, hf, *near[1])
        new = graph("Add", graph("Mul", f, c), graph("Mul", i, self._gate(1, xc, hc)))
        o = self._gate(0, xo, ho, *([graph("Mul", peeps[1], new)] if peeps else []))
        return [graph("Mul", o, self._activated(2, new)), new]
