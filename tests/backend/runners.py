"""How each framework runs a case: its import, fed with arrays, its outputs as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

import onnx_net2net as n2n
from tests.backend.outcome import Runner


def torch_runner(model: n2n.Model, feeds: dict[str, Any]) -> list[Any]:
    """Run the module that ``to_torch`` gives."""
    import torch

    from onnx_net2net.frameworks.torch.module import tensor_of

    FLOAT8 = {getattr(torch, name) for name in dir(torch) if name.startswith("float8")}

    def tensors(value: Any) -> Any:
        if isinstance(value, list):
            return [tensors(item) for item in value]
        return value if value is None else tensor_of(np.asarray(value))

    def arrays(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [arrays(item) for item in value]
        if isinstance(value, torch.Tensor) and (
            value.dtype is torch.bfloat16 or value.dtype in FLOAT8
        ):
            return value.float().numpy()
        return value.numpy() if isinstance(value, torch.Tensor) else value

    module = n2n.to_torch(model)
    with torch.no_grad():
        given = module(*(tensors(value) for value in feeds.values()))
    return [arrays(v) for v in given] if isinstance(given, tuple) else [arrays(given)]


def keras_runner(model: n2n.Model, feeds: dict[str, Any]) -> list[Any]:
    """Run the Keras model that ``to_keras`` gives."""
    from tests.keras_models import in_order, keras

    network = n2n.to_keras(model)
    values = [v if v is None else np.asarray(v) for v in feeds.values()]
    given = network(values if len(values) != 1 else values[0])
    return [keras.ops.convert_to_numpy(v) for v in in_order(given)]


RUNNERS: dict[str, Runner | None] = {"none": None, "torch": torch_runner, "keras": keras_runner}
