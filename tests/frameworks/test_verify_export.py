"""Another program's rounding errors are its own; they may not hide a fault."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_net2net.frameworks.verify_export import agreement
from onnx_net2net.model.model import Model, load
from onnx_net2net.verification.trials import Outputs
from tests.networks import Net


@pytest.fixture(scope="module")
def tripled() -> Model:
    net = Net(opset=17)
    x = net.input("batch", 200)
    return load(net.model(net("Mul", x, net.put(np.full(200, 3, np.float32)))))


def judged(model: Model, units: float, factor: float = 3) -> bool:
    """The verdict on a program that is wrong by up to so many units in the last place."""
    (name,) = (value.name for value in model.proto.graph.output)
    unit = np.finfo(np.float32).eps

    def call(feeds: dict[str, np.ndarray]) -> Outputs:
        (x,) = feeds.values()
        wrong = 1 + units * unit * np.sin(1e9 * x.astype(np.float64))
        return {name: (factor * x * wrong).astype(np.float32)}

    return bool(agreement(model, call))


@pytest.mark.parametrize("units", [0, 10])
def test_a_program_may_be_as_wrong_as_its_own_reruns_show(tripled: Model, units: float) -> None:
    assert judged(tripled, units)


def test_but_not_without_limit(tripled: Model) -> None:
    assert not judged(tripled, 1000)


@pytest.mark.parametrize("units", [0, 10])
def test_and_a_fault_is_seen_beside_it(tripled: Model, units: float) -> None:
    assert not judged(tripled, units, factor=3.001)
