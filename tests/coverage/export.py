"""Export the networks of the coverage test, with random weights and both exporters of PyTorch.

    python tests/coverage/catalogue.py /big/disk/plan.json
    python tests/coverage/export.py /big/disk --plan /big/disk/plan.json

writes DIR/<suite>/<model>.<exporter>.onnx and a JSON record beside each. Every export runs in its
own process with limits on time and memory. Records that exist are skipped: start it again to
resume. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import signal
import sys
import time
import traceback
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import catalogue
import detection
import onnx
import randomise
import timm
import torch

EXPORTERS = ("dynamo", "torchscript", "dynamo-raw")
SIZES = (96, 128, 160, 192, 224, 256, 299, 384, 448, 512)
# Adaptive pools whose input is no multiple of their output cannot be exported by TorchScript.
FULL_SIZE = ("alexnet", "vgg", "vit", "maxvit", "squeezenet")
SINGLE_FILE = 1_500_000_000


# --- one export, in a child process ---------------------------------------------------------


def candidate_shapes(suite: str, name: str) -> Iterator[tuple[int, ...]]:
    """Input shapes without the batch axis, smallest first."""
    if suite == "video":
        for frames, size in ((8, 64), (16, 64), (16, 112), (16, 224)):
            yield (3, frames, size, size)
        return
    if suite == "timm":
        config = timm.get_pretrained_cfg(name)
        default = config.input_size if config else (3, 224, 224)
        if config and not config.fixed_input_size:
            for size in SIZES:
                if size < default[-1] and size >= (config.min_input_size or (0,))[-1]:
                    yield (3, size, size)
        yield tuple(default)
    for size in SIZES:
        if size >= 224 or not name.startswith(FULL_SIZE):
            yield (3, size, size)


def find_shape(model: torch.nn.Module, suite: str, name: str) -> tuple[int, ...]:
    """The first shape the network accepts."""
    problem = "no candidate shape"
    for shape in candidate_shapes(suite, name):
        try:
            with torch.no_grad():
                model(torch.zeros(1, *shape))
        except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
            problem = f"{shape}: {error}"
            continue
        return shape
    raise ValueError(f"no input size is accepted; last: {problem}")


def _export(
    model: torch.nn.Module, inputs: Any, path: Path, exporter: str, record: dict[str, Any]
) -> None:
    dynamic = exporter != "torchscript" or zlib.crc32(path.name.encode()) % 2 == 0
    large = record["parameters"] * 4 > SINGLE_FILE
    options: dict[str, Any] = {"input_names": ["input"], "verbose": False}
    if exporter == "torchscript":
        options |= {"dynamo": False}
        if dynamic:
            axes = {1: "height", 2: "width"} if isinstance(inputs, list) else {0: "batch"}
            options["dynamic_axes"] = {"input": axes}
    else:
        options |= {"dynamo": True, "external_data": large, "optimize": exporter == "dynamo"}
        options["dynamic_shapes"] = ({0: torch.export.Dim.AUTO},)
    record["dynamic_batch"] = dynamic
    opsets = (17, 18, 11) if exporter == "torchscript" else (18,)
    for opset in opsets:
        record["opset"] = opset
        try:
            torch.onnx.export(model, (inputs,), str(path), opset_version=opset, **options)
            return
        except (RuntimeError, ValueError, TypeError) as error:
            if opset == opsets[-1]:
                raise
            record["first_error"] = _first_line(error)
            path.unlink(missing_ok=True)


def _first_line(error: BaseException) -> str:
    # torch.onnx wraps the real failure; the innermost cause says what happened.
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:400]


def export_one(entry: dict[str, Any], exporter: str, path: Path, record: dict[str, Any]) -> None:
    """Build, randomise, export and describe one network; fills `record`."""
    suite, name = entry["suite"], entry["name"]
    torch.manual_seed(zlib.crc32(name.encode()))
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    model = catalogue.build(suite, name)
    record["parameters"] = sum(p.numel() for p in model.parameters())
    inputs: Any
    if suite == "detection":
        inputs = detection.image(generator)
        record["input_shape"] = list(inputs[0].shape)
        changed = detection.randomise_all(name, model, generator)
        record["constants_randomised"], record["batchnorms"] = changed
    else:
        shape = find_shape(model, suite, name)
        record["constants_randomised"] = randomise.randomise_constants(model, generator)
        batch = 1 if suite == "video" and shape[-1] > 64 else 2
        inputs = torch.randn(batch, *shape, generator=generator)
        more = max(batch, 4 if shape[-1] < 200 else batch)
        measured = torch.randn(more, *shape, generator=generator)
        record["batchnorms"] = randomise.measure_batchnorm(model, measured, generator)
        record["input_shape"] = list(inputs.shape)
    with torch.no_grad():
        output = model(inputs)
    if isinstance(output, list):
        record["detections"] = len(output[0]["scores"])
    tensor = next(iter(output.values())) if isinstance(output, dict) else output
    if isinstance(tensor, torch.Tensor):
        record["output_std"] = float(tensor.std())
    _export(model, inputs, path, exporter, record)
    skeleton = onnx.load(path, load_external_data=False)
    record["nodes"] = len(skeleton.graph.node)
    record["bytes"] = path.stat().st_size


def child(entry: dict[str, Any], exporter: str, path: Path) -> None:
    """Runs in the forked process: export, write the record, leave."""
    start = time.monotonic()
    record: dict[str, Any] = {
        **entry,
        "exporter": exporter,
        "ok": False,
        "torch": torch.__version__,
    }
    try:
        export_one(entry, exporter, path, record)
        record["ok"] = True
        record.pop("first_error", None)
    # Whatever an exporter raises is the result of this export, and the sweep goes on.
    except Exception as error:
        record["error"] = _first_line(error)
        traceback.print_exc()
        path.unlink(missing_ok=True)
    record["seconds"] = round(time.monotonic() - start, 1)
    _write(path, record)


def _write(path: Path, record: dict[str, Any]) -> None:
    temporary = path.with_suffix(".json.part")
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    temporary.rename(path.with_suffix(".json"))


# --- the sweep ------------------------------------------------------------------------------


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def run_limited(
    entry: dict[str, Any], exporter: str, path: Path, timeout: float, memory: int
) -> None:
    """Fork, export, and kill what takes too long or too much."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        log = os.open(path.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            child(entry, exporter, path)
        finally:
            os._exit(0)
    start, reason = time.monotonic(), ""
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() - start > timeout:
            reason = "timeout"
        elif _resident(pid) > memory:
            reason = "memory"
        if reason:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            break
        time.sleep(0.2)
    if not path.with_suffix(".json").exists():
        path.unlink(missing_ok=True)
        seconds = round(time.monotonic() - start, 1)
        error = reason or "crashed"
        record = {**entry, "exporter": exporter, "ok": False, "error": error, "seconds": seconds}
        _write(path, record)


def sweep(options: argparse.Namespace) -> None:
    """Export everything in the plan that has no record yet."""
    entries = json.loads(options.plan.read_text())
    entries = [e for e in entries if (e["parameters"] or 0) <= options.max_parameters]
    if options.only:
        entries = [e for e in entries if options.only in f"{e['suite']}/{e['name']}"]
    for entry in entries:
        for exporter in options.exporter:
            path = options.directory / entry["suite"] / f"{entry['name']}.{exporter}.onnx"
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.with_suffix(".json").exists() and not options.redo:
                continue
            need = (entry["parameters"] or 0) * 4
            if shutil.disk_usage(options.directory).free - need < options.keep_free * 1e9:
                print(f"skipped for want of disk space: {path.name}", flush=True)
                continue
            path.with_suffix(".json").unlink(missing_ok=True)
            run_limited(entry, exporter, path, options.timeout, int(options.memory * 1e9))
            record = json.loads(path.with_suffix(".json").read_text())
            state = "ok" if record["ok"] else record["error"]
            print(f"{entry['suite']}/{path.stem} {record['seconds']} s {state}", flush=True)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--exporter", nargs="+", choices=EXPORTERS, default=list(EXPORTERS[:2]))
    parser.add_argument("--only", default="", help="substring of suite/model")
    parser.add_argument("--redo", action="store_true")
    parser.add_argument("--timeout", type=float, default=150.0)
    parser.add_argument("--memory", type=float, default=8.0, help="GB of one export")
    parser.add_argument("--keep-free", type=float, default=15.0, help="GB of disk left alone")
    parser.add_argument("--max-parameters", type=float, default=4e8)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    gc.freeze()  # children share the imported modules
    sweep(parser.parse_args())


if __name__ == "__main__":
    main()
