"""What a Keras optimizer keeps for each parameter, for the parameters of a larger model.

The rules are those of optimizer.py: what is kept is a power of the gradient, of which copies of a
unit get their shares. Parameters that are new begin at zero; rates stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from onnx_net2net.errors import UsageError
from onnx_net2net.frameworks.lineage import Lineage
from onnx_net2net.frameworks.optimizer import powers
from onnx_net2net.widening.growth_record import WeightGrowth

__all__ = ["moments", "problem_of"]

# The lists of variables that optimizers have, one for each parameter, and which power of the
# gradient they are.
_ADAM = {"_momentums": 1, "_velocities": 2, "_velocity_hats": 2, "_accumulated_gradients": 1}
_LISTS: Mapping[str, Mapping[str, int]] = {
    "SGD": {"momentums": 1, "_accumulated_gradients": 1},
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "Nadam": _ADAM,
    "Adamax": {"_m": 1, "_u": 1, "_accumulated_gradients": 1},
}
_COUNTS = ("_iterations", "_u_product")


def problem_of(optimizer: Any, larger: Any) -> str | None:
    """Say why the state of one optimizer cannot be the other's; None where it can."""
    kinds = [type(one).__name__ for one in (optimizer, larger)]
    if kinds[0] != kinds[1]:
        return f"the optimizers are {kinds[0]} and {kinds[1]}"
    if type(optimizer) is not getattr(keras.optimizers, kinds[0], None) or kinds[0] not in _LISTS:
        return f"{kinds[0]} keeps what is not known to follow the gradient"
    if any(one.use_ema for one in (optimizer, larger)):
        return "it keeps averages of weights (use_ema)"
    for setting in ("amsgrad", "gradient_accumulation_steps"):
        if getattr(optimizer, setting, None) != getattr(larger, setting, None):
            return f"the optimizers differ in {setting}"
    return None


def moments(
    optimizer: Any,
    names: Mapping[int, str],
    larger: Any,
    larger_names: Mapping[int, str],
    lineage: Lineage,
) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield each variable of the optimizer ``larger``, and what it will hold.

    Both are built. ``names`` are those of the parameters in the smaller network, by their id, and
    ``larger_names`` those in the larger one. Raises UsageError for other parameters.
    """
    own = _places(optimizer, names, "smaller")
    for name in _COUNTS:
        counts = [getattr(one, name, None) for one in (optimizer, larger)]
        if all(isinstance(count, keras.Variable) for count in counts):
            yield counts[1], keras.ops.convert_to_numpy(counts[0])
    grown = {new: (own[old], growths) for old in own for new, growths in [lineage.follow(old)]}
    for kind, power in _LISTS[type(optimizer).__name__].items():
        values, targets = (getattr(one, kind, None) or [] for one in (optimizer, larger))
        for name, place in _places(larger, larger_names, "larger").items():
            target = targets[place] if place < len(targets) else None
            if target is None:
                continue
            value = np.zeros(target.shape)
            if name in grown and grown[name][0] < len(values):
                at, growths = grown[name]
                value = _grown(keras.ops.convert_to_numpy(values[at]), growths, power)
            if value.shape != tuple(target.shape):
                shape = tuple(target.shape)
                raise UsageError(f"{kind} of {name} becomes {value.shape}, but is {shape}")
            yield target, value


def _places(optimizer: Any, names: Mapping[int, str], which: str) -> dict[str, int]:
    """Return the place of each parameter in an optimizer. Raises UsageError."""
    parameters = optimizer._trainable_variables
    if any(id(variable) not in names for variable in parameters):
        raise UsageError(
            f"the optimizer has parameters that are not the {which} model's",
            f"give the one that trains the {which} model",
        )
    return {names[id(variable)]: place for place, variable in enumerate(parameters)}


def _grown(value: np.ndarray, growths: list[WeightGrowth], power: int) -> np.ndarray:
    wide = value.astype(np.float64)
    for growth in growths:
        for along in growth.axes:
            row = powers(along, power)
            row = row.reshape([-1 if axis == along.axis else 1 for axis in range(wide.ndim)])
            wide = np.take(wide, np.maximum(along.source, 0), along.axis) * row
        wide = wide / growth.eta**power
    return wide
