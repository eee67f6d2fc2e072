"""Every rule by brute force: each axis of a one-node network is grown and the network run.

Where the golden text says "any" or "multiple", the grown network must compute the same; the
golden text says where it may not. An operator without a sample fails.
"""

from __future__ import annotations

from collections import defaultdict
from unittest.mock import patch

import numpy as np
import pytest
from onnx import load_from_string

from onnx_net2net.algebra.axes import atoms
from onnx_net2net.model.model import Model, load
from onnx_net2net.operators import registry
from onnx_net2net.operators.language import Rule
from onnx_net2net.operators.record import Operator
from onnx_net2net.verification.engine import ERRORS
from onnx_net2net.widening.dimensions import Analysis, analyse
from onnx_net2net.widening.widen import widen
from tests.samples import RULED, Sample, samples
from tests.samples.network import evaluate, network


def _id(family: str, sample: Sample) -> str:
    op = sample.node.op_type
    return f"{family}:{sample.id if sample.id.startswith(op) else f'{op}-{sample.id}'}"


BY_ID = {_id(family, sample): sample for family, group in samples().items() for sample in group}
SAMPLES, IDS = list(BY_ID.values()), list(BY_ID)
DRIVES = (0.7, 0.8)


def statuses(analysis: Analysis, sample: Sample) -> str:
    """How the axes of the sample's node may grow, in the form of the golden text."""
    solution = analysis.solution
    position = solution.graph.producer[next(o for o in sample.node.output if o)].position
    if position in solution.barriers:
        return f"not followed: {solution.barriers[position]}"
    found: dict[str, str] = {}
    for name, axis in solution.applied[position].env.items():
        growth = dict.fromkeys(
            "fixed" if free not in analysis.by_atom else analysis.by_atom[free].growth
            for free in atoms(axis)
        )
        if growth:
            found[name] = "/".join(growth)
    return ", ".join(f"{name} {status}" for name, status in _collapsed(found).items())


def _collapsed(found: dict[str, str]) -> dict[str, str]:
    """``s.0`` and ``s.1`` of one status as ``s``."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in found:
        base = "..." if name.startswith("...") else name.partition(".")[0]
        groups[base].append(name)
    result: dict[str, str] = {}
    for base, names in groups.items():
        alike = len({found[name] for name in names}) == 1
        result.update({base: found[names[0]]} if alike else {n: found[n] for n in names})
    return result


def as_set(text: str) -> set[str]:
    """The golden text without its order."""
    return {text} if text.startswith("not followed") else set(text.split(", "))


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_statuses(sample: Sample) -> None:
    analysis = analyse(load(network(sample)))
    assert sample.expect is not None, f"expect is {statuses(analysis, sample)!r}"
    assert as_set(statuses(analysis, sample)) == as_set(sample.expect)


def problems(sample: Sample) -> list[str]:
    """What goes wrong when each dimension of the sample's network is grown."""
    model = load(network(sample))
    before = outputs(model, sample)
    found = []
    for dimension in analyse(model).dimensions:
        if dimension.growth == "fixed":
            continue
        extra = 3 if dimension.growth == "any" else dimension.width
        # A weight with NaN, which IsNaN must have here, is refused; test_dtypes.py shows that.
        with patch("onnx_net2net.widening.widen.check_finite"):
            grown = widen(model, {dimension.name: dimension.width + extra}, seed=5)
        try:
            after = outputs(grown, sample)
        except ERRORS as error:
            found.append(f"{dimension.name}: {error}")
            continue
        # One sum has no noise to measure; a wrong unit changes far more than this.
        if not np.allclose(before, after, rtol=1e-4, atol=1e-4):
            found.append(f"{dimension.name}: {after} in place of {before}")
    return found


def outputs(model: Model, sample: Sample) -> list[np.ndarray]:
    """What the network computes, by onnx's reference where onnxruntime has no kernel."""
    proto = load_from_string(model.to_bytes())
    return [y for drive in DRIVES for y in evaluate(proto, drive, sample.runs)]


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_growing_keeps_the_function(sample: Sample) -> None:
    assert problems(sample) == []


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_outputs_say_something(sample: Sample) -> None:
    """A network whose outputs are NaN, or do not depend on its units, would judge nothing."""
    for output in evaluate(network(sample), 0.7, sample.runs):
        assert np.isfinite(output).all()
        assert (output != 0).all()


def test_every_rule_has_a_sample() -> None:
    missing = RULED - {sample.operator for sample in SAMPLES}
    assert not missing, f"rules without a sample: {sorted(missing)}"


def test_sample_names_are_unique() -> None:
    assert len(BY_ID) == sum(map(len, samples().values()))


# Faults that a reviewer could make, and a sample that must show each of them.
FAULTS: dict[str, tuple[str, str | Rule]] = {
    "softmax taken as pointwise": ("Softmax-default", "... -> ..."),
    "norm taken as pointwise": ("LayerNormalization-no-bias", Rule("a b c, c -> a b c")),
    "sum taken as a mean": ("ReduceSum-one", Rule("a b c -> a 1 c", reduce={"b": "mean"})),
    "mean without equal copies": ("ReduceMean-one", Rule("a b c -> a 1 c", reduce={"b": "max"})),
    "squares shared like summands": (
        "ReduceSumSquare-one",
        Rule("a b c -> a 1 c", reduce={"b": "sum"}),
    ),
    "a norm shared like summands": ("ReduceL2-one", Rule("a b c -> a 1 c", reduce={"b": "sum"})),
    "group attribute forgotten": (
        "Conv-depthwise",
        Rule("b g *s, g 1 *k, g -> b g *t", fixed={"s*": "", "k*": "", "t*": ""}),
    ),
    "channels of LRN": ("LRN-window", "b c *s -> b c *s"),
    "running sum taken as pointwise": ("CumSum-last", "a b c, _ -> a b c"),
    "normalised inside a group": (
        "GroupNormalization-opset21",
        Rule("b (g c) s t, (g c), (g c) -> b (g c) s t", sizes={"g": 3}),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_rules_are_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, rule = FAULTS[fault]
    sample = next(s for key, s in BY_ID.items() if key.partition(":")[2].startswith(name))
    monkeypatch.setitem(registry(), sample.operator, Operator(rule))
    assert problems(sample), "growing with this fault should change the function"
