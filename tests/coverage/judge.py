"""How often verify is wrong: false alarms on exact growths, and faults of graded size that it sees.

    python -m tests.coverage.judge after.json              # about five minutes
    python -m tests.coverage.judge --table before.json after.json > tests/coverage/JUDGE.md

To measure an older judge, run the same file with PYTHONPATH pointing at that version.

The networks are made to be hard on a judge: maps that are almost zero, saturated gates, dead
units, masks of minus infinity. Each is widened, which is exact; then one unit of one weight of the
grown network is made wrong by a share of that weight's scale.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

from onnx_net2net.errors import Net2NetError
from onnx_net2net.model.model import Model, load
from onnx_net2net.verification.verify import verify
from onnx_net2net.widening.widen import widen
from tests import random_networks
from tests.judging import Subject, everything
from tests.networks import Net

SEEDS = 5  # networks of each kind
RANDOM = 60
SIZES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


# Networks --------------------------------------------------------------------------------------


def text_map(seed: int, bias: float = -17.0, scale: float = 0.3) -> ModelProto:
    """A detector of text: a probability for each pixel, almost all near 0."""
    net = Net(seed=seed)
    x = net(
        "Relu",
        net("Conv", net.input(1, 3, 64, 96), net.put(_normal(net, 16, 3, 3, 3)), pads=[1] * 4),
    )
    x = net("Conv", x, net.put(_normal(net, 1, 16, 1, 1, scale=scale)), net.put(np.float32([bias])))
    return net.model(net("Sigmoid", x))


def upsampled_map(seed: int) -> ModelProto:
    """The same with a transposed convolution and a hard swish, as small detectors have it."""
    net = Net(seed=seed)
    x = net(
        "HardSwish",
        net("Conv", net.input(1, 3, 16, 16), net.put(_normal(net, 12, 3, 3, 3)), pads=[1] * 4),
    )
    x = net("Relu", net("ConvTranspose", x, net.put(_normal(net, 12, 8, 2, 2)), strides=[2, 2]))
    bias = net.put(np.float32([net.rng.uniform(-20, -12)]))
    return net.model(
        net(
            "Sigmoid",
            net("ConvTranspose", x, net.put(_normal(net, 8, 1, 2, 2)), bias, strides=[2, 2]),
        )
    )


def saturated(seed: int, operator: str = "LSTM") -> ModelProto:
    """Voice activity: a recurrence whose gates are shut or open, a ReLU, a probability."""
    gates = {"LSTM": 4, "GRU": 3}[operator]
    net = Net(seed=seed)
    x = net.input(20, 2, 6)
    weight, again = (_normal(net, 1, gates * 8, n, scale=6.0) for n in (6, 8))
    x = net(
        operator,
        x,
        net.put(weight),
        net.put(again),
        net.put(_normal(net, 1, gates * 16, scale=8.0)),
        hidden_size=8,
        results=2,
    )[0]
    x = net("Relu", net("Squeeze", x, net.put(np.array([1]))))
    x = net("MatMul", x, net.put(_normal(net, 8, 1, scale=4.0)))
    return net.model(net("Sigmoid", net("Add", x, net.put(np.float32([-14])))))


def dead_units(seed: int) -> ModelProto:
    """Outputs behind a ReLU, most of them always 0, some by terms that cancel."""
    net = Net(seed=seed)
    x = net("Relu", net("Gemm", net.input(64, 7), net.weight(7, 20), net.weight(20)))
    last = _normal(net, 20, 12)
    last[:, :3] = 0.0
    last[1::2, 3:6] = -last[::2, 3:6]
    bias = np.where(np.arange(12) < 6, 0, -2.0).astype(np.float32)
    return net.model(net("Relu", net("Gemm", x, net.put(last), net.put(bias))))


def twins(seed: int) -> ModelProto:
    """Units that are copies and cancel exactly, as networks that were grown before have them."""
    net = Net(seed=seed)
    first, shift = _normal(net, 7, 10), _normal(net, 10)
    double = np.repeat(first, 2, axis=1), np.repeat(shift, 2)
    x = net("Relu", net("Gemm", net.input(64, 7), net.put(double[0]), net.put(double[1])))
    last = _normal(net, 20, 3)
    last[1::2] = -last[::2]
    return net.model(net("Relu", net("Gemm", x, net.put(last))))


def masked_attention(seed: int) -> ModelProto:
    """Attention with large scores and a mask, its probabilities an output."""
    net = Net(seed=seed)
    x = net("MatMul", net.input(2, 10, 6), net.weight(6, 8))
    q, k, v = (net("MatMul", x, net.put(_normal(net, 8, 8, scale=s))) for s in (8, 8, 1))
    scores = net("MatMul", q, net("Transpose", k, perm=[0, 2, 1]))
    mask = np.triu(np.full((10, 10), -np.inf if seed % 2 else -1e4, np.float32), 1)
    probabilities = net("Softmax", net("Add", scores, net.put(mask)), axis=-1)
    return net.model(
        net("MatMul", net("MatMul", probabilities, v), net.weight(8, 4)), probabilities
    )


def gelu_by_erf(seed: int) -> ModelProto:
    """x (1 + erf(x / sqrt 2)) / 2, far on the negative side, where 1 + erf is a step or two."""
    net = Net(seed=seed)
    x = net("MatMul", net.input(64, 7), net.weight(7, 16))
    x = net(
        "Add",
        net("MatMul", x, net.weight(16, 5)),
        net.put(np.float32([-16.3, -20.1, -12.7, 0.3, -24.9])),
    )
    erf = net("Erf", net("Mul", x, net.put(np.float32(0.25))))
    half = net("Mul", x, net("Add", erf, net.put(np.float32(1))))
    return net.model(net("Mul", half, net.put(np.float32(0.5))))


def soft_ends(seed: int) -> ModelProto:
    """Functions that end near 0: softplus, ELU + 1, exp of far scores, tanh + 1."""
    net = Net(seed=seed)
    x = net("Relu", net("MatMul", net.input(64, 7), net.weight(7, 16)))
    outputs = []
    for operator in ("Softplus", "Elu", "Exp", "Tanh", "HardSigmoid"):
        y = net("Add", net("MatMul", x, net.weight(16, 2)), net.put(np.float32([-17.3, -4.1])))
        y = net(operator, y)
        if operator in ("Elu", "Tanh"):
            y = net("Add", y, net.put(np.float32(1)))
        outputs.append(y)
    return net.model(*outputs)


def plain(seed: int) -> ModelProto:
    """An ordinary convolutional network."""
    net = Net(seed=seed)
    x = net.input(2, 3, 12, 12)
    for n, m in ((3, 8), (8, 12)):
        x = net(
            "Conv",
            x,
            net.put(_normal(net, m, n, 3, 3, scale=(9 * n) ** -0.5)),
            net.weight(m),
            pads=[1] * 4,
        )
        x = net(
            "BatchNormalization",
            x,
            net.weight(m, low=0.5),
            net.weight(m),
            net.weight(m),
            net.weight(m, low=0.5),
        )
        x = net("Relu", x)
    x = net("Flatten", net("GlobalAveragePool", x))
    return net.model(net("Gemm", x, net.weight(12, 5), net.weight(5)))


def scales_apart(seed: int) -> ModelProto:
    """Outputs of which some are a millionth of others."""
    net = Net(seed=seed)
    x = net("Relu", net("Gemm", net.input(64, 7), net.weight(7, 20), net.weight(20)))
    last = _normal(net, 20, 6) * np.float32([1, 1, 1e-3, 1e-3, 1e-6, 1e-6])
    return net.model(net("MatMul", x, net.put(last)))


def random_network(seed: int) -> ModelProto:
    """A chain of two to four random blocks."""
    rng = np.random.default_rng(seed)

    def draw(strategy: Any) -> Any:
        inner = getattr(strategy, "wrapped_strategy", strategy)
        if hasattr(inner, "elements"):
            return inner.elements[rng.integers(len(inner.elements))]
        return int(rng.integers(inner.start, inner.end + 1))

    net = Net(seed=seed)
    kind = ("image", "sequence", "vector")[seed % 3]
    shape = {"image": (2, 3, 6, 4), "sequence": (2, 5, 4), "vector": (3, 5)}[kind]
    builder = random_networks.Builder(net, draw, kind, net.input(*shape), shape)
    (random_networks.conv if kind == "image" else random_networks.dense)(builder)
    for _ in range(int(rng.integers(2, 5))):
        blocks = random_networks.BLOCKS[builder.kind]
        block = blocks[rng.integers(len(blocks))]
        if builder.width > 1 or block is not random_networks.slices:
            block(builder)
    head, extra = (builder.conv, (1,)) if builder.kind == "image" else (builder.dense, ())
    return net.model(head(builder.x, builder.width, 4, *extra))


def _normal(net: Net, *shape: int, scale: float = 0.3) -> np.ndarray:
    return (net.rng.normal(size=shape) * scale).astype(np.float32)


KINDS: dict[str, tuple[Callable[[int], ModelProto], int]] = {
    "empty text map": (text_map, SEEDS),
    "text map with text": (lambda seed: text_map(seed, -12.0, 1.0), SEEDS),
    "upsampled text map": (upsampled_map, SEEDS),
    "saturated LSTM": (saturated, SEEDS),
    "saturated GRU": (lambda seed: saturated(seed, "GRU"), SEEDS),
    "dead units behind a ReLU": (dead_units, SEEDS),
    "copies that cancel": (twins, SEEDS),
    "masked attention": (masked_attention, SEEDS),
    "GELU by erf": (gelu_by_erf, SEEDS),
    "softplus, ELU, exp, tanh": (soft_ends, SEEDS),
    "outputs a millionth apart": (scales_apart, SEEDS),
    "ordinary convolutions": (plain, SEEDS),
    "random networks": (random_network, RANDOM),
}


# Faults ----------------------------------------------------------------------------------------


def wrong_unit(grown: Model, size: float, seed: int) -> ModelProto | None:
    """One unit of one matrix or kernel off by ``size`` of that weight's scale."""
    rng = np.random.default_rng(seed)
    proto = onnx.ModelProto.FromString(grown.to_bytes())
    weights = [t for t in proto.graph.initializer if t.data_type == 1 and len(t.dims) > 1]
    if not weights:
        return None
    tensor = weights[rng.integers(len(weights))]
    array = numpy_helper.to_array(tensor).copy()
    scale = float(np.sqrt(np.mean(np.square(array.astype(np.float64)))))
    unit = (
        array[..., rng.integers(array.shape[-1])]
        if array.ndim == 2
        else array[rng.integers(len(array))]
    )
    if not np.isfinite(scale):
        return None  # a mask
    unit += (size * scale * rng.choice([-1, 1], unit.shape)).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return proto


def shifted(proto: ModelProto, name: str, where: Any, change: Callable[[Any], Any]) -> ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.name == name:
            array = numpy_helper.to_array(tensor).copy()
            array[where] = change(array[where])
            tensor.CopyFrom(numpy_helper.from_array(array, name))
    return copy


def special_faults(seed: int) -> Iterator[tuple[str, ModelProto, ModelProto]]:
    """Faults that a floor too generous would let pass: a name, the network, the wrong one."""
    dead = dead_units(seed)
    bias = dead.graph.node[-2].input[2]
    for size in (1e-4, 1e-5, 3e-6):
        yield (
            f"a dead unit comes alive by {size:g}",
            dead,
            shifted(dead, bias, 0, lambda b, s=size: b + s),
        )
    apart = scales_apart(seed)
    last = apart.graph.node[-1].input[1]
    for share in (1e-2, 1e-3, 1e-4):
        yield (
            f"an output a millionth of others is off by {share:g}",
            apart,
            shifted(apart, last, (slice(None), 5), lambda w, s=share: w * (1 + s)),
        )
    for bias_at, size in ((-17.0, 3.0), (-10.0, 0.03), (-6.0, 0.001)):
        proto = text_map(seed, bias_at)
        name = proto.graph.node[-2].input[2]
        yield (
            f"a map near sigmoid({bias_at:g}) is shifted by {size:g}",
            proto,
            shifted(proto, name, 0, lambda b, s=size: b + s),
        )
    lstm = saturated(seed)
    yield (
        "a gate of a saturated LSTM is shifted by 0.01",
        lstm,
        shifted(lstm, lstm.graph.node[0].input[3], (0, slice(0, 8)), lambda b: b + 0.01),
    )
    attention = masked_attention(seed)
    yield (
        "a score of masked attention is off by 1e-4",
        attention,
        shifted(
            attention, attention.graph.node[1].input[1], (slice(None), 2), lambda w: w * 1.0001
        ),
    )
    gelu = gelu_by_erf(seed)
    yield (
        "a GELU is shifted by 1e-5",
        gelu,
        shifted(gelu, gelu.graph.node[2].input[1], 3, lambda b: b + 1e-5),
    )


# Measuring -------------------------------------------------------------------------------------


def measure() -> dict[str, Any]:
    alarms: dict[str, list[str]] = defaultdict(list)
    pairs: dict[str, int] = defaultdict(int)
    seen: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for kind, (network, count) in KINDS.items():
        for seed in range(count):
            subject = Subject(load(network(seed)))
            for turn in (0, 1) if kind != "random networks" else (1,):
                widths = everything(subject.dimensions, turn)
                if not widths:
                    continue
                try:
                    grown = widen(subject.model, widths, seed=seed + turn)
                    report = verify(subject.model, grown, seeds=2, provider="cpu")
                except Net2NetError as problem:
                    print(kind, seed, problem, file=sys.stderr)
                    continue
                pairs[kind] += 1
                if not report:
                    alarms[kind].append(report.verdict)
                    continue  # whatever is planted would be "seen"
                for size in SIZES if kind != "random networks" or seed < 40 else ():
                    wrong = wrong_unit(grown, size, seed)
                    if wrong is not None:
                        tally = seen[kind][f"{size:g}"]
                        tally[0] += not verify(subject.model, wrong, seeds=2, provider="cpu")
                        tally[1] += 1
        print(kind, pairs[kind], len(alarms[kind]), dict(seen[kind]), file=sys.stderr, flush=True)
    special: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for seed in range(SEEDS):
        for name, proto, wrong in special_faults(seed):
            special[name][0] += not verify(proto, wrong, seeds=2, provider="cpu")
            special[name][1] += 1
    return {"pairs": pairs, "alarms": alarms, "seen": seen, "special": special}


def table(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Both measurements as markdown."""
    lines = [(__doc__ or "").split("\n\n")[0], ""]
    lines += [
        "Written by `python -m tests.coverage.judge --table`. In each cell: before, after.",
        "",
    ]
    lines += ["| networks | exact growths | false alarms |", "|---|---|---|"]
    for kind, count in after["pairs"].items():
        counts = [len(run["alarms"].get(kind, [])) for run in (before, after)]
        lines.append(f"| {kind} | {count} | {counts[0]}, {counts[1]} |")
    totals = [sum(map(len, run["alarms"].values())) for run in (before, after)]
    lines += [f"| all | {sum(after['pairs'].values())} | {totals[0]}, {totals[1]} |", ""]
    lines += [
        "Faults seen, where the growth itself raised no alarm: one unit of one weight wrong by"
    ]
    lines += ["a share of the weight's scale. (Of an empty map nearly nothing can be seen.)", ""]
    lines += ["| networks | " + " | ".join(f"{s:g}" for s in SIZES) + " |", "|---" * 6 + "|"]
    for kind in after["seen"]:
        cells = []
        for size in map("{:g}".format, SIZES):
            shares = [run["seen"].get(kind, {}).get(size, [0, 0]) for run in (before, after)]
            cells.append(", ".join(f"{n} of {of}" for n, of in shares))
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    lines += ["", "Faults that a tolerance too generous would let pass.", ""]
    lines += ["| fault | tried | seen |", "|---|---|---|"]
    for name, (found, count) in after["special"].items():
        lines.append(f"| {name} | {count} | {before['special'][name][0]}, {found} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    if arguments[0] == "--table":
        before, after = (json.loads(Path(path).read_text()) for path in arguments[1:])
        print(table(before, after))
    else:
        Path(arguments[0]).write_text(json.dumps(measure(), indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
