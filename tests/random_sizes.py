"""Random networks whose shapes are computed from the sizes of their inputs, in every way.

    python -m tests.random_sizes 0 1000      # so many networks, from this seed on

No choice of two sizes tells these computations apart from constants, products or one another. A
promise must hold at all sizes that the network runs at; there is nothing else to compare with.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnxruntime
from onnx import ModelProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

import onnx_net2net as n2n
from tests.networks import Net

SIZES: dict[str, tuple[int, ...]] = {
    "batch": (1, 2, 3, 4, 6),
    "length": (1, 2, 3, 4, 6, 12),
    "other": (1, 2, 3, 4, 8),
    "height": (4, 6, 7, 8, 16),
    "width": (4, 5, 8, 12),
}
RUNS = 12  # choices of sizes that a network is run at
FAR = (2**62, 2**31 - 1, 10**9, 40)  # bounds beyond the end, the last not once that has grown
FAILURES = (Fail, InvalidArgument, RuntimeException)  # of a run at sizes that do not fit
Arrays = dict[str, np.ndarray]


@dataclass
class Maker:
    """A network that grows step by step; its first layer is called ``up``."""

    seed: int
    images: bool
    net: Net = field(init=False)
    steps: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random, self.net = random.Random(self.seed), Net(opset=17, seed=self.seed)
        self.units = self.random.choice((8, 12, 24, 36))
        net = self.net
        if self.images:
            self.given = [net.input("batch", 3, "height", "width")]
            filters = net.weight(self.units, 3, 3, 3)
            first = net("Conv", self.given[0], filters, pads=[1] * 4, name="up")
        else:
            self.given = [net.input("batch", "length", 6), net.input("other", 3)]
            first = net("MatMul", self.given[0], net.weight(6, self.units), name="up")
        self.hidden = net("Relu", first)

    def numbers(self, *values: int) -> str:
        return self.net.put(np.array(values, np.int64))

    def size(self, tensor: str, axis: int) -> str:
        return self.net("Gather", self.net("Shape", tensor), self.numbers(axis))

    def join(self, *sizes: str) -> str:
        return self.net("Concat", *sizes, axis=0)

    def either(self, *ways: Callable[[], str]) -> str:
        return self.random.choice(ways)()

    def computed(self, depth: int = 0) -> str:
        """A size: one that is given, or what arithmetic makes of others."""
        net = self.net
        if depth > 2 or self.random.random() < 0.35:
            tensor, axis = self.random.choice(
                [(self.given[0], 0), (self.given[-1], 0), (self.hidden, 1), (self.hidden, -1)]
            )
            number = self.random.choice((1, 2, 3, 4, 6, 12))
            return self.either(lambda: self.size(tensor, axis), lambda: self.numbers(number))
        first, one = self.computed(depth + 1), self.numbers(1)
        if self.random.random() < 0.15:
            choice = self.random.choice(("Greater", "Equal", "Less"))
            second = self.computed(depth + 1)
            return net("Where", net(choice, first, self.computed(depth + 1)), first, second)
        number = self.random.choice((1, 2, 3, 4, 8))
        second = self.either(lambda: self.computed(depth + 1), lambda: self.numbers(number))
        op = self.random.choice(("Min", "Max", "Add", "Mul", "Div", "Mod", "Sub"))
        return net(op, first, net("Max", second, one) if op in ("Div", "Mod") else second)

    def least(self, number: int) -> str:
        return self.net("Max", self.computed(), self.numbers(number))

    def build(self) -> ModelProto:
        """Some steps, and an end that hides no difference."""
        table = IMAGES if self.images else SEQUENCES
        for _ in range(self.random.choice((1, 1, 2, 3))):
            step = self.random.choice(list(table))
            self.steps.append(step.__name__)
            if step(self):
                break
        return self.net.model(end(self))


def end(maker: Maker) -> str:
    """A sum over the channels, or their largest."""
    axis = 1 if maker.images else -1
    if maker.random.random() < 0.5:
        return str(maker.net("ReduceMax", maker.hidden, axes=[axis], keepdims=1))
    return str(maker.net("ReduceSum", maker.hidden, maker.numbers(axis), keepdims=1))


# ---- steps: True where nothing can follow --------------------------------------------------------


def taken_apart(maker: Maker) -> bool:
    net, parts = maker.net, [maker.computed(), maker.numbers(-1)]
    maker.random.shuffle(parts)
    shape = maker.join(maker.numbers(0, 0), *parts)
    axis = maker.random.choice((2, 3))
    apart = net("Reshape", maker.hidden, shape)
    maker.hidden = maker.either(
        lambda: net("ReduceMax", apart, axes=[axis], keepdims=0),
        lambda: net("Softmax", apart, axis=axis),
    )
    maker.hidden = net("ReduceSum", maker.hidden, maker.numbers(-1), keepdims=1)
    return True


def merged(maker: Maker) -> bool:
    shape = maker.join(maker.computed(), maker.computed(), maker.numbers(-1))
    axis = maker.random.choice((0, 1, 2))
    maker.hidden = maker.net("Reshape", maker.hidden, shape)
    maker.hidden = maker.net("ReduceMax", maker.hidden, axes=[axis], keepdims=1)
    return True


def there_and_back(maker: Maker) -> bool:
    flat = maker.net("Reshape", maker.hidden, maker.numbers(0, -1))
    shape = maker.join(maker.numbers(0, -1), maker.size(maker.hidden, 2))
    maker.hidden = maker.net("Reshape", flat, shape)
    return False


def sliced(maker: Maker) -> bool:
    far = maker.random.choice(FAR)
    ends = [maker.computed(), maker.numbers(0), maker.numbers(far), maker.numbers(-3)]
    ends.append(maker.numbers(-maker.random.choice(FAR)))
    start, stop = maker.random.sample(ends, 2)
    axis = maker.numbers(maker.random.choice((1, 2, 2)))
    maker.hidden = maker.net("Slice", maker.hidden, start, stop, axis)
    return True


def squeezed(maker: Maker) -> bool:
    """Runs only where one entry is left."""
    few = maker.net("Slice", maker.hidden, maker.numbers(0), maker.computed(), maker.numbers(1))
    flat = maker.net("Squeeze", few, maker.numbers(1))
    maker.hidden = maker.net("Unsqueeze", flat, maker.numbers(1))
    return False


def tiled(maker: Maker) -> bool:
    shape = maker.join(maker.numbers(1, 1), maker.computed())
    maker.hidden = maker.net("Tile", maker.hidden, shape)
    return True


def padded(maker: Maker) -> bool:
    pads = [maker.numbers(0)] * 6
    pads[maker.random.choice((2, 5))] = maker.least(0)
    maker.hidden = maker.net("Pad", maker.hidden, maker.join(*pads))
    return True


def picked(maker: Maker) -> bool:
    place = maker.net("Mod", maker.computed(), maker.numbers(maker.units))
    maker.hidden = maker.net("Gather", maker.hidden, place, axis=2)
    return True


def split(maker: Maker) -> bool:
    whole = maker.numbers(maker.units)
    first = maker.net("Min", maker.least(0), whole)
    sizes = maker.join(first, maker.net("Sub", whole, first))
    pieces = maker.net("Split", maker.hidden, sizes, results=2, axis=2)
    maker.hidden = maker.random.choice(pieces)
    return True


def ranked(maker: Maker) -> bool:
    count = maker.net("Min", maker.least(1), maker.numbers(maker.units))
    maker.hidden = maker.net("TopK", maker.hidden, count, results=2, axis=-1)[0]
    return True


def repeated(maker: Maker) -> bool:
    net, units = maker.net, maker.size(maker.hidden, 2)
    shape = maker.join(maker.numbers(1), maker.computed(), units)
    row = net("Expand", net.weight(1, 1, 1), shape)
    maker.hidden = net("Add", maker.hidden, net("ReduceSum", row, maker.numbers(1), keepdims=1))
    return False


def counted(maker: Maker) -> bool:
    net, value = maker.net, helper.make_tensor("value", 1, [1], [0.7])
    ones = net("ConstantOfShape", maker.least(0), value=value)
    maker.hidden = net("Mul", maker.hidden, net("ReduceSum", ones, maker.numbers(0), keepdims=1))
    return False


def scaled(maker: Maker) -> bool:
    size = maker.net("Cast", maker.least(1), to=1)
    maker.hidden = maker.net("Div", maker.hidden, maker.net("Sqrt", size))
    return False


def tokens(maker: Maker) -> bool:
    net, x = maker.net, maker.hidden
    places = net("Mul", maker.size(x, 2), maker.size(x, 3))
    shape = maker.either(
        lambda: maker.numbers(0, 0, -1),
        lambda: maker.join(maker.size(x, 0), maker.numbers(maker.units), places),
        lambda: maker.join(maker.size(x, 0), maker.numbers(-1), places),
    )
    turned = net("Transpose", net("Reshape", x, shape), perm=[0, 2, 1])
    mixed = net("MatMul", turned, net.weight(maker.units, maker.units))
    back = [maker.size(x, 0), maker.random.choice((maker.numbers(-1), maker.size(x, 1)))]
    shape = maker.join(*back, maker.size(x, 2), maker.size(x, 3))
    maker.hidden = net("Reshape", net("Transpose", mixed, perm=[0, 2, 1]), shape)
    return False


def heads(maker: Maker) -> bool:
    net, x, each = maker.net, maker.hidden, maker.units // 2
    places = net("Mul", maker.size(x, 2), maker.size(x, 3))
    shape = maker.either(
        lambda: maker.join(maker.size(x, 0), maker.numbers(2, each, -1)),
        lambda: maker.join(maker.numbers(-1, each), places),
    )
    weighed = net("Softmax", net("Reshape", x, shape), axis=-1)
    shape = maker.join(maker.size(x, 0), maker.numbers(-1), maker.size(x, 2), maker.size(x, 3))
    maker.hidden = net("Reshape", weighed, shape)
    return False


def shuffled(maker: Maker) -> bool:
    net, x = maker.net, maker.hidden
    each = maker.either(
        lambda: maker.numbers(maker.units // 2),
        lambda: net("Div", maker.size(x, 1), maker.numbers(2)),
    )
    sides = [maker.size(x, 2), maker.size(x, 3)]
    apart = net("Reshape", x, maker.join(maker.size(x, 0), maker.numbers(2), each, *sides))
    turned = net("Transpose", apart, perm=[0, 2, 1, 3, 4])
    maker.hidden = net("Reshape", turned, maker.join(maker.size(x, 0), maker.numbers(-1), *sides))
    return False


def windows(maker: Maker) -> bool:
    net, x, two = maker.net, maker.hidden, maker.numbers(2)
    high, wide = (net("Div", maker.size(x, axis), two) for axis in (2, 3))
    shape = maker.join(maker.size(x, 0), maker.size(x, 1), high, two, wide, two)
    apart = net("Transpose", net("Reshape", x, shape), perm=[0, 2, 4, 3, 5, 1])
    rows = net("Reshape", apart, maker.join(maker.numbers(-1, 4), maker.size(x, 1)))
    mixed = net("MatMul", rows, net.weight(maker.units, maker.units))
    first = maker.either(lambda: maker.numbers(-1), lambda: maker.size(x, 0))
    back = net("Reshape", mixed, maker.join(first, high, wide, maker.numbers(2, 2, maker.units)))
    back = net("Transpose", back, perm=[0, 5, 1, 3, 2, 4])
    sides = [net("Mul", side, two) for side in (high, wide)]
    maker.hidden = net("Reshape", back, maker.join(maker.size(x, 0), maker.numbers(-1), *sides))
    return False


def even(maker: Maker) -> bool:
    """Padded to an even height, as patches want it."""
    x = maker.hidden
    odd = maker.net("Mod", maker.size(x, 2), maker.numbers(2))
    maker.hidden = maker.net("Pad", x, maker.join(maker.numbers(*[0] * 6), odd, maker.numbers(0)))
    return False


def pooled(maker: Maker) -> bool:
    op = maker.random.choice(("MaxPool", "AveragePool"))
    shape = {"kernel_shape": [2, 2], "strides": [2, 2]}
    maker.hidden = maker.net(op, maker.hidden, ceil_mode=maker.random.choice((0, 1)), **shape)
    return False


def flattened(maker: Maker) -> bool:
    flat = maker.either(
        lambda: maker.net("Flatten", maker.hidden, axis=maker.random.choice((1, 2, 3))),
        lambda: maker.net(
            "Reshape", maker.hidden, maker.join(maker.numbers(-1), maker.size(maker.hidden, 3))
        ),
    )
    maker.hidden = maker.net("ReduceMax", flat, axes=[1], keepdims=1)
    return True


def resized(maker: Maker) -> bool:
    x = maker.hidden
    high = maker.net("Add", maker.size(x, 2), maker.numbers(1))
    shape = maker.join(maker.size(x, 0), maker.size(x, 1), high, maker.size(x, 3))
    maker.hidden = maker.net("Resize", x, "", "", shape, mode="nearest")
    return False


def stretched(maker: Maker) -> bool:
    """Its channels as well, where the sizes say so."""
    x, channels = maker.hidden, maker.net("Max", maker.computed(), maker.numbers(1))
    channels = maker.net("Min", channels, maker.size(x, 1))
    shape = maker.join(maker.size(x, 0), channels, maker.size(x, 2), maker.size(x, 3))
    maker.hidden = maker.net("Resize", x, "", "", shape, mode="nearest")
    return True


def partly_repeated(maker: Maker) -> bool:
    """A row that is as long as the channels, or one number, by what the sizes say."""
    net, units = maker.net, maker.numbers(maker.units)
    long = net("Greater", maker.computed(), maker.computed())
    end = net("Where", long, units, maker.numbers(1))
    row = net("Slice", net.weight(1, 1, maker.units), maker.numbers(0), end, maker.numbers(2))
    maker.hidden = net("Mul", maker.hidden, row)
    return False


SEQUENCES: list[Callable[[Maker], bool]] = [
    taken_apart, merged, there_and_back, sliced, squeezed, tiled, padded, picked, split, ranked,
    repeated, counted, scaled, partly_repeated,
]  # fmt: skip
IMAGES: list[Callable[[Maker], bool]] = [
    tokens, heads, shuffled, windows, even, pooled, flattened, resized, stretched,
]  # fmt: skip


# ---- what comes of promises ----------------------------------------------------------------------


def session(contents: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(contents, options, providers=["CPUExecutionProvider"])


def outputs(run: onnxruntime.InferenceSession, feeds: Arrays) -> np.ndarray | None:
    """The output; None where the network does not take such sizes."""
    try:
        given = {value.name: feeds[value.name] for value in run.get_inputs()}
        return np.asarray(run.run(None, given)[0])
    except FAILURES:
        return None


def trials(proto: ModelProto, seed: int) -> list[tuple[Arrays, np.ndarray]]:
    """Inputs of some sizes, and what the network makes of them where it runs."""
    rng, run = np.random.default_rng(seed), session(proto.SerializeToString())
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
              for v in proto.graph.input}  # fmt: skip
    names = [n for n in SIZES if any(n in shape for shape in shapes.values())]
    choices = list(itertools.product(*(SIZES[name] for name in names)))
    random.Random(seed).shuffle(choices)
    found: list[tuple[Arrays, np.ndarray]] = []
    for choice in choices[: 4 * RUNS]:
        known = dict(zip(names, choice, strict=True))
        feeds = {
            name: rng.standard_normal([known.get(n, n) for n in shape]).astype(np.float32)
            for name, shape in shapes.items()
        }
        expected = outputs(run, feeds)
        if expected is not None and expected.size and len(found) < RUNS:
            found.append((feeds, expected))
    return found


def broken(maker: Maker) -> Iterator[str]:
    """The promises about one network that are not kept."""
    proto = maker.build()
    wanted, model = trials(proto, maker.seed), n2n.load(proto)
    for dimension in n2n.inspect(model):
        widths = {"any": (1, dimension.width + 3), "multiple": (dimension.width,)}
        for more in widths.get(dimension.growth, ()) if wanted else ():
            what = f"{maker.seed} {maker.steps} {dimension.name} + {more}"
            try:
                grown = n2n.widen(model, {dimension.name: dimension.width + more})
            except n2n.Refused as refusal:
                yield f"{what}: {refusal}"
                continue
            run = session(grown.to_bytes())
            for feeds, expected in wanted:
                found = outputs(run, feeds)
                close = found is not None and found.shape == expected.shape
                if not close or not np.allclose(found, expected, rtol=1e-3, atol=1e-3):
                    yield f"{what}: at {[value.shape for value in feeds.values()]}"
                    break


def main() -> None:
    """Report all broken promises of some networks."""
    first, count = map(int, sys.argv[1:3])
    for seed in range(first, first + count):
        for images in (False, True):
            for problem in broken(Maker(seed, images)):
                print(problem, flush=True)


if __name__ == "__main__":
    main()
