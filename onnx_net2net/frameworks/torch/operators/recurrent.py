"""Recurrent layers: PyTorch's own where they fit, else step by step."""

from __future__ import annotations

from onnx_net2net.frameworks.torch.operation import Entry, TorchOperation
from onnx_net2net.frameworks.torch.types import literal, short

ACTIVATIONS = {
    "Affine": "lambda x: {alpha} * x + {beta}",
    "Elu": "lambda x: F.elu(x, {alpha})",
    "HardSigmoid": "lambda x: torch.clamp({alpha} * x + {beta}, 0, 1)",
    "LeakyRelu": "lambda x: F.leaky_relu(x, {alpha})",
    "Relu": "F.relu",
    "ScaledTanh": "lambda x: {alpha} * torch.tanh({beta} * x)",
    "Sigmoid": "torch.sigmoid",
    "Softplus": "F.softplus",
    "Softsign": "F.softsign",
    "Tanh": "torch.tanh",
    "ThresholdedRelu": "lambda x: F.threshold(x, {alpha}, 0.0)",
}
DEFAULTS = {
    "Affine": (1.0, 0.0), "Elu": (1.0, 0.0), "HardSigmoid": (0.2, 0.5), "LeakyRelu": (0.01, 0.0),
    "ScaledTanh": (1.0, 1.0), "ThresholdedRelu": (1.0, 0.0),
}  # fmt: skip
USUAL = {"GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"], "RNN": ["Tanh"]}


def recurrent(op: TorchOperation) -> list[str]:
    """Write LSTM, GRU or RNN."""
    kind, direction = op.step.op, op.attribute("direction", "forward")
    turned = bool(op.attribute("layout", 0))
    directions = 2 if direction == "bidirectional" else 1
    x = f"({op.tensor(0)}).transpose(0, 1)" if turned else op.tensor(0)
    x = op.add(x, "x")
    w, r, b = op.tensor(1), op.tensor(2), op.optional(3)
    op.named(op.path(1))
    hidden = op.program.size(op.name(2), 2) or op.attribute("hidden_size")
    if hidden is None:
        op.refuse("its hidden size is not known")
    states = []
    for index in (5, 6) if kind == "LSTM" else (5,):
        if op.has(index):
            states.append(f"({op.tensor(index)}).transpose(0, 1)" if turned else op.tensor(index))
        else:
            zeros = f"{x}.new_zeros({directions}, {x}.shape[1], {hidden})"
            states.append(states[0] if states and not op.has(5) else op.add(zeros, "state"))
    listed = f"({', '.join(states)},)"
    own = _own(op, directions)
    if own is not None:
        code = op.kernel("fused_recurrence", literal(own), x, w, r, b, listed, literal(direction))
    else:
        code = _steps(op, directions, [x, w, r, b, listed, literal(direction)])
    names = op.unpack(code, [op.hint, "hidden", "cell"][: 1 + len(states)])
    if turned:
        names = [f"{names[0]}.permute(2, 0, 1, 3)", *(f"{n}.transpose(0, 1)" for n in names[1:])]
    return names


def _functions(op: TorchOperation, directions: int) -> list[str]:
    names = op.attribute("activations") or USUAL[op.step.op] * directions
    return [name[:1].upper() + name[1:] for name in names]


def _own(op: TorchOperation, directions: int) -> str | None:
    """Return PyTorch's function for this step, or None."""
    kind, names = op.step.op, _functions(op, directions)
    special = op.attribute("clip", 0.0) or op.attribute("input_forget", 0) or op.has(4) or op.has(7)
    if special or op.program.dtype(op.name(0)) in (None, 16):
        return None
    if kind == "RNN" and names in (["Relu"] * directions, ["Tanh"] * directions):
        return f"rnn_{names[0].lower()}"
    if names != USUAL[kind] * directions or (kind == "GRU" and not _resets_after(op)):
        return None
    return kind.lower()


def _resets_after(op: TorchOperation) -> bool:
    return bool(op.attribute("linear_before_reset", 0))


def _steps(op: TorchOperation, directions: int, given: list[str]) -> str:
    kind = op.step.op
    if op.attribute("input_forget", 0):
        op.refuse("its input and forget gates are one")
    alphas, betas = (
        list(op.attribute("activation_alpha") or []),
        list(op.attribute("activation_beta") or []),
    )
    functions = []
    for name in _functions(op, directions):
        if name not in ACTIVATIONS:
            op.refuse(f"its activation {name} is not known")
        code = ACTIVATIONS[name]
        alpha, beta = DEFAULTS.get(name, (0.0, 0.0))
        if "{alpha}" in code:
            alpha = alphas.pop(0) if alphas else alpha
        if "{beta}" in code:
            beta = betas.pop(0) if betas else beta
        functions.append(code.replace("{alpha}", short(alpha)).replace("{beta}", short(beta)))
    step = {"LSTM": "lstm_step", "RNN": "rnn_step"}.get(
        kind, "gru_step_after" if _resets_after(op) else "gru_step"
    )
    op.kernel(step)
    lengths, peephole = op.optional(4), op.optional(7) if kind == "LSTM" else "None"
    clip = short(op.attribute("clip", 0.0))
    listed = f"({', '.join(functions)},)"
    return op.kernel("recurrence", step, *given, lengths, listed, peephole, clip)


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "GRU": recurrent,
        "LSTM": recurrent,
        "RNN": recurrent,
    },
}
