"""What all tests share: PyTorch's table of operators, which every export would build anew."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from functools import cache

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_table_of_operators() -> Iterator[None]:
    """Half the time of a small export goes into this table, which is always the same."""
    if "torch" not in sys.modules:  # everything is collected: no test exports anything
        yield
        return
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        build = cache(ONNXRegistry.from_torchlib)
    except (ImportError, AttributeError):  # another version: exports take longer
        yield
        return

    def from_torchlib(*args: int, **kwargs: int) -> ONNXRegistry:
        """Each export may add operators to a table of its own."""
        table = copy.copy(build(*args, **kwargs))
        table.functions = {target: [*known] for target, known in table.functions.items()}
        return table

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(from_torchlib))
        yield
