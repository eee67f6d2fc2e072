"""Promises hold at all sizes, also in networks that compute shapes from sizes in odd ways."""

from __future__ import annotations

import pytest

from onnx_net2net.model.model import load
from onnx_net2net.widening.dimensions import inspect
from tests.random_sizes import IMAGES, SEQUENCES, Maker, broken

SEEDS = range(128)


@pytest.mark.parametrize("images", [False, True], ids=["sequences", "images"])
@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_promised_holds_at_all_sizes(seed: int, images: bool) -> None:
    assert list(broken(Maker(seed, images))) == []


def test_the_networks_show_all_steps_and_keep_promises() -> None:
    """Else nothing was tested: many of them can grow somewhere."""
    makers = [Maker(seed, images) for seed in SEEDS for images in (False, True)]
    growing = [any(d.growth != "fixed" for d in inspect(load(m.build()))) for m in makers]
    assert sum(growing) > len(makers) / 3
    steps = {step for maker in makers for step in maker.steps}
    assert steps == {step.__name__ for step in (*SEQUENCES, *IMAGES)}


def test_trusting_the_sizes_that_are_tried_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_net2net.analysis.symbols.unknown", lambda name, number: number)
    assert any(list(broken(Maker(seed, images))) for seed in SEEDS for images in (False, True))
