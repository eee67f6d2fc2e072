"""Faults planted into the engine: each must be seen by verify, or onnxruntime refuse the graph.

The last line of defence: were one of these to slip in, the command line would not deliver.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from onnx_net2net.algebra.expansion import Index
from onnx_net2net.errors import InvalidModel
from onnx_net2net.model.model import load
from onnx_net2net.operators import registry
from onnx_net2net.operators.language import Rule
from onnx_net2net.operators.record import Operator
from onnx_net2net.verification.verify import verify
from onnx_net2net.widening import growth, padding, sharing, sizing
from onnx_net2net.widening import widen as widen_module
from onnx_net2net.widening.widen import AxisGrowth, widen
from tests.console import ROOT
from tests.judging import Subject, everything
from tests.networks import Net

FIXTURES = ROOT / "fixtures"
Patch = pytest.MonkeyPatch


def is_caught(source: Any, widths: dict[str, int], **options: Any) -> str:
    """What verify or onnxruntime has to say against growing ``source``; empty if nothing."""
    model = load(source)
    try:
        report = verify(model, widen(model, widths, **options), seeds=1, provider="cpu")
    except InvalidModel as problem:
        return str(problem)
    return "" if report else report.verdict


def layers(norm: str = "") -> ModelProto:
    """A residual stream of 6 with an MLP of 9 in it, a norm, and a head."""
    net = Net()
    x = net("MatMul", net.input(4, 5), net.weight(5, 6, name="stem.weight"))
    x = net("Add", x, net.weight(6))
    y = net("Relu", net("MatMul", x, net.weight(6, 9, name="up.weight")))
    x = net("Add", x, net("MatMul", y, net.weight(9, 6, name="down.weight")))
    if norm == "layer":
        scale, shift = net.weight(6, low=0.5), net.weight(6)
        x = net("LayerNormalization", x, scale, shift, epsilon=0.1)
    elif norm == "mean":
        x = net("Sub", x, net("ReduceMean", x, axes=[-1]))
    elif norm == "length":
        x = net("Div", x, net("ReduceL2", x, axes=[-1]))
    return net.model(net("MatMul", x, net.weight(6, 3, name="head.weight")))


def queries_and_keys() -> ModelProto:
    """Projections apart, so that the weights of one can absorb what the product needs."""
    net = Net()
    x = net.input(2, 5, 4)
    q, k = (
        net("Add", net("MatMul", x, net.weight(4, 6, name=f"{n}.weight")), net.weight(6))
        for n in "qk"
    )
    scores = net("Softmax", net("MatMul", q, net("Transpose", k, perm=[0, 2, 1])), axis=-1)
    return net.model(net("MatMul", scores, net("MatMul", x, net.weight(4, 3))))


CASES: dict[str, tuple[Any, dict[str, int]]] = {
    "mlp": (layers(), {"up": 14}),
    "stream": (layers(), {"stem": 11}),
    "norm": (layers("layer"), {"stem": 11}),
    "mean": (layers("mean"), {"stem": 11}),
    "length": (layers("length"), {"stem": 11}),
    "convolutions": (FIXTURES / "resnet.dynamo.onnx", {"layer1.0.conv1": 11}),
    "groups": (FIXTURES / "mobilenetv3.dynamo.onnx", {}),
    "heads": (FIXTURES / "vit.dynamo.onnx", {"blocks.0.attn.qkv:heads": 5}),
    "head size": (FIXTURES / "vit.dynamo.onnx", {"blocks.0.attn.qkv:head_size": 9}),
    "separate": (queries_and_keys(), {"q": 9}),
    "rotary": (FIXTURES / "llama.dynamo.onnx", {}),
}


def request_of(case: str) -> tuple[Any, dict[str, int]]:
    """The case, all of its dimensions where it names none."""
    source, widths = CASES[case]
    if not widths:
        widths = everything(Subject(load(source)).dimensions)
    return source, widths


@pytest.mark.parametrize("case", CASES)
def test_without_a_fault_nothing_is_found(case: str) -> None:
    source, widths = request_of(case)
    assert is_caught(source, widths) == ""


# Faults ----------------------------------------------------------------------------------------


def replace(patch: Patch, name: str, wrap: Callable[[Any], Any]) -> None:
    """Put ``wrap(function)`` in place of an engine's function wherever it is imported."""
    named = (item for item in sys.modules.items() if item[0].startswith("onnx_net2net."))
    outside = ("onnx_net2net.frameworks", "onnx_net2net.cli")
    modules = [module for n, module in named if not n.startswith(outside)]
    holders = [module for module in modules if hasattr(module, name)]
    assert holders, f"the engine has no {name}"
    wrapped = wrap(getattr(holders[0], name))
    for module in holders:
        patch.setattr(module, name, wrapped)


def shares_too_large(patch: Patch) -> None:
    """Shares of an activation sum to 1.01."""
    replace(patch, "shares", lambda right: lambda *a, **k: right(*a, **k) * 1.01)


def change_steps(patch: Patch, change: Callable[[str, AxisGrowth], AxisGrowth]) -> None:
    """Let ``change`` falsify what is done to each axis of each weight."""

    def wrap(right: Any) -> Any:
        def grown(name: str, weight: Any, steps: list[AxisGrowth], *rest: Any) -> Any:
            return right(name, weight, [change(name, step) for step in steps], *rest)

        return grown

    patch.setattr(widen_module, "_grown", wrap(widen_module._grown))


def copies_not_split(patch: Patch) -> None:
    """Whoever reads copies counts them twice."""
    change_steps(patch, lambda name, step: dataclasses.replace(step, splits=False))


def parts_not_balanced(patch: Patch) -> None:
    """Parts sum to almost the weight: the split of Net2Net, passed off as exact."""

    def wrap(right: Any) -> Any:
        def grown(*args: Any) -> Any:
            options = dataclasses.replace(args[-1], split="noise", noise=0.001)
            return right(*args[:-1], options)

        return grown

    patch.setattr(widen_module, "_grown", wrap(widen_module._grown))


def other_units_for_one_weight(patch: Patch) -> None:
    """One weight is gathered by another map than the rest."""
    seen: list[str] = []

    def change(name: str, step: AxisGrowth) -> AxisGrowth:
        seen.append(name)
        return dataclasses.replace(step, source=np.roll(step.source, name == seen[0]))

    change_steps(patch, change)


def two_units_swapped(patch: Patch) -> None:
    """The last row of what is written is a copy of the wrong unit."""

    def change(name: str, step: AxisGrowth) -> AxisGrowth:
        if step.axis or step.splits:
            return step
        wrong = (step.source[-1] + 1) % (step.source.max() + 1)
        return dataclasses.replace(step, source=np.append(step.source[:-1], wrong))

    change_steps(patch, change)


def sizes_forgotten(patch: Patch) -> None:
    """No size that the graph repeats is rewritten."""
    patch.setattr(widen_module, "apply", lambda *a: None)


def one_size_forgotten(patch: Patch) -> None:
    right = sizing.Sizing.find

    def find(self: sizing.Sizing) -> sizing.Sizing:
        found = right(self)
        del found.patches[:1], found.attributes[:1]
        return found

    patch.setattr(sizing.Sizing, "find", find)


def eta_forgotten(patch: Patch) -> None:
    """The scale behind a padded norm is not corrected."""
    patch.setattr(padding.Padding, "eta", lambda self, width: 1.0)


def epsilon_forgotten(patch: Patch) -> None:
    replace(patch, "_shrink_epsilons", lambda right: lambda *a: None)


def padded_with_zeros(patch: Patch) -> None:
    """Pads in front of LayerNormalization must hold the mean."""
    change_steps(patch, lambda name, step: dataclasses.replace(step, fills=()))


def means_not_rescaled(patch: Patch) -> None:

    def wrap(right: Any) -> Any:
        def share(*args: Any) -> Any:
            found = right(*args)
            found.insertions.clear()
            return found

        return share

    replace(patch, "share", wrap)


def lengths_shared_like_sums(patch: Patch) -> None:
    patch.setattr(sharing, "_operation", lambda reduce, vector, old, new: ("Mul", vector))


def absorbed_by_the_bias_alone(patch: Patch) -> None:
    """Of a weight and its bias, both scaled, one is left out."""

    def wrap(right: Any) -> Any:
        def absorb(*args: Any) -> Any:
            found = right(*args)
            assert found is not None and len(found.scaled) > 1
            found.scaled = {s: v for s, v in found.scaled.items() if not s[0].endswith(".weight")}
            return found

        return absorb

    replace(patch, "absorb", wrap)


def softmax_taken_as_pointwise(patch: Patch) -> None:
    patch.setitem(registry(), ("", "Softmax"), Operator(Rule("... -> ...")))


def norm_taken_as_pointwise(patch: Patch) -> None:
    patch.setitem(registry(), ("", "LayerNormalization"), Operator(Rule("a c, c, c -> a c")))


def sums_of_squares_taken_as_pointwise(patch: Patch) -> None:
    patch.setitem(registry(), ("", "ReduceL2"), Operator(Rule("a c -> a 1", reduce={"c": "max"})))


def sources_by_weight(patch: Patch) -> None:
    """A new unit copies other units in each weight, as if nothing tied them together."""
    right = growth.Growth.source
    calls: list[int] = []

    def source(self: growth.Growth, axis: Any) -> Index:
        found = right(self, axis)
        calls.append(1)
        return np.roll(found, len(calls) % 3) if self.touches(axis) else found

    patch.setattr(growth.Growth, "source", source)


FAULTS: list[tuple[Callable[[Patch], None], str]] = [
    (shares_too_large, "mean"),
    (shares_too_large, "length"),
    (shares_too_large, "head size"),
    (shares_too_large, "rotary"),
    (shares_too_large, "separate"),
    (copies_not_split, "mlp"),
    (copies_not_split, "stream"),
    (copies_not_split, "convolutions"),
    (parts_not_balanced, "mlp"),
    (parts_not_balanced, "convolutions"),
    (parts_not_balanced, "heads"),
    (other_units_for_one_weight, "mlp"),
    (other_units_for_one_weight, "convolutions"),
    (other_units_for_one_weight, "heads"),
    (two_units_swapped, "stream"),
    (two_units_swapped, "convolutions"),
    (two_units_swapped, "groups"),
    (sizes_forgotten, "heads"),
    (sizes_forgotten, "groups"),
    (one_size_forgotten, "heads"),
    (one_size_forgotten, "rotary"),
    (eta_forgotten, "norm"),
    (epsilon_forgotten, "norm"),
    (padded_with_zeros, "norm"),
    (means_not_rescaled, "mean"),
    (means_not_rescaled, "length"),
    (lengths_shared_like_sums, "length"),
    (absorbed_by_the_bias_alone, "separate"),
    (norm_taken_as_pointwise, "norm"),
    (sums_of_squares_taken_as_pointwise, "length"),
    (sources_by_weight, "stream"),
    (sources_by_weight, "convolutions"),
]


@pytest.mark.parametrize(
    ("fault", "case"), FAULTS, ids=[f"{fault.__name__}-{case}" for fault, case in FAULTS]
)
def test_fault_is_caught(fault: Callable[[Patch], None], case: str, monkeypatch: Patch) -> None:
    source, widths = request_of(case)
    fault(monkeypatch)
    assert is_caught(source, widths), "the fault changes the function, and nobody says so"


def test_softmax_taken_as_pointwise_is_caught(monkeypatch: Patch) -> None:
    net = Net()
    x = net("MatMul", net.input(4, 5), net.weight(5, 6, name="stem.weight"))
    proto = net.model(net("MatMul", net("Softmax", x), net.weight(6, 3)))
    softmax_taken_as_pointwise(monkeypatch)
    assert is_caught(proto, {"stem": 8})
