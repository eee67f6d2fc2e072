"""Copies whose units cancel: exact as zeros are, with no matrix at zero."""

from __future__ import annotations

import numpy as np
import pytest

import onnx_net2net as n2n
from onnx_net2net.deepening import paired_init
from tests.console import FIXTURES
from tests.deepening.test_blocks import NAMES
from tests.judging import subject

RIGHT = ("bert.dynamo", "bloom", "convnext", "gpt2.dynamo", "llama.dynamo", "resnet.ts17.", "vit.")


def fixture(name: str) -> n2n.Model:
    return n2n.load(FIXTURES / name)


@pytest.mark.parametrize("name", NAMES)
def test_every_block_cancels_or_is_refused(name: str) -> None:
    source = subject(name)
    exact = [block.name for block in n2n.blocks(source.model) if block.exact]
    if not exact:
        pytest.skip("no blocks")
    try:
        deeper = n2n.deepen(source.model, block=exact, zero="cancel")
    except n2n.Refused as refusal:
        assert not name.startswith(RIGHT) and refusal.remedy == "use --zero last, which is exact"
        return
    assert source.agrees(deeper)
    for parameter in (p for change in deeper.changes for p in change.parameters):
        array = deeper.weights[parameter].array()
        assert array.ndim < 2 or array.any(), f"{parameter} is zero"


def test_the_shapes_stay_and_halves_sum_to_zero() -> None:
    """31 hidden units: fourteen pairs, and three that share a unit."""
    model = fixture("llama.dynamo-raw.onnx")
    deeper = n2n.deepen(model, block="layers.1", zero="cancel")
    for name in deeper.changes[0].parameters:
        old = name.replace("layers.2.", "layers.1.")
        assert deeper.weights[name].shape == model.weights[old].shape
    gate, down = (
        deeper.weights[f"model.model.layers.2.mlp.{part}_proj.weight"].array()
        for part in ("gate", "down")
    )
    units, of = np.unique(gate, axis=0, return_inverse=True)
    assert (len(units), gate.shape[0]) == (15, 31)
    for unit in range(len(units)):
        group = down[:, of.reshape(-1) == unit]
        assert group.any() and np.abs(group.sum(1)).max() < 1e-6


def test_where_only_a_norm_vanishes_it_is_refused() -> None:
    """Training exports of ResNet end each branch in a BatchNorm."""
    with pytest.raises(n2n.Refused, match="a norm's scale") as caught:
        n2n.deepen(fixture("resnet.dynamo-raw.onnx"), block="layer1.0", zero="cancel")
    assert caught.value.remedy == "use --zero last, which is exact"
    with pytest.raises(n2n.UsageError, match="zero: 'half' is not one of"):
        n2n.deepen(fixture("resnet.dynamo-raw.onnx"), block="layer1.0", zero="half")


def test_it_is_replayed_byte_for_byte() -> None:
    model = fixture("vit.dynamo.onnx")
    deeper = n2n.deepen(model, block="blocks.*", copies=2, zero="cancel")
    assert n2n.replay(model, deeper.history).to_bytes() == deeper.to_bytes()
    assert deeper.to_bytes() != n2n.deepen(model, block="blocks.*", copies=2).to_bytes()


@pytest.mark.parametrize("size", [2, 3, 4, 5, 31])
def test_no_unit_is_alone(size: int) -> None:
    source = paired_init._paired(size)
    assert source.shape == (size,)
    assert set(np.bincount(source)) <= {2, 3}


# ---- planted faults ------------------------------------------------------------------------------


def test_halves_that_do_not_cancel_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired_init, "_cancelled", lambda array, *_: array)
    model = fixture("vit.dynamo.onnx")
    assert not n2n.verify(model, n2n.deepen(model, block="blocks.0", zero="cancel"))


def test_units_that_are_not_equal_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = paired_init.Cancelling.array

    def forgetful(self: paired_init.Cancelling, name: str, array: np.ndarray) -> np.ndarray:
        return whole(self, name, array) if name in self.projections else array

    monkeypatch.setattr(paired_init.Cancelling, "array", forgetful)
    model = fixture("vit.dynamo.onnx")
    assert not n2n.verify(model, n2n.deepen(model, block="blocks.0", zero="cancel"))
