"""Element types of outputs, as the operators' schemas tie them to those of inputs.

Keras widens some sums and means; ONNX says that the result is of the operand's type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from onnx_net2net.frameworks.keras.traced import ops
from onnx_net2net.frameworks.keras.values import cast, dtype_of
from onnx_net2net.frameworks.step import ProgramStep

__all__ = ["tied", "type_name", "typed"]


def type_name(number: int) -> str:
    """Return the name of an ONNX element type, as NumPy and Keras have it."""
    return str(onnx.helper.tensor_dtype_to_np_dtype(number).name)


def tied(step: ProgramStep, operands: Sequence[Any]) -> dict[int, str]:
    """Return the types of those outputs whose types are those of operands, by position."""
    if step.domain or not onnx.defs.has(step.op, step.opset, ""):
        return {}
    schema = onnx.defs.get_schema(step.op, step.opset, "")
    kinds: dict[str, str] = {}
    for index, operand in enumerate(operands):
        formal = schema.inputs[min(index, len(schema.inputs) - 1)]
        if operand is not None and not isinstance(operand, list) and formal.is_homogeneous:
            kinds.setdefault(formal.type_str, dtype_of(operand))
    outputs = [
        schema.outputs[min(index, len(schema.outputs) - 1)] for index in range(len(step.outputs))
    ]
    return {
        index: kinds[formal.type_str]
        for index, formal in enumerate(outputs)
        if formal.is_homogeneous and formal.type_str in kinds
    }


def typed(step: ProgramStep, operands: Sequence[Any], results: Sequence[Any]) -> list[Any]:
    """Return the results in the types that the schema says."""
    kinds = tied(step, operands)
    return [
        cast(value, kinds[index]) if index in kinds and ops.is_tensor(value) else value
        for index, value in enumerate(results)
    ]
