"""The generated source as a live module, in this process.

    module = build(text, weights, constants)

The text is the one that a package is written from. It is kept with the module, so that tracebacks
show its lines, and so that the module can be pickled and copied like any other.
"""

from __future__ import annotations

import hashlib
import linecache
import sys
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from onnx_net2net.frameworks.torch.source import CLASS
from onnx_net2net.model.model import Weight

_classes: dict[str, type[nn.Module]] = {}


def tensor_of(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """Copy an array. NumPy has no bfloat16 and float8 of its own, PyTorch no int4 and int2."""
    array = np.array(array, copy=True, order="C")
    name = array.dtype.name
    if name == "bfloat16" or name.startswith("float8"):
        bits = array.view(np.int16 if name == "bfloat16" else np.int8)
        return torch.from_numpy(bits).view(getattr(torch, name))
    if name in ("int4", "int2", "uint4", "uint2"):
        return torch.from_numpy(array.astype(np.uint8 if name[0] == "u" else np.int8))
    return torch.from_numpy(array)


def class_of(text: str, constants: Mapping[str, torch.Tensor]) -> type[nn.Module]:
    """Return the class that the source defines; one for each text."""
    digest = hashlib.sha256(text.encode())
    for name, value in constants.items():
        digest.update(name.encode())
        digest.update(value.contiguous().view(torch.uint8).numpy().tobytes())
    key = digest.hexdigest()
    if key in _classes:
        return _classes[key]
    constants = dict(constants)
    name = f"onnx_net2net_model_{key[:16]}"
    filename = f"<{name}.py>"
    module = types.ModuleType(name)
    module.__file__ = filename
    sys.modules[name] = module  # torch.compile and inspect look modules up by name
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    exec(compile(text, filename, "exec"), module.__dict__)  # what source.py has written
    if constants:
        module.__dict__["stored_constants"] = lambda: dict(constants)
    defined: type[nn.Module] = module.__dict__[CLASS]

    def reduce(self: nn.Module) -> tuple[Any, ...]:
        return _rebuilt, (text, constants), self.__dict__

    defined.__reduce__ = reduce  # type: ignore[method-assign,assignment]
    _classes[key] = defined
    return defined


def _rebuilt(text: str, constants: Mapping[str, torch.Tensor]) -> nn.Module:
    """Return an empty instance, to be filled with the pickled state."""
    defined = class_of(text, constants)
    return defined.__new__(defined)


def build(
    text: str, weights: Mapping[str, Weight], constants: Mapping[str, torch.Tensor]
) -> nn.Module:
    """Return an instance with these weights, which are read one at a time."""
    module = class_of(text, constants)()
    state = module.state_dict()
    loaded: dict[str, torch.Tensor] = {}
    for path, weight in weights.items():
        loaded[path], own = tensor_of(weight.array()), state.get(path)
        if own is not None and own.shape == loaded[path].shape:
            loaded[path] = own.copy_(loaded[path])
    module.load_state_dict(loaded)  # they lie there already; it finds what is missing, or too much
    if not hasattr(module, "source"):  # unless the network has a part that is called so
        module.source = text  # type: ignore[assignment]
    return module.eval()
