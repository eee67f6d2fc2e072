"""A model's history can be done again, byte for byte; two models can be told apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_net2net as n2n
from onnx_net2net.model.history import HISTORY
from tests.console import FIXTURES, complaint, finished

PARENT = FIXTURES / "resnet.dynamo-raw.onnx"


def grown_thrice() -> n2n.Model:
    wide = n2n.widen(n2n.load(PARENT), {"conv1": 9, "layer3.0.conv1": 15}, seed=3, split="even")
    deep = n2n.deepen(wide, after="layer1.0.conv1", block="layer1.1", copies=2, kernel=1, seed=5)
    return n2n.widen(deep, {"layer1.0.conv1_deeper": 12}, mapping="round-robin")


def test_a_history_is_replayed_byte_for_byte(tmp_path: Path) -> None:
    grown_thrice().save(tmp_path / "grown.onnx")
    done = finished("history", tmp_path / "grown.onnx", "--replay", PARENT,
                    "-o", tmp_path / "again.onnx")  # fmt: skip
    assert done.code == 0, done.err
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "grown.onnx").read_bytes()


def test_it_can_begin_in_between() -> None:
    grown = grown_thrice()
    between = n2n.replay(n2n.load(PARENT), grown.history[:1])
    assert n2n.replay(between, grown.history).to_bytes() == grown.to_bytes()


def test_the_steps_are_shown(tmp_path: Path) -> None:
    grown_thrice().save(tmp_path / "grown.onnx")
    shown = finished("history", tmp_path / "grown.onnx")
    assert "conv1 6 -> 9" in shown.out and "2 x layer1.1" in shown.out
    listed = json.loads(finished("history", tmp_path / "grown.onnx", "--json").out)["history"]
    assert [step["operation"] for step in listed] == ["widen", "deepen", "widen"]
    assert "no step is recorded" in finished("history", PARENT).out


def test_what_changes_nothing_leaves_no_entry() -> None:
    model = n2n.load(PARENT)
    wide = n2n.widen(n2n.widen(model, {"conv1": 9}), {"conv1": 9})
    assert len(wide.history) == 1 and wide.changes == []
    plan = [{"operation": "fold"}, *({"operation": "widen", "widths": {"conv1": 9}},) * 2]
    grown = n2n.grow(model, plan=plan)
    assert [change.new for change in grown.changes] == [9]
    assert n2n.replay(model, grown.history).to_bytes() == grown.to_bytes() == wide.to_bytes()


def test_a_history_names_no_files_to_be_read() -> None:
    model = n2n.load(PARENT)
    deeper = n2n.deepen(model, "layer1.0.conv1")
    told = [{**deeper.history[0], "calibrate": ["/none.npz"], "copies": 7, "spread": True}]
    assert n2n.replay(model, told).to_bytes() == deeper.to_bytes()


def test_folding_is_a_step() -> None:
    model = n2n.load(FIXTURES / "standardised.dynamo-raw.onnx")
    steps = [{"operation": "widen", "factor": 1.5, "all": True}]
    plan = {"step": [{"operation": "fold"}, *steps]}
    grown = n2n.grow(model, plan=plan)
    assert [step["operation"] for step in grown.history] == ["fold", "widen"]
    assert grown.to_bytes() == n2n.grow(model, plan={"fold": True, "step": steps}).to_bytes()
    assert n2n.replay(model, grown.history).to_bytes() == grown.to_bytes()
    with pytest.raises(n2n.UsageError, match=r"step 1 \(fold\): unknown key 'seed'"):
        n2n.grow(model, plan=[{"operation": "fold", "seed": 1}])


# As an earlier version wrote it, with fewer settings.
OLD = [
    {"operation": "widen", "parent": "0", "version": "0.0.9", "seed": 1, "split": "project",
     "changes": [{"dimension": "conv1", "old": 6, "new": 9}]},
    {"operation": "deepen", "parent": "1", "version": "0.0.9", "after": ["conv1"], "init": "auto",
     "changes": [{"after": "conv1", "init": "identity", "parameters": [], "tensor": "x"},
                 {"block": "layer1.0", "copies": 2}]},
    {"operation": "absorb", "parent": "2", "version": "0.0.9", "weights": 3},
]  # fmt: skip


def test_histories_of_other_versions_are_shown(tmp_path: Path) -> None:
    proto = onnx.load(PARENT)
    proto.metadata_props.add(key=HISTORY, value=json.dumps(OLD))
    onnx.save(proto, tmp_path / "m.onnx")
    shown = finished("history", tmp_path / "m.onnx")
    assert shown.code == 0 and "conv1 6 -> 9" in shown.out and "2 x layer1.0" in shown.out
    assert "identity behind conv1" in shown.out and "3 weights" in shown.out
    assert finished("diff", PARENT, tmp_path / "m.onnx").code == 0
    assert n2n.widen(tmp_path / "m.onnx", {"conv1": 9}).history[:3] == OLD
    again = {**OLD[0], "parent": n2n.load(PARENT).sha256()}
    with pytest.raises(n2n.Refused, match=r"it was done by version 0.0.9, and this is"):
        n2n.replay(PARENT, [again])


def test_what_cannot_be_done_again_is_refused() -> None:
    model = n2n.load(PARENT)
    batch = {"x": np.random.default_rng(0).normal(size=(4, 3, 40, 36)).astype(np.float32)}
    measured = n2n.deepen(model, "layer1.0.conv1", calibration=[batch])
    with pytest.raises(n2n.Refused, match="data that it was measured on"):
        n2n.replay(model, measured.history)
    other = [{**n2n.widen(model, {"conv1": 9}).history[0], "version": "0.0.1"}]
    with pytest.raises(n2n.Refused, match="version") as caught:
        n2n.replay(model, other)
    assert caught.value.remedy == "pip install onnx-net2net==0.0.1"
    with pytest.raises(n2n.UsageError, match="no step of the history"):
        n2n.replay(n2n.load(FIXTURES / "lenet.dynamo.onnx"), measured.history)


def test_growing_in_steps_is_exact_at_each() -> None:
    model = n2n.load(PARENT)
    grown = model
    for width in (8, 12, 17):
        grown = n2n.widen(grown, {"conv1": width})
        assert n2n.verify(model, grown, seeds=1)


def test_a_difference_is_listed(tmp_path: Path) -> None:
    model = n2n.load(PARENT)
    found = n2n.diff(model, grown_thrice())
    assert found.grown["conv1.weight"] == ((6, 3, 5, 5), (9, 3, 5, 5))
    assert found.operators["Conv"] == 5 and not found.alike
    assert "layer1.3.conv1.weight" in found.added and "fc.bias" in found.equal
    assert n2n.diff(model, n2n.load(PARENT)).alike
    one = n2n.absorb(model, {**weights(model), "fc.bias": np.ones(9, np.float32)})
    assert n2n.diff(model, one).changed == ["fc.bias"]
    one.save(tmp_path / "one.onnx")
    told = finished("diff", PARENT, tmp_path / "one.onnx")
    assert told.code == 1 and "changed  fc.bias" in told.out
    assert finished("diff", PARENT, PARENT).code == 0


def weights(model: n2n.Model) -> dict[str, np.ndarray]:
    """All that training would have changed."""
    return {n: w.array() for n, w in model.weights.items() if "." in n}


WHOLE = '{"operation": "widen", "parent": "0", "version": "0", "changes": [%s]}'


@pytest.mark.parametrize(
    "text",
    ["[NaN]", "[{}]", "{}", "[" * 9999, *(f"[{WHOLE % change}]" for change in ("NaN", "1", "{}"))],
)
def test_a_history_that_is_damaged(tmp_path: Path, text: str) -> None:
    proto = onnx.load(PARENT)
    proto.metadata_props.add(key=HISTORY, value=text)
    onnx.save(proto, tmp_path / "m.onnx")
    for arguments in (("history", "m.onnx"), ("verify", PARENT, "m.onnx", "--layers")):
        said, remedy = complaint(finished(*arguments, cwd=tmp_path), 2)
        assert "is not a list of steps in JSON" in said and remedy
