"""Recurrent layers in ONNX's layout: weights (directions, gates * hidden, ...)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def reordered(weight: Tensor, order: Sequence[int]) -> Tensor:
    """Return a weight with its gates in another order."""
    gates = weight.chunk(len(order))
    return torch.cat([gates[i] for i in order])


def fused_recurrence(
    name: str,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    states: Sequence[Tensor],
    direction: str,
) -> tuple[Tensor, ...]:
    """Run PyTorch's own ``lstm``, ``gru``, ``rnn_tanh`` or ``rnn_relu``: output and last states."""
    order = {"lstm": (0, 2, 3, 1), "gru": (1, 0, 2)}.get(name, (0,))
    weights = []
    for index in range(w.shape[0]):
        parts = [w[index], r[index]]
        parts += [] if b is None else list(b[index].chunk(2))
        weights += [reordered(part, order) for part in parts]
    x = x.flip(0) if direction == "reverse" else x
    both = direction == "bidirectional"
    start = tuple(states) if name == "lstm" else states[0]
    function = getattr(torch._VF, name)
    y, *last = function(x, start, weights, b is not None, 1, 0.0, False, both, False)
    y = y.reshape(*y.shape[:2], w.shape[0], -1).transpose(1, 2)
    return (y.flip(0) if direction == "reverse" else y), *last


def recurrence(
    step: Callable[..., tuple[Tensor, ...]],
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    states: Sequence[Tensor],
    direction: str,
    lengths: Tensor | None,
    activations: Sequence[Callable[[Tensor], Tensor]],
    p: Tensor | None,
    clip: float,
) -> tuple[Tensor, ...]:
    """Run a layer step by step, for what PyTorch's own layers do not have."""
    backward = {"forward": [False], "reverse": [True]}.get(direction, [False, True])
    count = len(activations) // len(backward)
    outputs, lasts = [], []
    for index, flipped in enumerate(backward):
        state = [s[index] for s in states]
        functions = list(activations[index * count : (index + 1) * count])
        peepholes = [] if p is None else [p[index]]
        bias = x.new_zeros(2 * w.shape[1]) if b is None else b[index]
        given, back = x @ w[index].T + bias[: w.shape[1]], bias[w.shape[1] :]
        rows: list[Tensor] = [x[0]] * x.shape[0]
        for time in reversed(range(x.shape[0])) if flipped else range(x.shape[0]):
            new = list(step(given[time], *state, r[index], back, functions, clip, *peepholes))
            rows[time] = new[0]
            if lengths is not None:
                running = (time < lengths)[:, None]
                rows[time] = torch.where(running, new[0], torch.zeros_like(new[0]))
                new = [torch.where(running, n, s) for n, s in zip(new, state, strict=True)]
            state = new
        if lengths is not None:  # of nothing, the last state is zero
            state = [torch.where((lengths > 0)[:, None], s, torch.zeros_like(s)) for s in state]
        outputs.append(torch.stack(rows))
        lasts.append(state)
    return torch.stack(outputs, dim=1), *(torch.stack(s) for s in zip(*lasts, strict=True))


def clipped(x: Tensor, limit: float) -> Tensor:
    """Keep within -limit and limit; 0 is no limit."""
    return x.clamp(-limit, limit) if limit else x


def lstm_step(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    r: Tensor,
    b: Tensor,
    functions: list[Callable[..., Tensor]],
    clip: float,
    p: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute one step of an LSTM with gates i, o, f, c and peepholes i, o, f."""
    i, o, f, g = (x + h @ r.T + b).chunk(4, dim=1)
    pi, po, pf = (0.0, 0.0, 0.0) if p is None else p.chunk(3)
    inner, cell, outer = functions
    i, f = inner(clipped(i + pi * c, clip)), inner(clipped(f + pf * c, clip))
    new = f * c + i * cell(clipped(g, clip))
    return inner(clipped(o + po * new, clip)) * outer(new), new


def gru_step(
    x: Tensor, h: Tensor, r: Tensor, b: Tensor, functions: list[Callable[..., Tensor]], clip: float
) -> tuple[Tensor]:
    """Compute one step of a GRU with gates z, r, h whose reset comes before the product."""
    size, (inner, outer) = h.shape[1], functions
    back = h @ r[: 2 * size].T + b[: 2 * size]
    z, reset = inner(clipped(x[:, : 2 * size] + back, clip)).chunk(2, dim=1)
    hidden = (reset * h) @ r[2 * size :].T + b[2 * size :]
    new = outer(clipped(x[:, 2 * size :] + hidden, clip))
    return ((1 - z) * new + z * h,)


def gru_step_after(
    x: Tensor, h: Tensor, r: Tensor, b: Tensor, functions: list[Callable[..., Tensor]], clip: float
) -> tuple[Tensor]:
    """Compute one step of a GRU with gates z, r, h whose reset comes after the product."""
    size, (inner, outer) = h.shape[1], functions
    back = h @ r.T + b
    z, reset = inner(clipped((x + back)[:, : 2 * size], clip)).chunk(2, dim=1)
    new = outer(clipped(x[:, 2 * size :] + reset * back[:, 2 * size :], clip))
    return ((1 - z) * new + z * h,)


def rnn_step(
    x: Tensor, h: Tensor, r: Tensor, b: Tensor, functions: list[Callable[..., Tensor]], clip: float
) -> tuple[Tensor]:
    """Compute one step of a plain recurrent layer."""
    return (functions[0](clipped(x + h @ r.T + b, clip)),)
