"""A ratio of dropout that is no part of all units is refused, whatever the framework."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

import onnx_net2net as n2n
from tests.networks import Net

FRAMEWORKS = {"torch": "torch", "tensorflow": "keras"}  # what is imported: what it is called here


@cache
def network(attending: bool, ratio: float) -> n2n.Model:
    """Return attention whose weights are dropped, or a product of dropped entries."""
    net = Net()
    x = net.input(2, 2, 5, 5)
    weights = net("Softmax", net("MatMul", x, net("Transpose", x, perm=[0, 1, 3, 2])), axis=-1)
    dropped = net("Dropout", weights if attending else x, net.put(np.float32(ratio)))
    return n2n.load(net.model(net("MatMul", dropped, x)))


@pytest.mark.parametrize("package", FRAMEWORKS)
@pytest.mark.parametrize("attending", [False, True])
def test_a_ratio_beyond_its_range_is_refused(package: str, attending: bool) -> None:
    pytest.importorskip(package)
    convert: Any = getattr(n2n, f"to_{FRAMEWORKS[package]}")
    convert(network(attending, 0.5))
    for ratio in (5.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(n2n.Refused, match=r"its ratio is .*, and not from 0 to 1"):
            convert(network(attending, ratio))
