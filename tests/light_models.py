"""The weightless networks that ship with the onnx package, filled with random weights.

model = fill("inception_v2", seed=0)  # Inception-BN, the network of the Net2Net paper
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
from onnx import numpy_helper

FOLDER = Path(onnx.backend.test.__file__).parent / "data" / "light"
NAMES = sorted(path.stem.removeprefix("light_") for path in FOLDER.glob("light_*.onnx"))


def _value(positive: bool, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if positive:
        return rng.uniform(0.6, 1.4, shape).astype(np.float32)
    if len(shape) == 1:
        return rng.normal(0, 0.1, shape).astype(np.float32)
    # Filters without a mean: deep ReLU networks else forget their input at random weights.
    value = rng.normal(0, ((0.3 if len(shape) == 2 else 3) / np.prod(shape[1:])) ** 0.5, shape)
    return (value - value.mean(axis=tuple(range(1, len(shape))), keepdims=True)).astype(np.float32)


def _scales(graph: onnx.GraphProto) -> set[str]:
    """Names of the vectors that scale: those of BatchNormalization, its variances, factors."""
    source = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Unsqueeze"}
    names: set[str] = set()
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            names |= {node.input[1], node.input[4]}
        elif node.op_type == "Mul":
            names |= {source.get(name, name) for name in node.input}
    return names


def fill(name: str, seed: int = 0, widths: Mapping[int, int] | None = None) -> onnx.ModelProto:
    """Return `light_<name>.onnx` with weights in place of the nodes that stood in for them.

    The file stores the shape of each weight and a ConstantOfShape that fills it with 0.02. Here
    each becomes an initializer drawn at random, listed among the graph inputs as in the original
    files (IR version 3 demands it). Vectors that the file does hold, all equal too, are redrawn.
    ``widths`` replaces sizes of weights wherever they occur: ``{4096: 40}``.
    """
    model = onnx.load(FOLDER / f"light_{name}.onnx")
    graph = model.graph
    rng = np.random.default_rng(seed)
    stored = {item.name: item for item in graph.initializer}
    declared = {item.name: item for item in graph.input}
    scales = _scales(graph)
    nodes = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape":
            nodes.append(node)
            continue
        source, target = node.input[0], node.output[0]
        sizes = map(int, numpy_helper.to_array(stored[source]))
        shape = tuple(sizes if widths is None else (widths.get(n, n) for n in sizes))
        value = numpy_helper.from_array(_value(target in scales, shape, rng), target)
        graph.initializer.append(value)
        graph.initializer.remove(stored[source])
        graph.input.append(
            onnx.helper.make_tensor_value_info(target, onnx.TensorProto.FLOAT, shape)
        )
        graph.input.remove(declared[source])
    for item in graph.initializer:
        if item.name in stored and item.data_type == onnx.TensorProto.FLOAT:
            item.CopyFrom(
                numpy_helper.from_array(
                    _value(item.name in scales, tuple(item.dims), rng), item.name
                )
            )
    del graph.node[:]
    graph.node.extend(nodes)
    return model
