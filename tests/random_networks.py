"""Random small networks, as a hypothesis strategy: blocks of the operators that exporters write.

A network is a chain of blocks on an image (batch, channels, height, width), a sequence (batch,
time, features) or a vector (batch, features); blocks change the kind as they go. Sizes are drawn
too, small and mostly unequal. :data:`BLOCKS` is the list of blocks by the kind they read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import ModelProto

from tests.networks import Net

Draw = Callable[..., Any]


@dataclass
class Builder:
    """The network under construction: where the chain stands, and what to draw from."""

    net: Net
    draw: Draw
    kind: str
    x: str
    shape: tuple[int, ...]
    blocks: list[str] = field(default_factory=list)

    @property
    def width(self) -> int:
        """Channels or features."""
        return self.shape[1 if self.kind == "image" else -1]

    def pick(self, *choices: Any) -> Any:
        """One of these."""
        return self.draw(st.sampled_from(choices))

    def size(self, low: int = 2, high: int = 7) -> int:
        """A width."""
        return int(self.draw(st.integers(low, high)))

    def weight(self, *shape: int, fan: int = 1) -> str:
        """Normal numbers that keep the scale of what they read."""
        values = self.net.rng.normal(0, fan**-0.5, shape)
        return self.net.put(values.astype(np.float32))

    def scale(self, *shape: int) -> str:
        """Positive numbers around one."""
        return self.net.put(self.net.rng.uniform(0.5, 1.5, shape).astype(np.float32))

    def ints(self, *values: int) -> str:
        """Sizes."""
        return self.net.put(np.asarray(values, np.int64))

    def activate(self, x: str) -> str:
        """A nonlinearity."""
        op = self.pick("Relu", "Tanh", "Sigmoid", "Elu", "LeakyRelu", "Erf", "HardSwish", "Silu")
        if op == "Silu":
            return self.net("Mul", x, self.net("Sigmoid", x))
        return self.net(op, x)

    def dense(self, x: str, inside: int, outside: int, bias: bool = True) -> str:
        """A projection of the last axis, written one of three ways."""
        form = self.pick("matmul", "transposed", "einsum")
        net = self.net
        if form == "transposed":
            weight = net("Transpose", self.weight(outside, inside, fan=inside), perm=[1, 0])
            y = net("MatMul", x, weight)
        elif form == "einsum":
            weight = self.weight(outside, inside, fan=inside)
            y = net("Einsum", x, weight, equation="...i,oi->...o")
        else:
            y = net("MatMul", x, self.weight(inside, outside, fan=inside))
        return net("Add", self.weight(outside), y) if bias else y

    def conv(self, x: str, inside: int, outside: int, kernel: int, group: int = 1) -> str:
        """A convolution that keeps height and width."""
        fan = inside // group * kernel * kernel
        weights = [self.weight(outside, inside // group, kernel, kernel, fan=fan)]
        if self.pick(True, False):
            weights.append(self.weight(outside))
        return self.net("Conv", x, *weights, pads=[kernel // 2] * 4, group=group)

    def become(self, kind: str, x: str, *shape: int) -> None:
        """The chain goes on from here."""
        self.kind, self.x, self.shape = kind, x, shape


# Blocks on images ------------------------------------------------------------------------------


def conv(b: Builder) -> None:
    n, c, h, w = b.shape
    out = b.size()
    b.become("image", b.conv(b.x, c, out, b.pick(1, 3)), n, out, h, w)


def conv_of_groups(b: Builder) -> None:
    n, c, h, w = b.shape
    group = b.pick(*[g for g in (2, 3, c) if c % g == 0])
    out = group * b.size(1, 3)
    b.become("image", b.conv(b.x, c, out, 3, group), n, out, h, w)


def batch_norm(b: Builder) -> None:
    c = b.width
    parts = b.scale(c), b.weight(c), b.weight(c), b.scale(c)
    b.x = b.net("BatchNormalization", b.x, *parts)


def instance_norm(b: Builder) -> None:
    b.x = b.net("InstanceNormalization", b.x, b.scale(b.width), b.weight(b.width))


def group_norm(b: Builder) -> None:
    """As exporters decompose it: groups to the front, instance norm, affine map."""
    n, c, h, w = b.shape
    group = b.pick(*[g for g in (1, 2, 3) if c % g == 0])
    y = b.net("Reshape", b.x, b.ints(0, group, -1))
    units = b.net.put(np.ones(group, np.float32)), b.net.put(np.zeros(group, np.float32))
    y = b.net("InstanceNormalization", y, *units)
    y = b.net("Reshape", y, b.ints(n, c, h, w))
    b.x = b.net("Add", b.net("Mul", y, b.scale(c, 1, 1)), b.weight(c, 1, 1))


def prelu(b: Builder) -> None:
    b.x = b.net("PRelu", b.x, b.scale(b.width, 1, 1))


def bottleneck(b: Builder) -> None:
    """A residual block."""
    c, inner = b.width, b.size()
    y = b.activate(b.conv(b.x, c, inner, b.pick(1, 3)))
    b.x = b.net("Add", b.x, b.conv(y, inner, c, 1))


def squeeze_excite(b: Builder) -> None:
    n, c = b.shape[:2]
    inner = b.size()
    if b.pick(True, False):
        y = b.activate(b.conv(b.net("GlobalAveragePool", b.x), c, inner, 1))
        gate = b.conv(y, inner, c, 1)
    else:
        y = b.net("ReduceMean", b.x, axes=[2, 3], keepdims=0)
        y = b.activate(b.dense(y, c, inner))
        gate = b.net("Reshape", b.dense(y, inner, c), b.ints(n, c, 1, 1))
    b.x = b.net("Mul", b.x, b.net("Sigmoid", gate))


def branches(b: Builder) -> None:
    """Inception: branches side by side."""
    n, c, h, w = b.shape
    widths = [b.size(1, 5) for _ in range(b.size(2, 3))]
    parts = [b.activate(b.conv(b.x, c, out, b.pick(1, 3))) for out in widths]
    b.become("image", b.net("Concat", *parts, axis=1), n, sum(widths), h, w)


def dense_connection(b: Builder) -> None:
    n, c, h, w = b.shape
    out = b.size()
    y = b.conv(b.activate(b.x), c, out, 3)
    b.become("image", b.net("Concat", b.x, y, axis=1), n, c + out, h, w)


def split_halves(b: Builder) -> None:
    """ShuffleNet: one half passes, the other is worked on; then both are interleaved."""
    n, c, h, w = b.shape
    if c % 2:
        return
    half = c // 2
    left, right = b.net("Split", b.x, b.ints(half, half), results=2, axis=1)
    right = b.activate(b.conv(right, half, half, b.pick(1, 3)))
    y = b.net("Concat", left, right, axis=1)
    if b.pick(True, False):
        y = b.net("Reshape", y, b.ints(n, 2, half, h, w))
        y = b.net("Reshape", b.net("Transpose", y, perm=[0, 2, 1, 3, 4]), b.ints(n, c, h, w))
    b.x = y


def gated_conv(b: Builder) -> None:
    n, c, h, w = b.shape
    out = b.size()
    y = b.conv(b.x, c, 2 * out, 1)
    left, right = b.net("Split", y, b.ints(out, out), results=2, axis=1)
    b.become("image", b.net("Mul", left, b.net("Sigmoid", right)), n, out, h, w)


def pool(b: Builder) -> None:
    n, c, h, w = b.shape
    if min(h, w) < 4:
        return
    op = b.pick("MaxPool", "AveragePool")
    y = b.net(op, b.x, kernel_shape=[2, 2], strides=[2, 2])
    b.become("image", y, n, c, h // 2, w // 2)


def pixel_shuffle(b: Builder) -> None:
    n, c, h, w = b.shape
    out = b.size(1, 3)
    y = b.net("DepthToSpace", b.conv(b.x, c, 4 * out, 1), blocksize=2, mode=b.pick("CRD", "DCR"))
    y = b.net("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    b.become("image", y, n, out, h, w)


def transposed_conv(b: Builder) -> None:
    n, c, h, w = b.shape
    out = b.size()
    weights = b.weight(c, out, 1, 1, fan=c), b.weight(out)
    b.become("image", b.net("ConvTranspose", b.x, *weights), n, out, h, w)


def pad_channels(b: Builder) -> None:
    """The shortcut of a ResNet without projection: zero channels."""
    n, c, h, w = b.shape
    more = b.size(1, 3)
    y = b.net("Pad", b.x, b.ints(0, 0, 0, 0, 0, more, 0, 0))
    y = b.net("Add", y, b.conv(b.x, c, c + more, 1))
    b.become("image", y, n, c + more, h, w)


def to_vector(b: Builder) -> None:
    n, c, h, w = b.shape
    how = b.pick("pool", "flatten", "mean")
    if how == "flatten":
        b.become("vector", b.net("Flatten", b.x), n, c * h * w)
    elif how == "mean":
        b.become("vector", b.net("ReduceMean", b.x, axes=[2, 3], keepdims=0), n, c)
    else:
        b.become("vector", b.net("Flatten", b.net("GlobalAveragePool", b.x)), n, c)


def to_tokens(b: Builder) -> None:
    """Patches of a vision transformer."""
    n, c, h, w = b.shape
    y = b.net("Reshape", b.x, b.ints(n, c, h * w))
    y = b.net("Transpose", y, perm=[0, 2, 1])
    if b.pick(True, False):
        y = b.net("Add", y, b.weight(1, h * w, c))
    b.become("sequence", y, n, h * w, c)


def activation(b: Builder) -> None:
    b.x = b.activate(b.x)


# Blocks on sequences and vectors ---------------------------------------------------------------


def dense(b: Builder) -> None:
    out = b.size()
    b.become(b.kind, b.activate(b.dense(b.x, b.width, out)), *b.shape[:-1], out)


def mlp(b: Builder) -> None:
    """A residual block, gated or not."""
    c, inner = b.width, b.size()
    y = b.activate(b.dense(b.x, c, inner))
    if b.pick(True, False):
        y = b.net("Mul", y, b.dense(b.x, c, inner, bias=False))
    b.x = b.net("Add", b.x, b.dense(y, inner, c))


def layer_norm(b: Builder) -> None:
    if b.pick(True, False):
        b.x = b.net("LayerNormalization", b.x, b.scale(b.width), b.weight(b.width))
        return
    centred = b.net("Sub", b.x, b.net("ReduceMean", b.x, axes=[-1]))
    variance = b.net("ReduceMean", b.net("Mul", centred, centred), axes=[-1])
    spread = b.net("Sqrt", b.net("Add", variance, b.net.put(np.float32(1e-3))))
    y = b.net("Mul", b.net("Div", centred, spread), b.scale(b.width))
    b.x = b.net("Add", y, b.weight(b.width))


def rms_norm(b: Builder) -> None:
    square = b.net("ReduceMean", b.net("Mul", b.x, b.x), axes=[-1])
    spread = b.net("Sqrt", b.net("Add", square, b.net.put(np.float32(1e-3))))
    b.x = b.net("Mul", b.scale(b.width), b.net("Div", b.x, spread))


def unit_length(b: Builder) -> None:
    length = b.net("ReduceL2", b.x, axes=[-1])
    b.x = b.net("Div", b.x, b.net("Add", length, b.net.put(np.float32(0.1))))


def attention(b: Builder) -> None:
    """Several heads, queries and keys of another size than values, fused or not, grouped or not."""
    n, t, c = b.shape
    heads, size = b.size(1, 3), b.size(2, 4)
    groups = b.pick(1, heads)
    net = b.net

    def split_heads(x: str, count: int) -> str:
        x = net("Reshape", x, b.ints(n, t, count, size))
        return net("Transpose", x, perm=[0, 2, 1, 3])

    if groups == heads and b.pick(True, False):
        packed = b.dense(b.x, c, 3 * heads * size)
        parts = net("Split", packed, b.ints(*[heads * size] * 3), results=3, axis=2)
    else:
        widths = (heads, groups, groups)
        parts = [b.dense(b.x, c, count * size) for count in widths]
    q, k, v = (split_heads(p, m) for p, m in zip(parts, (heads, groups, groups), strict=True))
    factor = net.put(np.float32(size**-0.5))
    scores = net("MatMul", net("Mul", q, factor), net("Transpose", k, perm=[0, 1, 3, 2]))
    mixed = net("MatMul", net("Softmax", scores, axis=-1), v)
    mixed = net("Reshape", net("Transpose", mixed, perm=[0, 2, 1, 3]), b.ints(n, t, heads * size))
    b.x = net("Add", b.x, b.dense(mixed, heads * size, c))


def recurrent(b: Builder) -> None:
    n, t, c = b.shape
    op, gates = b.pick(("LSTM", 4), ("GRU", 3), ("RNN", 1))
    both = b.pick(1, 2)
    h = b.size(2, 5)
    weights = (
        b.weight(both, gates * h, c, fan=c),
        b.weight(both, gates * h, h, fan=h),
        b.weight(both, 2 * gates * h),
    )
    options = {"direction": "bidirectional"} if both == 2 else {}
    y = b.net(op, b.net("Transpose", b.x, perm=[1, 0, 2]), *weights, hidden_size=h, **options)
    y = b.net("Reshape", b.net("Transpose", y, perm=[2, 0, 1, 3]), b.ints(n, t, both * h))
    b.become("sequence", y, n, t, both * h)


def mean_over_time(b: Builder) -> None:
    n, _, c = b.shape
    op = b.pick("ReduceMean", "ReduceMax")
    b.become("vector", b.net(op, b.x, axes=[1], keepdims=0), n, c)


def last_token(b: Builder) -> None:
    n, _, c = b.shape
    y = b.net("Gather", b.x, b.net.put(np.int64(-1)), axis=1)
    b.become("vector", y, n, c)


def mix_tokens(b: Builder) -> None:
    """MLP-Mixer: a projection along the other axis."""
    _, t, _ = b.shape
    y = b.net("Transpose", b.x, perm=[0, 2, 1])
    inner = b.size()
    y = b.dense(b.activate(b.dense(y, t, inner)), inner, t)
    b.x = b.net("Add", b.x, b.net("Transpose", y, perm=[0, 2, 1]))


def slices(b: Builder) -> None:
    """Two parts of the features change places."""
    c = b.width
    cut = b.size(1, c - 1)
    axis = b.ints(len(b.shape) - 1)
    left = b.net("Slice", b.x, b.ints(0), b.ints(cut), axis)
    right = b.net("Slice", b.x, b.ints(cut), b.ints(2**31), axis)
    b.x = b.net("Concat", b.net("Neg", right), left, axis=-1)


def gate(b: Builder) -> None:
    out = b.size()
    y = b.dense(b.x, b.width, 2 * out)
    parts = b.net("Split", y, b.ints(out, out), results=2, axis=-1)
    b.become(b.kind, b.net("Mul", parts[0], b.activate(parts[1])), *b.shape[:-1], out)


def fold_into_sequence(b: Builder) -> None:
    """A vector taken for a short sequence."""
    n, c = b.shape
    steps = b.pick(*([s for s in (2, 3) if c % s == 0 and c > s] or [1]))
    b.become("sequence", b.net("Reshape", b.x, b.ints(n, steps, c // steps)), n, steps, c // steps)


def weigh(b: Builder) -> None:
    """A softmax over the features: nothing before it can grow past it."""
    b.x = b.net("Mul", b.x, b.net("Softmax", b.x, axis=-1))


SHARED = (dense, mlp, layer_norm, rms_norm, unit_length, slices, gate, activation, weigh)
BLOCKS: dict[str, tuple[Callable[[Builder], None], ...]] = {
    "image": (
        conv, conv_of_groups, batch_norm, instance_norm, group_norm, prelu, bottleneck,
        squeeze_excite, branches, dense_connection, split_halves, gated_conv, pool, pixel_shuffle,
        transposed_conv, pad_channels, to_vector, to_tokens, activation,
    ),
    "sequence": (*SHARED, attention, recurrent, mean_over_time, last_token, mix_tokens),
    "vector": (*SHARED, fold_into_sequence),
}  # fmt: skip


@st.composite
def networks(draw: Draw, most: int = 6) -> ModelProto:
    """A network of 2 to ``most`` blocks and a linear head; its blocks are in the doc string."""
    net = Net(opset=17, seed=draw(st.integers(0, 5)))
    kind = draw(st.sampled_from(["image", "sequence", "vector", "tokens"]))
    if kind == "image":
        shape: tuple[int, ...] = (2, 3, 6, 4)
        builder = Builder(net, draw, kind, net.input(*shape), shape)
        conv(builder)
    elif kind == "tokens":
        table = draw(st.integers(3, 7))
        ids = net.input(2, 5, dtype=np.int64)
        builder = Builder(net, draw, "sequence", ids, (2, 5, table))
        builder.x = net("Gather", builder.weight(13, table), ids, axis=0)
    else:
        shape = (2, 5, 4) if kind == "sequence" else (3, 5)
        builder = Builder(net, draw, kind, net.input(*shape), shape)
        dense(builder)
    builder.blocks.append(f"{kind} of {builder.width}")
    for _ in range(draw(st.integers(2, most))):
        block = draw(st.sampled_from(BLOCKS[builder.kind]))
        if builder.width < 2 and block is slices:
            continue
        block(builder)
        builder.blocks.append(f"{block.__name__} {builder.shape}")
    head = builder.conv if builder.kind == "image" else builder.dense
    extra = (1,) if builder.kind == "image" else ()
    model = net.model(head(builder.x, builder.width, 4, *extra))
    model.doc_string = ", ".join(builder.blocks)
    return model
