"""Operators without axes of their own: control flow, constants, sizes and sequences."""

from __future__ import annotations

from onnx_net2net.operators.record import Operator, Table, family

MOVED = Operator(computes=False)

TABLES: dict[str, Table] = {
    "": {
        **family("If Loop Scan SequenceMap", Operator()),
        **family("Shape Size", Operator(measures=True, computes=False, differentiable=False)),
        **family(
            "ConcatFromSequence Constant Optional OptionalGetElement OptionalHasElement SequenceAt "
            "SequenceLength",
            MOVED,
        ),
        **family(
            "SequenceErase SequenceInsert SplitToSequence", Operator(computes=False, sequence=True)
        ),
        "SequenceConstruct": Operator(computes=False, sequence=True),
        "SequenceEmpty": Operator(
            computes=False, sequence=True, implied={"dtype": "what is put into it has this type"}
        ),
    }
}
