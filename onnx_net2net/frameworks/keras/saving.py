"""A Keras model on disk, with the Python file of the layers that Keras does not have.

save_keras(network, "grown.keras")        # [grown.keras, grown_layers.py], or the first alone
"""

from __future__ import annotations

import os
from pathlib import Path

import keras

from onnx_net2net.errors import UsageError
from onnx_net2net.frameworks.codegen import identifier
from onnx_net2net.frameworks.keras.layer import GraphLayer
from onnx_net2net.frameworks.keras.written_layers import source_of
from onnx_net2net.model.atomic_write import place
from onnx_net2net.model.placing import check_target

__all__ = ["draft_keras", "layers_name", "needs_this_program", "save_keras"]


def save_keras(
    network: keras.Model, path: str | os.PathLike[str], *, force: bool = True
) -> list[Path]:
    """See :func:`onnx_net2net.frameworks.keras.save_keras`."""
    target = Path(path)
    if target.suffix != ".keras":
        raise UsageError(f"{target}: Keras writes .keras files", "choose a name that ends so")
    files: list[Path] = []
    place(
        target,
        write=lambda draft: files.extend(draft_keras(network, draft, target, force=force)),
        is_model=True,
        force=force,
    )
    return files


def draft_keras(network: keras.Model, draft: Path, target: Path, *, force: bool) -> list[Path]:
    """Write both files beside ``draft``; return what they are beside ``target``."""
    network.save(draft)
    text = source_of(map(type, network._flatten_layers()), target.name)
    if not text:
        return [target]
    name = layers_name(target)
    check_target(target.with_name(name), force)
    draft.with_name(name).write_text(text, encoding="utf-8")
    return [target, target.with_name(name)]


def layers_name(path: Path) -> str:
    """Return the name of the Python file beside a .keras file, one that can be imported."""
    plain = identifier(path.stem).strip("_") or "network"
    return f"{plain if not plain[0].isdigit() else f'x{plain}'}_layers.py"


def needs_this_program(network: keras.Model) -> bool:
    """Return whether a model has nodes that only this program can walk."""
    return any(isinstance(layer, GraphLayer) for layer in network._flatten_layers())
