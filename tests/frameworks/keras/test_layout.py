"""layout="nhwc": images have their channels last outside, too, and nothing is turned for them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_net2net.errors import UsageError
from onnx_net2net.frameworks.absorb import absorb
from tests.cli.test_terminal import onnx_net2net
from tests.keras_models import (
    FOLDER,
    differences,
    expected,
    feeds_of,
    keras,
    load,
    outputs,
    to_keras,
)

from onnx_net2net.frameworks.keras.origin import turned_by  # isort: skip

# Of each network: what is turned at its border, and how often a tensor is turned within,
# with the file's own layout and with the channels last.
NETWORKS = {
    "gpt2.dynamo": (set(), None),
    "gru.dynamo": (set(), None),
    "inception.dynamo": ({"x"}, (1, 0)),
    "mobilenetv3.dynamo": ({"x"}, (1, 0)),
    "resnet.dynamo": ({"x"}, (1, 0)),
    "unet.dynamo": ({"x", "y"}, (4, 2)),  # it resizes by a linear rule in between
    "wavenet.dynamo": ({"x", "y"}, (6, 4)),  # it cuts what it adds
}


def turns(network: Any) -> int:
    """How often a tensor is turned."""
    found = Counter(type(operation).__name__ for operation in network.operations)
    return found["Permute"] + found["Transpose"]


def last(arrays: dict[str, np.ndarray], names: set[str]) -> dict[str, np.ndarray]:
    """The tensors, of which some get their channels last."""
    return {n: np.moveaxis(a, 1, -1) if n in names else a for n, a in arrays.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_are_last_where_that_saves_turning(name: str) -> None:
    model = load(FOLDER / f"{name}.onnx")
    feeds, (border, counts) = feeds_of(model), NETWORKS[name]
    names = [value.name for value in model.proto.graph.output]
    plain, network = to_keras(model), to_keras(model, layout="nhwc")
    assert turned_by(plain) == set() and turned_by(network) == border
    wanted = dict(zip(names, expected(model, feeds), strict=True))
    results = outputs(network, last(feeds, border))
    assert differences(list(last(wanted, border).values()), results) == []
    assert counts is None or (turns(plain), turns(network)) == counts


def test_what_comes_back_has_the_layout_of_the_file() -> None:
    from onnx_net2net.frameworks.keras.exporter import from_keras

    model = load(FOLDER / "resnet.dynamo.onnx")
    network = to_keras(model, layout="nhwc")
    network.get_layer("conv1").kernel.assign_add(np.ones(network.get_layer("conv1").kernel.shape))
    feeds = feeds_of(model)
    wanted = outputs(network, last(feeds, {"x"}))
    twin = keras.models.clone_model(network)
    twin.set_weights(network.get_weights())
    for back in (from_keras(network), absorb(model, network), absorb(model, twin)):
        assert differences(expected(back, feeds), wanted) == []


def test_the_command_verifies_both_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = """<ir_version: 8, opset_import: ["": 17]> net (float[n, 3, 6, 7] x)
        => (float[n, 5, p, q] y) <float[5, 3, 3, 3] w> { y = Conv (x, w) }"""
    proto = onnx.parser.parse_model(text)
    values = np.random.default_rng(1).normal(size=(5, 3, 3, 3)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(values, "w"))
    del proto.graph.value_info[:]
    onnx.save(proto, "net.onnx")
    code, out, err = onnx_net2net("export", "net.onnx", "--to", "keras", "--layout", "nhwc")
    assert code == 0 and "equivalent" in out, out + err
    network = keras.saving.load_model("net.keras")
    assert network.input_shape == (None, 6, 7, 3) and network.output_shape == (None, 4, 5, 5)
    code, out, err = onnx_net2net("export", "net.onnx", "--to", "torch", "--layout", "nhwc")
    assert code == 2 and "--layout goes with --to keras" in err
    with pytest.raises(UsageError, match="is no layout"):
        to_keras(load(proto), layout="channels_last")
