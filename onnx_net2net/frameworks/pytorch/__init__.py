"""Models as PyTorch modules: in this process, or written down as a package of their own.

module = to_torch(model)                     # trains on: module.train(), optimizer, ...
write_package(model, "grown")                # grown/model.py and grown/model.safetensors
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_net2net.errors import OutputError
from onnx_net2net.frameworks.idioms import condense
from onnx_net2net.frameworks.program import Program
from onnx_net2net.frameworks.pytorch.source import source
from onnx_net2net.frameworks.pytorch.translation import Translation, translate
from onnx_net2net.model import Model

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["to_torch", "write_package"]


def to_torch(model: Model) -> torch.nn.Module:
    """A module that computes what ``model`` does, in ``eval()`` mode, ready to be trained.

    ``state_dict()`` names the weights as the file does (see :func:`.roles.paths`), in the file's
    layout. ``module.source`` is its code, the same that :func:`write_package` writes. Raises
    Refused, with every operator or form that has no translation.
    """
    from onnx_net2net.frameworks.pytorch.module import build, tensor_of

    translation = _translation(model)
    weights = {path: tensor_of(array) for path, array in _weights(translation)}
    constants = {name: tensor_of(array) for name, array in translation.stored.items()}
    return build(_text(translation), weights, constants)


def write_package(model: Model, folder: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Write ``model.py`` and ``model.safetensors``, which run with torch and safetensors alone.

    Gives the folder. Files that exist are kept unless ``force``. Raises Refused before anything is
    written, OutputError where it cannot be.
    """
    from safetensors.torch import save_file

    from onnx_net2net.frameworks.pytorch.module import tensor_of

    translation = _translation(model)
    text = _text(translation)
    folder = Path(folder)
    tables = {"model.safetensors": dict(_weights(translation))}
    if translation.stored:
        tables["constants.safetensors"] = dict(translation.stored)
    taken = [name for name in ("model.py", *tables) if (folder / name).exists()]
    if taken and not force:
        raise OutputError(
            f"{folder / taken[0]}: exists already", "choose another folder, or overwrite it"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, arrays in tables.items():
            save_file({k: tensor_of(v) for k, v in arrays.items()}, folder / name)
        (folder / "model.py").write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written: {error.strerror}", "choose another folder"
        ) from None
    return folder


def _translation(model: Model) -> Translation:
    program = Program(model)
    condense(program)
    return translate(program)


def _text(translation: Translation) -> str:
    model = translation.program.model
    name = model.path.stem if model.path else model.proto.graph.name or "network"
    return source(
        translation, "".join(c if c.isprintable() and c not in '"\\' else "_" for c in name)
    )


def _weights(translation: Translation) -> list[tuple[str, np.ndarray]]:
    program = translation.program
    return [
        (program.paths[name], program.model.weights[name].array())
        for name in program.paths
        if program.is_weight(name)
    ]
