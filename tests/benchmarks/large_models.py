"""Reading, copying and widening large files against their peers: ratios in one run.

    python tests/benchmarks/large_models.py [gigabytes ...] [job ...]

Without arguments: all jobs, on transformers in float16 of 0.4 and 2.5 GB; 8 is another size. Each
is written here, in a stream, and removed. Each job runs in a process of its own, the jobs
alternate, and the medians of three count: seconds of the clock, also as times those of ``cp``,
seconds of the processor, and bytes that the process read itself. Memory is anonymous: what the
page cache keeps is not in it. Peers that are not installed are left out.

The physical limit is "flush": the system copies the bytes, and they are flushed to the disk. This
program flushes what it writes; its peers do not. In the column "limit" stands the time that a
flushed copy of as many bytes takes, over that of the job. Prints Markdown.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from onnx import TensorProto

sys.path.insert(0, str(Path(__file__).parent))

from widen_speed import Network, write_transformer

REPEATS = 3
SIZES = {"0.4": (15, 1024), "2.5": (24, 2048), "8": (35, 3072)}  # layers and width, by gigabytes
# What is imported, unmeasured, and what is done.
OURS = "import onnx_net2net as n2n; n2n.load, n2n.widen"
JOBS = {
    "cp": ("import subprocess", "subprocess.run(['cp', source + '.data', target])"),
    "flush": ("import os, subprocess", """
subprocess.run(['cp', source + '.data', target])
os.fsync(os.open(target, os.O_RDONLY))"""),
    "onnx": ("import onnx", """
onnx.save(onnx.load(source), target, save_as_external_data=True, location="peer.data")"""),
    "onnx-ir": ("import onnx_ir", """
onnx_ir.save(onnx_ir.load(source), target, external_data="peer.data")"""),
    "onnx-graphsurgeon": ("import onnx, onnx_graphsurgeon", """
model = onnx_graphsurgeon.export_onnx(onnx_graphsurgeon.import_onnx(onnx.load(source)))
onnx.save(model, target, save_as_external_data=True, location="peer.data")"""),
    "safetensors": ("import safetensors.torch as st", """
with st.safe_open(source + ".safetensors", "pt") as file:
    st.save_file({name: file.get_tensor(name) for name in file.keys()}, target)"""),
    "load": (OURS, "n2n.load(source)"),
    "load, save": (OURS, "n2n.load(source).save(target)"),
    "widen one MLP": (OURS, """
n2n.widen(source, factor=1.25, names="layer3.mlp.up").save(target)"""),
    "widen all MLPs": (OURS, """
n2n.widen(source, factor=1.25, names="layer*.mlp.up").save(target)"""),
    "verify": (f"{OURS}, n2n.verify", "assert n2n.verify(source, source, provider='cpu')"),
    "verify, a sample": (f"{OURS}, n2n.verify", """
assert n2n.verify(source, source, provider='cpu', sample=True)"""),
    "to_torch": ("import torch, onnx_net2net as n2n; n2n.to_torch", "n2n.to_torch(source)"),
}  # fmt: skip
_JOB = """
import json, resource, sys, threading, time
from pathlib import Path
source, target = sys.argv[1:]
{imports}
def anonymous():
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) << 10
def watch():
    while not done.wait(0.005):
        peaks.append(anonymous())
def counts():
    io = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return [time.perf_counter(), cpu, int(io["rchar"])]
before, base, peaks, done = counts(), anonymous(), [0], threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
{job}
done.set()
watcher.join()
wall, cpu, read = (now - then for now, then in zip(counts(), before))
print(json.dumps(dict(wall=wall, cpu=cpu, read=read, peak=max(0, max(peaks) - base))))
"""


class Streaming(Network):
    """Writes each weight to the data file at once, in half precision."""

    dtype = TensorProto.FLOAT16

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.data = open(f"{path}.data", "wb")  # noqa: SIM115

    def weight(self, name: str, *shape: int) -> str:
        tensor = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT16)
        tensor.data_location = TensorProto.EXTERNAL
        self.data.write(bytes(-self.data.tell() % 4096))
        offset, scale = self.data.tell(), np.float32(shape[-1] ** -0.5)
        for _ in range(shape[0] if len(shape) > 1 else 1):
            row = self.rng.standard_normal(shape[-1], np.float32) * scale
            self.data.write(row.astype(np.float16).data)
        for key, value in {"location": Path(self.data.name).name, "offset": offset}.items():
            tensor.external_data.add(key=key, value=str(value))
        tensor.external_data.add(key="length", value=str(self.data.tell() - offset))
        self.weights.append(tensor)
        return name


def write_model(path: Path, layers: int, width: int) -> None:
    """Write a transformer and, if that can be, the same weights as safetensors."""
    net = Streaming(path)
    write_transformer(path, layers, width, width // 128, net)
    net.data.close()
    try:
        import safetensors.torch  # noqa: F401
    except ImportError:
        return
    header, offset = {}, 0
    for tensor in net.weights:
        if tensor.data_location == TensorProto.EXTERNAL:
            end = offset + 2 * int(np.prod(tensor.dims))
            header[tensor.name] = {
                "dtype": "F16", "shape": list(tensor.dims), "data_offsets": [offset, end],
            }  # fmt: skip
            offset = end
    text = json.dumps(header).encode()
    with open(f"{path}.safetensors", "wb") as file, open(f"{path}.data", "rb") as data:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in net.weights:
            if tensor.data_location == TensorProto.EXTERNAL:
                data.seek(int(tensor.external_data[1].value))
                file.write(data.read(int(tensor.external_data[2].value)))


def measure(kind: str, source: Path, folder: Path) -> dict[str, float] | None:
    """Measure one job in a fresh process; None where what it needs is not installed."""
    imports, job = JOBS[kind]
    folder.mkdir()
    code = _JOB.format(imports=imports, job=job)
    command = [sys.executable, "-c", code, str(source), str(folder / "target.onnx")]
    done = subprocess.run(command, capture_output=True, text=True)
    written = sum(file.stat().st_size for file in folder.iterdir())
    shutil.rmtree(folder)
    if "ModuleNotFoundError" in done.stderr:
        return None
    done.check_returncode()
    return json.loads(done.stdout) | {"written": written}


def compare(size: str, kinds: list[str]) -> None:
    """Print the table of one model."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source.onnx"
        write_model(source, *SIZES[size])
        runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
        for _ in range(REPEATS):
            for kind, results in runs.items():
                if (result := measure(kind, source, Path(name) / "out")) is not None:
                    results.append(result)
        nbytes = Path(f"{source}.data").stat().st_size
    best = {
        kind: {key: statistics.median(result[key] for result in results) for key in results[0]}
        for kind, results in runs.items()
        if results
    }
    bandwidth = best["flush"]["written"] / best["flush"]["wall"]
    print(f"{nbytes / 1e9:.2f} GB of weights: read, written and memory are times that")
    print(f"(the disk took {bandwidth / 1e9:.2f} GB/s)\n")
    print("| | seconds | to cp | per byte | limit | processor | read | written | memory |")
    print("| --- |" + " ---: |" * 8)
    for kind, job in best.items():
        ratio, limit = job["wall"] / best["cp"]["wall"], job["written"] / bandwidth / job["wall"]
        each = f"{ratio * nbytes / job['written']:.2f}" if job["written"] else ""
        speed = f"{limit:.2f}" if job["written"] else ""
        read, written, peak = (job[key] / nbytes for key in ("read", "written", "peak"))
        print(
            f"| {kind} | {job['wall']:.2f} | {ratio:.2f} | {each} | {speed} | {job['cpu']:.2f} |",
            end="",
        )
        print(f" {read:.2f} | {written:.2f} | {peak:.2f} |", flush=True)
    print()


if __name__ == "__main__":
    if not {*SIZES, *JOBS}.issuperset(sys.argv[1:]):
        sys.exit(f"sizes: {', '.join(SIZES)}; jobs: {', '.join(JOBS)}")
    chosen = [argument for argument in sys.argv[1:] if argument in SIZES]
    kinds = [argument for argument in sys.argv[1:] if argument in JOBS] or list(JOBS)
    for size in chosen or ["0.4", "2.5"]:
        compare(size, list(dict.fromkeys(["cp", "flush", *kinds])))
