"""Arguments are declared once: functions, options, plans and histories say the same of them."""

from __future__ import annotations

import inspect
import json
import tomllib
from typing import Any

import click
import pytest

import onnx_net2net as n2n
from onnx_net2net.cli import main
from onnx_net2net.plan import plans
from onnx_net2net.step import STEPS, Deepen, Fold, Step, Widen, parse_step, recorded
from tests.console import FIXTURES

COMMANDS: dict[str, click.Command] = main.main.commands
STATED = {"widen": {"widths"}, "deepen": {"calibrate"}}


@pytest.mark.parametrize("operation", STATED)
def test_functions_take_what_is_declared(operation: str) -> None:
    """``calibrate`` names files of what ``calibration`` is."""
    taken = inspect.signature(getattr(n2n, operation)).parameters
    taken = {n: p.default for n, p in taken.items() if n not in ("model", "widths", "calibration")}
    declared = STEPS[operation].arguments()
    assert taken == {n: a.default for n, a in declared.items() if n not in STATED[operation]}


@pytest.mark.parametrize("operation", STATED)
def test_options_are_what_is_declared(operation: str) -> None:
    options = {option.name: option for option in COMMANDS[operation].params}
    for name, argument in STEPS[operation].arguments().items():
        if name in ("widths", "names", "factor", "all"):  # --node, --dim, --width, --all
            continue
        option = options[name]
        assert isinstance(option, click.Option) and option.help == argument.metadata["text"]
        assert option.multiple or option.default == argument.default, name
        values: Any = getattr(option.type, "choices", ())
        assert tuple(values) == argument.metadata["kind"].known


SAID = [
    Fold(),
    Widen(widths={"conv1": 9, 'a "b".c': 2**40}, seed=3, split="noise", noise=0.25),
    Widen(factor=1.5, names=["layer1.*", "fc"], mapping="round-robin"),
    Widen(factor=2, all=True, amplitude=0.25),
    Deepen(after="conv1", kernel=[1, 7], norm=False, count=2, calibrate=["a.npz"]),
    Deepen(block=["h.*"], copies=4, spread=True, zero="cancel", renumber=False),
    Deepen(after=["a", "b"], block={"layer1.0": 2}, init="residual", norm=True, seed=5),
]


@pytest.mark.parametrize("step", SAID, ids=str)
def test_a_step_is_written_and_read(step: Step) -> None:
    text = plans.text(plans.Plan((step,)))
    (values,) = tomllib.loads(text)["step"]
    assert parse_step(values, "") == step
    assert plans.parse(tomllib.loads(text)).steps == (step,)


@pytest.mark.parametrize("step", SAID, ids=str)
def test_settings_are_always_written(step: Step) -> None:
    """Another version may have other defaults."""
    expected = {name for name, value in step.settings().items() if value is not None}
    assert expected <= step.written().keys()


def test_what_makes_no_sense_is_no_step() -> None:
    with pytest.raises(n2n.UsageError, match="seed: True is not a whole number from 0 up"):
        Widen(widths={"a": 1}, seed=True)
    with pytest.raises(n2n.UsageError, match=r"copies: 1001 is not .* 1 to 1000") as caught:
        Deepen(block="a", copies=1001)
    assert caught.value.remedy == "correct it, or leave it away for 1"
    with pytest.raises(n2n.UsageError, match="widths: 'a': a number of 302 bits is not"):
        Widen(widths={"a": -(2**301)})


def entry() -> dict[str, Any]:
    model = n2n.load(FIXTURES / "mlp.ts17.onnx")
    return json.loads(json.dumps(n2n.widen(model, {"fc1": 99}).history[0]))


def test_an_entry_is_a_step() -> None:
    assert recorded(entry()) == Widen(widths={"fc1": 99})
    model = n2n.load(FIXTURES / "resnet.dynamo-raw.onnx")
    deeper = n2n.deepen(model, "layer1.0.conv1", ["layer1.*"], copies=3, spread=True, kernel=1)
    (told,) = deeper.history
    counts = {"layer1.0": 1, "layer1.1": 2}
    assert recorded(told) == Deepen(after=["layer1.0.conv1"], block=counts, kernel=[1])


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"seed": "x"}, "seed: 'x' is not"),
        ({"seed": None}, "seed: None is not"),
        ({"split": "half"}, "split: 'half' is not one of"),
        ({"changes": [{"block": "a", "copies": 2}]}, "widths: 'None': None is not"),
        ({"changes": []}, "nothing to grow"),
        ({"noise": ...}, "'noise' is missing"),
        ({"amplitude": ...}, "'amplitude' is missing"),
        ({"amplitude": 11}, "amplitude: 11 is not a number from 0 to 10"),
    ],
)
def test_an_entry_that_is_damaged(values: dict[str, Any], problem: str) -> None:
    """It can be shown; but what it says is not done again."""
    told = {k: v for k, v in {**entry(), **values}.items() if v is not ...}
    with pytest.raises(n2n.InvalidModel, match=f"step 'widen' of the history: .*{problem}"):
        n2n.replay(n2n.load(FIXTURES / "mlp.ts17.onnx"), [told])


@pytest.mark.parametrize("method", [1, 2, 4, "x" * 999, None, ...])
def test_an_entry_of_another_method_is_refused(method: Any) -> None:
    """The same arguments meant other weights then."""
    model = n2n.load(FIXTURES / "mlp.ts17.onnx")
    told = {k: v for k, v in {**entry(), "method": method}.items() if v is not ...}
    with pytest.raises(n2n.Refused, match=r"step 'widen' of the history: .* done by method"):
        n2n.replay(model, [told])
