"""Optimizer state for a grown model, from the state of the model before.

    wider = torch.optim.AdamW(bigger.named_parameters(), lr=1e-4)
    wider.load_state_dict(grow_optimizer(optimizer.state_dict(), grown, into=wider))

After widening, the m copies of a unit share its gradient: their incoming weights get about 1/m of
it, weights that read the copies get all of it (exactly so for ``split="even"``; otherwise the
copies' gradients still add up to the old one). Whatever an optimizer keeps is a power of the
gradient, so that momentum and Adam's first moment scale by 1/m and the second by 1/m^2. Entries
that copy nothing (padding) start from zero. After deepening, state follows its parameter to the new
name; new parameters have none, so that the optimizer begins with them as with any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onnx_net2net.algebra.expansion import PAD
from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.frameworks.lineage import Lineage
from onnx_net2net.frameworks.names import Names, plain
from onnx_net2net.frameworks.roles import STATISTICS
from onnx_net2net.model import history as histories
from onnx_net2net.model.model import AnyModel, Model, load
from onnx_net2net.widening.growth_record import Along, WeightGrowth

__all__ = ["check_entry", "grow_optimizer", "moved_state", "powers"]

# What optimizers keep for a parameter, element by element, as a power of the gradient. (RMSprop's
# momentum is another, of steps that have no unit.)
POWERS: Mapping[str, int] = {
    "exp_avg": 1,  # Adam, AdamW, NAdam, RAdam, Adamax
    "exp_avg_sq": 2,
    "exp_inf": 1,  # Adamax
    "max_exp_avg_sq": 2,  # amsgrad
    "momentum_buffer": 1,  # SGD
}

History: TypeAlias = "AnyModel | Sequence[Mapping[str, Any]]"
State = Mapping[str, Any]
Group = dict[str, Any]


def grow_optimizer(
    optimizer_state: State,
    history: History,
    *,
    parameters: Sequence[str] | None = None,
    into: Any = None,
) -> dict[str, Any]:
    """Return ``optimizer.state_dict()`` of a model, for the model that was grown from it.

    ``history`` is the grown model, its path, its ``Model.history`` (where the optimizer belongs to
    a later step, the part since then), or the text in its metadata. A parameter is found by its
    name: of ``param_groups`` if the optimizer was made from ``named_parameters()``, else the one in
    ``parameters``, the names in the order in which the optimizer was given them.

    ``into`` is the optimizer that will load the state, made from the larger module's
    ``named_parameters()``: the result has its groups with its settings, in its order, every shape
    is checked, and tensors lie in memory as their parameters do, which fused optimizers of
    channels-last modules need. Without it the groups stay as they are. New parameters then stand
    behind those that they began as, which is where a list of blocks has them; PyTorch loads by
    order alone, so compare ``param_names``.

    Returns a new state dict whose tensors lie where the old ones did; parameters that deepening
    added have no state in it. Raises UsageError for names that are missing or unknown and for
    shapes that are not those before growth, Refused for a state that is no power of the gradient,
    and for steps that leave no parameter what it was.
    """
    lineage, names = _lineage(history)
    keys = _names(optimizer_state, parameters)
    if names is not None:
        names = names.before(lineage.former)
        names.fit(list(keys.values()))
    members, state = _followed(optimizer_state, keys, lineage, names)
    if into is not None:
        entries = {members[index].key: entry for index, entry in state.items()}
        return _within(into, _names(into.state_dict(), None), entries)
    groups = _Groups(optimizer_state["param_groups"], members)
    groups.copy(lineage.copied)
    groups.insert(lineage.inserted)
    return {**optimizer_state, "state": state, "param_groups": groups.state()}


def moved_state(
    optimizer_state: State,
    parameters: Sequence[str],
    grown: Model,
    lineage: Lineage,
    larger: Any,
    larger_parameters: Sequence[str],
    unread: Mapping[str, str],
) -> dict[str, Any]:
    """Return the state dict of the optimizer ``larger`` with the state of the smaller one's.

    Both are given the names of their parameters, in their order. ``unread`` are parameters that
    the network does not read, by their names in the smaller module, with those in the larger one;
    the state of others is left out, as is that of parameters which ``larger`` does not have.
    Raises as :func:`grow_optimizer` does.
    """
    keys, names = _names(optimizer_state, parameters), Names(grown).before(lineage.former)
    read = {number: key for number, key in keys.items() if names.find(key) is not None}
    members, state = _followed(optimizer_state, read, lineage, names)
    entries = {members[number].key: entry for number, entry in state.items()}
    for number, key in keys.items():
        if number not in read and key in unread and number in optimizer_state["state"]:
            entries[unread[key]] = _entry(optimizer_state["state"][number], key, [])
    into = _names(larger.state_dict(), larger_parameters)
    there = set(into.values())
    return _within(larger, into, {key: entry for key, entry in entries.items() if key in there})


def _followed(
    state: State, keys: Mapping[int, str], lineage: Lineage, names: Names | None
) -> tuple[dict[int, _Member], dict[int, dict[str, Any]]]:
    """Return the parameters under their later names, and their entries as they grew."""
    known = set(lineage.touched())
    former = {index: _former(key, names, known) for index, key in keys.items()}
    _check_names(former, keys, names, known)
    members, entries = {}, {}
    for index, key in keys.items():
        old = former[index] or key
        name, growths = lineage.follow(old)
        members[index] = _Member(index, name, _renamed(key, old, name))
        if index in state["state"]:
            entries[index] = _entry(state["state"][index], key, growths)
    return members, entries


def _lineage(history: History) -> tuple[Lineage, Names | None]:
    """Return the recorded steps, and the grown model's names where the model is given."""
    if isinstance(history, str) and history.lstrip().startswith("["):
        history = histories.parse(history)
    names = None
    if not isinstance(history, Sequence) or isinstance(history, str | bytes):
        grown = load(history)
        names, history = Names(grown), grown.history
    steps = list(history)
    if not steps:
        raise UsageError("the history has no steps", "give the grown model, not its parent")
    return Lineage(steps), names


def _names(state: State, parameters: Sequence[str] | None) -> dict[int, str]:
    """Return the name of every parameter, by its number in the optimizer."""
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


def _former(key: str, names: Names | None, known: set[str]) -> str | None:
    """Return the initializer, before all steps, that a name means; None for no known one."""
    if names is not None:
        return names.find(key)
    return next((bare for bare in plain(key) if bare in known), None)


def _renamed(key: str, former: str, name: str) -> str:
    """Return the name of ``name`` in a module that calls ``former`` ``key``, prefix and all."""
    if former == name:
        return key
    if key.endswith(former):
        return key.removesuffix(former) + name
    prefix = former.removesuffix(key) if former.endswith(key) else ""
    return name.removeprefix(prefix)


def _check_names(
    former: Mapping[int, str | None],
    keys: Mapping[int, str],
    names: Names | None,
    known: set[str],
) -> None:
    unknown = [keys[index] for index, name in former.items() if name is None]
    if names is not None and unknown:
        raise UsageError(
            f"the model has no weights {', '.join(unknown)}",
            "give the names that the module has for them (named_parameters())",
        )
    if known and not known & set(former.values()):
        raise UsageError(
            f"none of the optimizer's parameters is one that grew, such as {min(known)}",
            "give the grown model itself, which knows all its names",
        )


@dataclass(frozen=True)
class _Member:
    """A parameter in a group: its number, its initializer, and what the module calls it.

    ``behind`` is the block or layer that a new one stands behind, "" for one that was there.
    """

    number: int
    name: str
    key: str
    behind: str = ""

    def belongs(self, path: str) -> bool:
        """Return whether it is that of a block or layer, or new behind it."""
        return self.behind == path or self.name == path or self.name.startswith(path + ".")


class _Groups:
    """Groups of parameters that take in new ones, where a list of blocks has them."""

    def __init__(self, groups: Sequence[Mapping[str, Any]], members: Mapping[int, _Member]) -> None:
        self._groups = groups
        self._lists = [[members[number] for number in group["params"]] for group in groups]
        self._free = max(members, default=-1) + 1

    def copy(self, copied: Mapping[str, str]) -> None:
        """Take in copies, {new: old}, of what is trained, in the order of their blocks."""
        blocks: dict[tuple[str, str], dict[str, str]] = {}
        for new, old in copied.items():
            blocks.setdefault(_parting(old, new), {})[old] = new
        for (block, _), names in blocks.items():
            for group in self._lists:
                for member in [m for m in group if m.name in names]:
                    name = names[member.name]
                    self._add(group, name, _renamed(member.key, member.name, name), block)

    def insert(self, inserted: Mapping[str, str]) -> None:
        """Take in the parameters of layers, {new: behind which}."""
        for name, layer in inserted.items():
            if STATISTICS.search(name):
                continue
            last = name.rpartition(".")[2]
            near = [[m for m in group if m.belongs(layer)] for group in self._lists]
            alike = [any(m.name.rpartition(".")[2] == last for m in group) for group in near]
            fitting = [g for g, like in zip(self._lists, alike, strict=True) if like]
            fitting = fitting or [
                g for g, members in zip(self._lists, near, strict=True) if members
            ]
            fitting = self._lists if len(self._lists) == 1 else fitting
            if len(fitting) != 1:
                raise Refused(
                    name,
                    "the optimizer has several groups, and nothing says which takes this parameter",
                    "give the larger module's optimizer, into=wider",
                )
            self._add(fitting[0], name, name, layer)

    def _add(self, group: list[_Member], name: str, key: str, behind: str) -> None:
        places = [index for index, member in enumerate(group) if member.belongs(behind)]
        at = places[-1] + 1 if places else len(group)
        group.insert(at, _Member(self._free, name, key, behind))
        self._free += 1

    def state(self) -> list[Group]:
        """Return ``param_groups`` of a state dict."""
        return [
            {**group, "params": [m.number for m in members]}
            | ({"param_names": [m.key for m in members]} if "param_names" in group else {})
            for group, members in zip(self._groups, self._lists, strict=True)
        ]


def _parting(old: str, new: str) -> tuple[str, str]:
    """Return what two names begin with up to where they differ.

    >>> _parting("h.0.mlp.weight", "h.1.mlp.weight")
    ('h.0', 'h.1')
    """
    parts = list(zip(old.split("."), new.split("."), strict=False))
    end = next((i for i, (a, b) in enumerate(parts) if a != b), len(parts)) + 1
    return ".".join(old.split(".")[:end]), ".".join(new.split(".")[:end])


def _within(
    optimizer: Any, keys: Mapping[int, str], entries: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the state dict of ``optimizer`` with these entries by name. Raises UsageError.

    Each tensor gets the strides of its parameter, which fused optimizers take for granted.
    """
    tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    missing = sorted(entries.keys() - set(keys.values()))
    if missing:
        raise UsageError(
            f"the optimizer has no parameters {', '.join(missing)}",
            "give one made from named_parameters() of the larger module",
        )
    grown: dict[int, dict[str, Any]] = {}
    for (number, key), tensor in zip(keys.items(), tensors, strict=True):
        if key in entries:
            grown[number] = state = dict(entries[key])
        for what, value in entries.get(key, {}).items():
            if not getattr(value, "ndim", 0):
                continue
            if value.shape != tensor.shape:
                raise UsageError(
                    f"{what} of {key} becomes {list(value.shape)}, but the parameter is "
                    f"{list(tensor.shape)}",
                    "give the optimizer of the module that the model was grown for",
                )
            state[what] = value.new_empty_strided(value.shape, tensor.stride()).copy_(value)
    return {**optimizer.state_dict(), "state": grown}


def check_entry(entry: Mapping[str, Any], key: str) -> None:
    """Raise Refused where an optimizer keeps for a parameter what is no power of its gradient."""
    unknown = sorted(k for k, v in entry.items() if getattr(v, "ndim", 0) and k not in POWERS)
    if unknown:
        raise Refused(
            f"{key} ({', '.join(unknown)})",
            "this optimizer keeps what is not known to follow the gradient",
            "SGD and the family of Adam can go on; start this optimizer anew",
        )


def _entry(entry: Mapping[str, Any], key: str, growths: Sequence[WeightGrowth]) -> dict[str, Any]:
    """Return the state of one parameter after all growths."""
    check_entry(entry, key)
    return {what: _grown(value, what, key, growths) for what, value in entry.items()}


def _grown(value: Any, what: str, key: str, growths: Sequence[WeightGrowth]) -> Any:
    if not hasattr(value, "clone"):
        return value
    if not value.ndim:  # a count of steps; PyTorch counts in place, so that it must not be shared
        return value.clone()
    for growth in growths:
        value = _once(value, POWERS[what], growth, key)
    return value.clone()


def _once(value: Any, power: int, growth: WeightGrowth, key: str) -> Any:
    """Return one tensor of the state after one growth."""
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
        row = torch.from_numpy(powers(along, power)).to(value.device)
        row = row.reshape([-1 if axis == along.axis else 1 for axis in range(value.ndim)])
        value = (value.index_select(along.axis, index) * row).to(value.dtype)
    return value if growth.eta == 1.0 else value / growth.eta**power


def powers(along: Along, power: int) -> np.ndarray:
    """Return the factors, along an axis that grew, of what is a power of the gradient."""
    factors: np.ndarray = along.parts() ** power
    factors[along.source == PAD] = 0.0
    return factors
