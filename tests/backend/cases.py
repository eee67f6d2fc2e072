"""The backend tests that the onnx package ships and generates, as models with their inputs.

    for case in cases():
        case.name, case.model, case.feeds        # {input: array, or list of arrays, or None}

Each comes twice where it can: as it is, and with all inputs but the first turned into initializers
(`<name>/weights`), which is how an exporter would have written it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
WEIGHTS = "/weights"


@dataclass(frozen=True)
class Case:
    """A model, what it is fed, and what ONNX says that it gives."""

    name: str
    model: ModelProto
    feeds: dict[str, Any]
    stated: list[Any]


@cache
def by_name() -> dict[str, Case]:
    """Every case, sorted by name."""
    found = {case.name: case for case in _plain()}
    for case in list(found.values()):
        twin = _with_weights(case)
        if twin is not None:
            found[twin.name] = twin
    return dict(sorted(found.items()))


def cases() -> list[Case]:
    """Every case, sorted by name."""
    return list(by_name().values())


def _plain() -> Iterator[Case]:
    for kind in KINDS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the generators divide by zero on purpose
            found = load_model_tests(kind=kind)
        for test in found:
            model = test.model or _read_model(Path(test.model_dir))
            if test.data_sets:
                values, stated = map(list, test.data_sets[0])
            else:
                folder = Path(test.model_dir, "test_data_set_0")
                values = _read(folder, "input", model.graph.input)
                stated = _read(folder, "output", model.graph.output)
            # Initializers of old files stand among their inputs, behind what is fed.
            names = [value.name for value in model.graph.input][: len(values)]
            feeds = dict(zip(names, map(_value, values), strict=True))
            yield Case(test.name, model, feeds, list(map(_value, stated)))


def _value(value: Any) -> Any:
    """An array, a list of arrays, or None; some of the generated tests hold messages."""
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return [_value(item) for item in value] if isinstance(value, list) else value


def _read_model(folder: Path) -> ModelProto:
    return onnx.load(folder / "model.onnx")


def _read(folder: Path, kind: str, described: Iterable[ValueInfoProto]) -> list[Any]:
    """The inputs or outputs that lie in a folder, as far as there are files."""
    count = sum(name.startswith(f"{kind}_") for name in os.listdir(folder))
    found = []
    for index, value in zip(range(count), described, strict=False):
        contents = (folder / f"{kind}_{index}.pb").read_bytes()
        if value.type.HasField("sequence_type"):
            sequence = onnx.SequenceProto.FromString(contents)
            found.append(numpy_helper.to_list(sequence))
        elif value.type.HasField("optional_type"):
            optional = onnx.OptionalProto.FromString(contents)
            found.append(numpy_helper.to_optional(optional))
        else:
            found.append(numpy_helper.to_array(TensorProto.FromString(contents)))
    return found


def _with_weights(case: Case) -> Case | None:
    """The case with all inputs but the first stored in the file, or None if there are no others."""
    first, *others = case.feeds or [""]
    stored = {
        value.name: np.asarray(case.feeds[value.name])
        for value in case.model.graph.input
        if value.name in others and value.type.HasField("tensor_type")
    }
    if not stored or len(stored) < len(others):
        return None
    twin = ModelProto()
    twin.CopyFrom(case.model)
    kept = [value for value in twin.graph.input if value.name not in stored]
    del twin.graph.input[:]
    twin.graph.input.extend(kept)
    types = {value.name: value.type.tensor_type.elem_type for value in case.model.graph.input}
    for name, array in stored.items():
        tensor = numpy_helper.from_array(array, name)
        if tensor.data_type != types[name]:
            return None
        twin.graph.initializer.append(tensor)
    return Case(case.name + WEIGHTS, twin, {first: case.feeds[first]}, case.stated)
