"""What the tests of the PyTorch half share: running a file in onnxruntime and as a module."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx.reference import ReferenceEvaluator

from onnx_net2net.frameworks.torch.module import tensor_of
from onnx_net2net.model.model import Model

Feeds = Mapping[str, np.ndarray]
# Rounding noise of a whole network, relative to the largest output, by type.
TOLERANCE = {"float64": 1e-12, "float32": 2e-5, "float16": 1e-2, "bfloat16": 4e-2}


def expected(model: onnx.ModelProto, feeds: Feeds, on_cpu: bool = True) -> list[np.ndarray]:
    """The outputs by onnxruntime without its optimiser, or by ONNX's reference."""
    if not on_cpu:
        return [np.asarray(t) for t in ReferenceEvaluator(model).run(None, dict(feeds))]
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(t) for t in session.run(None, dict(feeds))]


def results(module: torch.nn.Module, feeds: Feeds) -> list[torch.Tensor]:
    """The module's outputs, always as a list."""
    found = module(*(tensor_of(value) for value in feeds.values()))
    return list(found) if isinstance(found, tuple) else [found]


def outputs(module: torch.nn.Module, feeds: Feeds) -> list[np.ndarray]:
    """The module's outputs as arrays, without gradients."""
    with torch.no_grad():
        found = results(module, feeds)
    return [(t.float() if t.dtype == torch.bfloat16 else t).numpy() for t in found]


def difference(want: np.ndarray, got: np.ndarray) -> float:
    """The largest difference, relative to the largest output; infinite for another shape."""
    if want.shape != got.shape:
        return float("inf")
    if not want.size:
        return 0.0
    a, b = want.astype(np.float64), got.astype(np.float64)
    if not (np.isfinite(a) == np.isfinite(b)).all():
        return float("inf")
    fine = np.isfinite(a)
    return float(np.abs(a - b)[fine].max(initial=0.0) / max(np.abs(a)[fine].max(initial=0.0), 1e-6))


def tolerance(model: onnx.ModelProto) -> float:
    """What rounding may make of the coarsest type that the model computes in."""
    names = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
    initial = [names.get(t.data_type, "float64") for t in model.graph.initializer]
    casts = [
        names.get(a.i, "float64")
        for n in model.graph.node
        if n.op_type == "Cast"
        for a in n.attribute
    ]
    inputs = [names.get(v.type.tensor_type.elem_type, "float64") for v in model.graph.input]
    return max(TOLERANCE[name] for name in (*initial, *casts, *inputs))


def whole(model: Model) -> onnx.ModelProto:
    """The model as one message."""
    return onnx.load_from_string(model.to_bytes())
