"""LSTM, GRU and RNN as Keras' layers, which want the batch in front and order gates otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import layers, ops

from onnx_net2net.frameworks.keras.arranged import Arranged
from onnx_net2net.frameworks.keras.builder import Builder
from onnx_net2net.frameworks.keras.layers import Maker
from onnx_net2net.frameworks.keras.moved import Moved
from onnx_net2net.frameworks.keras.values import dtype_of
from onnx_net2net.frameworks.step import ProgramStep

__all__ = ["TABLES"]

ACTIVATIONS = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Softplus": "softplus", "Softsign": "softsign",
    "Tanh": "tanh",
}  # fmt: skip


@dataclass(frozen=True)
class Recurrence:
    """An operator: Keras' layer, its gates by their places in ONNX's order, and its activations."""

    layer: Any
    gates: tuple[int, ...]
    states: int
    defaults: tuple[str, ...]


KINDS = {
    "GRU": Recurrence(layers.GRU, (0, 1, 2), 1, ("Sigmoid", "Tanh")),
    "LSTM": Recurrence(layers.LSTM, (0, 2, 3, 1), 2, ("Sigmoid", "Tanh", "Tanh")),
    "RNN": Recurrence(layers.SimpleRNN, (0,), 1, ("Tanh",)),
}


def recurrent(build: Builder, step: ProgramStep) -> list[Any] | None:
    """Return what the layers of one or both directions make."""
    kind = KINDS[step.op]
    options = _options(step, kind)
    w, r = (build.sole(name) for name in step.inputs[1:3])
    rest = [*step.inputs[3:], *[""] * 5][:5]
    bias = build.sole(rest[0], zeros=True)
    if options is None or w is None or r is None or (rest[0] and bias is None) or rest[1]:
        return None
    if any(rest[2 + kind.states :]) or not _held_by_one(build, bias, options):
        return None
    x = build.symbolic(step.inputs[0])
    if dtype_of(x.value) != "float32" or x.size(2) is None:
        return None
    value = x.stored((0, 1, 2) if step.attributes.get("layout", 0) else (1, 0, 2))
    starts = _starts(build, rest[2 : 2 + kind.states])
    states = 1 if step.attributes.get("layout", 0) else 0  # the axis of directions
    if starts is None:
        return None
    direction = step.attributes.get("direction", "forward")
    if direction not in ("forward", "reverse", "bidirectional"):
        return None
    results = []
    for place in range(w.shape[0]):
        backwards = place == 1 or direction == "reverse"
        layer = kind.layer(
            r.shape[-1],
            **options,
            use_bias=bias is not None,
            return_sequences=True,
            return_state=True,
            go_backwards=backwards,
            dtype="float32",
            name=build.layer_name(step, w if w.shape[0] == 1 else None),
        )
        if w.shape[0] == 1:
            given = [start.stored((1 - states, 2)) for start in starts]
        else:
            given = [start.stored((states, 1 - states, 2))[place] for start in starts]
        y, *last = layer(value, initial_state=given) if given else layer(value)
        results.append((ops.flip(y, 1) if backwards else y, *last))
        _hold(build, layer.cell, kind, (w, r, bias), place, options)
    return _joined(step, results)


def _held_by_one(build: Builder, bias: Moved | None, options: dict[str, Any]) -> bool:
    """Return whether each half of a bias is weights or zeros, and Keras' variable holds no zeros.

    Keras has one bias, and that of a GRU with ``reset_after`` both halves.
    """
    if bias is None:
        return True
    given = bias.numbers(build.shapes).reshape(bias.shape[0], 2, -1) > 0
    halves = given.any(axis=-1)
    enough = halves.all() if options.get("reset_after") else halves.any(axis=-1).all()
    return bool(enough and (given.all(axis=-1) == halves).all())


def _options(step: ProgramStep, kind: Recurrence) -> dict[str, Any] | None:
    """Return how the layer is made, None where it has no such form."""
    attributes = step.attributes
    names = list(attributes.get("activations") or [])
    count = len(kind.defaults)
    names = names or list(kind.defaults) * 2
    given = [attributes.get(f"activation_{key}") for key in ("alpha", "beta")]
    attributes.get("hidden_size")
    if any(given) or attributes.get("clip") is not None or attributes.get("input_forget", 0):
        return None
    ways = [names[at : at + count] for at in range(0, len(names), count)]
    if any(way != ways[0] for way in ways) or any(n not in ACTIVATIONS for n in ways[0]):
        return None
    first, *others = (ACTIVATIONS[name] for name in ways[0])
    reset = bool(attributes.get("linear_before_reset", 0))
    if count == 1:
        return {"activation": first}
    if len(set(others)) > 1:
        return None
    options = {"recurrent_activation": first, "activation": others[0]}
    return {**options, "reset_after": reset} if kind.layer is layers.GRU else options


def _starts(build: Builder, names: list[str]) -> list[Arranged] | None:
    """Return the states that it starts from, none where they are zero."""
    constants = [build.constant(name) if name else np.zeros(()) for name in names]
    if all(value is not None and not np.any(value) for value in constants):
        return []
    if not all(names):
        return None
    return [build.symbolic(name) for name in names]


def _hold(
    build: Builder, cell: Any, kind: Recurrence, weights: Any, place: int, options: Any
) -> None:
    """Note what the variables of one direction hold."""
    w, r = (x.part(place) for x in weights[:2])
    bias = None if weights[2] is None else weights[2].part(place)
    build.hold(cell.kernel, _gated(w, kind).permuted(1, 0))
    build.hold(cell.recurrent_kernel, _gated(r, kind).permuted(1, 0))
    if bias is None:
        return
    size = bias.shape[0] // 2
    both = [bias.part(slice(at, at + size)) for at in (0, size)]
    if options.get("reset_after"):
        build.hold(cell.bias, bias.reshaped(2, size))
    else:
        given = [part for part in both if part.numbers(build.shapes).any()]
        build.hold(cell.bias, *(_gated(part, kind) for part in given))


def _gated(weight: Moved, kind: Recurrence) -> Moved:
    return weight.reordered(kind.gates, 0)


def _joined(step: ProgramStep, results: list[Any]) -> list[Any]:
    """Return outputs of both directions along an axis, one of size 1 where there is one."""
    if step.attributes.get("layout", 0):
        whole, last = (0, 1, 2, 3), (0, 1, 2)
    else:
        whole, last = (2, 0, 1, 3), (1, 0, 2)
    made = []
    for place, column in enumerate(zip(*results, strict=True)):
        axes = last if place else whole
        if len(column) > 1:
            made.append(Arranged(ops.stack(list(column), axis=-2), axes, len(axes)))
        else:
            made.append(Arranged(column[0], tuple(a for a in axes if a != axes[-2]), len(axes)))
    return made[: len(step.outputs)]


TABLES: dict[str, dict[str, Maker]] = {"": dict.fromkeys(KINDS, recurrent)}
