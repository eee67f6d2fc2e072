"""Every rule by brute force: each axis of a one-node network is grown and the network run.

Where the golden text says "any" or "multiple", the grown network must compute the same; the
golden text says where it may not. An operator without a sample fails.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from onnx_net2net.axes import atoms
from onnx_net2net.dimensions import Analysis, analyse
from onnx_net2net.model import load
from onnx_net2net.rules import registry
from onnx_net2net.rules.language import Rule
from onnx_net2net.verify import verify
from onnx_net2net.widening import widen
from tests.samples import Sample, samples
from tests.samples.network import evaluate, network


def _id(family: str, sample: Sample) -> str:
    op = sample.node.op_type
    return f"{family}:{sample.id if sample.id.startswith(op) else f'{op}-{sample.id}'}"


BY_ID = {_id(family, sample): sample for family, group in samples().items() for sample in group}
SAMPLES, IDS = list(BY_ID.values()), list(BY_ID)


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


def differences(sample: Sample) -> list[str]:
    """What goes wrong when each dimension of the sample's network is grown."""
    model = load(network(sample))
    problems = []
    for dimension in analyse(model).dimensions:
        if dimension.growth == "fixed":
            continue
        extra = 3 if dimension.growth == "any" else dimension.width
        grown = widen(model, {dimension.name: dimension.width + extra}, seed=5)
        if sample.runs:
            report = verify(model, grown, seeds=1)
            if not report:
                problems.append(f"{dimension.name}: {report.verdict}")
        elif not _alike(model.to_bytes(), grown.to_bytes()):
            problems.append(f"{dimension.name}: differs")
    return problems


def _alike(old: bytes, new: bytes) -> bool:
    from onnx import load_from_string

    pairs = zip(
        evaluate(load_from_string(old), 0.7, False),
        evaluate(load_from_string(new), 0.7, False),
        strict=True,
    )
    return all(np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_growing_keeps_the_function(sample: Sample) -> None:
    assert differences(sample) == []


def test_every_rule_has_a_sample() -> None:
    missing = registry().keys() - {sample.operator for sample in SAMPLES}
    assert not missing, f"rules without a sample: {sorted(missing)}"


def test_sample_names_are_unique() -> None:
    assert len(BY_ID) == sum(map(len, samples().values()))
