"""Property: whatever a network is made of, a promised growth keeps its function.

By default a fixed, small set of networks; ``ONNX_NET2NET_EXAMPLES=2000 pytest
tests/widening/test_random_networks.py`` searches at random for as many.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st
from onnx import ModelProto

from onnx_net2net.errors import Refused
from onnx_net2net.model.model import load
from onnx_net2net.verification.verify import verify
from onnx_net2net.widening.widen import widen
from tests import random_networks
from tests.judging import Subject, wider
from tests.random_networks import Builder, networks

EXAMPLES = int(os.environ.get("ONNX_NET2NET_EXAMPLES", "0"))
PROFILE = settings(
    max_examples=EXAMPLES or 80,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


@PROFILE
@given(proto=networks(), data=st.data())
def test_promises_are_kept(proto: ModelProto, data: st.DataObject) -> None:
    """Any subset of the growable dimensions, to any of the widths promised."""
    note(proto.doc_string)
    subject = Subject(load(proto))
    assume(subject.growable)
    turns = {d.name: data.draw(st.integers(-1, 2), label=d.name) for d in subject.growable}
    widths = {d.name: wider(d, turns[d.name]) for d in subject.growable if turns[d.name] >= 0}
    assume(widths)
    split = data.draw(st.sampled_from(["project", "even"]))
    mapping = data.draw(st.sampled_from(["random", "round-robin"]))
    seed = data.draw(st.integers(0, 3))
    grown = widen(subject.model, widths, seed=seed, split=split, mapping=mapping)
    report = subject.judge(grown)
    assert report, (proto.doc_string, widths, report.verdict)
    assert np.isfinite([output.signal for output in report.outputs]).all()


@settings(PROFILE, max_examples=40)
@given(proto=networks())
def test_what_is_not_promised_is_refused(proto: ModelProto) -> None:
    """With its reason, and never by another error."""
    model = load(proto)
    for dimension in Subject(model).dimensions:
        if dimension.growth == "any":
            continue
        with pytest.raises(Refused) as caught:
            widen(model, {dimension.name: dimension.width * 3 + 1})
        if dimension.width > 1:
            assert dimension.reason and dimension.reason in caught.value.reason


EVERY_BLOCK = [(kind, block) for kind, blocks in random_networks.BLOCKS.items() for block in blocks]


@pytest.mark.parametrize(
    ("kind", "block"), EVERY_BLOCK, ids=[f"{kind}-{block.__name__}" for kind, block in EVERY_BLOCK]
)
def test_every_block_by_itself(kind: str, block: Callable[[Builder], None]) -> None:
    """Blocks that no drawn network holds are tested all the same, at fixed choices."""
    for turn in range(3):
        subject = Subject(load(alone(kind, block, turn)))
        if block is random_networks.weigh:  # a softmax pins all there is
            assert not subject.growable
            continue
        assert subject.growable
        widths = {d.name: wider(d, turn) for d in subject.growable}
        report = subject.judge(widen(subject.model, widths, seed=turn))
        assert report, (widths, report.verdict)


def alone(kind: str, block: Callable[[Builder], None], turn: int) -> ModelProto:
    """A projection, the block, an activation and a head; the ``turn``-th of every choice."""

    def draw(strategy: Any) -> Any:
        return choices(strategy)[turn % len(choices(strategy))]

    def choices(strategy: Any) -> Any:
        wrapped = getattr(strategy, "wrapped_strategy", strategy)
        if hasattr(wrapped, "elements"):
            return list(wrapped.elements)
        return list(range(wrapped.start, wrapped.end + 1))[::-1]

    net = random_networks.Net(seed=turn)
    shape = {"image": (2, 3, 6, 4), "sequence": (2, 5, 4), "vector": (3, 5)}[kind]
    builder = Builder(net, draw, kind, net.input(*shape), shape)
    first = random_networks.conv if kind == "image" else random_networks.dense
    first(builder)
    builder.x = net("Tanh", builder.x)
    block(builder)
    builder.x = net("Softsign", builder.x)
    head, extra = (builder.conv, (1,)) if builder.kind == "image" else (builder.dense, ())
    return net.model(head(builder.x, builder.width, 4, *extra))


def test_the_search_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that sees nothing would find every network equal: one wrong weight is seen."""
    proto = alone("image", random_networks.branches, 1)
    model = load(proto)
    grown = widen(model, {Subject(model).growable[0].name: 11})
    other = widen(load(grown.to_bytes()), {Subject(grown).growable[0].name: 13}, split="noise")
    assert verify(model, grown, seeds=1)
    assert not verify(model, other, seeds=1)
