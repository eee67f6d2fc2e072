"""If, Loop and Scan as Python's own control flow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from onnx_net2net.frameworks.step import Section
from onnx_net2net.frameworks.torch.operation import Entry, Listed, TorchOperation
from onnx_net2net.frameworks.torch.translator import TensorList
from onnx_net2net.frameworks.torch.types import torch_dtype


def _body(
    op: TorchOperation, section: Section, parameters: list[str], lists: list[str]
) -> tuple[str, list[bool]]:
    """Write a function for a body; return it, and which of its results are sequences."""
    translator = op.translator
    translator.enter(parameters, lists)
    try:
        translator.section(section)
        codes = [translator.value(name) for name in section.outputs]
        kinds = [isinstance(translator.values.get(n), TensorList) for n in section.outputs]
    finally:
        body = translator.leave()
    body.result = f"({', '.join(codes)},)" if len(codes) != 1 else codes[0]
    return translator.block.function(body, "body" if parameters else "branch"), kinds


def _kinds(codes: list[str], lists: list[bool]) -> list[str | Listed]:
    return [Listed(code) if kind else code for code, kind in zip(codes, lists, strict=True)]


def branch(op: TorchOperation) -> list[str | Listed]:
    """Call one of two functions."""
    sizes = op.translator.known_sizes(op.name(0))
    if sizes is not None and sizes.dtype != object:
        condition = str(bool(sizes.reshape(-1)[0]))
    else:
        condition = op.scalar(0)
    calls, kinds = [], []
    for name in ("then_branch", "else_branch"):
        section = op.step.bodies.get(name)
        if section is None:
            op.refuse("its branches are not followed")
        function, lists = _body(op, section, [], [])
        calls.append(f"{function}()")
        kinds.append(lists)
    if kinds[0] != kinds[1]:
        op.refuse("one of its branches gives a sequence, the other a tensor")
    code = f"{calls[0]} if {condition} else {calls[1]}"
    if len(op.step.outputs) == 1:
        return _kinds([op.add(code, inline=False)], kinds[0])
    return _kinds(op.unpack(code), kinds[0])


def loop(op: TorchOperation) -> list[str | Listed]:
    """Call a function until it stops, or the count is reached; scanned outputs are stacked."""
    section = op.step.bodies.get("body")
    if section is None:
        op.refuse("its body is not followed")
    start = [op.value(i) for i in range(2, len(op.step.inputs))]
    most = op.integer(0) if op.has(0) else "None"
    condition = op.scalar(1) if op.has(1) else "True"
    device = op.device()
    states = len(section.inputs) - 2
    lists = [n for n, s in zip(section.inputs[2:], start, strict=True) if isinstance(s, Listed)]
    body, kinds = _body(op, section, section.inputs, lists)
    if any(n in lists for n in section.inputs[2:]) and kinds[1 : states + 1] != [
        isinstance(s, Listed) for s in start
    ]:
        op.refuse("a state of it is a sequence at times")
    codes = [s.code if isinstance(s, Listed) else s for s in start]
    given = [body, most, condition, f"({', '.join(codes)},)" if codes else "()", states, device]
    empty = _empty_rows(op, section.outputs[1 + states :], op.step.outputs[states:])
    code = op.kernel("loop", *given, *empty)
    names = op.unpack(code, [op.hint] * (len(section.outputs) - 1))
    return _kinds(names, kinds[1:])


def _empty_rows(op: TorchOperation, rows: list[str], stacks: Sequence[str]) -> list[str]:
    """Return shapes and types of what is stacked if a loop does not run; None if not known."""
    shapes = []
    for row, stack in zip_longest(rows, stacks, fillvalue=""):
        dims, dtype = op.program.dims(row), op.program.dtype(row)
        stacked = (op.program.dims(stack) or ())[1:] if stack else ()
        pairs = list(zip_longest(dims or stacked, stacked))
        sizes = tuple(next((d for d in pair if isinstance(d, int)), None) for pair in pairs)
        if dtype is None or None in sizes or (dims is None and not stacked):
            return ["None"]
        shapes.append(f"({sizes}, {torch_dtype(dtype)})")
    return [f"({', '.join(shapes)},)"] if shapes else []


def scan(op: TorchOperation) -> list[str]:
    """Call a function for the slices of its inputs; scanned outputs are stacked."""
    section = op.step.bodies.get("body")
    if section is None:
        op.refuse("its body is not followed")
    scanned = op.attribute("num_scan_inputs")
    states = len(op.step.inputs) - scanned
    outputs = len(section.outputs) - states
    options = {
        "axes": op.attribute("scan_input_axes") or [0] * scanned,
        "backward": op.attribute("scan_input_directions") or [0] * scanned,
        "out_axes": op.attribute("scan_output_axes") or [0] * outputs,
        "out_backward": op.attribute("scan_output_directions") or [0] * outputs,
    }
    start = op.tensors()
    body, _ = _body(op, section, section.inputs, [])
    given = [body, f"({', '.join(start)},)", states, *(f"{k}={v}" for k, v in options.items())]
    code = op.kernel("scan", *given)
    return op.unpack(code, [op.hint] * len(section.outputs))


TABLES: dict[str, dict[str, Entry]] = {
    "": {"If": branch, "Loop": loop, "Scan": scan},
}
