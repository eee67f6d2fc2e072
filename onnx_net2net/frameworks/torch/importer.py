"""From a model to a PyTorch module: in this process, or written down as a package of its own."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from onnx import helper

from onnx_net2net.frameworks.function_bodies import expanded
from onnx_net2net.frameworks.program import Program
from onnx_net2net.frameworks.safetensors_file import write
from onnx_net2net.frameworks.torch.operators import translations
from onnx_net2net.frameworks.torch.source import source
from onnx_net2net.frameworks.torch.translation import Translation, translate
from onnx_net2net.model.atomic_write import place
from onnx_net2net.model.model import AnyModel, Computed, Model, Weight, load
from onnx_net2net.model.saving import write_plain
from onnx_net2net.model.unread import without_unread
from onnx_net2net.verification.acceptance import require_accepted

if TYPE_CHECKING:
    import torch

__all__ = ["to_torch", "write_package"]

LONGEST_TITLE = 80
SIZES = {("", "Shape"), ("", "Size")}  # become Python numbers


def to_torch(model: AnyModel) -> torch.nn.Module:
    """Return a module that computes what ``model`` does, in ``eval()`` mode, ready to be trained.

    ``state_dict()`` names the weights as the file does (see :func:`.roles.paths`), in the file's
    layout; those that the network does not read are left out. ``module.source`` is its code, the
    same that :func:`write_package` writes. Raises Refused, with every operator or form that has no
    translation.
    """
    from onnx_net2net.frameworks.torch.module import build, tensor_of

    translation = _translation(load(model))
    constants = {name: tensor_of(array) for name, array in translation.stored.items()}
    return build(source(translation, translation.title), _weights(translation), constants)


def write_package(model: AnyModel, folder: str | os.PathLike[str], *, force: bool = True) -> Path:
    """Write ``model.py`` and ``model.safetensors``, which run with torch and safetensors alone.

    Return the folder, which is made where it is missing. Weights are written one at a time. Raises
    Refused before anything is written; OutputError where it cannot be, and then leaves nothing
    behind. A package that exists is replaced as a whole, or kept with ``force=False``.
    """
    translation = _translation(load(model))

    def draft(folder: Path) -> None:
        folder.mkdir()
        write(folder / "model.safetensors", _weights(translation), force=False)
        if translation.stored:
            constants: dict[str, Weight] = {
                name: Computed(
                    name,
                    helper.np_dtype_to_tensor_dtype(array.dtype),
                    array.shape,
                    partial(np.asarray, array),
                )
                for name, array in translation.stored.items()
            }
            write(folder / "constants.safetensors", constants, force=False)
        text = memoryview(source(translation, translation.title).encode())
        write_plain(folder / "model.py", [text], force=False)

    place(Path(folder), write=draft, entry="model.py", force=force)
    return Path(folder)


def _translation(model: Model) -> Translation:
    program = Program(expanded(without_unread(model), translations().keys() | SIZES))
    program.fuse(translations().keys())
    translation = translate(program)
    name = model.path.stem if model.path else model.proto.graph.name or "network"
    plain = (c if c.isprintable() and c not in '"\\' else "_" for c in name)
    translation.title = "".join(plain)[:LONGEST_TITLE]
    require_accepted(model)  # before anything that was made of it runs, or is kept
    return translation


def _weights(translation: Translation) -> dict[str, Weight]:
    program = translation.program
    return {
        program.paths[name]: program.model.weights[name]
        for name in program.paths
        if program.is_weight(name)
    }
