"""Import the exported networks of the coverage test into the frameworks, and deepen them.

    python tests/coverage/imports.py /big/disk torch       # as PyTorch modules
    python tests/coverage/imports.py /big/disk keras       # as Keras models
    python tests/coverage/imports.py /big/disk deepen      # copy every block, insert layers

Each network is compared with onnxruntime on one random input, small files first; what has a result
is left alone. Results go to DIR/imports as JSON; table.py makes a table of them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import onnx_net2net as n2n
from onnx_net2net.frameworks.verify_export import agreement

LARGEST = 600_000_000  # bytes of a file that is tried
PLACES = 24  # insertion points tried at once


class Stopped(Exception):
    """A network took too long."""


def judged(report: n2n.Report) -> dict[str, Any]:
    """The verdict on one import."""
    worst = max((output.used for output in report.outputs), default=0.0)
    result = {"verdict": "right" if report else "wrong", "used": worst}
    return result if report else {**result, "problem": report.verdict}


def in_torch(model: n2n.Model) -> dict[str, Any]:
    """As a module of PyTorch."""
    import torch

    module = n2n.to_torch(model)
    names = [value.name for value in model.proto.graph.output]
    seen: list[dict[str, np.ndarray]] = []

    def call(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.append(feeds)
        with torch.no_grad():
            found = module(*(torch.from_numpy(value) for value in feeds.values()))
        values = found if isinstance(found, tuple) else (found,)
        return {name: value.numpy() for name, value in zip(names, values, strict=True)}

    result = judged(agreement(model, call, seeds=1))
    return result if result["verdict"] != "right" else {**result, **learns(module, seen[0])}


def learns(module: Any, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
    """A step of training: gradients are finite, and the loss falls."""
    import torch

    inputs = [torch.from_numpy(value) for value in feeds.values()]
    parameters = [p for p in module.parameters() if p.requires_grad]

    def loss() -> torch.Tensor:
        found = module(*inputs)
        values = found if isinstance(found, tuple) else (found,)
        return sum((v.square().mean() for v in values if v.is_floating_point()), torch.zeros(()))

    before = loss()
    if not parameters or not before.requires_grad:
        return {"trained": "no parameters"}
    before.backward()
    gradients = [p.grad for p in parameters if p.grad is not None]
    size = float(sum((g.double().square().sum() for g in gradients), torch.zeros(())))
    if not np.isfinite(size):
        return {"verdict": "wrong", "problem": "gradients are not finite"}
    with torch.no_grad():
        for parameter in parameters:
            if parameter.grad is not None:
                parameter -= 1e-3 * float(before.detach()) / max(size, 1e-30) * parameter.grad
        after = float(loss())
    if size and not after < float(before.detach()):
        return {
            "verdict": "wrong",
            "problem": f"the loss goes from {float(before.detach())} to {after}",
        }
    return {"trained": "yes"}


def in_order(found: Any) -> list[Any]:
    """The outputs of a Keras model, which gives one, a list of them or a dictionary."""
    found = list(found.values()) if isinstance(found, dict) else found
    return found if isinstance(found, list) else [found]


def in_keras(model: n2n.Model) -> dict[str, Any]:
    """As a model of Keras."""
    import keras

    keras.utils.clear_session()
    network = n2n.to_keras(model)
    names = [value.name for value in model.proto.graph.output]
    seen: list[list[np.ndarray]] = []

    def call(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = list(feeds.values())
        seen.append(given)
        found = network(given if len(given) > 1 else given[0])
        pairs = zip(names, in_order(found), strict=True)
        return {name: np.asarray(value) for name, value in pairs}

    result = judged(agreement(model, call, seeds=1))
    if result["verdict"] != "right":
        return result
    return {**result, **own_layers(network), **learns_in_keras(network, seen[0])}


def own_layers(network: Any) -> dict[str, Any]:
    """What Keras alone has of it: layers of ours, the share of weights in Keras', if it loads.

    A weight that no layer computes with is a table whose rows are looked up by constants: the sum
    of a zero and their numbers.
    """
    total = held = 0
    for layer in network.layers:
        size = sum(math.prod(variable.shape) for variable in layer.variables)
        total += size
        if type(layer).__name__ == "Embedding":
            size *= type(layer.input._keras_history.operation).__name__ != "Add"
        held += size
    ours = sum(not type(layer).__module__.startswith("keras.") for layer in network.layers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.keras"
        network.save(path)
        return {"ours": ours, "held": held / max(total, 1), "alone": loads_alone(path)}


def loads_alone(path: Path) -> str:
    """Whether a process without this program loads a file: nothing, or what it raises."""
    process = _without_us()
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{path}\n")
    process.stdin.flush()
    while True:  # an earlier answer was not waited for
        line = process.stdout.readline()
        name, _, problem = line.strip().partition(" ")
        if name == str(path):
            return problem
        assert line, "the process died"


@cache
def _without_us() -> subprocess.Popen[str]:
    """A process that has Keras, and in which this program cannot be imported."""
    code = """
import sys
sys.modules["onnx_net2net"] = None
sys.setrecursionlimit(100000)
import keras
for line in sys.stdin:
    path = line.strip()
    try:
        keras.utils.clear_session()
        keras.saving.load_model(path)
        print(path, flush=True)
    except Exception as problem:
        print(path, type(problem).__name__, str(problem).split(chr(10))[0][:200], flush=True)
"""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True)


def learns_in_keras(network: Any, feeds: list[np.ndarray]) -> dict[str, Any]:
    """A step of training: gradients are finite, and the loss falls.

    The loss is the distance to random targets: that of what a norm has standardised to zero would
    be the same for all weights.
    """
    import tensorflow as tf

    variables = [v.value for v in network.trainable_variables]

    def loss() -> Any:
        found = network(feeds if len(feeds) > 1 else feeds[0])
        parts = [tf.cast(v, "float32") for v in in_order(found) if v.dtype.is_floating]
        rng = np.random.default_rng(0)
        return sum((tf.reduce_mean((v - rng.normal(size=v.shape)) ** 2) for v in parts), 0.0)

    with tf.GradientTape() as tape:
        before = tf.convert_to_tensor(loss())
    pairs = zip(tape.gradient(before, variables), variables, strict=True)
    moved = [(tf.convert_to_tensor(g), v) for g, v in pairs if g is not None]
    if not moved:
        return {"trained": "no parameters"}
    size = float(sum(tf.reduce_sum(tf.cast(g, "float64") ** 2) for g, _ in moved))
    if not np.isfinite(size):
        return {"verdict": "wrong", "problem": "gradients are not finite"}
    starts = [(v, tf.identity(v)) for _, v in moved]
    for share in (1e-2, 1e-3, 1e-4):  # of the loss, were it as steep as here all the way
        rate = share * float(before) / max(size, 1e-30)
        for gradient, variable in moved:
            variable.assign_sub(tf.cast(rate * tf.cast(gradient, "float64"), gradient.dtype))
        after = float(loss())
        if after < float(before) or not size:
            return {"trained": "yes"}
        for variable, start in starts:
            variable.assign(start)
    return {"verdict": "wrong", "problem": f"the loss goes from {float(before)} to {after}"}


def deeper(model: n2n.Model) -> dict[str, Any]:
    """Every block that can be copied exactly, copied; then layers behind many places."""
    from onnx_net2net.deepening.places import every_place
    from onnx_net2net.widening.dimensions import analyse

    found = n2n.blocks(model)
    exact = [block.name for block in found if block.exact]
    result: dict[str, Any] = {"blocks": len(found), "exact": len(exact), "names": exact[:3]}
    refused = sorted({str(block.reason) for block in found if not block.exact})
    if refused:
        result["reasons"] = [reason[:200] for reason in refused]
    verdicts = []
    if exact:
        report = n2n.verify(model, n2n.deepen(model, block=exact), seeds=1)
        result["copies"] = judged(report)
        verdicts.append(bool(report))
    places = list(every_place(analyse(model)))
    result["places"] = len(places)
    if places:
        chosen = places[:: max(1, len(places) // PLACES)][:PLACES]
        report = n2n.verify(model, n2n.deepen(model, [p.tensor for p in chosen]), seeds=1)
        result["layers"] = judged(report)
        verdicts.append(bool(report))
    return {**result, "verdict": "right" if all(verdicts) else "wrong"}


WAYS: dict[str, Callable[[n2n.Model], dict[str, Any]]] = {
    "deepen": deeper,
    "keras": in_keras,
    "torch": in_torch,
}


def one(path: Path, way: str, limit: int) -> dict[str, Any]:
    """One file, one way; never an exception."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(limit)
    start = time.monotonic()
    try:
        result = WAYS[way](n2n.load(path))
    except Stopped:
        result = {"verdict": "stopped", "problem": f"more than {limit} s"}
    except n2n.Refused as refusal:
        result = {"verdict": "refused", "problem": str(refusal)[:2000]}
    except Exception as error:  # the table shall show what crashed
        result = {"verdict": "crashed", "problem": f"{type(error).__name__}: {error}"[:2000]}
    finally:
        signal.alarm(0)
    return {**result, "seconds": round(time.monotonic() - start, 1)}


def main() -> None:
    """Go through the exported files, the smallest first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("way", choices=sorted(WAYS))
    parser.add_argument("--only", default="", help="substring of suite/model.exporter")
    parser.add_argument("--timeout", type=int, default=240, help="seconds for a network")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after these")
    parser.add_argument("--redo", action="store_true", help="what did not come out right, again")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    files = sorted(arguments.directory.glob("*/*.onnx"), key=lambda path: path.stat().st_size)
    for path in (p for p in files if arguments.only in f"{p.parent.name}/{p.stem}"):
        target = arguments.directory / "imports" / arguments.way / path.parent.name
        target.mkdir(parents=True, exist_ok=True)
        result = target / f"{path.name.removesuffix('.onnx')}.json"
        if result.exists():
            done = json.loads(result.read_text())["verdict"]
            if not arguments.redo or done == "right":
                continue
        parts = (path, *path.parent.glob(path.name + ".*"))
        size = sum(part.stat().st_size for part in parts)
        if time.monotonic() > end or size > LARGEST:
            break
        result.write_text(json.dumps({"verdict": "crashed", "problem": "the process died"}))
        found = one(path, arguments.way, arguments.timeout)
        result.write_text(json.dumps(found, indent=1))
        print(f"{path.parent.name}/{path.stem} {found}"[:300], flush=True)


if __name__ == "__main__":
    main()
