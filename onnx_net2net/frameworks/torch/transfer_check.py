"""Do two modules compute the same on these inputs, up to their own rounding noise?

    inference(small, large, examples)      # an OutputReport for each output
    training(small, large, examples)       # the same, or in words why not

The judge is that of :func:`onnx_net2net.verify`. A module's noise is how far it moves when its
parameters are changed by one unit in the last place. Neither module is changed: parameters,
statistics and modes are what they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map

from onnx_net2net.frameworks.state_dicts import to_array, to_tensor
from onnx_net2net.frameworks.torch.calls import contained
from onnx_net2net.frameworks.torch.dropout import RAISED
from onnx_net2net.frameworks.transfer import output_reports
from onnx_net2net.verification.judgement import Runs
from onnx_net2net.verification.precision import nudged_array
from onnx_net2net.verification.report import OutputReport, Trial

__all__ = ["Call", "device_of", "dtype_of", "inference", "training"]

Outputs = dict[str, np.ndarray]
SIGNS = (1, -1)


@dataclass(frozen=True)
class Call:
    """What a module is called with."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def on(
        self, device: torch.device, dtype: torch.dtype | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with tensors on ``device``, floating-point ones in ``dtype``."""

        def moved(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return value.to(device, dtype if value.is_floating_point() else None)

        arguments: tuple[tuple[Any, ...], dict[str, Any]]
        arguments = tree_map(moved, (self.args, dict(self.kwargs)))
        return arguments

    def of(
        self, module: nn.Module, state: Mapping[str, Tensor], *, seed: int = 0, like: Any = None
    ) -> Outputs:
        """Return the outputs of ``module`` as arrays by path, with ``state`` in place of its own.

        With ``like``, a module, inputs are in its type, and outputs in float32. The generators of
        random numbers are afterwards as they were.
        """
        device = device_of(module)
        args, kwargs = self.on(device, None if like is None else dtype_of(like))
        devices = [device] if device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            places = _placed(module, state)
            result = functional_call(module, places, args, kwargs, tie_weights=False)
        leaves, _ = tree_flatten_with_path(contained(result))
        tensors = [(keystr(path), leaf) for path, leaf in leaves if isinstance(leaf, Tensor)]
        wide = like is not None
        return {
            name: to_array(tensor.float() if wide and tensor.is_floating_point() else tensor)
            for name, tensor in tensors
        }


def device_of(module: nn.Module) -> torch.device:
    """Return where the first of the module's parameters lies."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def dtype_of(module: nn.Module) -> torch.dtype | None:
    """Return the type that a module computes in: that of its first real parameter."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), None)


def inference(small: nn.Module, large: nn.Module, call: Call) -> list[OutputReport]:
    """Compare both modules in inference mode."""
    with _mode(small, training=False), _mode(large, training=False):
        return _compared(small, large, call)


def training(small: nn.Module, large: nn.Module, call: Call) -> list[OutputReport] | str:
    """Compare both modules in training mode, their Dropout layers off; or say why not."""
    with _mode(small, training=True), _mode(large, training=True):
        try:
            first, again = (call.of(small, _copied(small), seed=seed) for seed in (0, 1))
            if any(not np.array_equal(first[name], again[name], equal_nan=True) for name in first):
                return "it draws random numbers, even with its Dropout layers off"
            return _compared(small, large, call)
        except RAISED as error:
            return next(iter(str(error).splitlines()), type(error).__name__)


@contextmanager
def _mode(module: nn.Module, *, training: bool) -> Iterator[None]:
    """Put all parts into one mode, but for Dropout, which stays off; then each as it was."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = training and not isinstance(part, nn.modules.dropout._DropoutNd)
        yield
    finally:
        for part, before in modes:
            part.training = before


def _placed(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state at each place of each part, ties included, once for a part of several names.

    PyTorch would put a part's tensors in place once for each name, and take back only the first.
    """
    names = {id(t): n for n, t in (*module.named_parameters(), *module.named_buffers())}
    return {
        f"{path}.{leaf}".removeprefix("."): state[names[id(tensor)]]
        for path, part in module.named_modules()
        for leaf, tensor in (
            *part.named_parameters(recurse=False, remove_duplicate=False),
            *part.named_buffers(recurse=False, remove_duplicate=False),
        )
    }


def _copied(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters, and copies of buffers, which a call in training mode changes."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    return {**dict(module.named_parameters()), **buffers}


def _nudged(module: nn.Module, sign: int) -> dict[str, Tensor]:
    """Return the state with parameters moved by about one unit in the last place."""
    rng = np.random.default_rng(sign + 1)
    state = _copied(module)
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point():
            moved = to_tensor(nudged_array(to_array(parameter), rng, sign))
            state[name] = moved.to(parameter.device)
    return state


def _compared(small: nn.Module, large: nn.Module, call: Call) -> list[OutputReport]:
    apart = dtype_of(small) != dtype_of(large)
    runs = []
    for module in (small, large):
        like = module if apart else None
        runs.append(Runs([call.of(module, _copied(module), like=like)]))
        for sign in SIGNS:
            runs[-1].absorb([call.of(module, _nudged(module, sign), like=like)])
    if apart:  # what the larger module's type does to the smaller one is no difference of theirs
        state = _copied(small)
        dtype = dtype_of(large)
        state = {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}
        runs[0].absorb([call.of(small, state, like=large)])
    return output_reports(runs[0], runs[1], [Trial("the example inputs")])
