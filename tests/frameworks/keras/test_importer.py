"""Every fixture as a Keras model: the same outputs, and all that a Keras model does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import load as load_proto

from onnx_net2net.frameworks.roles import Role, roles
from tests.computed_weights import FOLLOWED, REFUSED
from tests.keras_models import (
    FILES,
    FOLDER,
    differences,
    expected,
    feeds_of,
    keras,
    load,
    outputs,
    to_keras,
)
from tests.test_fixtures import NOT_ON_CPU, run


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_outputs_are_those_of_the_file(path: Path) -> None:
    model = load(path)
    feeds = feeds_of(model)
    if path.name in NOT_ON_CPU:
        wanted = run(load_proto(path), feeds, on_cpu=False)
    else:
        wanted = expected(model, feeds)
    assert differences(wanted, outputs(to_keras(model), feeds)) == []


def test_variables_hold_what_the_file_does_under_the_authors_names() -> None:
    model = load(FOLDER / "resnet.dynamo-raw.onnx")
    kinds = roles(model)
    network = to_keras(model)
    held = {f"{layer.name}.{v.name}": v for layer in network.layers for v in layer.variables}
    last = {
        "weight": "gamma", "bias": "beta", "running_mean": "moving_mean",
        "running_var": "moving_variance",
    }  # fmt: skip
    for name, role in kinds.items():
        path, _, kind = name.rpartition(".")
        array = model.weights[name].array()
        if role is Role.CONSTANT:
            continue
        if f"{path}.kernel" in held:
            own = {"weight": "kernel"}.get(kind, kind)
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        else:
            own = last[kind]
        variable = held.pop(f"{path}.{own}") if own != "kernel" else held[f"{path}.kernel"]
        assert np.array_equal(variable.numpy(), array), name
        assert variable.trainable == (role is Role.PARAMETER)
    assert all(name.endswith(".kernel") for name in held)


def test_saves_and_loads(tmp_path: Path) -> None:
    model = load(FOLDER / "gpt2.dynamo.onnx")
    network, feeds = to_keras(model), feeds_of(model)
    network.save(tmp_path / "gpt2.keras")
    again = keras.saving.load_model(tmp_path / "gpt2.keras")
    assert np.array_equal(outputs(network, feeds)[0], outputs(again, feeds)[0])
    assert [v.path for v in again.variables] == [v.path for v in network.variables]


@pytest.mark.parametrize("name", [*REFUSED, *FOLLOWED])
def test_weights_that_the_graph_computes(name: str) -> None:
    model = load((REFUSED | FOLLOWED)[name].model())
    feeds = feeds_of(model)
    assert not differences(expected(model, feeds), outputs(to_keras(model), feeds))
