"""If, Loop and Scan: decided while tracing where what they depend on is known."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from onnx_net2net.frameworks.keras.operation import Entry, KerasOperation
from onnx_net2net.frameworks.keras.scanning import looped, scanned
from onnx_net2net.frameworks.keras.traced import ops
from onnx_net2net.frameworks.keras.values import known, number, sizes, tensor

__all__ = ["TABLES"]

LONGEST = 64  # iterations that are written out one after the other


def branch(op: KerasOperation, condition: Any) -> list[Any]:
    """Run the branch taken, or leave the choice of both to the backend."""
    choice = known(condition)
    if choice is not None:
        return op.body("then_branch" if choice.reshape(-1)[0] else "else_branch", [])

    def side(name: str) -> list[Any]:
        return [tensor(value) for value in op.body(name, [])]

    chosen = ops.cond(
        ops.reshape(tensor(condition), ()),
        lambda: side("then_branch"),
        lambda: side("else_branch"),
    )
    return list(chosen)


def loop(op: KerasOperation, count: Any, condition: Any, *states: Any) -> list[Any]:
    """Write out a loop whose number of iterations is known, else leave it to the backend."""
    total = number(count)
    start = True if condition is None else known(condition)
    if (total is None or isinstance(total, int)) and start is not None:
        done = _unrolled(op, total, bool(np.all(start)), list(states))
        if done is not None:
            return done
    return _while(op, total, condition, list(states))


def _unrolled(
    op: KerasOperation, total: int | None, goes_on: bool, states: list[Any]
) -> list[Any] | None:
    """Return results, or None where an iteration decides by its data whether another follows."""
    carried = len(states)
    rows: list[list[Any]] = []
    step = 0
    while goes_on and (total is None or step < total):
        results = op.body("body", [np.array(step, np.int64), np.array(True), *states])
        states = results[1 : 1 + carried]
        rows.append(results[1 + carried :])
        step += 1
        decision = known(results[0])
        if decision is None and (total is None or step < total):
            return None
        goes_on = decision is None or bool(np.all(decision))
    if not rows and len(op.step.outputs) > carried:
        op.refuse("it stacks the results of no iteration")
    return [*states, *(_stacked(list(column), 0) for column in zip(*rows, strict=True))]


def _stacked(parts: list[Any], axis: int) -> Any:
    return ops.stack([tensor(part) for part in parts], axis=axis)


def _while(op: KerasOperation, total: Any, condition: Any, states: list[Any]) -> list[Any]:
    """Run a loop whose end the data decide."""
    carried = len(states)
    if any(op.step.outputs[carried:]) and keras.backend.backend() != "tensorflow":
        op.refuse("it collects results of iterations whose number only the data tell")

    def body(step: Any, goes_on: Any, now: list[Any]) -> tuple[Any, list[Any], list[Any]]:
        results = op.body("body", [ops.cast(step, "int64"), goes_on, *now])
        tensors = [tensor(value) for value in results]
        return ops.reshape(tensors[0], ()), tensors[1 : 1 + carried], tensors[1 + carried :]

    first = True if condition is None else ops.reshape(tensor(condition), ())
    limit = 2**31 - 1 if total is None else total
    states, columns = looped(body, [tensor(state) for state in states], limit, first)
    return [*states, *columns]


def scan(op: KerasOperation, *values: Any) -> list[Any]:
    """Run the body for each entry along axes of its last inputs."""
    if op.opset < 9:
        op.refuse("the batch axis of Scan in opset 8 is not translated")
    count = op.attribute("num_scan_inputs")
    states, given = list(values[:-count]), [tensor(value) for value in values[-count:]]
    axes = op.attribute("scan_input_axes") or [0] * count
    turned = op.attribute("scan_input_directions") or [0] * count
    given = [ops.moveaxis(x, axis, 0) for x, axis in zip(given, axes, strict=True)]
    given = [ops.flip(x, 0) if flag else x for x, flag in zip(given, turned, strict=True)]
    length = sizes(given[0])[0]
    carried = len(states)
    if isinstance(length, int) and length <= LONGEST:
        rows = []
        for step in range(length):
            results = op.body("body", [*states, *(x[step] for x in given)])
            states, row = results[:carried], results[carried:]
            rows.append(row)
        columns = [_stacked(list(column), 0) for column in zip(*rows, strict=True)]
    else:
        states, columns = scanned(
            lambda now, entries: _parted(op.body("body", [*now, *entries]), carried),
            [tensor(state) for state in states],
            given,
        )
    return [*states, *_directed(op, columns)]


def _parted(results: list[Any], carried: int) -> tuple[list[Any], list[Any]]:
    """Split what a body returns into new states and what is collected."""
    tensors = [tensor(value) for value in results]
    return tensors[:carried], tensors[carried:]


def _directed(op: KerasOperation, columns: list[Any]) -> list[Any]:
    """Turn collected rows to the axis and into the direction that the node asks for."""
    axes = op.attribute("scan_output_axes") or [0] * len(columns)
    turned = op.attribute("scan_output_directions") or [0] * len(columns)
    turned_rows = []
    for column, axis, flag in zip(columns, axes, turned, strict=True):
        column = ops.flip(column, 0) if flag else column
        turned_rows.append(ops.moveaxis(column, 0, axis))
    return turned_rows


TABLES: dict[str, dict[str, Entry]] = {"": {"If": branch, "Loop": loop, "Scan": scan}}
