"""If, Loop and Scan as Python's own control flow."""

from __future__ import annotations

from onnx_net2net.frameworks.program import Section
from onnx_net2net.frameworks.pytorch import hosted
from onnx_net2net.frameworks.pytorch.operation import Entry, Operation
from onnx_net2net.frameworks.pytorch.translator import TensorList
from onnx_net2net.frameworks.pytorch.types import Untranslated


def _results(op: Operation, names: list[str]) -> str:
    """What a function returns."""
    found = []
    for name in names:
        value = op.translator.values.get(name)
        found.append(value.code if isinstance(value, TensorList) else op.translator.tensor(name))
    return f"({', '.join(found)},)" if len(found) != 1 else found[0]


def _body(op: Operation, section: Section, parameters: list[str], outputs: list[str]) -> str:
    op.translator.enter(parameters)
    try:
        op.translator.section(section)
        result = _results(op, outputs)
    finally:
        body = op.translator.leave()
    body.result = result
    hint = "body" if parameters else "branch"
    return op.translator.block.function(body, hint)


def branch(op: Operation) -> list[str] | str:
    """One of two functions is called."""
    found = op.translator.host(op.name(0))
    if found is not None and hosted.known(found):
        condition = str(bool(found.reshape(-1)[0]))
    else:
        condition = op.scalar(0)
    calls = []
    for name in ("then_branch", "else_branch"):
        section = op.step.bodies.get(name)
        if section is None:
            raise Untranslated("its branches are not followed")
        calls.append(f"{_body(op, section, [], section.outputs)}()")
    code = f"{calls[0]} if {condition} else {calls[1]}"
    if len(op.step.outputs) == 1:
        return op.add(code, op.hint, inline=False)
    return op.translator.block.unpack(code, [op.hint] * len(op.step.outputs))


def loop(op: Operation) -> list[str]:
    """Runs until the condition fails or the count is reached; scanned outputs are stacked."""
    section = op.step.bodies.get("body")
    if section is None:
        raise Untranslated("its body is not followed")
    start = [op.tensor(i) for i in range(2, len(op.step.inputs))]
    most = op.number(0) if op.has(0) else "None"
    most = most if most is not None else f"int({op.tensor(0)})"
    condition = op.number(1) if op.has(1) else "True"
    condition = condition if condition is not None else op.tensor(1)
    count, first = section.inputs[:2]
    device = op.translator.device()
    body = _loop_body(op, section, count, first)
    states = len(section.inputs) - 2
    given = [body, most, condition, f"({', '.join(start)},)" if start else "()", states, device]
    code = op.kernel("loop", *given)
    return op.translator.block.unpack(code, [op.hint] * (len(section.outputs) - 1))[
        : len(op.step.outputs)
    ]


def _loop_body(op: Operation, section: Section, count: str, first: str) -> str:
    return _body(op, section, [count, first, *section.inputs[2:]], section.outputs)


def scan(op: Operation) -> list[str]:
    """Runs over the entries of its inputs; scanned outputs are stacked."""
    section = op.step.bodies.get("body")
    if section is None:
        raise Untranslated("its body is not followed")
    scanned = op.attribute("num_scan_inputs")
    states = len(op.step.inputs) - scanned
    outputs = len(section.outputs) - states
    options = {
        "axes": op.attribute("scan_input_axes") or [0] * scanned,
        "backward": op.attribute("scan_input_directions") or [0] * scanned,
        "out_axes": op.attribute("scan_output_axes") or [0] * outputs,
        "out_backward": op.attribute("scan_output_directions") or [0] * outputs,
    }
    start = [op.tensor(i) for i in range(len(op.step.inputs))]
    body = _body(op, section, section.inputs, section.outputs)
    given = [body, f"({', '.join(start)},)", states, *(f"{k}={v}" for k, v in options.items())]
    code = op.kernel("scan", *given)
    return op.translator.block.unpack(code, [op.hint] * len(section.outputs))[
        : len(op.step.outputs)
    ]


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "If": branch,
        "Loop": loop,
        "Scan": scan,
    },
}
