"""Two modules of one class: the larger one as a target that grown weights are written into.

    pair = Pair(small, large, inputs)
    fitted = pair.fit(GrownState(...))   # raises for all that does not fit
    with fitted.written():          # the old weights come back if anything is raised
        ...

Nothing is written before everything is known to fit.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onnx_net2net.errors import UsageError
from onnx_net2net.frameworks.names import ties
from onnx_net2net.frameworks.optimizer import check_entry, moved_state
from onnx_net2net.frameworks.state_dict import stored
from onnx_net2net.frameworks.state_dicts import to_array, to_tensor
from onnx_net2net.frameworks.torch.calls import Dynamic, arguments
from onnx_net2net.frameworks.torch.exporter import from_torch
from onnx_net2net.frameworks.torch.transfer_check import (
    Call,
    device_of,
    dtype_of,
    inference,
    training,
)
from onnx_net2net.frameworks.transfer import (
    GrownState,
    Setting,
    Transferred,
    holding,
    note_agreement,
    require_fit,
)

__all__ = ["Fitted", "Pair", "bare", "tensors_of"]


class Pair:
    """A trained module, a larger one, and what both are called with."""

    def __init__(
        self,
        small: nn.Module,
        large: nn.Module,
        examples: Any,
        dynamic: Dynamic = None,
        optimizers: Sequence[torch.optim.Optimizer] = (),
    ) -> None:
        self.small, self.large = bare(small), bare(large)
        self._check()
        if optimizers:
            self._check_optimizers(*optimizers)
        self.call = Call(*arguments(examples))
        export = partial(from_torch, dynamic=dynamic, dropout=False, unread=False)
        self.small_model = export(self.small, self._examples(self.small))
        large, dtype = self.large, dtype_of(self.small)
        if dtype != dtype_of(large):  # or the graphs would differ by what is cast
            large = copy.deepcopy(large).to(dtype)
        self.large_model = export(large, self._examples(large))

    def _check(self) -> None:
        if self.small is self.large or {*map(id, self.small.parameters())} & {
            *map(id, self.large.parameters())
        }:
            raise UsageError("both modules share parameters", "build the larger one anew")
        for name, tensor in tensors_of(self.large).items():
            if tensor.is_meta:
                raise UsageError(
                    f"{name} of the larger module has no contents (meta)",
                    "put it on a device first: module.to_empty(device=...)",
                )

    def _check_optimizers(
        self, optimizer: torch.optim.Optimizer, larger: torch.optim.Optimizer
    ) -> None:
        """Raise UsageError, Refused where the state of one cannot become that of the other."""
        if type(optimizer) is not type(larger):
            kinds = f"{type(optimizer).__name__} and {type(larger).__name__}"
            raise UsageError(f"the optimizers are {kinds}", "give two of one kind")
        kept = [{group.get("amsgrad") for group in o.param_groups} for o in (optimizer, larger)]
        if kept[0] != kept[1]:
            raise UsageError("one optimizer has amsgrad alone", "give it to both or to none")
        _names(larger, self.large, "larger")
        state = optimizer.state_dict()["state"]
        for number, name in enumerate(_names(optimizer, self.small, "smaller")):
            check_entry(state.get(number, {}), name)

    def _examples(self, module: nn.Module) -> Any:
        args, kwargs = self.call.on(device_of(module))
        return kwargs or args

    def stored(self) -> list[str]:
        """Return the names of what the larger module stores, among the weights of its network."""
        return stored(self.large_model)

    def optimizers(self) -> tuple[Any, Any]:
        """Return none: a module knows no optimizer."""
        return None, None

    def fit(self, grown: GrownState) -> Fitted:
        """Return what to write for the larger one to be ``grown``. Raises Refused."""
        return Fitted(self, grown)


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of the state dict, without what modules say of themselves besides."""
    state = module.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def bare(module: nn.Module) -> nn.Module:
    """Return the module itself, out of what wraps it."""
    parallel = isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel)
    inner = module.module if parallel else getattr(module, "_orig_mod", None)
    return bare(inner) if isinstance(inner, nn.Module) else module


@dataclass
class Fitted:
    """The values of the larger module's state, and the settings of its norms.

    Raises Refused with everything that does not fit.
    """

    pair: Pair
    grown: GrownState
    values: dict[str, Callable[[], Tensor]] = field(default_factory=dict)
    settings: list[Setting] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)  # {of the smaller: of the larger}
    untouched: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    state: dict[str, Any] | None = None  # of the larger module's optimizer
    owners: dict[str, str] = field(init=False)  # the initializer of each tensor in the state

    def __post_init__(self) -> None:
        model = self.grown.model
        self.targets = tensors_of(self.pair.large)
        owners = self.owners = {name: name for name in stored(model)}
        owners |= {alias: owner for alias, owner in ties(model).items() if owner in owners}
        for key, target in self.targets.items():
            if key in owners:
                self._take(key, owners[key], target)
            else:
                self._keep(key, target)
        for name in owners.keys() - self.targets.keys():
            self.problems.append(f"the larger module has no '{name}'")
        self._check_ties(owners)
        for path, old, new in self.grown.epsilons:
            self._set(path, old, new)
        self._set_config()
        require_fit(self.problems)

    def _take(self, key: str, name: str, target: Tensor) -> None:
        """Note the weight for one tensor of the larger module, or why it does not fit."""
        weight = self.grown.model.weights[name]
        if weight.shape != tuple(target.shape):
            self.problems.append(f"'{key}' became {weight.shape}, but is {tuple(target.shape)}")
        elif target.is_floating_point():
            self.values[key] = lambda: to_tensor(weight.array())
        elif not np.array_equal(weight.array(), to_array(target)):
            self.problems.append(f"'{key}' holds other whole numbers in the larger module")

    def _keep(self, key: str, target: Tensor) -> None:
        """Copy what the network does not read, such as a count of batches, where it is there."""
        known = tensors_of(self.pair.small)
        origin = self._origin(key)
        source = known.get(origin)
        if source is not None and source.shape == target.shape:
            self.values[key] = source.detach
            self.unread[origin] = key
        else:
            self.untouched.append(key)

    def _origin(self, key: str) -> str:
        """Return the name in the smaller module of what stands beside weights there."""
        lineage = self.grown.lineage
        folder, dot, leaf = key.rpartition(".")
        beside = (n for n in self.grown.model.weights if n.rpartition(".")[0] == folder and dot)
        for name in beside:
            old = lineage.former(lineage.origin(name))
            if old is not None:
                return f"{old.rpartition('.')[0]}.{leaf}"
        return key

    def _check_ties(self, owners: Mapping[str, str]) -> None:
        shared: dict[int, set[str]] = defaultdict(set)
        for key, target in self.targets.items():
            if key in owners:
                shared[id(target)].add(owners[key])
        for names in shared.values():
            if len(names) > 1:
                told = ", ".join(sorted(names))
                self.problems.append(f"{told} are one parameter in the larger module")

    def _set(self, path: str, old: float, new: float) -> None:
        """Note the attribute that holds the epsilon of a norm."""
        try:
            norm = self.pair.large.get_submodule(path)
        except AttributeError:
            norm = nn.Module()
        attributes = holding(norm, old)
        known = [setting for setting in self.settings if setting.path == path]
        if len(attributes) != 1:
            problem = "no one attribute of it holds that"
        elif any(not np.isclose(setting.new, new, 1e-5, 0) for setting in known):
            problem = f"{known[0].new:.7g} elsewhere, where it is used again"
        else:
            number = float(getattr(norm, attributes[0]))
            self.settings += [] if known else [Setting(path, attributes[0], number, new)]
            return
        self.problems.append(
            f"the norm '{path}' needs epsilon {new:.7g} in place of {old:.7g}, but {problem}"
        )

    def _set_config(self) -> None:
        """Let the configuration say the epsilon, where it has one number for all these norms.

        The module then saves it, and is built with it again.
        """
        config, large = getattr(self.pair.large, "config", None), self.pair.large
        numbers = {(setting.old, setting.new) for setting in self.settings}
        if len(numbers) != 1 or config is None:
            return
        (old, new), *_ = numbers
        attributes = holding(config, old)
        norms = [path for path, part in large.named_modules() if holding(part, old)]
        if len(attributes) == 1 and set(norms) == {setting.path for setting in self.settings}:
            self.settings.append(Setting("config", attributes[0], old, new))

    def move_optimizer(
        self, optimizer: torch.optim.Optimizer, larger: torch.optim.Optimizer
    ) -> None:
        """Compute the state of the larger module's optimizer. Raises UsageError, Refused."""
        self.state = moved_state(
            optimizer.state_dict(), _names(optimizer, self.pair.small, "smaller"),
            self.grown.model, self.grown.lineage,
            larger, _names(larger, self.pair.large, "larger"), self.unread,
        )  # fmt: skip

    def report(self) -> Transferred:
        """Return what will have been done, before it is compared."""
        parameters = dict(self.pair.large.named_parameters(remove_duplicate=False))
        new = [name for name in parameters if self.grown.lineage.origin(name) != name]
        shapes = {name: tuple(target.shape) for name, target in self.targets.items()}
        followed = dict(map(self.grown.lineage.follow, self.pair.small_model.weights))
        growths = {name: followed.get(owner, []) for name, owner in self.owners.items()}
        return Transferred(
            settings=self.settings, new=new, untouched=self.untouched, shapes=shapes,
            growths=growths, notes=list(self.grown.notes),
        )  # fmt: skip

    def check(self, report: Transferred) -> None:
        """Compare both modules, the larger one written. Raises Refused where they differ."""
        compared = self.pair.small, self.pair.large, self.pair.call
        note_agreement(report, inference(*compared), lambda: training(*compared))

    @contextmanager
    def written(self, larger: torch.optim.Optimizer | None = None) -> Iterator[None]:
        """Write everything; put the old values back if anything is raised."""
        targets, large = self.targets, self.pair.large
        before = {key: targets[key].detach().clone() for key in self.values}
        state = None if larger is None else copy.deepcopy(larger.state_dict())
        try:
            for key, value in self.values.items():
                _copy(targets[key], value())
            for setting in self.settings:
                setattr(setting.holder(large), setting.attribute, setting.new)
            yield
            if larger is not None and self.state is not None:
                larger.load_state_dict(self.state)
        except BaseException:
            for key, old in before.items():
                _copy(targets[key], old)
            for setting in self.settings:
                setattr(setting.holder(large), setting.attribute, setting.old)
            if larger is not None and state is not None:
                larger.load_state_dict(state)
            raise


def _copy(target: Tensor, value: Tensor) -> None:
    with torch.no_grad():
        target.copy_(value)


def _names(optimizer: torch.optim.Optimizer, module: nn.Module, which: str) -> list[str]:
    """Return the names of an optimizer's parameters, in its order. Raises UsageError."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    if any(id(tensor) not in names for tensor in tensors):
        raise UsageError(
            f"the optimizer has parameters that are not the {which} module's",
            f"give the one that trains the {which} module",
        )
    return [names[id(tensor)] for tensor in tensors]
