"""The models that the fuzzer starts from: fixtures, samples of the rules, ONNX's operator tests."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

from tests.samples import samples
from tests.samples.network import network

FIXTURES = Path(__file__).parents[2] / "fixtures"
LARGEST_FIXTURE = 40_000  # bytes
LARGEST_WEIGHT = 1 << 14  # elements of an input that becomes a weight
Corpus = dict[str, list[tuple[str, bytes]]]


def build() -> Corpus:
    """Models by kind, each a list of (name, serialised model) in a fixed order."""
    fixtures = [
        (path.stem, path.read_bytes())
        for path in sorted(FIXTURES.glob("*.onnx"))
        if path.stat().st_size <= LARGEST_FIXTURE
    ]
    rules = [
        (f"{family}:{sample.id}", network(sample).SerializeToString())
        for family, group in samples().items()
        for sample in group
    ]
    return {"fixture": fixtures, "rule": rules, "operator": list(_operators())}


def _operators() -> Iterator[tuple[str, bytes]]:
    """ONNX's operator tests, each as it is, and with all inputs but the first as weights."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    for case in sorted(cases, key=lambda case: case.name):
        if case.model is None or not case.data_sets:
            continue
        yield case.name, case.model.SerializeToString()
        stored = with_weights(case.model, case.data_sets[0][0])
        if stored is not None:
            yield f"{case.name}+weights", stored.SerializeToString()


def with_weights(model: ModelProto, values: list) -> ModelProto | None:
    """The model with all inputs but the first as initializers; None where they cannot be."""
    if len(model.graph.input) < 2 or len(values) != len(model.graph.input):
        return None
    proto = ModelProto()
    proto.CopyFrom(model)
    for entry, value in zip(model.graph.input[1:], values[1:], strict=True):
        if isinstance(value, onnx.TensorProto):
            value = numpy_helper.to_array(value)
        if not isinstance(value, np.ndarray) or value.size > LARGEST_WEIGHT:
            return None
        proto.graph.initializer.append(numpy_helper.from_array(value, entry.name))
    del proto.graph.input[1:]
    return proto


def stored(path: Path) -> Corpus:
    """What :func:`build` gave once; for workers, which would take seconds each to build it."""
    with open(path, "rb") as file:
        return pickle.load(file)


def store(path: Path) -> None:
    """Build the models and keep them in a file."""
    with open(path, "wb") as file:
        pickle.dump(build(), file)
