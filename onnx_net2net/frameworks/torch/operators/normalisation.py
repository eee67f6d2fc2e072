"""Norms and softmax."""

from __future__ import annotations

from onnx_net2net.frameworks.roles import Role
from onnx_net2net.frameworks.torch.operation import Entry, TorchOperation
from onnx_net2net.frameworks.torch.operators.linear import layer, typed
from onnx_net2net.frameworks.torch.types import literal, short

FLOAT = 1


def batch_norm(op: TorchOperation) -> list[str]:
    """Follow ``train()`` and ``eval()``; ONNX's momentum is what the old statistics keep."""
    if op.attribute("spatial", 1) != 1:
        op.refuse("its statistics are not one a channel (spatial=0)")
    if any(op.wants(i) for i in range(1, len(op.step.outputs))):
        op.refuse("its statistics are outputs of the network's graph")
    epsilon = short(op.attribute("epsilon", 1e-5))
    momentum = literal(round(1 - float(op.attribute("momentum", 0.9)), 7))
    derived = op.name(0) in op.program.graph.derived
    if op.attribute("training_mode", 0) and derived:
        # What standardises a weight has no statistics that move: the old ones enter nothing.
        op.read |= {3, 4}
        given = f"{op.tensor(0)}, None, None, {op.tensor(1)}, {op.tensor(2)}"
        return [f"F.batch_norm({given}, training=True, eps={epsilon})"]
    rank, x = op.axes_of(0), op.tensor(0)
    if not all(_fixed(op, index) for index in (3, 4)):
        # PyTorch's own takes no gradient back to its statistics.
        return [op.kernel("normalised_by", x, *map(op.tensor, (3, 4, 1, 2)), epsilon)]
    options = "" if epsilon == "1e-05" else f", eps={epsilon}"
    options += "" if momentum == "0.1" else f", momentum={momentum}"
    channels = op.program.size(op.name(1), 0)
    if channels is not None and 2 <= rank <= 5 and not derived:
        kind = {2: 1, 3: 1, 4: 2, 5: 3}[rank]
        module = f"nn.BatchNorm{kind}d({channels}{options}{typed(op, 1)})"
        own = op.layer(module, weight=1, bias=2, running_mean=3, running_var=4)
        if own is not None:
            return [f"{own}({x})"]
    op.named(op.path(1))
    moves = op.path(3) and op.path(4) and not derived
    training = "self.training" if moves else "False"
    given = ", ".join(op.tensor(i) for i in (3, 4, 1, 2))
    return [f"F.batch_norm({x}, {given}, {training}, momentum={momentum}, eps={epsilon})"]


def _fixed(op: TorchOperation, index: int) -> bool:
    """Return whether an operand is no parameter, and not computed from any."""
    if op.program.is_weight(op.name(index)):
        return op.program.roles[op.name(index)] is Role.STATISTIC
    return op.program.is_constant(op.name(index)) or op.name(index) in op.program.main.inputs


def layer_norm(op: TorchOperation) -> list[str]:
    """Normalise over the last axes; the affine part may broadcast in other ways."""
    rank, x = op.axes_of(0), op.tensor(0)
    first = op.attribute("axis", -1) % rank
    epsilon = short(op.attribute("epsilon", 1e-5))
    shape = op.shape(1)
    if op.wants(1) or op.wants(2):
        given = [x, first, epsilon, f"scale={op.optional(1)}", f"bias={op.optional(2)}"]
        code = op.kernel("layer_norm_with_statistics", *given)
        return op.unpack(code, [op.hint, "mean", "deviation"])
    if shape is None or len(shape) != rank - first or (op.has(2) and op.shape(2) != shape):
        whole = op.listed(op.size(0, axis) for axis in range(first, rank))
        code = f"F.layer_norm({x}, ({whole},), eps={epsilon}) * {op.tensor(1)}"
        return [f"{code} + {op.tensor(2)}" if op.has(2) else code]
    sizes = str(shape[0]) if len(shape) == 1 else str(shape)
    options = "" if epsilon == "1e-05" else f", eps={epsilon}"
    called = layer(op, f"nn.LayerNorm({sizes}{options})", x, 1, 2 if op.has(2) else None)
    if called is not None:
        return [called]
    op.named(op.path(1))
    b = f", {op.tensor(2)}" if op.has(2) else ""
    return [f"F.layer_norm({x}, {_tuple(shape)}, {op.tensor(1)}{b}{options})"]


def _tuple(shape: tuple[int, ...]) -> str:
    return str(tuple(shape))


def rms_norm(op: TorchOperation) -> str:
    """Divide by the root mean square over the last axes."""
    rank = op.axes_of(0)
    first = op.attribute("axis", -1) % rank
    epsilon = short(op.attribute("epsilon", 1e-5))
    shape = op.shape(1)
    if shape is None or len(shape) != rank - first:
        sizes = op.listed(op.size(0, axis) for axis in range(first, rank))
        return f"F.rms_norm({op.tensor(0)}, ({sizes},), eps={epsilon}) * {op.tensor(1)}"
    sizes = str(shape[0]) if len(shape) == 1 else str(shape)
    own = op.layer(f"nn.RMSNorm({sizes}, eps={epsilon}{typed(op, 1)})", weight=1)
    if own is not None:
        return f"{own}({op.tensor(0)})"
    op.named(op.path(1))
    return f"F.rms_norm({op.tensor(0)}, {_tuple(shape)}, {op.tensor(1)}, eps={epsilon})"


def group_norm(op: TorchOperation) -> str:
    """Normalise groups, with one scale a channel (opset 21), or one a group (opset 18)."""
    groups = op.attribute("num_groups")
    epsilon = short(op.attribute("epsilon", 1e-5))
    channels = op.program.size(op.name(0), 1)
    options = "" if epsilon == "1e-05" else f", eps={epsilon}"
    if op.opset < 21:
        plain = f"F.group_norm({op.tensor(0)}, {groups}{options})"
        spread = f"repeat_interleave({op.code(op.size(0, 1))} // {groups})"
        view = f"reshape(-1, *[1] * {op.axes_of(0) - 2})"
        scale, bias = (f"{op.tensor(i)}.{spread}.{view}" for i in (1, 2))
        return f"{plain} * {scale} + {bias}"
    called = layer(op, f"nn.GroupNorm({groups}, {channels}{options})", op.tensor(0), 1, 2)
    if called is not None:
        return called
    op.named(op.path(1))
    return f"F.group_norm({op.tensor(0)}, {groups}, {op.tensor(1)}, {op.tensor(2)}{options})"


def instance_norm(op: TorchOperation) -> str:
    """Normalise each channel of each sample, in ``train()`` as in ``eval()``."""
    epsilon = short(op.attribute("epsilon", 1e-5))
    op.named(op.path(1))
    given = f"weight={op.tensor(1)}, bias={op.tensor(2)}, eps={epsilon}"
    return f"F.instance_norm({op.tensor(0)}, {given})"


def softmax(name: str) -> Entry:
    """Write a softmax; before opset 13 all axes from ``axis`` on are one."""

    def entry(op: TorchOperation) -> str:
        rank = op.axes_of(0)
        new = op.opset >= 13
        axis = op.attribute("axis", -1 if new else 1)
        if new or axis % max(rank, 1) == rank - 1:
            return f"F.{name}({op.tensor(0)}, dim={axis if new else -1})"
        x = op.add(op.tensor(0), "x", inline=False)
        return f"F.{name}({x}.flatten({axis % rank}), dim=-1).reshape({x}.shape)"

    return entry


def hardmax(op: TorchOperation) -> str:
    """Write one at the first largest element, else zero."""
    rank, new = op.axes_of(0), op.opset >= 13
    axis = op.attribute("axis", -1 if new else 1)
    whole = not new and axis % rank != rank - 1
    return op.kernel("hardmax", op.tensor(0), axis, f"flat={whole}")


def lp_norm(op: TorchOperation) -> str:
    """Divide by the norm along one axis; no epsilon, and zero where the norm is zero."""
    p, axis = op.attribute("p", 2), op.attribute("axis", -1)
    return f"F.normalize({op.tensor(0)}, p={p}, dim={axis}, eps=1e-30)"


def mean_variance(op: TorchOperation) -> str:
    """Subtract the mean, and divide by the deviation."""
    axes = tuple(op.attribute("axes") or (0, 2, 3))
    return op.kernel("mean_variance_norm", op.tensor(0), axes)


def lrn(op: TorchOperation) -> str:
    """Divide by a power of the local sum of squares over channels."""
    size = op.attribute("size")
    alpha, beta = op.attribute("alpha", 1e-4), op.attribute("beta", 0.75)
    options = f"alpha={short(alpha)}, beta={short(beta)}, bias={short(op.attribute('bias', 1.0))}"
    return op.kernel("local_response_norm", op.tensor(0), size, options)


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "BatchNormalization": batch_norm,
        "GroupNormalization": group_norm,
        "Hardmax": hardmax,
        "InstanceNormalization": instance_norm,
        "LRN": lrn,
        "LayerNormalization": layer_norm,
        "LogSoftmax": softmax("log_softmax"),
        "LpNormalization": lp_norm,
        "MeanVarianceNormalization": mean_variance,
        "RMSNormalization": rms_norm,
        "Softmax": softmax("softmax"),
    },
}
