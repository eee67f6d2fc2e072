"""A model on disk for a framework: written, loaded again, judged, and only then put in place."""

from __future__ import annotations

import importlib.util
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

from onnx_net2net.errors import Net2NetError, OutputError
from onnx_net2net.frameworks.verify_export import agreement
from onnx_net2net.model.atomic_write import place
from onnx_net2net.model.model import Model
from onnx_net2net.progress import work
from onnx_net2net.verification.precision import has_bfloat16
from onnx_net2net.verification.report import Report
from onnx_net2net.verification.trials import Outputs, first_line

__all__ = ["load_keras", "unjudged", "write"]

Network = Callable[[dict[str, np.ndarray]], list[np.ndarray]]
# What the classes that a .keras file names raise for what it says of them.
_RAISED: tuple[type[Exception], ...] = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, Net2NetError,
    NotImplementedError, OSError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile,
)  # fmt: skip


def unjudged(model: Model) -> str | None:
    """Return why onnxruntime cannot be asked what ``model`` computes; None where it can."""
    return "onnxruntime cannot run bfloat16 here" if has_bfloat16(model) else None


def write(
    model: Model,
    framework: str,
    target: Path,
    *,
    force: bool = False,
    verify: bool = True,
    layout: str = "nchw",
) -> tuple[Report | None, list[Path]]:
    """Write ``model`` for ``framework``, "torch" (a folder) or "keras" (a file), to ``target``.

    Return what onnxruntime says of the result, None if it was not asked: with ``verify`` False, and
    where :func:`unjudged` says why. Return what was written, too: with a .keras file, a Python file
    of the layers that Keras does not have, if there are any. Nothing is left behind if the results
    differ. ``layout`` is that of a Keras model's inputs and outputs. Raises Refused for what has no
    translation, OutputError for what cannot be written.
    """
    load = {"torch": _torch, "keras": _keras}[framework]
    report: list[Report] = []
    files, turned = [target], set[str]()
    _check_path(target)

    def judge(draft: Path) -> bool:
        if verify and unjudged(model) is None:
            names = [value.name for value in model.proto.graph.output]
            network = load(draft)

            def call(feeds: dict[str, np.ndarray]) -> Outputs:
                given = {n: np.moveaxis(x, 1, -1) if n in turned else x for n, x in feeds.items()}
                outputs = zip(names, network(given), strict=True)
                return {n: np.moveaxis(x, -1, 1) if n in turned else x for n, x in outputs}

            with work(f"verifying {target.name}"):
                report.append(agreement(model, call))
        return not report or report[0].equivalent

    def written(draft: Path) -> None:
        with work(f"writing {target.name} for {framework}"):
            if framework == "torch":
                _write_torch(model, draft)
            else:
                more, behind = _write_keras(model, draft, target, layout, force=force)
                files.extend(more)
                turned.update(behind)

    place(
        target,
        write=written,
        judge=judge,
        entry="model.py",
        is_model=framework == "keras",
        force=force,
    )
    return report[0] if report else None, files


def _check_path(target: Path) -> None:
    """Raise for a path that is no text: neither safetensors nor Keras opens such a file."""
    try:
        str(target.absolute()).encode()
    except UnicodeEncodeError:
        raise OutputError(
            f"{target}: the path is no UTF-8 text, and no framework opens such a file",
            "choose another folder or name",
        ) from None


def _write_torch(model: Model, draft: Path) -> None:
    from onnx_net2net.frameworks.torch import write_package

    write_package(model, draft)


@contextmanager
def _imported(path: Path) -> Iterator[Any]:
    """Import a module that was written just now."""
    name = f"onnx_net2net_package_{os.getpid()}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package  # its annotations are looked up there
    try:
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        spec.loader.exec_module(package)
        yield package
    finally:
        sys.dont_write_bytecode = before
        del sys.modules[name]


def _torch(draft: Path) -> Network:
    """Return the package's network, as whoever imports it gets it."""
    import torch

    from onnx_net2net.frameworks.torch.module import tensor_of

    with _imported(draft / "model.py") as package:
        network = package.load().eval()

    def call(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            outputs = network(*(tensor_of(value) for value in feeds.values()))
        return [t.numpy() for t in (outputs if isinstance(outputs, tuple) else [outputs])]

    return call


def _write_keras(
    model: Model, draft: Path, target: Path, layout: str, *, force: bool
) -> tuple[list[Path], frozenset[str]]:
    """Return the files beside ``target``, and the tensors whose channels are last."""
    from onnx_net2net.frameworks.keras import to_keras
    from onnx_net2net.frameworks.keras.origin import turned_by
    from onnx_net2net.frameworks.keras.saving import draft_keras

    network = to_keras(model, layout=layout)
    return draft_keras(network, draft, target, force=force)[1:], turned_by(network)


def load_keras(path: Path, model: Model | None = None) -> Any:
    """Return a saved Keras model. Raise OutputError where it cannot be read.

    Layers that Keras does not have are made anew from ``model``; no file beside is run.
    """
    import keras

    from onnx_net2net.frameworks.keras.importer import structure

    if model is not None:
        with suppress(Net2NetError):  # then none was made of it
            structure(model)
    try:
        return keras.saving.load_model(path)
    except _raised() as error:
        remedy = "give a .keras file that export or model.save has written"
        raise OutputError(f"{path}: Keras cannot load it: {_reason(error)}", remedy) from None


def _raised() -> tuple[type[Exception], ...]:
    """Return what Python and, where Keras runs on it, TensorFlow raise."""
    tensorflow = sys.modules.get("tensorflow")
    return _RAISED if tensorflow is None else (*_RAISED, tensorflow.errors.OpError)


def _reason(error: BaseException) -> str:
    """Return what is wrong with the file: our own error behind Keras' one, or the first."""
    while not isinstance(error, Net2NetError):
        earlier = error.__cause__ or error.__context__
        if earlier is None:
            return first_line(error)
        error = earlier
    return error.problem


def _keras(draft: Path) -> Network:
    """Return the saved network, whose layers are those of the file beside it."""
    from onnx_net2net.frameworks.keras.saving import layers_name

    layers = draft.with_name(layers_name(draft))
    with _imported(layers) if layers.exists() else nullcontext():
        network = load_keras(draft)

    def call(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        given = list(feeds.values())
        outputs = network(given if len(given) > 1 else given[0])
        outputs = list(outputs.values()) if isinstance(outputs, dict) else outputs
        return [np.asarray(v) for v in (outputs if isinstance(outputs, list) else [outputs])]

    return call
