"""What the tests of verification share."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """Return the same random numbers for each test."""
    return np.random.default_rng(7)
