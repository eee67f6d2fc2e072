"""Operators without a rule: control flow, constants, sizes, sequences, and what little is known
of others."""

from __future__ import annotations

from typing import Any

from onnx import AttributeProto

from onnx_net2net.operators import hazards, values
from onnx_net2net.operators.record import Extent, Operator, Table, family

MEASURES: dict[str, Any] = {"measures": True, "computes": False, "differentiable": False}
CONVOLVING = {"activation": ("none", "silu", "swish")}

TABLES: dict[str, Table] = {
    "": {
        **family("If Scan SequenceMap", Operator()),
        "Loop": Operator(extents={0: Extent.AMOUNT}, hazard=hazards.loop_trips),
        "Shape": Operator(value=values.shape, **MEASURES),
        "Size": Operator(value=values.size, **MEASURES),
        **family(
            "ConcatFromSequence Constant Optional OptionalGetElement OptionalHasElement SequenceAt "
            "SequenceLength",
            Operator(computes=False),
        ),
        **family(
            "SequenceConstruct SequenceErase SequenceInsert",
            Operator(computes=False, sequence=True),
        ),
        "SequenceEmpty": Operator(
            computes=False, sequence=True, implied={"dtype": "what is put into it has this type"}
        ),
        "SplitToSequence": Operator(computes=False, sequence=True, extents={1: Extent.COUNT}),
        **family(
            "NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss",
            Operator(choices={"reduction": ("mean", "none", "sum")}),
        ),
        "CausalConvWithState": Operator(choices=CONVOLVING),
        "TfIdfVectorizer": Operator(choices={"mode": ("IDF", "TF", "TFIDF")}),
        # Of onnxruntime alone.
        "Crop": Operator(types={"scale": AttributeProto.INTS}),
        "GivenTensorFill": Operator(types={"shape": AttributeProto.INTS}),
        "ImageScaler": Operator(types={"bias": AttributeProto.FLOATS}),
    },
    "ai.onnx.preview.training": {"Momentum": Operator(choices={"mode": ("nesterov", "standard")})},
}
