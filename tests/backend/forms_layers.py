"""Forms of recurrent layers, losses and deformed convolutions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.backend.cases import Case
from tests.backend.forms import case, family, grid, ints, real


@family
def recurrent() -> Iterator[Case]:
    """LSTM, GRU and RNN: directions, lengths, first states, clips."""
    hidden, size, batch = 3, 2, 2
    choices = grid(
        direction=["forward", "reverse", "bidirectional"], time=[1, 4, 40], bias=[None, 1],
        lengths=[None, 1], states=[None, 1], clip=[None, 0.9], reset=[0, 1],
    )  # fmt: skip
    for (op, gates), c in itertools.product((("LSTM", 4), ("GRU", 3), ("RNN", 1)), choices):
        if c["reset"] and op != "GRU":
            continue
        time, two = c["time"], 2 if c["direction"] == "bidirectional" else 1
        state = real(two, batch, hidden, seed=4) if "states" in c else None
        feeds = {
            "x": real(time, batch, size),
            "w": real(two, gates * hidden, size, seed=1),
            "r": real(two, gates * hidden, hidden, seed=2),
            "b": real(two, 2 * gates * hidden, seed=3) if "bias" in c else None,
            "n": np.array([1, time], np.int32) if "lengths" in c else None,
            "h": state,
        }
        if op == "LSTM":
            feeds["c"] = state
            feeds["p"] = real(two, 3 * hidden, seed=5) if "bias" in c else None
        attributes: dict[str, Any] = {"hidden_size": hidden, "direction": c["direction"]}
        attributes |= {"clip": c["clip"]} if "clip" in c else {}
        attributes |= {"linear_before_reset": c["reset"]} if op == "GRU" else {}
        yield case(op, feeds, ("w", "r", "b", "p"), 14, 3 if op == "LSTM" else 2, **attributes)


@family
def losses() -> Iterator[Case]:
    """Losses of classes, with weights and classes left out."""
    for op, inner, weighted, stored, form in itertools.product(
        ("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"), ((), (4,), (4, 3)),
        (False, True), ((), ("w",), ("t", "w")),
        grid(reduction=[None, "none", "mean", "sum"], ignore_index=[None, -1, 2]),
    ):  # fmt: skip
        target = np.random.default_rng(1).integers(0, 5, (3, *inner))
        feeds = {"x": real(3, 5, *inner), "t": target, "w": np.abs(real(5)) if weighted else None}
        yield case(op, feeds, stored, 13, **form)


@family
def deforming() -> Iterator[Case]:
    """DeformConv: groups of both kinds, masks, strides and dilations."""
    for form in grid(
        group=[1, 2], offset_group=[1, 2], strides=[[1, 1], [2, 1]], dilations=[[1, 1], [1, 2]],
        pads=[[0, 0, 0, 0], [1, 0, 1, 2]], bias=[0, 1], mask=[0, 1], kernel=[(1, 1), (2, 3)],
    ):  # fmt: skip
        bias, mask, kernel = (form.pop(name) for name in ("bias", "mask", "kernel"))
        group, offsets = form["group"], form["offset_group"]
        area = kernel[0] * kernel[1]
        out = [
            (size + form["pads"][i] + form["pads"][2 + i] - (kernel[i] - 1) * form["dilations"][i]
             - 1) // form["strides"][i] + 1
            for i, size in enumerate((7, 9))
        ]  # fmt: skip
        feeds = {
            "x": real(2, 4, 7, 9),
            "w": real(2 * group, 4 // group, *kernel, seed=1),
            "o": real(2, offsets * area * 2, *out, seed=2),
            "b": real(2 * group, seed=3) if bias else None,
            "m": np.abs(real(2, offsets * area, *out, seed=4)) if mask else None,
        }
        yield case("DeformConv", feeds, ("w", "b"), 22, **form)


@family
def identities() -> Iterator[Case]:
    """Matrices with ones on a diagonal, and determinants."""
    for dtype, form in itertools.product(
        ("float32", "int32", "float64", "uint8", "bool"), grid(k=[None, -3, 2], dtype=[None, 1, 7])
    ):
        yield case("EyeLike", {"x": real(3, 5, dtype=dtype)}, (), 22, **form)
    for shape, dtype in itertools.product(((3, 3), (2, 3, 3), (0, 2, 2)), ("float32", "float64")):
        yield case("Det", {"x": real(*shape, dtype=dtype)}, (), 22)
    for starts in (0, 1):
        yield case("Range", {"a": ints(starts)[0], "b": ints(7)[0], "c": ints(2)[0]}, (), 11)
