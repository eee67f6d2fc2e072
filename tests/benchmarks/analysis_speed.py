"""How long the analysis of a whole network takes.

    python tests/benchmarks/analysis_speed.py                    # 100 to 20,000 nodes
    python tests/benchmarks/analysis_speed.py --torch-pruning    # and against Torch-Pruning

Prints Markdown. Every ratio is of two processor times measured in one run on one machine.
Torch-Pruning's `build_dependency` traces the PyTorch module and `get_all_groups` walks the result;
here `load` reads the exported file and `inspect` finds its dimensions. The export itself is in
neither time.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import onnx_net2net as n2n

SIZES = (100, 300, 1000, 3000, 10_000, 20_000)
LIMIT = 60  # seconds that Torch-Pruning gets for one network
NETWORKS = (
    "resnet18",
    "resnet50",
    "googlenet",
    "densenet121",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "regnet_y_400mf",
    "convnext_tiny",
    "vit_b_16",
    "swin_t",
)


def best_of(repeats: int, call: Callable[[], Any]) -> tuple[float, Any]:
    """Shortest processor time in seconds, and the last result; all that is timed is serial."""
    times = []
    result = None
    for _ in range(repeats):
        start = time.process_time()
        result = call()
        times.append(time.process_time() - start)
    return min(times), result


class Builder:
    """Collects nodes and weights of a synthetic network."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(0)

    def weight(self, *shape: int, scale: float = 1.0) -> str:
        name = f"w{len(self.weights)}"
        array = (scale * self._random.standard_normal(shape)).astype(np.float32)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def constant(self, *values: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        output = f"t{len(self.nodes)}"
        name = f"node_{len(self.nodes)}"
        node = helper.make_node(operator, list(inputs), [output], name=name, **attributes)
        self.nodes.append(node)
        return output

    def model(self, output: str, in_shape: list[int], out_shape: list[int]) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, in_shape)
        y = helper.make_tensor_value_info(output, TensorProto.FLOAT, out_shape)
        graph = helper.make_graph(self.nodes, "synthetic", [x], [y], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def residual_cnn(nodes: int) -> onnx.ModelProto:
    """Conv-Relu-Conv-Add-Relu blocks: one dimension that runs through all, one inside each.

    Each block adds so little that what runs through thousands of them stays finite.
    """
    build = Builder()
    stream = build.add("Conv", "x", build.weight(12, 3, 1, 1))
    while len(build.nodes) < nodes:
        inner = build.add("Conv", stream, build.weight(10, 12, 1, 1), build.weight(10))
        inner = build.add("Relu", inner)
        inner = build.add("Conv", inner, build.weight(12, 10, 1, 1, scale=1e-3), build.weight(12))
        stream = build.add("Relu", build.add("Add", inner, stream))
    return build.model(stream, [2, 3, 8, 8], [2, 12, 8, 8])


def _heads(build: Builder, stream: str, permutation: list[int]) -> str:
    projected = build.add("MatMul", stream, build.weight(12, 12))
    projected = build.add("Add", projected, build.weight(12))
    split = build.add("Reshape", projected, build.constant(2, 5, 3, 4))
    return build.add("Transpose", split, perm=permutation)


def transformer(nodes: int) -> onnx.ModelProto:
    """Attention and MLP blocks in primitive operators, as exporters write them."""
    build = Builder()
    stream = build.add("MatMul", "x", build.weight(7, 12))
    while len(build.nodes) < nodes:
        normed = build.add(
            "LayerNormalization", stream, build.weight(12), build.weight(12), axis=-1
        )
        query = _heads(build, normed, [0, 2, 1, 3])
        scores = build.add("MatMul", query, _heads(build, normed, [0, 2, 3, 1]))
        value = _heads(build, normed, [0, 2, 1, 3])
        mixed = build.add("MatMul", build.add("Softmax", scores, axis=-1), value)
        merged = build.add("Transpose", mixed, perm=[0, 2, 1, 3])
        merged = build.add("Reshape", merged, build.constant(2, 5, 12))
        stream = build.add("Add", stream, build.add("MatMul", merged, build.weight(12, 12)))
        normed = build.add(
            "LayerNormalization", stream, build.weight(12), build.weight(12), axis=-1
        )
        hidden = build.add("MatMul", normed, build.weight(12, 24))
        hidden = build.add("Sigmoid", build.add("Add", hidden, build.weight(24)))
        stream = build.add("Add", stream, build.add("MatMul", hidden, build.weight(24, 12)))
    return build.model(stream, [2, 5, 7], [2, 5, 12])


def synthetic_table(repeats: int) -> str:
    """Time per node against the number of nodes."""
    lines = [
        "| graph | nodes | dimensions | inspect, ms | ms a node |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for make in (residual_cnn, transformer):
        for size in SIZES:
            proto = make(size)
            # A fresh model each time: what an earlier analysis left behind must not help.
            models = [n2n.load(proto) for _ in range(repeats)]
            seconds, dims = best_of(repeats, lambda models=models: n2n.inspect(models.pop()))
            nodes = len(proto.graph.node)
            row = f"| {make.__name__} | {nodes} | {len(dims)} | {seconds * 1e3:.1f}"
            lines.append(f"{row} | {seconds * 1e3 / nodes:.4f} |")
    return "\n".join(lines)


def _torch_pruning(model: Any, inputs: Any, repeats: int, answer: Any) -> None:
    import torch_pruning

    def analyse() -> int:
        graph = torch_pruning.DependencyGraph().build_dependency(model, inputs)
        return sum(1 for _ in graph.get_all_groups())

    answer.send(best_of(repeats, analyse)[0])


def _torch_pruning_seconds(model: Any, inputs: Any, repeats: int, limit: float) -> float | None:
    """Its time; infinite where it is not done in time (Swin: it walks every path); None: error."""
    here, there = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_torch_pruning, args=(model, inputs, repeats, there))
    process.start()
    there.close()
    try:
        return here.recv() if here.poll(limit) else math.inf
    except EOFError:  # it raised; the traceback is on stderr
        return None
    finally:
        process.kill()
        process.join()


def torch_pruning_table(repeats: int) -> str:
    """Both analyses on the same networks."""
    import torch
    import torchvision

    torch.set_num_threads(1)
    lines = [
        "| network | nodes | load, ms | inspect, ms | Torch-Pruning, ms | ratio |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    inputs = torch.randn(1, 3, 224, 224)
    for name in NETWORKS:
        options = {"init_weights": False} if name == "googlenet" else {}
        model = torchvision.models.get_model(name, weights=None, **options).eval()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            torch.onnx.export(model, (inputs,), str(path), dynamo=False, opset_version=17)
            load, _ = best_of(repeats, lambda path=path: n2n.load(path))
            models = [n2n.load(path) for _ in range(repeats)]
            nodes = len(models[0].proto.graph.node)
            seconds, _ = best_of(repeats, lambda models=models: n2n.inspect(models.pop()))
        theirs = _torch_pruning_seconds(model, inputs, repeats, LIMIT)
        row = f"| {name} | {nodes} | {load * 1e3:.0f} | {seconds * 1e3:.0f}"
        if theirs is None:
            lines.append(f"{row} | fails | |")
        elif math.isinf(theirs):
            lines.append(f"{row} | stopped after {LIMIT} s | |")
        else:
            lines.append(f"{row} | {theirs * 1e3:.0f} | {theirs / (load + seconds):.1f} |")
    return "\n".join(lines)


def machine(packages: list[str]) -> str:
    """Processor and versions, one line."""
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    return (
        f"{os.cpu_count()} cores of {platform.machine()}, {platform.python_version()}, {versions}"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-pruning", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    n2n.inspect(n2n.load(residual_cnn(10)))  # imports are no part of the analysis
    packages = ["onnx", "numpy"]
    if options.torch_pruning:
        packages += ["torch", "torchvision", "torch-pruning"]
    print(f"Machine: {machine(packages)}\n\n{synthetic_table(options.repeats)}")
    if options.torch_pruning:
        print(f"\n{torch_pruning_table(options.repeats)}")
        print("\nRatio: Torch-Pruning's time over load + inspect.")


if __name__ == "__main__":
    main()
