"""What is done with each input: everything that takes a file from a stranger.

:func:`run_input` makes input ``n``, gives it to the library, and tells what came out.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import struct
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from onnx import ModelProto

import onnx_net2net as n2n
from tests.fuzz import mutate, odd
from tests.fuzz.corpus import Corpus

SECONDS = 5  # of processor time, one call
PACKAGE = str(Path(n2n.__file__).parent)
Outcome = dict[str, Any]
# How often each kind of input is made.
KINDS = {
    "rule": 28,
    "operator": 38,
    "fixture": 10,
    "bytes": 8,
    "plan": 6,
    "weights": 5,
    "inputs": 5,
}


def made(number: int, corpus: Corpus) -> tuple[random.Random, str, str, Any]:
    """Input ``number``: what decides about the rest of it, its kind, its story, its contents."""
    rng = random.Random(number)
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    if kind in corpus or kind == "bytes":
        source = kind if kind in corpus else rng.choice(sorted(corpus))
        name, contents = rng.choice(corpus[source])
        if kind == "bytes":
            return rng, kind, f"{name}: bytes", mutate.damaged(rng, contents)
        model = ModelProto.FromString(contents)
        story = ", ".join(mutate.mutated(rng, model))
        return rng, kind, f"{name}: {story}", model.SerializeToString()
    name, contents = rng.choice(corpus["rule"])
    return rng, kind, f"{name}: {kind}", contents


def run_input(number: int, corpus: Corpus, say: Callable[[str], None], frameworks: bool) -> Outcome:
    """Make input ``number`` and use it. ``say`` is told which call is about to be made."""
    say("making")
    rng, kind, story, contents = made(number, corpus)
    outcome: Outcome = {"seed": number, "kind": kind, "story": story, "calls": 0, "refused": 0}
    calls = {"plan": _plan, "weights": _weight_files, "inputs": _input_files}.get(kind, _model)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, contextlib.chdir(folder):
        for name, call in calls(rng, contents, Path(folder), frameworks):
            say(name)
            outcome["calls"] += 1
            started = time.process_time()
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    call()
            except n2n.Net2NetError:
                outcome["refused"] += 1
            except _Wrong as wrong:
                return outcome | {"wrong": "wrong", "call": name, "error": str(wrong)}
            # Whatever else comes out, of whatever kind, is what this program looks for.
            except BaseException as error:
                return outcome | _foreign(name, error)
            seconds = time.process_time() - started
            if seconds > SECONDS:
                return outcome | {"wrong": "hang", "call": name, "error": f"{seconds:.1f} s"}
    return outcome


class _Wrong(Exception):
    """A promise was not kept."""


def _foreign(call: str, error: BaseException) -> Outcome:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(PACKAGE)] or list(frames)
    place = f"{Path(own[-1].filename).relative_to(Path(PACKAGE).parent)}:{own[-1].name}"
    return {
        "wrong": "foreign",
        "call": call,
        "error": f"{type(error).__name__} in {place}",
        "text": str(error)[:300],
        "trace": "".join(traceback.format_tb(error.__traceback__)[-6:])[-2500:],
    }


Calls = Iterator[tuple[str, Callable[[], Any]]]


def _model(rng: random.Random, contents: bytes, folder: Path, frameworks: bool) -> Calls:
    """Everything that reads a model, in the order of the price."""
    box: dict[str, Any] = {}

    def load() -> None:
        box["model"] = n2n.load(contents)

    yield "load", load
    model = box.get("model")
    if model is None:
        return
    yield "history", lambda: (model.history, model.parameters, model.sha256())
    yield "inspect", lambda: box.update(dimensions=n2n.inspect(model))
    yield "costs", lambda: n2n.costs(model)
    chance = rng.random()
    if chance < 0.5:
        yield "blocks", lambda: n2n.blocks(model)
    if chance < 0.3:
        yield "fold", lambda: n2n.fold(model)
        yield "diff", lambda: n2n.diff(model, model)
        yield "save", lambda: n2n.load(_saved(model, folder))
    if chance < 0.05:
        Path(folder, "m.onnx").write_bytes(contents)
        for command in ("inspect", "history", "blocks"):
            yield f"cli {command}", lambda command=command: _command(command, "m.onnx")
    growing = [d for d in box.get("dimensions", ()) if d.growth == "any" and d.width < 64]
    if growing and rng.random() < 0.5:
        dimension = rng.choice(growing)
        yield (
            "widen",
            lambda: box.update(wide=n2n.widen(model, {dimension.name: dimension.width + 1})),
        )
        if "wide" in box and rng.random() < 0.5:
            yield "verify", lambda: _verified(model, box["wide"])
    elif rng.random() < 0.15:
        yield "verify itself", lambda: n2n.verify(model, model, seeds=1, provider="cpu")
    if rng.random() < 0.1 and model.proto.graph.node:
        after = rng.choice(model.proto.graph.node).name
        yield "deepen", lambda: n2n.deepen(model, after)
    if frameworks and rng.random() < 0.25:
        yield "to_torch", lambda: n2n.to_torch(model)
        if rng.random() < 0.3:
            yield "to_keras", lambda: n2n.to_keras(model)


def _saved(model: n2n.Model, folder: Path) -> Path:
    return model.save(folder / "saved.onnx", external=True)


def _verified(small: n2n.Model, wide: n2n.Model) -> None:
    """What was promised: a model that grew computes what it computed."""
    report = n2n.verify(small, wide, seeds=1, provider="cpu")
    if not report and "nothing could be compared" not in report.verdict:
        raise _Wrong(report.verdict)


def _command(*arguments: str) -> None:
    from onnx_net2net.__main__ import main

    with (
        patch("sys.argv", ["onnx-net2net", *arguments]),
        patch.dict(os.environ, {"ONNX_NET2NET_DEBUG": "1"}),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        main()


# --- other files ---------------------------------------------------------------------------------

_PLAN = {
    "fold": False,
    "step": [
        {
            "operation": "widen",
            "widths": {"node": 9},
            "seed": 1,
            "split": "project",
            "pick": "random",
        },
        {"operation": "deepen", "after": ["node"], "count": 1, "init": "auto", "kernel": 3},
        {"operation": "widen", "factor": 1.5, "all": True, "multiple_of": 4},
    ],
}
_RAW_PLANS = (
    "fold = 1e400",
    "[[step]]\noperation='widen'\nfactor=1e400\nall=true",
    "[[step]]\noperation='widen'\nfactor=1e999999999\nall=true",
    "[[step]]\noperation='widen'\nfactor=nan\nall=true",
    "[[step]]\noperation='widen'\nfactor=inf\nall=true",
    "[[step]]\noperation='widen'\nfactor=-inf\nall=true",
    "a=1\na=2",
    "a=" + "[" * 2000,
    "a.b=" + "9" * 5000,
    "a" + ".a" * 3000 + "=1",
    "[[step]]\noperation='widen'\nfactor=1e-999999999\nall=true",
    "[[step]]\noperation='widen'\nwidths={node=" + "9" * 4000 + "}",
    "[[step]]\noperation='widen'\nfactor=1e300\nall=true",
    "d=2024-99-99",
    "t=25:61:00",
    '"\\uD800"=1',
)


def _toml(value: Any) -> str:
    """A value as TOML has it, as far as it has it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float):
        return {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(str(value), repr(value))
    return '""' if value is None else json.dumps(value)


def _plan(rng: random.Random, contents: bytes, folder: Path, frameworks: bool) -> Calls:
    """A plan in TOML, and the same as values."""
    values: Any = odd.altered(rng, _PLAN)
    for _ in range(rng.randrange(2)):
        values = odd.altered(rng, values)
    if rng.random() < 0.3:
        text = rng.choice(_RAW_PLANS)
    elif isinstance(values, dict):
        text = "\n".join(f"{json.dumps(key)} = {_toml(value)}" for key, value in values.items())
    else:
        text = _toml(values)
    data = text.encode("utf-8", "surrogatepass")
    path = folder / "plan.toml"
    path.write_bytes(mutate.damaged(rng, data) if rng.random() < 0.2 else data)
    model = n2n.load(contents)
    yield "plan", lambda: n2n.grow(model, plan=path)
    if isinstance(values, dict | list):
        yield "plan as values", lambda: n2n.grow(model, plan=values)
    budget = odd.value(rng) if rng.random() < 0.5 else rng.choice(("2x", "1e99x", 10**40, "nanx"))
    if isinstance(budget, str | int) and not isinstance(budget, bool):
        yield "budget", lambda: n2n.grow(model, params=budget)


def _safetensors(rng: random.Random) -> bytes:
    """A file whose header does not always tell the truth."""
    header: Any = {
        "__metadata__": {"format": "pt"},
        "w": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]},
        "b": {"dtype": "F16", "shape": [4], "data_offsets": [48, 56]},
    }
    for _ in range(rng.randrange(1, 3)):
        header = odd.altered(rng, header)
    text = odd.text_of(rng, header).encode("utf-8", "surrogatepass")
    length = len(text) if rng.random() < 0.8 else rng.choice(odd.INTEGERS) % 2**64
    return struct.pack("<Q", length) + text + bytes(56)


def _npz(rng: random.Random) -> bytes:
    """An archive of arrays: plain ones, pickles, others that lie about their size."""
    buffer = io.BytesIO()
    kind = rng.randrange(6)
    arrays: dict[str, Any] = {"w": np.ones((3, 4), np.float32), "x": np.ones((2, 3), np.float32)}
    if kind == 0:
        arrays["w"] = np.array([{"a": 1}, None], object)
    elif kind == 1:
        arrays["w"] = np.array(["a", "b"])
    elif kind == 2:
        arrays["w"] = np.array([1 + 2j], np.complex64)
    elif kind == 3:
        arrays["w"] = np.zeros(3, [("a", "<f4"), ("b", "<i4")])
    elif kind == 4:
        arrays["w"] = np.array(["2024-01-01"], "datetime64[D]")
    (np.savez_compressed if rng.random() < 0.5 else np.savez)(buffer, **arrays)
    data = buffer.getvalue()
    if rng.random() < 0.4:
        lies = (
            (b"(3, 4)", b"(3, 9)"),
            (b"(3, 4)", b"(-3,4)"),
            (b"(3, 4)", b"9**9**9"[:6]),
            (b"<f4", b"|O8"),
        )
        data = data.replace(*rng.choice(lies))
    return mutate.damaged(rng, data) if rng.random() < 0.6 else data


def _bomb() -> bytes:
    """A header that promises an array of 2**40 elements."""
    import zipfile

    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1048576, 1048576), }"
    head += b" " * (117 - len(head)) + b"\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(99)
        )
    return buffer.getvalue()


def _weight_files(rng: random.Random, contents: bytes, folder: Path, frameworks: bool) -> Calls:
    """Weights to be taken over, of formats that need no framework."""
    model = n2n.load(contents)
    suffix = rng.choice((".safetensors", ".npz"))
    path = folder / f"weights{suffix}"
    path.write_bytes(
        _safetensors(rng) if suffix != ".npz" else _npz(rng) if rng.random() < 0.9 else _bomb()
    )
    yield f"absorb {suffix}", lambda: n2n.absorb(model, path)


def _input_files(rng: random.Random, contents: bytes, folder: Path, frameworks: bool) -> Calls:
    """Inputs of a user's own."""
    path = folder / ("inputs.npz" if rng.random() < 0.8 else "inputs.npy")
    path.write_bytes(_npz(rng) if rng.random() < 0.9 else _bomb())
    yield "verify inputs", lambda: n2n.verify(contents, contents, inputs=str(path), provider="cpu")
