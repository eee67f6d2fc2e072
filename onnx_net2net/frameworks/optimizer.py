"""Optimizer state for a grown model, from the state of the model before.

    state = grow_optimizer(optimizer.state_dict(), grown)
    wider = torch.optim.AdamW(bigger.named_parameters(), lr=1e-4)
    wider.load_state_dict(state)

After growing, the m copies of a unit share its gradient: their incoming weights get about 1/m of
it, weights that read the copies get all of it (exactly so for ``split="even"``; otherwise the
copies' gradients still add up to the old one). Whatever an optimizer keeps is a power of the
gradient, so that momentum and Adam's first moment scale by 1/m and the second by 1/m^2. Entries
that copy nothing (padding) start from zero.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto

from onnx_net2net.algebra.expansion import PAD
from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.frameworks.names import Names, plain
from onnx_net2net.model import history as histories
from onnx_net2net.model.model import AnyModel, Model, load
from onnx_net2net.widening.growth_record import WeightGrowth, unpack

__all__ = ["grow_optimizer"]

# What optimizers keep for a parameter, element by element, as a power of the gradient. (RMSprop's
# momentum is another, of steps that have no unit.)
POWERS: Mapping[str, int] = {
    "exp_avg": 1,  # Adam, AdamW, NAdam, RAdam, Adamax
    "exp_avg_sq": 2,
    "exp_inf": 1,  # Adamax
    "max_exp_avg_sq": 2,  # amsgrad
    "momentum_buffer": 1,  # SGD
}
UNCHANGED = ("widen", "absorb", "fold")  # what names no parameter anew

History = AnyModel | Sequence[Mapping[str, Any]]
State = Mapping[str, Any]


def grow_optimizer(
    optimizer_state: State, history: History, *, parameters: Sequence[str] | None = None
) -> dict[str, Any]:
    """``optimizer.state_dict()`` of a model, for the model that was grown from it.

    ``history`` is the grown model, its path, its ``Model.history`` (where the optimizer belongs to
    a later step, the part since then), or the text in its metadata. A parameter is found by its
    name: of ``param_groups`` if the optimizer was made from ``named_parameters()``, else the one in
    ``parameters``, the names in the order in which the optimizer was given them.

    Returns a new state dict whose tensors lie where the old ones did. Raises UsageError for names
    that are missing or unknown and for shapes that are not those before growth, Refused for a state
    that is no power of the gradient, and for steps that do more than widen.
    """
    steps, names = _steps(history)
    keys = _names(optimizer_state, parameters)
    if names is not None:
        names.fit(list(keys.values()))
    growths = [unpack(step) for step in steps if step["operation"] == "widen"]
    known = {name for growth in growths for name in growth}
    found = {index: _weight(key, names, known) for index, key in keys.items()}
    _check_names(found, keys, names, known)
    state = {
        index: _entry(entry, keys.get(index, ""), [g.get(found[index] or "") for g in growths])
        for index, entry in optimizer_state["state"].items()
    }
    return {**optimizer_state, "state": state}


def _steps(history: History) -> tuple[list[Mapping[str, Any]], Names | None]:
    """The recorded steps, and the grown model's names where the model is given."""
    if isinstance(history, str) and history.lstrip().startswith("["):
        history = histories.parse(history)
    names = None
    if isinstance(history, Model | str | os.PathLike | ModelProto | bytes):
        grown = load(history)
        names, history = Names(grown), grown.history
    steps: list[Mapping[str, Any]] = list(history)
    if not steps:
        raise UsageError("the history has no steps", "give the grown model, not its parent")
    for step in steps:
        if step.get("operation") not in UNCHANGED:
            raise Refused(
                None,
                f"the history has a step '{step.get('operation')}', after which an optimizer has "
                "other parameters",
                "grow the state up to that step, and start the rest anew",
            )
        if step.get("copied"):
            raise Refused(
                None,
                f"'{min(step['copied'])}' became a parameter of its own, for which the optimizer "
                "has no state",
                "start the optimizer anew",
            )
    return steps, names


def _names(state: State, parameters: Sequence[str] | None) -> dict[int, str]:
    """The name of every parameter, by its number in the optimizer."""
    if not isinstance(state, Mapping) or not {"state", "param_groups"} <= state.keys():
        raise UsageError("this is no state of an optimizer", "give optimizer.state_dict()")
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    if parameters is None:
        if not all("param_names" in group for group in state["param_groups"]):
            raise UsageError(
                "the optimizer does not know the names of its parameters",
                "give them: parameters=[name for name, _ in module.named_parameters()]",
            )
        parameters = [name for group in state["param_groups"] for name in group["param_names"]]
    if len(parameters) != len(numbers):
        raise UsageError(
            f"{len(parameters)} names for the {len(numbers)} parameters of the optimizer",
            "give one name for each, in their order",
        )
    return dict(zip(numbers, parameters, strict=True))


def _weight(key: str, names: Names | None, known: Iterable[str]) -> str | None:
    """The initializer that a parameter's name means; None for none that is known."""
    if names is not None:
        return names.find(key)
    return next((bare for bare in plain(key) if bare in known), None)


def _check_names(
    found: Mapping[int, str | None],
    keys: Mapping[int, str],
    names: Names | None,
    known: set[str],
) -> None:
    unknown = [keys[index] for index, name in found.items() if name is None]
    if names is not None and unknown:
        raise UsageError(
            f"the model has no weights {', '.join(unknown)}",
            "give the names that the module has for them (named_parameters())",
        )
    if known and not known & set(found.values()):
        raise UsageError(
            f"none of the optimizer's parameters is one that grew, such as {min(known)}",
            "give the grown model itself, which knows all its names",
        )


def _entry(
    entry: Mapping[str, Any], key: str, growths: list[WeightGrowth | None]
) -> dict[str, Any]:
    """The state of one parameter, through all growths."""
    odd = sorted(k for k, v in entry.items() if getattr(v, "ndim", 0) and k not in POWERS)
    if odd:
        raise Refused(
            f"{key} ({', '.join(odd)})",
            "this optimizer keeps what is not known to follow the gradient",
            "SGD and the family of Adam can go on; start this optimizer anew",
        )
    return {what: _grown(value, what, key, growths) for what, value in entry.items()}


def _grown(value: Any, what: str, key: str, growths: list[WeightGrowth | None]) -> Any:
    if not hasattr(value, "clone"):
        return value
    if not value.ndim:  # a count of steps; PyTorch counts in place, so that it must not be shared
        return value.clone()
    for growth in growths:
        if growth is not None:
            value = _once(value, POWERS[what], growth, key)
    return value.clone()


def _once(value: Any, power: int, growth: WeightGrowth, key: str) -> Any:
    """One tensor of the state through one growth."""
    import torch

    for along in growth.axes:
        if along.axis >= value.ndim or value.shape[along.axis] != along.old:
            raise UsageError(
                f"the state of {key} is {list(value.shape)}, but axis {along.axis} of the weight "
                f"had {along.old} entries",
                "give the history since the model that the optimizer belongs to; weights that the "
                "export transposed need an export by onnx_net2net.from_torch",
            )
        index = torch.from_numpy(np.maximum(along.source, 0)).to(value.device)
        factors = along.parts() ** power
        factors[along.source == PAD] = 0.0
        row = torch.from_numpy(factors).to(value.device)
        row = row.reshape([-1 if axis == along.axis else 1 for axis in range(value.ndim)])
        value = (value.index_select(along.axis, index) * row).to(value.dtype)
    return value if growth.eta == 1.0 else value / growth.eta**power
