"""Arrays of several trials in one file: NumPy's archives, read by anything that reads these.

>>> save_trials("inputs.npz", [{"x": a}, {"x": b}])
>>> numbered_trials(arrays.read("inputs.npz"))
[{'x': a}, {'x': b}]

A file of one trial holds its arrays by their names, one of several calls them ``0/x``, ``1/x``.
Texts are kept as such, bfloat16 as float32; nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from onnx_net2net.model import arrays
from onnx_net2net.model.atomic_write import place

__all__ = ["numbered_trials", "save_trials"]


def save_trials(
    path: str | Path, trials: Sequence[Mapping[str, np.ndarray]], *, force: bool = False
) -> None:
    """Write the arrays of trials to an ``.npz`` file; OutputError if that fails.

    Without ``force`` a file that exists is an error, too.
    """
    several = len(trials) > 1
    named = {
        f"{index}/{name}" if several else name: _plain(array)
        for index, trial in enumerate(trials)
        for name, array in trial.items()
    }
    place(Path(path), write=lambda draft: arrays.write(draft, named), force=force)


def _plain(array: np.ndarray) -> np.ndarray:
    """Return an array of a type that NumPy's files have; no number changes."""
    if array.dtype.kind in "OS":
        return array.astype(str)
    if array.dtype.isbuiltin == 1 or array.dtype.kind == "U":
        return array
    whole = array.dtype.name.startswith(("int", "uint"))  # int4 and its like
    return array.astype(np.int8 if whole else np.float32)


def numbered_trials(contents: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Split arrays that are called ``0/x``, ``1/x`` into trials; others are of one trial.

    >>> numbered_trials({"0/x": a, "1/x": b})
    [{'x': a}, {'x': b}]
    """
    trials: dict[str, dict[str, np.ndarray]] = {}
    for key, array in contents.items():
        number, _, name = key.partition("/")
        trials.setdefault(number, {})[name] = array
    if set(trials) != set(map(str, range(len(trials)))) or not all(map(all, trials.values())):
        return [dict(contents)]
    return [trials[str(index)] for index in range(len(trials))]
