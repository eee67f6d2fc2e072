"""Preprocessing that scikit-learn's exporter puts in front of a network.

"b f -> b f"      Scaler, an offset and a scale for every feature
"""

from __future__ import annotations

from onnx_net2net.operators.language import Rule, Table

OWN = "every feature has attributes of its own"

TABLES: dict[str, Table] = {
    "ai.onnx.ml": {
        "Binarizer": "... -> ...",
        "Imputer": Rule("*b f -> *b f", fixed={"f": OWN}),
        "Normalizer": Rule("b f -> b f", fixed={"f": "rows are divided by their norm"}),
        "Scaler": Rule("*b f -> *b f", fixed={"f": OWN}),
    }
}
