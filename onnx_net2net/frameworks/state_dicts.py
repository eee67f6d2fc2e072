"""Weights by name, wherever they come from: files, mappings, modules, Keras models.

    weights = weight_set("trained.safetensors")
    weights = weight_set(module)                  # anything with state_dict()
    weights["conv1.weight"].array()

Tensors of PyTorch and variables of Keras are taken by their own methods, so that neither
framework is imported here unless a file of PyTorch's is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper

from onnx_net2net.errors import UsageError
from onnx_net2net.frameworks import safetensors_file
from onnx_net2net.model import arrays
from onnx_net2net.model.model import Computed, Weight

__all__ = ["Weights", "held", "to_array", "to_tensor", "weight_set"]

Weights = Any  # a mapping, a path, or a model with state_dict() or .weights
KINDS = "a state dict, a .safetensors, .npz or .pt file, a PyTorch module or a Keras model"


def weight_set(weights: Weights) -> dict[str, Weight]:
    """Return the tensors of ``weights`` by name, read when asked for where possible.

    Raises UsageError for what is none of the known kinds.
    """
    if isinstance(weights, str | os.PathLike):
        return _from_file(Path(weights))
    if callable(getattr(weights, "state_dict", None)):
        return _from_mapping(weights.state_dict())
    if isinstance(weights, Mapping):
        return _from_mapping(weights)
    if isinstance(getattr(weights, "weights", None), list):
        return _from_variables(weights.weights)
    raise UsageError(f"a {type(weights).__name__} holds no weights by name", f"give {KINDS}")


_NO_WEIGHTS = frozenset(
    TensorProto.DataType.Value(kind) for kind in ("UNDEFINED", "STRING", "COMPLEX64", "COMPLEX128")
)


def held(name: str, array: np.ndarray) -> Weight:
    """Return ``array`` as a weight. Raises UsageError for a type that no weight can have."""
    try:
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
    except (KeyError, ValueError):
        dtype = TensorProto.UNDEFINED
    if dtype in _NO_WEIGHTS:
        problem = f"'{name}' holds {array.dtype}, not real numbers"
        raise UsageError(problem, "leave it out")
    return Computed(name, dtype, array.shape, partial(_same, array))


def _same(array: np.ndarray) -> np.ndarray:
    return array


def to_array(value: Any) -> np.ndarray:
    """Return a tensor, variable or array of any framework as an array."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "full_tensor"):  # sharded over processes
        value = value.full_tensor()
    if hasattr(value, "detach"):
        return _from_torch(value.detach().cpu().contiguous())
    if hasattr(value, "numpy") and callable(value.numpy):
        return np.asarray(value.numpy())
    return np.asarray(value)


# What NumPy lacks, by the bits that it takes.
_BITS = {
    "torch.bfloat16": ("uint16", ml_dtypes.bfloat16),
    "torch.float8_e4m3fn": ("uint8", ml_dtypes.float8_e4m3fn),
    "torch.float8_e5m2": ("uint8", ml_dtypes.float8_e5m2),
}


def _from_torch(tensor: Any) -> np.ndarray:
    bits = _BITS.get(str(tensor.dtype))
    if bits is None:
        return np.asarray(tensor.numpy())
    import torch

    return np.asarray(tensor.view(getattr(torch, bits[0])).numpy()).view(bits[1])


def to_tensor(array: np.ndarray) -> Any:
    """Return a new tensor of PyTorch's with these contents."""
    import torch

    for name, (unsigned, own) in _BITS.items():
        if array.dtype == own:
            flat = torch.from_numpy(np.ascontiguousarray(array).view(unsigned).copy())
            return flat.view(getattr(torch, name.removeprefix("torch.")))
    return torch.from_numpy(np.array(array, order="C"))


def _from_mapping(mapping: Mapping[Any, Any]) -> dict[str, Weight]:
    weights = {}
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            inner = next((k for k in mapping if isinstance(mapping[k], Mapping)), name)
            raise UsageError(
                f"'{inner}' is a mapping itself: this is a checkpoint, not its weights",
                f"give the state dict within it, such as checkpoint['{inner}']",
            )
        if isinstance(value, Weight):
            weights[name] = value
        elif value is not None and not isinstance(value, str | bytes):
            try:
                array = to_array(value)
            except (TypeError, ValueError) as error:
                raise UsageError(f"'{name}' is no array: {error}", "leave it out") from None
            weights[str(name)] = held(str(name), array)
    return weights


def _from_variables(variables: list[Any]) -> dict[str, Weight]:
    """Return Keras variables by their names, or by paths where names repeat."""
    names = [str(v.name) for v in variables]
    if len(set(names)) < len(names):
        names = [str(getattr(v, "path", v.name)) for v in variables]
    return {n: held(n, to_array(v)) for n, v in zip(names, variables, strict=True)}


def _from_file(path: Path) -> dict[str, Weight]:
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise UsageError(f"{path}: its suffix tells no known format", f"give {KINDS}")
    if not path.is_file():
        raise UsageError(f"{path}: no such file", "check the path")
    return read(path)


def _from_npz(path: Path) -> dict[str, Weight]:
    try:
        contents = arrays.read(path)
        if isinstance(contents, np.ndarray):
            raise ValueError("it is no archive")
        return {name: held(name, array) for name, array in contents.items()}
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path}: is no .npz file of plain arrays: {error}", "write it with numpy.savez"
        ) from None


def _from_pickle(path: Path) -> dict[str, Weight]:
    try:
        import torch
    except ModuleNotFoundError:
        raise UsageError(
            f"{path}: only PyTorch reads this file", "pip install 'onnx-net2net[torch]'"
        ) from None
    from pickle import UnpicklingError

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:  # whose text proposes to run what the file holds
        raise UsageError(
            f"{path}: holds more than plain weights, or is damaged",
            "save module.state_dict(), not the module",
        ) from None
    except (OSError, RuntimeError, EOFError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(
            f"{path}: cannot be read as plain weights: {reason}",
            "save module.state_dict(), not the module",
        ) from None
    return weight_set(loaded)


READERS: Mapping[str, Callable[[Path], dict[str, Weight]]] = {
    ".bin": _from_pickle,
    ".npz": _from_npz,
    ".pt": _from_pickle,
    ".pth": _from_pickle,
    ".safetensors": safetensors_file.read,
}
