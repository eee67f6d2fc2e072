"""Samples of scikit-learn's preprocessing."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import NodeProto

from tests.samples import Sample, node

X = {"x": (np.float32, (3, 4))}


def _ml(op: str, **attributes: Any) -> NodeProto:
    return node(op, "x", domain="ai.onnx.ml", **attributes)


SAMPLES = [
    Sample("threshold", _ml("Binarizer", threshold=0.2), X, expect="... any"),
    Sample(
        "value",
        _ml("Imputer", imputed_value_floats=[0.5], replaced_value_float=9.0),
        X,
        expect="b any, f fixed",
    ),
    Sample("l2", _ml("Normalizer", norm="L2"), X, expect="b any, f fixed"),
    Sample(
        "features",
        _ml("Scaler", offset=[0.1, 0.2, 0.3, 0.4], scale=[1.5, 2.0, 2.5, 3.0]),
        X,
        expect="b any, f fixed",
    ),
]
