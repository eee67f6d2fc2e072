"""Loading and saving against onnx itself: ratios of time and peak memory, measured in one run.

    python tests/benchmarks/save_speed.py [megabytes] [repeats]

Each job runs in a process of its own, so that peaks do not mix; the jobs alternate, and the best
time of each counts. "grown" rewrites every weight through a function, as widening does; "flushed"
shows what the fsync before the rename costs, which onnx.save leaves out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

_JOB = """
import json, os, sys, time
from pathlib import Path
kind, source, target = sys.argv[1:]
import numpy as np
import onnx
from onnx_net2net.model.model import Computed, load
if kind == "nothing":
    start = time.perf_counter()
elif kind in ("onnx", "onnx+flush"):
    start = time.perf_counter()
    onnx.save(onnx.load(source), target)
    if kind == "onnx+flush":
        handle = os.open(target, os.O_RDONLY)
        os.fsync(handle)
elif kind == "load only":
    start = time.perf_counter()
    load(source)
elif kind == "onnx.load only":
    start = time.perf_counter()
    onnx.load(source)
elif kind == "copied":
    start = time.perf_counter()
    load(source).save(target, force=True)
elif kind == "grown":
    start = time.perf_counter()
    model = load(source)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    def again(weight):
        return lambda: weight.array() * np.float32(0.5)
    new = {
        name: Computed(name, weight.dtype, weight.shape, again(weight))
        for name, weight in model.weights.items()
    }
    model.with_changes(proto, new).save(target, force=True)
seconds = time.perf_counter() - start
# Not ru_maxrss: a process inherits that from the one that started it.
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10
print(json.dumps({"seconds": seconds, "peak": peak}))
"""
KINDS = ("onnx.load only", "load only", "onnx", "onnx+flush", "copied", "grown")


def write_model(path: Path, megabytes: int) -> None:
    """A chain of dense layers with 16 MiB each, and a bias to each."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, initializers, last = [], [], "x"
    for index in range(megabytes // 16):
        weight = rng.standard_normal((2048, 2048), np.float32)
        bias = rng.standard_normal(2048, np.float32)
        initializers += [
            numpy_helper.from_array(weight, f"layer{index}.weight"),
            numpy_helper.from_array(bias, f"layer{index}.bias"),
        ]
        inputs = [last, f"layer{index}.weight", f"layer{index}.bias"]
        last = f"hidden{index}"
        nodes.append(helper.make_node("Gemm", inputs, [last], name=f"layer{index}"))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", 1, ["batch", 2048])],
        [helper.make_tensor_value_info(last, 1, ["batch", 2048])],
        initializer=initializers,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def measure(code: str, *arguments: str) -> dict[str, float]:
    """Seconds and peak bytes of one job in a fresh process."""
    command = [sys.executable, "-c", code, *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def main(megabytes: int = 304, repeats: int = 3) -> None:
    best: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        write_model(source, megabytes)
        size = source.stat().st_size
        base = measure(_JOB, "nothing", "", "")["peak"]
        for _ in range(repeats):
            for kind in KINDS:
                found = measure(_JOB, kind, str(source), str(target))
                seen = best.setdefault(kind, found)
                best[kind] = {key: min(seen[key], found[key]) for key in seen}
    print(f"file {size / 1e6:.0f} MB; Python with onnx imported {base / 1e6:.0f} MB")
    print(f"{'job':16} {'seconds':>8} {'to onnx':>8} {'+flush':>8} {'peak / file':>12}")
    for kind, found in best.items():
        load = best["onnx.load only"]["seconds"]
        whole, flushed = best["onnx"]["seconds"], best["onnx+flush"]["seconds"]
        if "only" in kind:
            whole = flushed = load
        print(
            f"{kind:16} {found['seconds']:8.3f} {found['seconds'] / whole:8.2f} "
            f"{found['seconds'] / flushed:8.2f} {(found['peak'] - base) / size:12.2f}"
        )


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
