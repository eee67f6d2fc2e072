"""Loops over functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def loop(
    body: Callable[..., Any],
    most: int | None,
    condition: bool | Tensor,
    states: Sequence[Any],
    count: int,
    device: torch.device,
    rows: Sequence[tuple[tuple[int, ...], torch.dtype]] | None = (),
) -> tuple[Any, ...]:
    """Run a body until it stops; return the last states, and the other results stacked."""
    collected: list[list[Tensor]] = []
    step = 0
    running = torch.as_tensor(condition, device=device)
    while bool(running) and (most is None or step < most):
        result = body(torch.tensor(step, device=device), running, *states)
        running, *rest = result if isinstance(result, tuple) else (result,)
        states, given = rest[:count], rest[count:]
        collected = collected or [[] for _ in given]
        for kept, row in zip(collected, given, strict=True):
            kept.append(row)
        step += 1
    if step:
        return *states, *(torch.stack(kept) for kept in collected)
    if rows is None:
        raise ValueError("a loop does not run once, and the sizes of what it stacks are not known")
    nothing = [torch.empty((0, *shape), dtype=dtype, device=device) for shape, dtype in rows]
    return *states, *nothing


def scan(
    body: Callable[..., Any],
    inputs: Sequence[Tensor],
    count: int,
    axes: Sequence[int],
    backward: Sequence[int],
    out_axes: Sequence[int],
    out_backward: Sequence[int],
) -> tuple[Tensor, ...]:
    """Run a body over slices; return the last states, and the other results stacked."""
    states = list(inputs[:count])
    scanned = [x.unbind(axis) for x, axis in zip(inputs[count:], axes, strict=True)]
    scanned = [x[::-1] if flip else x for x, flip in zip(scanned, backward, strict=True)]
    collected: list[list[Tensor]] = [[] for _ in out_axes]
    for rows in zip(*scanned, strict=True):
        result = body(*states, *rows)
        result = result if isinstance(result, tuple) else (result,)
        states = list(result[:count])
        for kept, row in zip(collected, result[count:], strict=True):
            kept.append(row)
    stacked = [
        torch.stack(rows[::-1] if flip else rows, dim=axis)
        for rows, axis, flip in zip(collected, out_axes, out_backward, strict=True)
    ]
    return *states, *stacked
