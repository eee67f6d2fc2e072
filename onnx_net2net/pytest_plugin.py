"""The plugin of pytest: a fixture ``assert_equivalent``, and options for a whole run.

    def test_export(assert_equivalent):
        assert_equivalent("model.onnx", "optimised.onnx", require="cosine>=0.999")

    pytest --onnx-provider cuda --onnx-seeds 10

Nothing is imported until a test asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

__all__ = ["assert_equivalent", "pytest_addoption"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options that hold where a test states nothing else."""
    group = parser.getgroup("onnx-net2net", "comparing ONNX models")
    group.addoption("--onnx-provider", metavar="NAME", help="cpu, cuda, ... of onnxruntime")
    group.addoption("--onnx-seeds", metavar="N", type=int, help="number of random inputs")
    group.addoption("--onnx-sample", action="store_true", default=None, help="take a quick look")


@pytest.fixture
def assert_equivalent(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return :func:`onnx_net2net.assert_equivalent`, with the options of the command line."""
    from onnx_net2net.verification.assertion import assert_equivalent

    names = ("provider", "seeds", "sample")
    given = {name: request.config.getoption(f"--onnx-{name}") for name in names}
    defaults = {name: value for name, value in given.items() if value is not None}

    def check(*models: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        return assert_equivalent(*models, **{**defaults, **options})

    return check
