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
    given = [x, w, r, b, f"({', '.join(states)},)", literal(direction)]
    stated = op.attribute("activations") or USUAL[kind] * directions
    activations = [name[:1].upper() + name[1:] for name in stated]
    resets_after = kind == "GRU" and bool(op.attribute("linear_before_reset", 0))
    own = _own(op, activations, resets_after)
    if own is not None:
        code = op.kernel("fused_recurrence", literal(own), *given)
    else:
        if op.attribute("input_forget", 0):
            op.refuse("its input and forget gates are one")
        step = "gru_step_after" if resets_after else f"{kind.lower()}_step"
        op.kernel(step)
        given += [op.optional(4), _functions(op, activations)]
        given += [op.optional(7) if kind == "LSTM" else "None", short(op.attribute("clip", 0.0))]
        code = op.kernel("recurrence", step, *given)
    outputs, *last = op.unpack(code, [op.hint, "hidden", "cell"][: 1 + len(states)])
    if turned:
        outputs, last = f"{outputs}.permute(2, 0, 1, 3)", [f"{n}.transpose(0, 1)" for n in last]
    return [outputs, *last]


def _own(op: TorchOperation, activations: list[str], resets_after: bool) -> str | None:
    """Return PyTorch's function for this step, or None."""
    kind, alike = op.step.op, set(activations)
    special = op.attribute("clip", 0.0) or op.attribute("input_forget", 0) or op.has(4) or op.has(7)
    if special or op.program.dtype(op.name(0)) in (None, 16):
        return None
    if kind == "RNN" and alike in ({"Relu"}, {"Tanh"}):
        return f"rnn_{activations[0].lower()}"
    usual = USUAL[kind] * (len(activations) // len(USUAL[kind]))
    return kind.lower() if activations == usual and (kind != "GRU" or resets_after) else None


def _functions(op: TorchOperation, activations: list[str]) -> str:
    """Return the code of the activations."""
    left = {
        "{alpha}": list(op.attribute("activation_alpha") or []),
        "{beta}": list(op.attribute("activation_beta") or []),
    }
    functions = []
    for name in activations:
        if name not in ACTIVATIONS:
            op.refuse(f"its activation {name} is not known")
        code = ACTIVATIONS[name]
        for (place, stated), default in zip(left.items(), DEFAULTS.get(name, ()), strict=False):
            if place in code:
                code = code.replace(place, short(stated.pop(0) if stated else default))
        functions.append(code)
    return f"({', '.join(functions)},)"


TABLES: dict[str, dict[str, Entry]] = {
    "": {"GRU": recurrent, "LSTM": recurrent, "RNN": recurrent},
}
