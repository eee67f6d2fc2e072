"""Plans: what is done by one is what its steps do one by one, and what is wrong in one is named."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnx_net2net as n2n
from onnx_net2net.plan import plans
from onnx_net2net.plan.steps import follow
from onnx_net2net.step import Widen
from tests.console import FIXTURES, left_behind

RESNET = "resnet.dynamo-raw.onnx"
PLAN = """
[[step]]
operation = "widen"
widths = { conv1 = 9, "layer3.0.conv1" = 15 }
seed = 3
split = "even"

[[step]]
operation = "deepen"
after = "layer1.0.conv1"
block = ["layer1.*"]
copies = 3
spread = true
kernel = 1
seed = 5

[[step]]
operation = "widen"
factor = 1.5
names = ["layer1.0.conv1_deeper", "layer2.*"]
mapping = "round-robin"
"""


def stepwise() -> n2n.Model:
    """What PLAN says, done by hand."""
    wide = n2n.widen(fixture(RESNET), {"conv1": 9, "layer3.0.conv1": 15}, seed=3, split="even")
    deep = n2n.deepen(wide, after="layer1.0.conv1", block="layer1.*", copies=3, spread=True,
                      kernel=1, seed=5)  # fmt: skip
    names = ["layer1.0.conv1_deeper", "layer2.0.downsample.0", "layer2.0.conv1", "layer2.1.conv1"]
    old = {d.name: d.width for d in n2n.inspect(deep)}
    widths = {name: -(-3 * old[name] // 2) for name in names}
    return n2n.widen(deep, widths, mapping="round-robin")


def fixture(name: str) -> n2n.Model:
    return n2n.load(FIXTURES / name)


def written(text: str, folder: Path) -> Path:
    path = folder / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_plan_is_its_steps_one_by_one(tmp_path: Path) -> None:
    by_plan = n2n.grow(fixture(RESNET), plan=written(PLAN, tmp_path))
    assert by_plan.to_bytes() == stepwise().to_bytes()
    assert [step["operation"] for step in by_plan.history] == ["widen", "deepen", "widen"]
    assert len(by_plan.changes) == 2 + 3 + 4
    assert n2n.verify(fixture(RESNET), by_plan)


def test_a_history_of_a_plan_is_replayed() -> None:
    grown = n2n.grow(fixture(RESNET), plan=plans.parse(tomllib.loads(PLAN)))
    assert n2n.replay(fixture(RESNET), grown.history).to_bytes() == grown.to_bytes()


def test_what_was_done_is_a_plan_that_does_it_again(tmp_path: Path) -> None:
    """And it has names and numbers only: it means the same in any network that has these names."""
    first = follow(fixture(RESNET), plans.parse(tomllib.loads(PLAN)))
    resolved = plans.text(first.plan, "of PLAN")
    assert "*" not in resolved and "spread" not in resolved and "factor" not in resolved
    again = follow(fixture(RESNET), plans.read(written(resolved, tmp_path)))
    assert again.model.to_bytes() == first.model.to_bytes()
    assert plans.text(again.plan, "of PLAN") == resolved


def test_steps_can_be_given_as_values() -> None:
    steps: list[dict[str, Any]] = [
        {"operation": "widen", "factor": 1.1, "all": True},
        {"operation": "deepen", "block": {"layer1.0": 1, "layer2.1": 2}},
    ]
    grown = n2n.grow(fixture(RESNET), plan=steps)
    assert grown.to_bytes() == n2n.grow(fixture(RESNET), plan={"step": steps}).to_bytes()
    copied = {change.block: change.copies for change in grown.changes if hasattr(change, "block")}
    assert copied == {"layer1.0": 1, "layer2.1": 2}
    # 1.1 is meant exactly: 10 becomes 11.
    assert ("layer2.0.downsample.0", 10, 11) in {
        (c.dimension, c.old, c.new) for c in grown.changes if hasattr(c, "dimension")
    }


def test_folding_and_calibration(tmp_path: Path) -> None:
    np.savez(tmp_path / "batch.npz", x=np.ones((4, 3, 40, 36), np.float32))
    text = 'fold = true\n[[step]]\noperation = "deepen"\nafter = "layer1.0.conv1"\n'
    plan = plans.read(written(text + 'calibrate = "batch.npz"', tmp_path))
    found = follow(fixture(RESNET), plan)
    assert found.model.changes[0].training
    elsewhere = tmp_path / "deeper" / "plan.toml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(plans.text(found.plan.seen_from(elsewhere.parent)))
    assert f'calibrate = ["..{"/"}batch.npz"]' in elsewhere.read_text()
    again = follow(fixture(RESNET), plans.read(elsewhere))
    assert again.model.to_bytes() == found.model.to_bytes()


@pytest.mark.parametrize(
    "name",
    ["resnet.dynamo-raw", "gpt2.dynamo-raw", "bert.dynamo", "llama.dynamo", "lstm.dynamo",
     "mlp.ts17", "keras-cnn.tf2onnx", "mobilenetv3.dynamo", "t5.ts17"],
)  # fmt: skip
def test_growing_64_96_128_is_exact_at_every_step(name: str) -> None:
    """In parts of three: 2/3 of the way, then the rest; and every unit still has its copies."""
    model = fixture(f"{name}.onnx")
    free = [d for d in n2n.inspect(model) if d.growth == "any"]
    grown = model
    for part in (1, 2):
        widths = {d.name: d.width + part * max(1, d.width // 2) for d in free}
        before, grown = grown, n2n.grow(grown, plan=[{"operation": "widen", "widths": widths}])
        assert n2n.verify(before, grown, seeds=1) and n2n.verify(model, grown, seeds=1)
    once = n2n.widen(model, {d.name: d.width + 2 * max(1, d.width // 2) for d in free})
    assert {n: w.shape for n, w in grown.weights.items() if n in model.weights} == {
        n: w.shape for n, w in once.weights.items() if n in model.weights
    }


def test_weights_keep_their_size_through_steps() -> None:
    """Shares of shares add up, and do not blow up: their spread is near to that of one step."""
    model = fixture("lenet.ts17.onnx")
    reader, spread = "fc2.weight", []
    for steps in ([62], [47, 62], [38, 46, 54, 62]):
        plan = [{"operation": "widen", "widths": {"fc1": width}} for width in steps]
        grown = n2n.grow(model, plan=plan).weights
        spread.append(float(np.std(grown[reader].array())))
        first, old = grown["fc1.weight"].array(), model.weights["fc1.weight"].array()
        assert (first[:31] == old).all(), "old units keep their places"
        copies = [[bool((row == unit).all()) for unit in old].index(True) for row in first]
        assert sorted(set(copies)) == list(range(31)), "no unit is lost"
        shares = np.zeros_like(model.weights[reader].array())
        for at, unit in enumerate(copies):
            shares[:, unit] += grown[reader].array()[:, at]
        assert np.allclose(shares, model.weights[reader].array(), atol=1e-6)
    assert max(spread) < 2 * min(spread)


# ---- what is wrong in a plan --------------------------------------------------------------------

WIDEN = '[[step]]\noperation = "widen"\n'
DEEPEN = '[[step]]\noperation = "deepen"\n'
BAD = {
    "": "there are no steps|'step' is not a list of steps",
    "step = 3": "'step' is not a list of steps",
    "[step]\noperation = 'widen'": "'step' is not a list of steps",
    "step = []": "there are no steps in it",
    "fold = 1\n" + WIDEN: "fold: 1 is not true or false",
    "[[steps]]\noperation = 'widen'": "unknown key 'steps'",
    "[[step]]\nwidths = { a = 1 }": "step 1: has no operation",
    "[[step]]\noperation = 'shrink'": "step 1: unknown operation 'shrink'",
    "[[step]]\noperation = ['widen']": "step 1: unknown operation",
    WIDEN: r"step 1 \(widen\): nothing to grow",
    WIDEN + "widths = {}": r"step 1 \(widen\): nothing to grow",
    WIDEN + "widths = 3": "widths: 3 is not a table such as { conv1 = 96 }",
    WIDEN + "widths = { conv1 = 9.5 }": "widths: 'conv1': 9.5 is not a whole number from 1 up",
    WIDEN + "widths = { conv1 = true }": "'conv1': True is not a whole number",
    WIDEN + "widths = { conv1 = 0 }": "'conv1': 0 is not a whole number",
    WIDEN + "width = { conv1 = 9 }": r"step 1 \(widen\): unknown key 'width'",
    WIDEN + "widths = { conv1 = 9 }\nfactor = 2": "'widths' and 'factor' exclude each other",
    WIDEN + "widths = { conv1 = 9 }\nnames = ['a']": "key 'names' goes with 'factor' only",
    WIDEN + "factor = 2": "'factor' needs names, or all = true",
    WIDEN + "factor = 2\nall = true\nnames = ['a']": "'factor' needs names, or all = true",
    WIDEN + "factor = 1\nall = true": "factor: 1 is not a number above 1",
    WIDEN + "factor = inf\nall = true": "not TOML",
    WIDEN + "factor = nan\nall = true": "not TOML",
    WIDEN + "widths = { conv1 = 9 }\nnoise = 1.5": "noise: 1.5 is not a number between",
    WIDEN + "widths = { conv1 = 9 }\namplitude = -1": "amplitude: -1 is not a number from 0 to 10",
    WIDEN + "widths = { conv1 = 9 }\nsplit = 'half'": "split: 'half' is not one of project",
    WIDEN + "widths = { conv1 = 9 }\nseed = -1": "seed: -1 is not a whole number from 0 up",
    DEEPEN: r"step 1 \(deepen\): nothing to deepen",
    DEEPEN + "block = []": "nothing to deepen",
    DEEPEN + "block = ['']": "block: \\[''\\] is not a name, a list of names, or a table",
    DEEPEN + "after = 'conv1'\ncount = 0": "count: 0 is not a whole number from 1 to 1000",
    DEEPEN + "after = 'conv1'\nkernel = [3, 0]": r"kernel: \[3, 0\] is not a whole number",
    DEEPEN + "after = 'conv1'\nnorm = 'yes'": "norm: 'yes' is not true or false",
    DEEPEN + "after = 'conv1'\nwidths = { conv1 = 9 }": "unknown key 'widths'",
    DEEPEN + "block = { 'layer1.0' = 2 }\ncopies = 2": "key 'copies' does not go with copies by",
    DEEPEN + "block = { 'layer1.0' = 0 }": "'layer1.0': 0 is not a whole number from 1 to 1000",
    "[[step]\noperation": "not TOML",
}  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_what_is_wrong_is_named(text: str, tmp_path: Path) -> None:
    path = written(text, tmp_path)
    with pytest.raises(n2n.UsageError, match=BAD[text]) as caught:
        n2n.grow(fixture(RESNET), plan=path)
    assert str(path) in caught.value.problem


def test_a_step_that_cannot_be_done_is_named(tmp_path: Path) -> None:
    good = WIDEN + "widths = { conv1 = 9 }\n"
    cases = [
        (WIDEN + "widths = { fc = 20 }", n2n.Refused, "the network's output"),
        (WIDEN + "widths = { conv2 = 20 }", n2n.UsageError, "there is no node"),
        (WIDEN + "widths = { conv1 = 7 }", n2n.UsageError, "9 wide already"),
        (WIDEN + "factor = 2\nnames = ['nothing*']", n2n.UsageError, "no dimension matches"),
        (DEEPEN + "block = 'layer9.0'", n2n.UsageError, "there is no block 'layer9.0'"),
        (DEEPEN + "after = 'fc'\ninit = 'identity'", n2n.Refused, "would change it"),
        (DEEPEN + "after = 'fc'\ncalibrate = 'none.npz'", n2n.UsageError, "none.npz"),
    ]
    for text, kind, problem in cases:
        with pytest.raises(kind, match=problem) as caught:
            n2n.grow(fixture(RESNET), plan=written(good + text, tmp_path))
        assert "step 2" in caught.value.problem and caught.value.problem in str(caught.value)
    assert left_behind(tmp_path) == ["plan.toml"]


def test_a_file_that_is_none(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(n2n.UsageError, match=os.path.basename(path)):
            n2n.grow(fixture(RESNET), plan=path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(n2n.UsageError, match=r"binary.toml: not TOML"):
        n2n.grow(fixture(RESNET), plan=tmp_path / "binary.toml")


ARGUMENTS = st.fixed_dictionaries(
    {"widths": st.dictionaries(st.text(min_size=1), st.integers(1, 2**40), min_size=1)},
    optional={
        "seed": st.integers(0, 2**63 - 1),
        "amplitude": st.floats(0, 10),
        "noise": st.floats(1e-300, 0.99),
        "split": st.sampled_from(["project", "even", "fresh", "noise"]),
    },
)


@settings(deadline=None)
@given(st.lists(ARGUMENTS, min_size=1, max_size=3), st.booleans(), st.text(st.characters(
    blacklist_categories=("Cc", "Cs"))))  # fmt: skip
def test_what_is_written_is_read_again(
    steps: list[dict[str, Any]], fold: bool, comment: str
) -> None:
    plan = plans.Plan(tuple(Widen(**step) for step in steps), fold)
    values = tomllib.loads(plans.text(plan, comment))
    assert values.get("fold", False) is fold
    for told, step in zip(values["step"], steps, strict=True):
        assert told["operation"] == "widen" and step.items() <= told.items()
    assert plans.parse(values).steps == plan.steps


def test_a_factor_in_python_is_that_of_a_plan() -> None:
    model = n2n.load(FIXTURES / "resnet.dynamo-raw.onnx")
    for names in (["layer1.*"], "conv1", ()):
        which = {"names": names} if names else {"all": True}
        plan = [{"operation": "widen", "factor": 1.5, **which}]
        wide = n2n.widen(model, factor=1.5, **which)
        assert wide.to_bytes() == n2n.grow(model, plan=plan).to_bytes() != model.to_bytes()
    with pytest.raises(n2n.UsageError, match="'widths' and 'factor' exclude each other"):
        n2n.widen(model, {"conv1": 9}, factor=2)
