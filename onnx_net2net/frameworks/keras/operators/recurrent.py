"""LSTM, GRU and RNN: weights in ONNX's layout, both directions, sequences of unequal length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation
from onnx_net2net.frameworks.keras.operators.elementwise import activation
from onnx_net2net.frameworks.keras.scanning import scanned
from onnx_net2net.frameworks.keras.traced import ops
from onnx_net2net.frameworks.keras.values import dtype_of, sizes, tensor

__all__ = ["TABLES"]

LONGEST = 32  # steps that are written out one after the other
Function = Callable[[Any], Any]


@dataclass(frozen=True)
class Cell:
    """The weights and activations of one direction."""

    recurrent: Any  # (gates * hidden, hidden)
    bias: Any  # (gates * hidden), of what is recurrent
    peepholes: Any
    functions: tuple[Function, ...]
    clip: float | None
    hidden: int
    flag: int  # input_forget of LSTM, linear_before_reset of GRU

    def limited(self, x: Any) -> Any:
        """Clip what enters an activation."""
        return x if self.clip is None else ops.clip(x, -self.clip, self.clip)

    def parts(self, gates: Any, count: int) -> list[Any]:
        """Return the gates one by one."""
        return [gates[:, i * self.hidden : (i + 1) * self.hidden] for i in range(count)]


def lstm_step(cell: Cell, gates: Any, states: list[Any]) -> list[Any]:
    """Return the new states; gates in the order input, output, forget, cell."""
    hidden, memory = states
    gates = gates + ops.matmul(hidden, ops.transpose(cell.recurrent))
    i, o, f, c = cell.parts(gates, 4)
    sigmoid, squash, out = cell.functions
    if cell.peepholes is not None:
        pi, po, pf = (cell.peepholes[k * cell.hidden : (k + 1) * cell.hidden] for k in range(3))
        i, f = i + pi * memory, f + pf * memory
    i = sigmoid(cell.limited(i))
    f = 1 - i if cell.flag else sigmoid(cell.limited(f))
    memory = f * memory + i * squash(cell.limited(c))
    if cell.peepholes is not None:
        o = o + po * memory
    return [sigmoid(cell.limited(o)) * out(memory), memory]


def gru_step(cell: Cell, gates: Any, states: list[Any]) -> list[Any]:
    """Return the new state; gates in the order update, reset, hidden."""
    (hidden,) = states
    z, r, h = cell.parts(gates, 3)
    rz, rr, rh = (cell.recurrent[k * cell.hidden : (k + 1) * cell.hidden] for k in range(3))
    bias = cell.bias[2 * cell.hidden :]
    sigmoid, squash = cell.functions
    z = sigmoid(cell.limited(z + ops.matmul(hidden, ops.transpose(rz))))
    r = sigmoid(cell.limited(r + ops.matmul(hidden, ops.transpose(rr))))
    if cell.flag:
        h = h + r * (ops.matmul(hidden, ops.transpose(rh)) + bias)
    else:
        h = h + ops.matmul(r * hidden, ops.transpose(rh)) + bias
    return [(1 - z) * squash(cell.limited(h)) + z * hidden]


def rnn_step(cell: Cell, gates: Any, states: list[Any]) -> list[Any]:
    """Return the new state, of one activation."""
    (hidden,) = states
    gates = gates + ops.matmul(hidden, ops.transpose(cell.recurrent))
    return [cell.functions[0](cell.limited(gates))]


@dataclass(frozen=True)
class RecurrentOperator:
    """One of the three operators."""

    gates: int
    states: int
    step: Callable[[Cell, Any, list[Any]], list[Any]]
    defaults: tuple[str, ...]
    flag: str = ""
    apart: int = 0  # gates whose recurrent bias stays apart


LSTM = RecurrentOperator(4, 2, lstm_step, ("Sigmoid", "Tanh", "Tanh"), "input_forget")
GRU = RecurrentOperator(3, 1, gru_step, ("Sigmoid", "Tanh"), "linear_before_reset", 1)
RNN = RecurrentOperator(1, 1, rnn_step, ("Tanh",))


def recurrent(
    kind: RecurrentOperator, op: KerasOperation, x: Any, w: Any, r: Any, *rest: Any
) -> list[Any]:
    """Run all directions of one operator, on operands in the layout of the node."""
    b, lengths, *starts = op.padded(rest, 5 if kind is LSTM else 3)
    peepholes = starts[2] if kind is LSTM else None
    x, w, r = tensor(x), tensor(w), tensor(r)
    last = op.attribute("layout", 0)
    if last:
        x = ops.swapaxes(x, 0, 1)
        starts = [None if s is None else ops.swapaxes(tensor(s), 0, 1) for s in starts[:2]]
    lengths = None if lengths is None else ops.cast(tensor(lengths), "int32")
    outputs, ends = [], []
    for direction in range(w.shape[0]):
        cell = _cell(kind, op, direction, r, b, peepholes)
        backward = direction == 1 or op.attribute("direction", "forward") == "reverse"
        zeros = ops.broadcast_to(
            ops.zeros((1, cell.hidden), dtype_of(x)), (sizes(x)[1], cell.hidden)
        )
        given = starts[: kind.states]
        states = [zeros if start is None else tensor(start)[direction] for start in given]
        gates = _gates(kind, x, w[direction], b, direction, cell)
        y, final = _run(kind, cell, gates, states, lengths, backward)
        outputs.append(y)
        ends.append(final)
    y = ops.stack(outputs, axis=1)  # T D B H
    finals = [ops.stack(list(column), axis=0) for column in zip(*ends, strict=True)]
    if last:
        y = ops.transpose(y, (2, 0, 1, 3))
        finals = [ops.swapaxes(f, 0, 1) for f in finals]
    return [y, *finals]


def _cell(
    kind: RecurrentOperator, op: KerasOperation, direction: int, r: Any, b: Any, peepholes: Any
) -> Cell:
    hidden = r.shape[-1]
    names = op.attribute("activations") or list(kind.defaults) * (direction + 1)
    count = len(kind.defaults)
    given = {k: list(op.attribute(f"activation_{k}", [])) for k in ("alpha", "beta")}
    if any(given.values()) and len(names) != count:
        op.refuse("parameters of activations in two directions are not translated")
    functions = []
    for name in names[direction * count : (direction + 1) * count]:
        # A parameter belongs to the next activation that takes one.
        takes = {"alpha": _ALPHA, "beta": _BETA}
        chosen = {k: given[k].pop(0) for k in takes if name.lower() in takes[k] and given[k]}
        functions.append(activation(_NAMES.get(name.lower(), name), **chosen))
    bias = None
    if b is not None:
        bias = tensor(b)[direction][kind.gates * hidden :]
    elif kind.apart:
        bias = ops.zeros((kind.gates * hidden,), dtype_of(r))
    return Cell(
        r[direction],
        bias,
        None if peepholes is None else tensor(peepholes)[direction],
        tuple(functions),
        op.attribute("clip"),
        hidden,
        op.attribute(kind.flag, 0) if kind.flag else 0,
    )


_ALPHA = ("affine", "elu", "hardsigmoid", "leakyrelu", "scaledtanh", "thresholdedrelu")
_BETA = ("affine", "hardsigmoid", "scaledtanh")
_NAMES = {
    name.lower(): name
    for name in (
        "Affine", "Elu", "HardSigmoid", "LeakyRelu", "Relu", "ScaledTanh", "Sigmoid", "Softplus",
        "Softsign", "Tanh", "ThresholdedRelu",
    )
}  # fmt: skip


def _gates(kind: RecurrentOperator, x: Any, w: Any, b: Any, direction: int, cell: Cell) -> Any:
    """Return what the input adds to the gates of all steps, with what bias can be added now."""
    gates = ops.matmul(x, ops.transpose(w))
    if b is None:
        return gates
    count = kind.gates * cell.hidden
    both = tensor(b)[direction]
    early = (kind.gates - kind.apart) * cell.hidden
    bias = both[:count]
    return gates + bias + ops.concatenate([both[count : count + early], bias[early:] * 0])


def _run(
    kind: RecurrentOperator, cell: Cell, gates: Any, states: list[Any], lengths: Any, backward: bool
) -> tuple[Any, list[Any]]:
    """Run one direction: outputs of all steps, and the last states."""
    if backward:
        gates = _reversed(gates, lengths)
    count = sizes(gates)[0]
    steps = ops.arange(count, dtype="int32")

    def advance(now: list[Any], entries: list[Any]) -> tuple[list[Any], list[Any]]:
        gate, step = entries
        new = kind.step(cell, gate, now)
        if lengths is not None:
            running = ops.expand_dims(step < lengths, -1)
            new = [ops.where(running, a, b) for a, b in zip(new, now, strict=True)]
        return new, new[:1]

    if isinstance(count, int) and 0 < count <= LONGEST:
        outputs = []
        for step in range(count):
            states, row = advance(states, [gates[step], steps[step]])
            outputs.append(row[0])
        y = ops.stack(outputs, axis=0)
    else:
        states, (y,) = scanned(advance, states, [gates, steps])
    if lengths is not None:
        running = ops.expand_dims(ops.expand_dims(steps, -1) < lengths, -1)
        y = ops.where(running, y, ops.zeros_like(y))
    return (_reversed(y, lengths) if backward else y), states


def _reversed(x: Any, lengths: Any) -> Any:
    """Reverse along time, each sequence as far as it goes."""
    if lengths is None:
        return ops.flip(x, 0)
    steps = ops.expand_dims(ops.arange(sizes(x)[0], dtype="int32"), -1)
    index = ops.where(steps < lengths, lengths - 1 - steps, steps)
    index = ops.broadcast_to(ops.expand_dims(index, -1), sizes(x))
    return ops.take_along_axis(x, index, axis=0)


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "GRU": partial(recurrent, GRU),
        "LSTM": partial(recurrent, LSTM),
        "RNN": partial(recurrent, RNN),
    }
}
