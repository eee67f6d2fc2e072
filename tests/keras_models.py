"""Keras, imported once and quietly, and what its tests share."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what TensorFlow's own imports warn of is not ours
    keras = pytest.importorskip("keras")
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        pytest.importorskip("tensorflow")

from onnx_net2net.frameworks.keras import to_keras
from onnx_net2net.model.model import Model, load
from onnx_net2net.verification.verify import run
from tests import test_fixtures

FOLDER = Path(__file__).parent.parent / "fixtures"
FILES = sorted(FOLDER.glob("*.onnx"))
# In units of the largest entry of an output: some roundings of a deep network.
ROUNDING = {"float16": 1e-2, "bfloat16": 4e-2, "float32": 1e-4, "float64": 1e-10}

Feeds = dict[str, np.ndarray]


def feeds_of(model: Model, seed: int = 1) -> Feeds:
    """Inputs of a fixture."""
    return test_fixtures.make_inputs(onnx.load_from_string(model.to_bytes()), seed)


def expected(model: Model, feeds: Feeds) -> list[np.ndarray]:
    """What onnxruntime computes, in the order of the graph."""
    found = run(model, feeds, optimised=False)
    return [found[value.name] for value in model.proto.graph.output]


def outputs(network: Any, feeds: Feeds, **options: Any) -> list[np.ndarray]:
    """What Keras computes."""
    given = list(feeds.values())
    found = network(given if len(given) > 1 else given[0], **options)
    return [np.asarray(keras.ops.convert_to_numpy(value)) for value in in_order(found)]


def in_order(found: Any) -> list[Any]:
    """The outputs of a network, which gives one, a list of them or a dictionary."""
    found = list(found.values()) if isinstance(found, dict) else found
    return found if isinstance(found, list) else [found]


def differences(wanted: list[np.ndarray], found: list[np.ndarray]) -> list[str]:
    """Outputs of another type or shape, or that differ by more than rounding."""
    problems = []
    for index, (want, got) in enumerate(zip(wanted, found, strict=True)):
        if (want.shape, want.dtype) != (got.shape, got.dtype):
            problems.append(f"{index}: {got.dtype} {got.shape} for {want.dtype} {want.shape}")
            continue
        a, b = want.astype(np.float64), got.astype(np.float64)
        error = np.abs(a - b).max(initial=0) / max(np.abs(a).max(initial=0), 1e-6)
        if not error <= ROUNDING.get(want.dtype.name, 0):
            problems.append(f"{index}: differs by {error:.1e} of its largest entry")
    return problems


__all__ = [
    "FILES", "FOLDER", "differences", "expected", "feeds_of", "in_order", "keras", "load",
    "outputs", "to_keras",
]  # fmt: skip
