"""How a module is called: example inputs as arguments of ``forward``, and what it returns."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils._pytree import tree_is_leaf, tree_map_only

from onnx_net2net.errors import UsageError

Dynamic = bool | Mapping[str, Any] | Sequence[Any] | None

_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments. Raises UsageError."""
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, tuple | list):
        return tuple(example), {}
    if isinstance(example, Tensor):
        return (example,), {}
    raise UsageError(
        f"example inputs of type {type(example).__name__}",
        "give a tensor, a tuple of positional arguments, or a mapping of keyword arguments",
    )


def dynamic_shapes(bound: inspect.BoundArguments, dynamic: Dynamic) -> Any:
    """Return which axes may vary, by argument; None where none may."""
    if dynamic is False:
        return None
    if dynamic is not None and dynamic is not True:
        return dynamic
    kinds = {name: p.kind for name, p in bound.signature.parameters.items()}
    free: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        shapes = _free(value)
        free |= shapes if kinds[name] is inspect.Parameter.VAR_KEYWORD else {name: shapes}
    return free


def bind(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> inspect.BoundArguments:
    """Return example inputs by the names of their arguments. Raises UsageError."""
    try:
        return inspect.signature(module.forward).bind(*args, **kwargs)
    except TypeError as error:
        raise UsageError(f"the example inputs do not fit the module: {error}") from None


def by_name(
    bound: inspect.BoundArguments, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Pass a dict that comes last by name: the exporter would take it for keyword arguments."""
    names = list(bound.signature.parameters)[: len(args)]
    if kwargs or not args or not isinstance(args[-1], dict) or len(names) < len(args):
        return args, kwargs
    if bound.signature.parameters[names[-1]].kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
        return args, kwargs
    return args[:-1], {names[-1]: args[-1]}


@contextmanager
def plain_call(module: nn.Module, bound: inspect.BoundArguments) -> Iterator[dict[str, str]]:
    """Give ``forward`` every argument under its own name and plain containers as results.

    Yields the types of what else it returns, by place, known once it has run.
    """
    objects: dict[str, str] = {}
    forward, own = module.forward, "forward" in vars(module)
    parameters = [
        named
        for name, parameter in bound.signature.parameters.items()
        for named in (
            [parameter]
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
            else [parameter.replace(name=n, kind=_KEYWORD) for n in bound.arguments.get(name, ())]
        )
    ]

    @wraps(forward)
    def plain(*args: Any, **kwargs: Any) -> Any:
        result = contained(forward(*args, **kwargs))
        objects.update(_objects(result))
        return result

    plain.__signature__ = bound.signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    module.forward = plain
    try:
        yield objects
    finally:
        del module.forward
        if own:
            module.forward = forward


def contained(value: Any) -> Any:
    """Return results with names (dataclasses, the outputs of transformers) as dicts."""
    if is_dataclass(value) and not isinstance(value, type):
        items = value if isinstance(value, Mapping) else vars(value)
        return {k: contained(v) for k, v in items.items() if v is not None}
    if type(value) in (list, tuple):
        return type(value)(map(contained, value))
    if type(value) in (dict, OrderedDict):
        return type(value)((k, contained(v)) for k, v in value.items())
    return value


def _objects(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield the place and the type of everything in a result that is no tensor or traced number."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _objects(item, f"{place}.{key}".lstrip("."))
    elif not isinstance(value, Tensor | torch.SymInt | torch.SymFloat | torch.SymBool | None):
        yield place or "the result", type(value).__name__


def doubled(example: Any) -> Any:
    """Return inputs without any axis of size 1 that may vary; None if they have none."""
    small = False

    def double(tensor: Tensor) -> Tensor:
        nonlocal small
        for axis in _free_axes(tensor):
            if tensor.shape[axis] == 1:
                small, tensor = True, tensor.repeat_interleave(2, axis)
        return tensor

    larger = tree_map_only(Tensor, double, example)
    return larger if small else None


def _free_axes(tensor: Tensor) -> range:
    """Return the axes of an input that may vary by default."""
    whole = not tensor.is_floating_point() and tensor.dtype != torch.bool
    return range(tensor.dim() if whole else min(tensor.dim(), 1))


def _free(value: Any) -> Any:
    """Return which axes of an input vary, nested as the input is; those of size 1 are fixed."""
    if isinstance(value, Tensor):
        return {axis: Dim.AUTO for axis in _free_axes(value) if value.shape[axis] != 1}
    if tree_is_leaf(value):
        return None
    if is_dataclass(value):
        fields = value if isinstance(value, Mapping) else vars(value)
        return [_free(item) for item in fields.values() if item is not None]
    if isinstance(value, Mapping):
        return {key: _free(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [_free(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return None
