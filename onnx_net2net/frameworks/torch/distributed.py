"""Modules that several processes train together: sharded by ``fully_shard``, or copies under DDP.

    if shared(small, large):
        report = transfer_together(transfer, small, large, inputs, optimizer, larger)

The first process gathers both modules and their optimizers, whole, in its memory, and transfers
between these copies. Each process then takes from there what it holds of the larger module, one
tensor at a time. What one process raises, all raise, and nothing is left half written.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.tensor import DTensor, distribute_tensor

from onnx_net2net.errors import Net2NetError, Refused, UsageError
from onnx_net2net.frameworks.state_dicts import to_array
from onnx_net2net.frameworks.torch.transfer import bare, tensors_of
from onnx_net2net.frameworks.transfer import Transferred

__all__ = ["shared", "transfer_together"]

Optimizer = torch.optim.Optimizer
# Attributes that fully_shard gives to modules.
OF_FSDP = ("__composable_api", "_fsdp", "_is_fsdp")
WHOLE = "transfer between whole modules, and distribute the larger one afterwards"


def shared(*modules: Any) -> bool:
    """Return whether several processes hold one of the modules together."""
    wrapped = (nn.parallel.DistributedDataParallel, FullyShardedDataParallel, FSDPModule)
    return all(isinstance(module, nn.Module) for module in modules) and any(
        any(isinstance(part, wrapped) for part in module.modules())
        or any(isinstance(parameter, DTensor) for parameter in module.parameters())
        for module in modules
    )


def transfer_together(
    transfer: Callable[..., Transferred],
    small: nn.Module,
    large: nn.Module,
    example_inputs: Any,
    optimizer: Optimizer | None,
    large_optimizer: Optimizer | None,
    **options: Any,
) -> Transferred:
    """Call ``transfer`` on whole copies, on the first process; return its report on all of them.

    Every process must call this. Afterwards each holds its part of the larger module and of its
    optimizer. Raises UsageError where the processes hold different modules, and for modules that
    are distributed by other means.
    """
    _require_all_processes(small, large)
    modules, optimizers = [bare(small), bare(large)], [optimizer, large_optimizer]
    for part in (part for module in modules for part in module.modules()):
        if isinstance(part, FSDPModule):
            part.reshard()  # else its parameters may be those that the last call gathered
    _require_agreement(modules, optimizers)
    memo = _gathered(modules, optimizers)
    twins: list[Any] = []

    def on_copies() -> Transferred:
        twins.extend(_twin(module, memo) for module in modules)
        twins.extend(copy.deepcopy(optimizers, memo))
        a, b, former, later = twins
        return transfer(a, b, example_inputs, former, later, **options)

    report = _first_does(on_copies)
    _, twin, _, later = twins or [None] * 4
    with _taken_back(modules[1], large_optimizer, report):
        _write(modules[1], twin, report)
        if large_optimizer is not None:
            _load(large_optimizer, later)
    return report


# ---- what the processes say to one another ------------------------------------------------------


def _from_first(value: Any) -> Any:
    """Return what the first process gives."""
    values = [value]
    dist.broadcast_object_list(values, 0)
    return values[0]


def _first_does(action: Callable[[], Transferred]) -> Transferred:
    """Return what ``action`` returns on the first process; what it raises is raised on all."""
    report: Transferred
    if dist.get_rank() == 0:
        try:
            report = action()
        except BaseException as error:
            known = isinstance(error, Net2NetError)
            _from_first(error if known else RuntimeError(f"{type(error).__name__}: {error}"))
            raise
        _from_first(report)
        return report
    report = _from_first(None)
    if isinstance(report, Exception):
        raise report
    return report


def _require_all_processes(*modules: nn.Module) -> None:
    """Raise UsageError where some processes have no part: they would wait for one another."""
    sizes = set()
    for module in modules:
        if isinstance(module, nn.parallel.DistributedDataParallel):
            sizes.add(dist.get_world_size(module.process_group))
        sizes |= {p.device_mesh.size() for p in module.parameters() if isinstance(p, DTensor)}
    if sizes - {dist.get_world_size()}:
        world = dist.get_world_size()
        raise UsageError(f"{min(sizes)} of {world} processes hold a module together", WHOLE)


def _require_agreement(
    modules: Sequence[nn.Module], optimizers: Sequence[Optimizer | None]
) -> None:
    """Raise UsageError on all processes where one cannot go on, or holds something else."""
    described: Any
    try:
        described = _described(modules, optimizers)
    except UsageError as error:
        described = error
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, described)
    for other in everyone:
        if isinstance(other, UsageError):
            raise other
    for other in everyone:
        differing = {name for name, _ in set(everyone[0].items()) ^ set(other.items())}
        if differing:
            raise UsageError(
                f"the processes hold different things: {min(differing)}",
                "build modules and optimizers alike on all of them, and broadcast parameters",
            )


def _described(
    modules: Sequence[nn.Module], optimizers: Sequence[Optimizer | None]
) -> dict[str, tuple[Any, ...]]:
    """Return what all processes must have in common, by name. Raises UsageError."""
    described: dict[str, tuple[Any, ...]] = {}
    for which, module in zip(("smaller", "larger"), modules, strict=True):
        _require_fully_shard(module, which)
        for name, tensor in _held(module):
            replicated = isinstance(tensor, nn.Parameter) and not isinstance(tensor, DTensor)
            digest = ""
            if which == "smaller" and replicated and not tensor.is_meta:
                digest = hashlib.sha256(to_array(tensor).tobytes()).hexdigest()
            described[f"{name} of the {which} module"] = tuple(tensor.shape), tensor.dtype, digest
    for which, optimizer in zip(("smaller", "larger"), optimizers, strict=True):
        if _comes_from(type(optimizer), "optim"):
            kind = type(optimizer).__name__
            raise UsageError(f"a {kind} may hold a part of the state only", WHOLE)
        shapes = (
            ()
            if optimizer is None
            else tuple((what, tuple(value.shape)) for what, value in _state_tensors(optimizer))
        )
        described[f"the optimizer of the {which} module"] = type(optimizer).__name__, shapes
    return described


def _require_fully_shard(module: nn.Module, which: str) -> None:
    """Raise UsageError unless ``fully_shard`` alone has distributed the module."""
    managed: set[int] = set()
    for path, part in module.named_modules():
        if isinstance(part, FullyShardedDataParallel | nn.parallel.DistributedDataParallel):
            where = f"'{path}' of the {which} module" if path else f"the {which} module"
            raise UsageError(f"{where} is wrapped in {type(part).__name__}", WHOLE)
        parameters = [*map(id, part.parameters())]
        if isinstance(part, FSDPModule):
            managed.update(parameters)
        hooks = (*part._forward_pre_hooks.values(), *part._forward_hooks.values())
        if any(_comes_from(hook, "tensor") for hook in hooks):
            raise UsageError(f"'{path}' of the {which} module is tensor parallel", WHOLE)
    for name, parameter in module.named_parameters():
        if isinstance(parameter, DTensor):
            sharded = [place for place in parameter.placements if not place.is_replicate()]
            if id(parameter) not in managed or len(sharded) > 1:
                raise UsageError(
                    f"{name} of the {which} module is distributed by other means than "
                    "fully_shard, such as tensor parallelism",
                    WHOLE,
                )


# ---- whole copies -------------------------------------------------------------------------------


def _held(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers of a module."""
    yield from module.named_parameters()
    yield from module.named_buffers()


def _state_tensors(optimizer: Optimizer) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of an optimizer's state, in the order of its parameters."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            for what in sorted(state):
                if isinstance(state[what], Tensor):
                    yield what, state[what]


def _whole(tensor: Tensor) -> Tensor:
    """Return a tensor with all its elements."""
    tensor = tensor.detach()
    if not isinstance(tensor, DTensor):
        return tensor
    on_mesh: Any = tensor.to(tensor.device_mesh.device_type)
    whole: Tensor = on_mesh.full_tensor()
    return whole


def _gathered(
    modules: Sequence[nn.Module], optimizers: Sequence[Optimizer | None]
) -> dict[int, Any]:
    """Return whole copies of all tensors, by the id of what this process holds of each.

    They are on the first process only.
    """
    tensors = [tensor for module in modules for _, tensor in _held(module)]
    tensors += [t for optimizer in optimizers if optimizer for _, t in _state_tensors(optimizer)]
    memo: dict[int, Any] = {}
    for tensor in tensors:
        if id(tensor) in memo:
            continue
        if tensor.is_meta:
            whole = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        else:
            whole = _whole(tensor)
        if dist.get_rank() == 0:
            whole = whole if tensor.is_meta else whole.to("cpu", copy=True)
            if isinstance(tensor, nn.Parameter):
                whole = nn.Parameter(whole, tensor.requires_grad)
            memo[id(tensor)] = whole
    return memo


def _twin(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Return a copy of a module, of its author's class, that has the tensors of ``memo``.

    ``fully_shard`` gives modules a class, hooks and attributes of its own; the copy has none.
    """
    parts = [part for part in module.modules() if id(part) not in memo]
    for part in parts:
        cls = next(cls for cls in type(part).__mro__ if not issubclass(cls, FSDPModule))
        memo[id(part)] = cls.__new__(cls)
    for part in parts:
        state = {}
        for name, value in part.__getstate__().items():
            if name.endswith("_hooks"):
                own = {key: hook for key, hook in value.items() if not _comes_from(hook, "fsdp")}
                state[name] = type(value)(own)
            elif not name.startswith(OF_FSDP):
                state[name] = value
        memo[id(part)].__setstate__(copy.deepcopy(state, memo))
    twin: nn.Module = memo[id(module)]
    return twin


def _comes_from(defined: Any, package: str) -> bool:
    """Return whether a package of ``torch.distributed`` defines a hook or a class."""
    return str(getattr(defined, "__module__", "")).startswith(f"torch.distributed.{package}.")


# ---- each process takes its part ----------------------------------------------------------------


def _part(value: Tensor, like: Tensor) -> Tensor:
    """Return what this process holds of a whole tensor that is distributed as ``like`` is.

    It lies in memory as ``like`` does, which fused optimizers take for granted.
    """
    if not value.ndim:
        return value
    if not isinstance(like, DTensor):
        return torch.empty_like(like, dtype=value.dtype, device=value.device).copy_(value)
    mesh = like.device_mesh
    return distribute_tensor(value.to(mesh.device_type), mesh, like.placements)


def _write(large: nn.Module, twin: nn.Module | None, report: Transferred) -> None:
    """Write the first process's twin into the larger module. Raises Refused if that went wrong."""
    values = {} if twin is None else tensors_of(twin)
    wrong = []
    for name, target in tensors_of(large).items():
        if name in report.untouched:
            continue
        value = _from_first(values[name].detach() if twin is not None else None)
        with torch.no_grad():
            target.copy_(_part(value, target))
        if not torch.equal(_whole(target).cpu(), value):
            wrong.append(name)
    for setting in report.settings:
        setattr(setting.holder(large), setting.attribute, setting.new)
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, wrong)
    if any(everyone):
        names = ", ".join(sorted({name for names in everyone for name in names}))
        raise Refused(names, "distributed, it is not what was written; all is as it was", WHOLE)


def _load(optimizer: Optimizer, twin: Optimizer | None) -> None:
    """Load the state of the first process's twin of an optimizer."""
    state = {} if twin is None else twin.state_dict()["state"]
    known = _from_first({number: [*entry] for number, entry in state.items()})
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parts: dict[int, dict[str, Any]] = {number: {} for number in known}
    for number, what in ((number, what) for number, names in known.items() for what in names):
        value = _from_first(state[number][what] if twin is not None else None)
        part = _part(value, parameters[number]) if isinstance(value, Tensor) else value
        parts[number][what] = part
    optimizer.load_state_dict({**optimizer.state_dict(), "state": parts})


@contextmanager
def _taken_back(
    large: nn.Module, optimizer: Optimizer | None, report: Transferred
) -> Iterator[None]:
    """Put everything back as it was if anything is raised."""
    targets = tensors_of(large)
    before = {name: target.detach().clone() for name, target in targets.items()}
    state = None if optimizer is None else copy.deepcopy(optimizer.state_dict())
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for name, old in before.items():
                targets[name].copy_(old)
        for setting in report.settings:
            setattr(setting.holder(large), setting.attribute, setting.old)
        if optimizer is not None and state is not None:
            optimizer.load_state_dict(state)
        raise
