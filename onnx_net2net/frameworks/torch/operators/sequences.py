"""Sequences of tensors as Python lists, and what may be missing as None."""

from __future__ import annotations

from onnx_net2net.frameworks.torch import size_code
from onnx_net2net.frameworks.torch.operation import Entry, Listed, TorchOperation
from onnx_net2net.frameworks.torch.operators.movement import same
from onnx_net2net.frameworks.torch.types import torch_dtype


def sequence(op: TorchOperation) -> Listed:
    """Write a list of tensors."""
    return Listed(f"[{', '.join(op.tensors())}]")


def split_to_sequence(op: TorchOperation) -> Listed:
    """Write a list of parts of a tensor."""
    axis, keep = op.attribute("axis", 0), op.attribute("keepdims", 1)
    x = op.tensor(0)
    if not op.has(1):
        parts = f"torch.split({x}, 1, dim={axis})"
        return Listed(f"list({parts})" if keep else f"list(torch.unbind({x}, dim={axis}))")
    sizes = op.sizes(1)
    whole = op.code(sizes[0]) if op.rank(1) == 0 else f"[{op.listed(sizes)}]"
    return Listed(f"list(torch.split({x}, {whole}, dim={axis}))")


def sequence_at(op: TorchOperation) -> str:
    """Take one tensor of a list."""
    return f"{op.sequence(0)}[{op.integer(1)}]"


def sequence_length(op: TorchOperation) -> None:
    """Count the tensors of a list."""
    code = op.translator.expression(f"len({op.sequence(0)})", "length")
    op.translator.values[op.step.output] = size_code.array(size_code.read(code))


def sequence_insert(op: TorchOperation) -> Listed:
    """Write a longer list."""
    items = op.sequence(0)
    if not op.has(2):
        return Listed(f"[*{items}, {op.tensor(1)}]")
    return Listed(op.kernel("inserted", items, op.tensor(1), op.integer(2)))


def sequence_erase(op: TorchOperation) -> Listed:
    """Write a shorter list."""
    return Listed(op.kernel("erased", op.sequence(0), op.integer(1) if op.has(1) else "-1"))


def concat_from_sequence(op: TorchOperation) -> str:
    """Join a list to one tensor."""
    name = "stack" if op.attribute("new_axis", 0) else "cat"
    return f"torch.{name}({op.sequence(0)}, dim={op.attribute('axis')})"


def sequence_empty(op: TorchOperation) -> Listed:
    """Write a list without tensors."""
    torch_dtype(op.attribute("dtype", 1))
    return Listed("[]")


def optional(op: TorchOperation) -> list[str | Listed]:
    """Write a value, or None."""
    kind = op.attribute("type")
    if op.has(0):
        return [op.value(0)]
    return [Listed("None") if kind.HasField("sequence_type") else "None"]


def has_element(op: TorchOperation) -> str:
    """Tell whether there is a value."""
    holds = "False"
    if op.has(0):
        value = op.value(0)
        holds = f"{value.code if isinstance(value, Listed) else value} is not None"
    return f"torch.tensor({holds}, device={op.device()})"


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "ConcatFromSequence": concat_from_sequence,
        "Optional": optional,
        "OptionalGetElement": same,
        "OptionalHasElement": has_element,
        "SequenceAt": sequence_at,
        "SequenceConstruct": sequence,
        "SequenceEmpty": sequence_empty,
        "SequenceErase": sequence_erase,
        "SequenceInsert": sequence_insert,
        "SequenceLength": sequence_length,
        "SplitToSequence": split_to_sequence,
    },
}
