"""Budgets of parameters and of FLOPs: reached, in proportion, and counted on the written file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

import onnx_net2net as n2n
import onnx_net2net.plan.forecast as forecasts
from onnx_net2net.deepening.blocks import blocks
from onnx_net2net.plan.budget import TOLERANCE, goal
from onnx_net2net.plan.costs import costs
from onnx_net2net.plan.forecast import Forecast, Formula
from onnx_net2net.plan.grow import Grown, Wishes, by_budget
from onnx_net2net.widening.dimensions import Analysis, Dimension, analyse, growable
from onnx_net2net.widening.scaling import scaling_of
from tests.console import FIXTURES
from tests.judging import subject
from tests.long_networks import numbered

NAMES = [
    "bert.dynamo", "convnext.ts17", "gpt2.dynamo-raw", "keras-lstm.tf2onnx",
    "keras-transformer.tf2onnx", "lenet.qdq", "llama.dynamo", "lstm.dynamo", "mlp.dynamo",
    "mobilenetv3.dynamo", "resnet.dynamo-raw", "resnext.dynamo", "swin.ts11", "t5.dynamo",
    "unet.ts17",
    "vit.ts17",
]  # fmt: skip


def fixture(name: str) -> n2n.Model:
    return n2n.load(FIXTURES / f"{name}.onnx")


def near(cost: int, target: float) -> bool:
    return abs(cost / target - 1) <= TOLERANCE


@pytest.mark.parametrize("prefer", ["balanced", "width", "depth"])
@pytest.mark.parametrize("name", NAMES)
def test_twice_the_parameters(name: str, prefer: str) -> None:
    source = subject(f"{name}.onnx")
    model = source.model
    if (name, prefer) == ("keras-transformer.tf2onnx", "depth"):
        # Its widths grow in steps that, with two blocks copied, are coarser than 2%.
        with pytest.raises(n2n.Refused, match="the nearest give"):
            n2n.grow(model, params="2x", prefer=prefer)
        return
    grown = n2n.grow(model, params="2x", prefer=prefer)
    written = n2n.load(grown.to_bytes())
    assert near(costs(written).parameters, 2 * costs(model).parameters)
    assert source.agrees(written)


@pytest.mark.parametrize("name", ["gpt2.dynamo-raw", "lstm.dynamo", "resnet.dynamo-raw"])
def test_half_more_flops(name: str) -> None:
    model = fixture(name)
    grown = n2n.grow(model, flops="1.5x")
    assert near(costs(grown).flops, 1.5 * costs(model).flops)
    assert n2n.verify(model, grown, seeds=1)


def test_a_number_is_a_budget() -> None:
    model = fixture("resnet.dynamo-raw")
    for asked, target in ((20_000, 20_000), ("20k", 20_000), ("0.02M", 20_000), ("2e4", 20_000)):
        assert near(costs(n2n.grow(model, params=asked)).parameters, target)


def test_amounts() -> None:
    present = 10**6
    for text, target in {
        "2x": 2 * 10**6, "1.1x": 1_100_000, "25M": 25 * 10**6, "1.5g": 1_500_000_000,
        "25_000_000": 25_000_000, " 3 B ": 3 * 10**9, "2 X": 2 * 10**6, "1e3k": 10**6 + 0,
    }.items():  # fmt: skip
        if target > present:
            assert goal("parameters", text, present).target == target
        else:
            with pytest.raises(n2n.UsageError, match="is what the model has now"):
                goal("parameters", text, present)
    for text in ("", "x", "2xx", "--2x", "1.x", "2 %", "0x2", "nan", "inf", "²x", "٣x", "2\nx"):
        with pytest.raises(n2n.UsageError, match="is not an amount"):
            goal("flops", text, present)


# ---- the forecast is what is done ---------------------------------------------------------------


def planned(analysis: Analysis, step: int) -> dict:
    """Uneven widths for all that can grow."""
    return {
        d: d.width * 2 if d.growth == "multiple" else d.width + (i * 7 + step) % 6
        for i, d in enumerate(growable(analysis.dimensions))
    }


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.onnx")), ids=lambda path: path.stem)
def test_a_forecast_is_what_growing_gives(path) -> None:  # type: ignore[no-untyped-def]
    """But for vectors of shares and the like, which growing adds: never more than a few percent."""
    analysis = analyse(subject(path.name).model)
    forecast = Forecast(analysis, {})
    widths = planned(analysis, 1)
    grown = n2n.widen(analysis.model, {d.name: width for d, width in widths.items()})
    found = costs(grown)
    assert found.flops == forecast.flops(widths, {})
    assert 0 <= found.parameters - forecast.parameters(widths, {}) < 0.05 * found.parameters


@pytest.mark.parametrize("name", ["gpt2.dynamo-raw", "resnet.dynamo-raw", "t5.dynamo", "vit.ts17"])
def test_a_forecast_of_copies(name: str) -> None:
    analysis = analyse(fixture(name))
    forecast = Forecast(analysis, {})
    copies = {block.name: 1 + i for i, block in enumerate(forecast.blocks)}
    found = costs(n2n.deepen(analysis.model, block=copies))
    assert (found.parameters, found.flops) == (
        forecast.parameters({}, copies), forecast.flops({}, copies)
    )  # fmt: skip


@pytest.mark.parametrize("measure", ["parameters", "flops"])
@pytest.mark.parametrize("name", ["bert.dynamo", "gpt2.dynamo-raw", "t5.dynamo"])
def test_one_dimension_may_stand_for_others(name: str, measure: str) -> None:
    """A formula in fewer widths is the formula in all of them."""
    analysis = analyse(fixture(name))
    forecast = Forecast(analysis, {})
    dimensions = growable(analysis.dimensions)
    widths = {d: d.width * 2 + d.width % 3 for d in dimensions}
    copies = {block.name: i for i, block in enumerate(forecast.blocks)}
    first: dict[int, Dimension] = {}
    alike = {d: first.setdefault(d.width, d) for d in dimensions}
    assert len(first) < len(dimensions)
    few = forecast.formula(measure, alike)({d: widths[d] for d in first.values()}, copies)
    assert few == forecast.formula(measure, {d: d for d in dimensions})(widths, copies)
    assert few == getattr(forecast, measure)(widths, copies)


@pytest.mark.parametrize("measure", ["parameters", "flops"])
def test_choosing_costs_no_more_for_more_blocks(
    measure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks that are alike are counted once for all of them, whatever is tried."""
    counted = Counter[type]()

    def count(kind: type, honest: Callable[..., int]) -> Callable[..., int]:
        def cost(self: object, number: object) -> int:
            counted[kind] += 1
            return honest(self, number)

        return cost

    for kind in (forecasts._Elements, forecasts._Products):
        monkeypatch.setattr(kind, "cost", count(kind, kind.cost))
    totals = []
    for parts in (20, 80):
        counted.clear()
        by_budget(n2n.load(numbered(parts)), measure, "3x", Wishes(), {})
        totals.append(counted.total())
    assert 0 < totals[1] < 1.5 * totals[0], (
        "four times the blocks, and a few more numbers of copies"
    )


def test_a_wrong_forecast_is_corrected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the forecast misses a tenth; what is counted on the grown model rules."""
    honest = Formula.__call__
    monkeypatch.setattr(Formula, "__call__", lambda self, *how: int(0.9 * honest(self, *how)))
    model = fixture("resnet.dynamo-raw")
    assert near(costs(n2n.grow(model, params="2x")).parameters, 2 * costs(model).parameters)
    monkeypatch.setattr(Formula, "__call__", lambda self, *how: 15_000)
    with pytest.raises(n2n.Refused, match="no widths and depths were found"):
        n2n.grow(model, params=15_000)


# ---- in proportion ------------------------------------------------------------------------------


def grown(name: str, asked: str = "2x", **wishes: object) -> Grown:
    return by_budget(fixture(name), "parameters", asked, replace(Wishes(), **wishes), {})


@pytest.mark.parametrize("name", ["lenet.ts17", "mobilenetv3.dynamo", "resnet.dynamo-raw"])
def test_widths_grow_by_one_factor(name: str) -> None:
    spent = grown(name, "4x", prefer="width").spending
    assert spent is not None and not spent.choice.copies
    for dimension, width in spent.choice.widths.items():
        assert abs(width - spent.choice.factor * dimension.width) <= 2
    assert spent.choice.widths.keys() == set(spent.scaling.dimensions)


def test_heads_grow_in_number_and_not_in_size() -> None:
    """So that an axis of both grows by the factor, not by its square."""
    found = {d.name: s for d, s in scaling_of(analyse(fixture("bert.dynamo")), 1, ()).steps.items()}
    inner = "model.bert.encoder.layer.0.attention.self."
    assert inner + "query:heads" in found
    assert not {inner + "query:head_size", inner + "value:v_head_size"} & found.keys()
    assert found["model.bert.embeddings.word_embeddings"] == 18, "it grows by multiples only"


def test_multiples() -> None:
    model = fixture("lenet.ts17")
    larger = n2n.grow(model, params="3x", multiple_of=4)
    for change in larger.changes:
        assert change.new % 4 == 0, change
    # Heads of 6 entries are a multiple of 4 by twos; those of 5 by fours.
    steps = {d.name: s for d, s in scaling_of(analyse(fixture("bert.dynamo")), 4, ()).steps.items()}
    assert steps["model.bert.encoder.layer.0.attention.self.query:heads"] == 2
    steps = {d.name: s for d, s in scaling_of(analyse(fixture("gpt2.dynamo")), 4, ()).steps.items()}
    assert steps["model.transformer.h.0.attn.c_attn:heads"] == 4


def test_what_a_class_says_once_stays_one_number() -> None:
    """Heads of all blocks, and the hidden width, which is heads times their size."""
    scaling = scaling_of(analyse(fixture("gpt2.dynamo-raw")), 1, (), tie=True)
    old = {d.name: d.width for d in scaling.dimensions}
    heads = [f"model.transformer.h.{block}.attn.c_attn:heads" for block in (0, 1)]
    inner = [f"model.transformer.h.{block}.mlp.c_fc" for block in (0, 1)]
    hidden = "model.transformer.wte"
    assert [old[name] for name in (*heads, hidden, *inner)] == [4, 4, 20, 33, 33]
    for factor in (1.2, 1.3, 1.7, 2.6):
        new = old | {d.name: width for d, width in scaling.widths(factor).items()}
        assert new[heads[0]] == new[heads[1]] and new[hidden] == 5 * new[heads[0]]
        assert new[inner[0]] == new[inner[1]]
    larger = n2n.grow(fixture("gpt2.dynamo-raw"), params="6x")
    new = {d.name.replace("h.3", "h.1"): d.width for d in n2n.inspect(larger)}
    assert new[hidden] == 5 * new[heads[0]] > 20 and near(costs(larger).parameters, 6 * 7579)


def test_steps_of_ties_suit_all_of_them() -> None:
    """Planted: with heads of 5 entries and hidden widths in eights, heads come in eights."""
    scaling = scaling_of(analyse(fixture("gpt2.dynamo-raw")), 8, (), tie=True)
    for factor in (1.5, 2, 3.1, 7):
        widths = {d.name: width for d, width in scaling.widths(factor).items()}
        assert widths["model.transformer.wte"] % 8 == 0
        assert (
            widths["model.transformer.wte"] == 5 * widths["model.transformer.h.0.attn.c_attn:heads"]
        )


def test_wide_ones_are_multiples_of_eight_unless_told_otherwise() -> None:
    model = n2n.widen(fixture("mlp.dynamo"), {"fc1": 100, "fc2": 70})
    widths = [change.new for change in n2n.grow(model, params="2x").changes]
    assert len(widths) == 2 and not any(width % 8 for width in widths)
    widths = [change.new for change in n2n.grow(model, params="2x", multiple_of=1).changes]
    assert any(width % 8 for width in widths)


def test_what_is_kept_stays() -> None:
    model = fixture("resnet.dynamo-raw")
    larger = n2n.grow(model, params="2x", keep=["layer1.*", "conv1"])
    old = {d.name: d.width for d in n2n.inspect(model)}
    touched = {c.dimension for c in larger.changes if hasattr(c, "dimension")}
    assert touched and not {n for n in touched if n.startswith("layer1") or n == "conv1"}
    assert not any(c.block.startswith("layer1") for c in larger.changes if hasattr(c, "block"))
    assert old["conv1"] == next(d.width for d in n2n.inspect(larger) if d.name == "conv1")
    with pytest.raises(n2n.UsageError, match=r"--keep 'layer9\.\*' matches no dimension"):
        n2n.grow(model, params="2x", keep="layer9.*")


def test_copies_are_spread_over_all_series() -> None:
    model = fixture("resnet.dynamo-raw")
    names = [block.name for block in blocks(model) if block.exact]
    spent = grown("resnet.dynamo-raw", "6x", prefer="depth").spending
    assert spent is not None
    counts = [spent.choice.copies.get(name, 0) for name in names]
    assert max(counts) - min(counts) <= 1 and sum(counts) > len(counts)


def test_preferences_differ_as_they_say() -> None:
    chosen = {p: grown("gpt2.dynamo-raw", "3x", prefer=p).spending for p in
              ("width", "balanced", "depth")}  # fmt: skip
    copies = [sum(s.choice.copies.values()) for s in chosen.values() if s]
    factors = [s.choice.factor for s in chosen.values() if s]
    assert copies[0] == 0 < copies[1] < copies[2]
    assert factors[0] > factors[1] > factors[2] >= 1
    depth = 1 + copies[1] / 2
    assert math.isclose(depth, factors[1], rel_tol=0.25), "both by about one factor"


# ---- what cannot be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "give one of plan, like, params and flops"),
        ({"params": "2x", "flops": "2x"}, "give one of plan, like, params and flops"),
        ({"params": "2x", "prefer": "height"}, "there is no preference 'height'"),
        ({"params": "2x", "multiple_of": 0}, "multiple_of 0 is not a whole number from 1 up"),
        ({"params": "2x", "multiple_of": 1.5}, r"multiple_of 1\.5 is not"),
        ({"params": "0.5x"}, "is less than the model has now"),
        ({"params": "1x"}, "is what the model has now"),
        ({"params": 7}, "7 is less than the model has now"),
        ({"params": "2x", "seed": -1}, "seed: -1 is not"),
        ({"params": "2x", "sizes": {"bacth": 2}}, "no dynamic dimension 'bacth'"),
    ],
)
def test_bad_usage(arguments: dict, problem: str) -> None:
    with pytest.raises(n2n.UsageError, match=problem):
        n2n.grow(fixture("lenet.ts17"), **arguments)


def test_the_nearest_is_told_and_can_be_had() -> None:
    model = fixture("mlp.dynamo")
    with pytest.raises(n2n.Refused, match="the nearest give") as caught:
        n2n.grow(model, params="2x", multiple_of=256)
    assert caught.value.remedy is not None
    nearest = int(caught.value.remedy.split()[1].rstrip(","))
    assert costs(n2n.grow(model, params=nearest, multiple_of=256)).parameters == nearest


def test_a_thousand_times() -> None:
    model = fixture("lenet.ts17")
    larger = n2n.grow(model, params="1000x")
    assert near(costs(larger).parameters, 1000 * costs(model).parameters)
