"""Every fixture as a Keras model: the same outputs, and all that a Keras model does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import load as load_proto

from onnx_net2net.frameworks.roles import Role, paths, roles
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


def test_variables_are_named_and_shaped_as_in_the_file() -> None:
    model = load(FOLDER / "resnet.dynamo-raw.onnx")
    names, kinds = paths(model), roles(model)
    network = to_keras(model)
    found = {v.name: v for v in network.variables}
    wanted = {names[n]: n for n, role in kinds.items() if role is not Role.CONSTANT}
    assert found.keys() == wanted.keys()
    for path, name in wanted.items():
        assert np.array_equal(found[path].numpy(), model.weights[name].array())
        assert found[path].trainable == (kinds[name] is Role.PARAMETER)
    assert len(network.get_weights()) == len(wanted)


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
