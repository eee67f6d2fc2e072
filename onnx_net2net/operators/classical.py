"""Preprocessing that scikit-learn's exporter puts in front of a network.

"b f -> b f"      Scaler, an offset and a scale for every feature
"""

from __future__ import annotations

from onnx_net2net.operators.language import Rule
from onnx_net2net.operators.record import Operator, Table

OWN = "every feature has attributes of its own"

TABLES: dict[str, Table] = {
    "ai.onnx.ml": {
        "Binarizer": Operator("... -> ..."),
        "Imputer": Operator(Rule("*b f -> *b f", fixed={"f": OWN})),
        "Normalizer": Operator(Rule("b f -> b f", fixed={"f": "rows are divided by their norm"})),
        "Scaler": Operator(Rule("*b f -> *b f", fixed={"f": OWN})),
    }
}
