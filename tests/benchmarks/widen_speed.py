"""Widening, unverified, against onnx.load + onnx.save of the same file: ratios in one run.

    python tests/benchmarks/widen_speed.py [model.onnx ...]

Without arguments the files are a transformer of 24 layers (350 MB) and a residual network of 50
layers (100 MB), both written here. Each job runs in a process of its own, the jobs alternate,
and the best time of each counts: of the processor, and of the clock, which includes flushing
the result to the disk (onnx.save does not flush). "one" grows the dimension with the most
weights by an eighth, "all" every dimension that can grow. Memory is the peak of the process
less that of one that imports the same modules and does nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

REPEATS = 3
KINDS = ("onnx", "load", "inspect", "one", "all")
_JOB = """
import json, sys, time
from pathlib import Path
kind, source, target = sys.argv[1:]
import onnx
import onnx_net2net as n2n
n2n.load, n2n.inspect, n2n.widen
Path(target).unlink(missing_ok=True)
cpu, wall = time.process_time(), time.perf_counter()
if kind == "onnx":
    onnx.save(onnx.load(source), target)
elif kind != "nothing":
    model = n2n.load(source)
    if kind != "load":
        able = [d for d in n2n.inspect(model) if d.growth != "fixed"]
        able = [max(able, key=lambda d: d.elements)] if kind == "one" else able
        new = {d.name: -(-d.width * 9 // 8) for d in able}
        new |= {d.name: d.width * 2 for d in able if d.growth == "multiple"}
    if kind in ("one", "all"):
        n2n.widen(model, new).save(target)
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
# Not ru_maxrss: a process inherits that from the one that started it.
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10
print(json.dumps({"cpu": cpu, "wall": wall, "peak": peak}))
"""


class Network:
    """Collects nodes and random weights."""

    dtype = TensorProto.FLOAT

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def weight(self, name: str, *shape: int) -> str:
        array = self.rng.standard_normal(shape, np.float32) / np.sqrt(np.float32(shape[-1]))
        return self.constant(name, array)

    def constant(self, name: str, array: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [f"t{name}"], name=name, **attributes))
        return f"t{name}"

    def save(self, path: Path, given: tuple[str, int, list[Any]], result: str, rank: int) -> None:
        self.nodes.append(helper.make_node("Identity", [result], ["y"], name="out"))
        output = helper.make_tensor_value_info("y", self.dtype, [f"d{i}" for i in range(rank)])
        inputs = [helper.make_tensor_value_info(*given)]
        graph = helper.make_graph(self.nodes, "net", inputs, [output], self.weights)
        opset = [helper.make_opsetid("", 20)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def write_transformer(
    path: Path, layers: int = 24, width: int = 512, heads: int = 8, net: Network | None = None
) -> None:
    """Pre-norm layers as PyTorch's exporter writes them."""
    net, size, words = net or Network(), width // heads, 10_000
    apart = net.constant("apart", np.array([0, 0, heads, size]))
    merged = net.constant("merged", np.array([0, 0, width]))
    dtype = helper.tensor_dtype_to_np_dtype(net.dtype)
    scale = net.constant("scale", np.asarray(size**-0.5, dtype))

    def dense(x: str, name: str, rows: int, columns: int) -> str:
        product = net.node("MatMul", x, net.weight(f"{name}.weight", rows, columns))
        return net.node("Add", product, net.weight(f"{name}.bias", columns))

    def norm(x: str, name: str) -> str:
        affine = (net.weight(f"{name}.weight", width), net.weight(f"{name}.bias", width))
        return net.node("LayerNormalization", x, *affine, axis=-1)

    def head(x: str, name: str, perm: list[int]) -> str:
        flat = dense(x, name, width, width)
        return net.node("Transpose", net.node("Reshape", flat, apart), perm=perm)

    x = net.node("Gather", net.weight("embedding.weight", words, width), "x")
    for at in (f"layer{index}" for index in range(layers)):
        h = norm(x, f"{at}.norm1")
        query = net.node("Mul", head(h, f"{at}.query", [0, 2, 1, 3]), scale)
        scores = net.node("MatMul", query, head(h, f"{at}.key", [0, 2, 3, 1]))
        value = head(h, f"{at}.value", [0, 2, 1, 3])
        mixed = net.node("MatMul", net.node("Softmax", scores, axis=-1), value)
        mixed = net.node("Reshape", net.node("Transpose", mixed, perm=[0, 2, 1, 3]), merged)
        x = net.node("Add", x, dense(mixed, f"{at}.out", width, width))
        h = dense(norm(x, f"{at}.norm2"), f"{at}.mlp.up", width, 4 * width)
        x = net.node("Add", x, dense(net.node("Gelu", h), f"{at}.mlp.down", 4 * width, width))
    net.save(path, ("x", 7, ["batch", "time"]), dense(norm(x, "norm"), "head", width, words), 3)


def write_resnet(path: Path) -> None:
    """Bottlenecks, their norms folded into the convolutions."""
    net = Network()

    def conv(x: str, name: str, old: int, new: int, kernel: int, stride: int = 1) -> str:
        weight = net.weight(f"{name}.weight", new, old, kernel, kernel)
        return net.node(
            "Conv", x, weight, net.weight(f"{name}.bias", new),
            strides=[stride, stride], pads=[kernel // 2] * 4,
        )  # fmt: skip

    x, old = net.node("Relu", conv("x", "conv1", 3, 64, 7, 2)), 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = 64 << stage
        for block in range(blocks):
            at, stride = f"layer{stage + 1}.{block}", 2 if stage and not block else 1
            y = net.node("Relu", conv(x, f"{at}.conv1", old, inner, 1))
            y = net.node("Relu", conv(y, f"{at}.conv2", inner, inner, 3, stride))
            y = conv(y, f"{at}.conv3", inner, 4 * inner, 1)
            if not block:
                x = conv(x, f"{at}.downsample", old, 4 * inner, 1, stride)
            x, old = net.node("Relu", net.node("Add", x, y)), 4 * inner
    x = net.node("Flatten", net.node("GlobalAveragePool", x))
    x = net.node(
        "Gemm", x, net.weight("fc.weight", 1000, old), net.weight("fc.bias", 1000), transB=1
    )
    net.save(path, ("x", 1, ["batch", 3, 224, 224]), x, 2)


def measure(kind: str, source: Path, target: Path) -> dict[str, float]:
    """Seconds and peak bytes of one job in a fresh process."""
    command = [sys.executable, "-c", _JOB, kind, str(source), str(target)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found | {"size": target.stat().st_size if target.exists() else 0}


def compare(source: Path, target: Path) -> None:
    """Print the table of one model."""
    base = measure("nothing", source, target)["peak"]
    best: dict[str, dict[str, float]] = {}
    for _ in range(REPEATS):
        for kind in KINDS:
            found = measure(kind, source, target)
            seen = best.setdefault(kind, found)
            best[kind] = {key: min(seen[key], found[key]) for key in found}
    size, plain = source.stat().st_size, best["onnx"]
    nodes = len(onnx.load(source, load_external_data=False).graph.node)
    print(f"{source.name}: {size / 1e6:.0f} MB, {nodes} nodes")
    print(f"  {'job':8} {'cpu s':>7} {'to onnx':>8} {'wall s':>7} {'to onnx':>8}"
          f" {'peak / file':>12} {'result / file':>14}")  # fmt: skip
    for kind, found in best.items():
        print(f"  {kind:8} {found['cpu']:7.2f} {found['cpu'] / plain['cpu']:8.2f}"
              f" {found['wall']:7.2f} {found['wall'] / plain['wall']:8.2f}"
              f" {(found['peak'] - base) / size:12.2f} {found['size'] / size:14.2f}")  # fmt: skip
    target.unlink(missing_ok=True)


def main(paths: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not paths:
            for write in (write_transformer, write_resnet):
                path = folder / f"{write.__name__.removeprefix('write_')}.onnx"
                write(path)
                compare(path, folder / "grown.onnx")
                path.unlink()
        for given in paths:
            compare(Path(given), folder / "grown.onnx")


if __name__ == "__main__":
    main(sys.argv[1:])
