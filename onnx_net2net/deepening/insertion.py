"""Layers that compute the identity when they are inserted, and can learn afterwards.

    x -> f -> [W = 1 -> norm -> f] ->       identity: f(f(x)) = f(x), as with ReLU
    x -> [x + B(f(A x))] ->                 residual: A random, B zero; exact after anything
    W x -> [W2 (W1 x)] ->                   factor: one linear layer as two

Sources: Net2DeeperNet, Chen, Goodfellow, Shlens, ICLR 2016 (identity); Fixup, Zhang et al., ICLR
2019 (a residual branch that ends in zeros).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from onnx_net2net.deepening.places import Place, kernel_of
from onnx_net2net.errors import Refused
from onnx_net2net.model.editing import Editor
from onnx_net2net.model.graph import Graph, Node
from onnx_net2net.operators.language import Op

EPSILON = 1e-5

Array = np.ndarray
Statistics = tuple[Array, Array]  # mean and variance of each channel


@dataclass
class Layers:
    """Nodes under construction: what was added last is what comes next reads."""

    editor: Editor
    place: Place
    name: str
    current: str
    nodes: list[NodeProto] = field(default_factory=list)
    factors: list[tuple[str, int]] = field(default_factory=list)  # weights and their output axis

    @property
    def dtype(self) -> np.dtype:
        """Return the element type of the tensor."""
        return np.dtype(helper.tensor_dtype_to_np_dtype(self.place.dtype))

    def weight(self, part: str, array: Array) -> str:
        """Add a parameter ``<name>.<part>``; return its name."""
        return self.editor.add_weight(f"{self.name}.{part}", array.astype(self.dtype))

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node that reads what came last, and ``inputs``; return its output."""
        output = self.editor.unique(f"{self.name}/{op}")
        node = helper.make_node(op, [self.current, *inputs], [output], name=output, **attributes)
        self.nodes.append(node)
        self.current = output
        return output


def identity(layers: Layers, kernels: Sequence[tuple[int, ...]], group: int, *, bias: bool) -> None:
    """Add linear maps that change nothing: a unit matrix, or Dirac kernels of the given sizes."""
    base = layers.name
    for index, kernel in enumerate(kernels):
        layers.name = f"{base}.{index}" if len(kernels) > 1 else base
        weights = dirac(layers.place.channels, kernel, group)
        _linear(layers, weights, kernel, group, bias=bias)
    layers.name = base


def dirac(channels: int, kernel: tuple[int, ...], group: int) -> Array:
    """Return weights (channels, channels / group, *kernel) of the identity."""
    if not kernel:
        return np.eye(channels)
    weights = np.zeros((channels, channels // group, *kernel))
    centre = tuple((size - 1) // 2 for size in kernel)
    for channel in range(channels):
        weights[(channel, channel % (channels // group), *centre)] = 1.0
    return weights


def residual(layers: Layers, kernel: tuple[int, ...], group: int, seed: list[int]) -> None:
    """Add x + B(f(A x)) with A random at the scale of He et al. (2015) and B zero."""
    place, source = layers.place, layers.current
    shape = dirac(place.channels, kernel, group).shape
    fan_in = prod(shape[1:])
    drawn = np.random.default_rng(seed).normal(0.0, np.sqrt(2.0 / fan_in), shape)
    base = layers.name
    layers.name = f"{base}.0"
    _linear(layers, drawn, kernel, group)
    activate(layers)
    layers.name = f"{base}.1"
    _linear(layers, np.zeros(shape), kernel, group)
    layers.name = base
    layers.add("Add", source)


def factor(layers: Layers, writer: Node, seed: list[int]) -> None:
    """Write W x + b as Q (Q'W x + Q'b) with Q a random orthogonal matrix.

    The layer before, ``writer`` or the factor inserted last, keeps its shape and gets the rotated
    weights; its bias behind it stays where it is. Raises Refused where they are not its own.
    """
    place, editor = layers.place, layers.editor
    rotation = np.random.default_rng(seed).normal(size=(place.channels, place.channels))
    rotation = np.linalg.qr(rotation)[0]
    for weight, axis in layers.factors or _weights(place, writer, editor):
        array = (editor.weights.get(weight) or editor.model.weights[weight]).array()
        turned = np.tensordot(rotation.T, array.astype(np.float64), (1, axis))
        editor.set_weight(weight, np.moveaxis(turned, 0, axis).astype(array.dtype))
    kernel = (1,) * (place.rank - 2) if place.convolved else ()
    weights = rotation.reshape(*rotation.shape, *kernel) if kernel else rotation
    _linear(layers, weights, kernel, 1, bias=False)
    layers.factors = [(f"{layers.name}.weight", 0)]


def _weights(place: Place, writer: Node, editor: Editor) -> list[tuple[str, int]]:
    """Return the initializers that give a node its output channels, each with that axis."""
    op = Op(writer.proto, 1, (), (), ())
    names, graph = [i for i in writer.inputs[1:] if i], editor.graph
    axes = {"Conv": 0, "Gemm": 0 if op.attr("transB", 0) else 1, "MatMul": 1}
    source = graph.producer.get(names[0]) if names else None
    if writer.op == "MatMul" and source is not None and source.op == "Transpose":
        only = len(graph.consumers[names[0]]) == 1
        names, axes = [source.inputs[0]] if only else [], {"MatMul": 0}
    plain = writer.op in axes and op.attr("group", 1) == 1 and op.attr("alpha", 1.0) == 1.0
    weights = [(name, -1 if at else axes.get(writer.op, 0)) for at, name in enumerate(names)]
    if not (plain and not writer.domain and weights and _own(graph, place, writer, weights)):
        raise Refused(
            place.name,
            f"{writer.label} is no plain layer with weights of its own, so it has no factors",
            "use --init residual",
        )
    return weights


def _own(graph: Graph, place: Place, writer: Node, weights: list[tuple[str, int]]) -> bool:
    """Return whether only this layer reads these initializers, with channels along their axes."""
    stored = {entry.name: entry for entry in graph.model.proto.graph.initializer}
    for name, axis in weights:
        alone = name not in graph.results and len(graph.consumers[name]) == 1
        if name not in stored or not alone:
            return False
        shape = graph.model.weights[name].shape
        if not shape or shape[axis] != place.channels:
            return False
    return writer.op != "MatMul" or len(stored[weights[0][0]].dims) == 2


def _linear(
    layers: Layers, weights: Array, kernel: tuple[int, ...], group: int, *, bias: bool = True
) -> None:
    """Add a convolution of stride 1 that keeps the size of space, or a matrix product.

    ``weights`` are (out, in / group, *kernel).
    """
    matrix = layers.weight("weight", weights)
    shift = [layers.weight("bias", np.zeros(layers.place.channels))] if bias else []
    if kernel:
        begin, end = [(k - 1) // 2 for k in kernel], [k // 2 for k in kernel]
        layers.add("Conv", matrix, *shift, kernel_shape=kernel, pads=begin + end, group=group)
        return
    # PyTorch keeps (out, in), too, and its exports transpose in the graph.
    turned = layers.editor.unique(f"{layers.name}/Transpose")
    layers.nodes.append(helper.make_node("Transpose", [matrix], [turned], name=turned, perm=[1, 0]))
    layers.add("MatMul", turned)
    if shift:
        layers.add("Add", *shift)


def norm(layers: Layers, statistics: Statistics | None) -> None:
    """Add a BatchNormalization that undoes itself: scale sqrt(var + eps), bias the mean.

    With measured statistics it is the identity in training mode as well; without, only with the
    running mean 0 and variance 1 - eps, that is, in inference. Raises Refused where that is not
    exact: behind other channels than those of axis 1, or of numbers that the type does not hold.
    """
    place, channels = layers.place, layers.place.channels
    if place.axis != 1:
        problem = f"'{place.tensor}' has its channels last, and a BatchNormalization norms axis 1"
        raise Refused(place.name, problem, "leave the norm out (--no-norm)")
    mean, var = statistics or (np.zeros(channels), np.full(channels, 1.0 - EPSILON))
    with np.errstate(over="ignore"):
        stored = np.array([mean, var]).astype(layers.dtype).astype(np.float64)  # by the file
    if not np.isfinite(stored).all():
        problem = f"mean or variance of '{place.tensor}' is no number that {layers.dtype} holds"
        raise Refused(place.name, problem, "leave the norm out (--no-norm), or calibrate otherwise")
    base = layers.name
    layers.name = f"{base}_norm"
    epsilon = float(np.float32(EPSILON))
    inputs = [
        layers.weight("weight", np.sqrt(stored[1] + epsilon)),
        layers.weight("bias", mean),
        layers.weight("running_mean", mean),
        layers.weight("running_var", var),
    ]
    layers.add("BatchNormalization", *inputs, epsilon=EPSILON)
    layers.name = base


def activate(layers: Layers) -> None:
    """Add the neighbourhood's activation, else ReLU."""
    activation = layers.place.activation or layers.place.nearby
    if activation is None or activation.op == "PRelu":
        layers.add("Relu")
        return
    output = layers.editor.unique(f"{layers.name}/{activation.op}")
    node = NodeProto()
    node.CopyFrom(activation.proto)
    del node.metadata_props[:]
    node.name, node.input[0], node.output[0] = output, layers.current, output
    layers.nodes.append(node)
    layers.current = output


def windows(place: Place, kernel: tuple[int, ...] | None) -> list[tuple[int, ...]]:
    """Return the kernels of an identity layer: like the neighbour's, a pair where that is 1 x n.

    Empty windows mean a matrix product. Raises Refused where ``kernel`` does not fit.
    """
    if not place.convolved:
        if kernel:
            problem = f"'{place.tensor}' has its channels last: no kernel fits"
            raise Refused(place.name, problem, "leave the kernel out: the layer is dense")
        return [()]
    space = place.rank - 2
    own = kernel_of(place.writer.proto) if place.writer and place.writer.op == "Conv" else ()
    chosen = kernel or (own if len(own) == space else (1,) * space)
    chosen = chosen * space if len(chosen) == 1 else chosen
    if len(chosen) != space:
        problem = f"a kernel of {len(chosen)} sizes does not fit {space} axes of space"
        raise Refused(place.name, problem, "give one size, or one for each axis")
    paired = kernel is None and space == 2 and 1 in chosen and chosen[0] != chosen[1]
    return [chosen, chosen[::-1]] if paired else [chosen]


def groups(place: Place) -> int:
    """Return the groups of the neighbouring convolution, where they divide these channels."""
    if not place.convolved or place.writer is None or place.writer.op != "Conv":
        return 1
    group = int(Op(place.writer.proto, 1, (), (), ()).attr("group", 1))
    return group if place.channels % group == 0 else 1
