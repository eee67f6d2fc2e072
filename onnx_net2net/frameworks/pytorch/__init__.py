"""Models as PyTorch modules: in this process, or written down as a package of their own.

module = to_torch(model)                     # trains on: module.train(), optimizer, ...
write_package(model, "grown")                # grown/model.py and grown/model.safetensors
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from onnx import helper

from onnx_net2net.errors import OutputError
from onnx_net2net.files.saving import check_target, write_plain
from onnx_net2net.frameworks.expanding import expanded
from onnx_net2net.frameworks.idioms import condense
from onnx_net2net.frameworks.program import Program
from onnx_net2net.frameworks.pytorch.operators import tables
from onnx_net2net.frameworks.pytorch.source import source
from onnx_net2net.frameworks.pytorch.translation import Translation, translate
from onnx_net2net.frameworks.tensor_file import write
from onnx_net2net.judge.acceptance import require_accepted
from onnx_net2net.model import Computed, Model, Weight

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["to_torch", "write_package"]

LONGEST_TITLE = 80
SIZES = {("", "Shape"), ("", "Size")}  # become Python numbers


def to_torch(model: Model) -> torch.nn.Module:
    """A module that computes what ``model`` does, in ``eval()`` mode, ready to be trained.

    ``state_dict()`` names the weights as the file does (see :func:`.roles.paths`), in the file's
    layout. ``module.source`` is its code, the same that :func:`write_package` writes. Raises
    Refused, with every operator or form that has no translation.
    """
    from onnx_net2net.frameworks.pytorch.module import build, tensor_of

    translation = _translation(model)
    weights = {path: tensor_of(weight.array()) for path, weight in _weights(translation).items()}
    constants = {name: tensor_of(array) for name, array in translation.stored.items()}
    return build(_text(translation), weights, constants)


def write_package(model: Model, folder: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Write ``model.py`` and ``model.safetensors``, which run with torch and safetensors alone.

    Gives the folder, which is made where it is missing. Weights are written one at a time. Raises
    Refused before anything is written; OutputError where it cannot be, and then leaves nothing
    behind. Files that exist are kept unless ``force``.
    """
    translation = _translation(model)
    folder = Path(folder)
    tables = {"model.safetensors": _weights(translation)}
    if translation.stored:
        tables["constants.safetensors"] = {
            name: _stored(name, array) for name, array in translation.stored.items()
        }
    new = _made(folder)
    targets = [folder / name for name in (*tables, "model.py")]
    written: list[Path] = []
    try:
        for target in targets:
            check_target(target, force)
        for name, weights in tables.items():
            write(folder / name, weights, (), force=force)
            written.append(folder / name)
        text = memoryview(_text(translation).encode())
        write_plain(folder / "model.py", [text], (), force=force)
    except OutputError:
        if not force:
            for path in written:
                path.unlink()
        if new:
            folder.rmdir()
        raise
    return folder


def _made(folder: Path) -> bool:
    """Make the folder; whether it was missing."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be made: {error.strerror}", "choose another folder"
        ) from None
    return True


def _stored(name: str, array: np.ndarray) -> Weight:
    dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
    return Computed(name, dtype, array.shape, lambda: array)


def _translation(model: Model) -> Translation:
    program = Program(expanded(model, tables().keys() | SIZES))
    condense(program)
    translation = translate(program)
    require_accepted(model)  # before anything that was made of it runs, or is kept
    return translation


def _text(translation: Translation) -> str:
    model = translation.program.model
    name = model.path.stem if model.path else model.proto.graph.name or "network"
    plain = "".join(c if c.isprintable() and c not in '"\\' else "_" for c in name)
    return source(translation, plain[:LONGEST_TITLE])


def _weights(translation: Translation) -> dict[str, Weight]:
    program = translation.program
    return {
        program.paths[name]: program.model.weights[name]
        for name in program.paths
        if program.is_weight(name)
    }
