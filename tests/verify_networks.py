"""Networks for the tests of verify: equal ones, made equal by hand, and faults to plant in them.

stack = layers(rng, [5, 9, 4])
original, wide = mlp(stack), mlp(widened(stack, 0, 15, rng))
broken = edited(original, "w0", scale_one)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Layers = list[tuple[np.ndarray, np.ndarray]]


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple[str, int, Sequence[int | str] | None]],
    outputs: Sequence[tuple[str, int, Sequence[int | str] | None]],
    weights: dict[str, np.ndarray],
    opset: int = 20,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def layers(rng: np.random.Generator, widths: Sequence[int]) -> Layers:
    return [
        (rng.normal(size=(m, n)) * np.sqrt(2 / m), rng.normal(size=n) * 0.1)
        for m, n in itertools.pairwise(widths)
    ]


def mlp(
    stack: Layers, dtype: type = np.float32, activation: str = "Relu", output: str = "y"
) -> onnx.ModelProto:
    nodes, weights, x = [], {}, "x"
    for i, (w, b) in enumerate(stack):
        weights |= {f"w{i}": w.astype(dtype), f"b{i}": b.astype(dtype)}
        last = i == len(stack) - 1
        y = output if last else f"h{i}"
        nodes.append(helper.make_node("Gemm", [x, f"w{i}", f"b{i}"], [y]))
        if not last:
            nodes.append(helper.make_node(activation, [y], [f"a{i}"]))
            x = f"a{i}"
    elem = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    inputs = [("x", elem, ["batch", len(stack[0][0])])]
    outputs = [(output, elem, ["batch", len(stack[-1][1])])]
    return model(nodes, inputs, outputs, weights)


def permuted(stack: Layers, k: int, rng: np.random.Generator) -> Layers:
    """The units of hidden layer k in another order."""
    order = rng.permutation(len(stack[k][1]))
    changed = list(stack)
    changed[k] = (stack[k][0][:, order], stack[k][1][order])
    changed[k + 1] = (stack[k + 1][0][order], stack[k + 1][1])
    return changed


def widened(stack: Layers, k: int, width: int, rng: np.random.Generator) -> Layers:
    """Hidden layer k with copied units whose outgoing weights are random, with the old sum."""
    (w, b), (v, c) = stack[k], stack[k + 1]
    source = np.concatenate([np.arange(len(b)), rng.integers(0, len(b), width - len(b))])
    copies = np.bincount(source, minlength=len(b))
    drawn = rng.normal(size=(width, v.shape[1])) * v.std()
    total = np.zeros_like(v)
    np.add.at(total, source, drawn)
    changed = list(stack)
    changed[k] = (w[:, source], b[source])
    changed[k + 1] = (drawn + ((v - total) / copies[:, None])[source], c)
    return changed


def convnet(rng: np.random.Generator, groups: int = 2, fold: bool = False) -> onnx.ModelProto:
    """Conv (grouped), BatchNormalization, Relu, pooling, dense; ``fold`` merges the norm."""
    w, b = rng.normal(size=(8, 6 // groups, 3, 3)), rng.normal(size=8)
    scale, shift, mean = rng.normal(size=8), rng.normal(size=8), rng.normal(size=8)
    var, dense = rng.uniform(0.5, 2, size=8), rng.normal(size=(8, 5))
    factor = scale / np.sqrt(var + 1e-5)
    weights = {"w": w, "b": b, "dense": dense}
    if fold:
        weights |= {"w": w * factor[:, None, None, None], "b": (b - mean) * factor + shift}
    else:
        weights |= {"s": scale, "t": shift, "m": mean, "v": var}
    norm = helper.make_node("BatchNormalization", ["c", "s", "t", "m", "v"], ["n"], epsilon=1e-5)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], group=groups, pads=[1, 1, 1, 1]),
        *([] if fold else [norm]),
        helper.make_node("Relu", ["c" if fold else "n"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "dense"], ["y"]),
    ]
    return model(
        nodes,
        [("x", TensorProto.FLOAT, ["batch", 6, 10, 10])],
        [("y", TensorProto.FLOAT, ["batch", 5])],
        {name: array.astype(np.float32) for name, array in weights.items()},
    )


def edited(
    proto: onnx.ModelProto, name: str, change: Callable[[np.ndarray], None]
) -> onnx.ModelProto:
    """A copy with one weight array changed in place by ``change``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.name == name:
            array = numpy_helper.to_array(tensor).copy()
            change(array)
            tensor.CopyFrom(numpy_helper.from_array(array, name))
    return copy


def scale_one(array: np.ndarray) -> None:
    array.flat[array.size // 3] *= 1.05


def shift_one(array: np.ndarray) -> None:
    array.flat[array.size // 2] += array.std()


def swap_channels(array: np.ndarray) -> None:
    array[[0, 1]] = array[[1, 0]]


def not_a_number(array: np.ndarray) -> None:
    array.flat[0] = np.nan
