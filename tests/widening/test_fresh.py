"""Fresh units: drawn like the old ones, read with zeros; exact wherever they are not refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from onnx import ModelProto

import onnx_net2net as n2n
from onnx_net2net.plan.invariant import verify_layers
from onnx_net2net.widening import sharing
from onnx_net2net.widening import widen as widen_module
from onnx_net2net.widening.growth_record import unpack
from tests import golden_dimensions, judging
from tests.console import FIXTURES
from tests.judging import Subject, wider
from tests.networks import Net
from tests.random_networks import networks
from tests.widening.test_planted_faults import change_steps, queries_and_keys, replace
from tests.widening.test_random_networks import PROFILE


def widths_of(subject: Subject, turn: int = 1) -> dict[str, int]:
    return {d.name: wider(d, turn) for d in subject.growable if d.growth == "any"}


def grown_or_refused(subject: Subject, seed: int = 1, turn: int = 1) -> list[n2n.Model]:
    """All that may have any width at once; one by one where one of them is refused."""
    widths = widths_of(subject, turn)
    try:
        return [n2n.widen(subject.model, widths, seed=seed, split="fresh")] if widths else []
    except n2n.Refused as refusal:
        assert refusal.node and refusal.remedy == "use --split project"
    models = []
    for name, width in widths.items():
        try:
            models.append(n2n.widen(subject.model, {name: width}, seed=seed, split="fresh"))
        except n2n.Refused as refusal:
            assert refusal.node and refusal.remedy == "use --split project"
    return models


@pytest.mark.parametrize("name", [path.name for path in golden_dimensions.FIXTURES])
def test_every_fixture_grows_by_fresh_units(name: str) -> None:
    subject = judging.subject(name)
    for grown in grown_or_refused(subject):
        report = subject.judge(grown)
        assert report, report.verdict


@settings(PROFILE, max_examples=60)
@given(proto=networks(), seed=st.integers(0, 3), turn=st.integers(0, 2))
def test_random_networks_grow_by_fresh_units(proto: ModelProto, seed: int, turn: int) -> None:
    note(proto.doc_string)
    subject = Subject(n2n.load(proto))
    for grown in grown_or_refused(subject, seed, turn):
        report = subject.judge(grown)
        assert report, (proto.doc_string, report.verdict)


def two_layers() -> n2n.Model:
    net = Net()
    x = net("MatMul", net.input(4, 5), net.weight(5, 7, name="up.weight"))
    x = net("Relu", net("Add", x, net.weight(7, name="up.bias")))
    return n2n.load(net.model(net("MatMul", x, net.weight(7, 3, name="down.weight"))))


def test_new_units_are_drawn_like_the_old_ones_and_read_with_zeros() -> None:
    model = two_layers()
    grown = n2n.widen(model, {"up": 20}, split="fresh", seed=2)
    old, new = ({n: w.array() for n, w in m.weights.items()} for m in (model, grown))
    np.testing.assert_array_equal(new["up.weight"][:, :7], old["up.weight"])
    np.testing.assert_array_equal(new["down.weight"][:7], old["down.weight"])
    assert not new["down.weight"][7:].any()
    columns = {tuple(np.sort(column)) for column in old["up.weight"].T}
    assert {tuple(np.sort(column)) for column in new["up.weight"].T} == columns
    assert len(np.unique(new["up.weight"], axis=1).T) == 20, "no unit is a copy"
    assert set(new["up.bias"]) == set(old["up.bias"])


def test_they_are_replayed_verified_and_start_without_momenta() -> None:
    model = n2n.load(FIXTURES / "resnet.dynamo-raw.onnx")
    grown = n2n.widen(model, {"layer1.0.conv1": 21}, split="fresh", seed=5)
    assert n2n.replay(model, grown.history).to_bytes() == grown.to_bytes()
    assert verify_layers(model, grown)
    other = n2n.widen(model, {"layer1.0.conv1": 21}, split="fresh", seed=6)
    assert other.to_bytes() != grown.to_bytes()
    told = unpack(grown.history[0])
    for name in ("layer1.0.conv1.weight", "layer1.0.conv2.weight"):
        (along,) = told[name].axes
        assert along.parts().tolist() == [1.0] * 8 + [0.0] * 13


def test_queries_are_zero_and_keys_are_not() -> None:
    """One of two activations that meet is zero; the other makes the gradient of its weights."""
    model = n2n.load(queries_and_keys())
    grown = n2n.widen(model, {"q": 9}, split="fresh")
    assert n2n.verify(model, grown, seeds=1, provider="cpu")
    zero = {n: not grown.weights[f"{n}.weight"].array()[:, 6:].any() for n in "qk"}
    assert sorted(zero.values()) == [False, True] and not grown.history[0]["inserted"]


def extreme() -> ModelProto:
    net = Net()
    x = net("MatMul", net.input(4, 5), net.weight(5, 7, name="up.weight"))
    return net.model(net("ReduceMax", x, axes=[-1]))


REFUSED: dict[str, tuple[Any, dict[str, int], str]] = {
    "maximum": (extreme(), {"up": 9}, "an extreme over units"),
    "queries and keys in one weight": (
        FIXTURES / "vit.dynamo.onnx", {"blocks.0.attn.qkv:head_size": 9}, "until they are trained",
    ),
    "groups of a norm": (
        FIXTURES / "groupnorm.dynamo.onnx", {}, "statistics over all units",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_see_them_is_refused(case: str) -> None:
    source, widths, reason = REFUSED[case]
    model = n2n.load(source)
    widths = widths or {d.name: 2 * d.width for d in n2n.inspect(model) if d.growth == "multiple"}
    with pytest.raises(n2n.Refused, match=reason) as caught:
        n2n.widen(model, widths, split="fresh")
    assert caught.value.node and caught.value.remedy == "use --split project"


# Faults ----------------------------------------------------------------------------------------


def readers_not_zero(patch: pytest.MonkeyPatch) -> None:
    """Readers are shuffled like writers."""

    def change(name: str, step: Any) -> Any:
        drawn = np.maximum(step.source, 0) if step.splits else step.drawn
        return step.__class__(**{**vars(step), "splits": False, "drawn": drawn})

    change_steps(patch, change)


def queries_not_zero(patch: pytest.MonkeyPatch) -> None:
    def wrap(right: Any) -> Any:
        def share(*args: Any) -> Any:
            result = right(*args)
            result.scaled.clear()
            return result

        return share

    replace(patch, "share", wrap)


def old_units_shuffled(patch: pytest.MonkeyPatch) -> None:
    right = widen_module.shuffle_units
    patch.setattr(widen_module, "shuffle_units", lambda a, axis, u, s: right(a, axis, [0, *u], s))


def extremes_let_pass(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sharing, "_check_fresh", lambda *a: None)


FAULTS = [
    (readers_not_zero, two_layers(), {"up": 20}),
    (queries_not_zero, queries_and_keys(), {"q": 9}),
    (old_units_shuffled, two_layers(), {"up": 20}),
    (extremes_let_pass, extreme(), {"up": 20}),
]


@pytest.mark.parametrize(("fault", "source", "widths"), FAULTS)
def test_a_fault_is_caught(
    fault: Any, source: Any, widths: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = n2n.load(source)
    fault(monkeypatch)
    grown = n2n.widen(model, widths, split="fresh")
    assert not n2n.verify(model, grown, seeds=1, provider="cpu")
