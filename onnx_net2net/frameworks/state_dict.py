"""Weights out of the file, as their author names and shapes them.

    BiggerNet().load_state_dict(state_dict(grown))
    save_safetensors(grown, "grown.safetensors")

An export of :func:`from_torch` keeps names and layouts. Those that other exports lost come back
with the original weights and the original file: see matching.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onnx import TensorProto

from onnx_net2net.errors import InvalidModel, Refused
from onnx_net2net.frameworks import safetensors_file
from onnx_net2net.frameworks.names import ties
from onnx_net2net.frameworks.roles import AUTHORED, MADE, Role, recorded, roles
from onnx_net2net.frameworks.state_dicts import Weights, to_tensor
from onnx_net2net.frameworks.transfer import few
from onnx_net2net.frameworks.weight_matching import recovered
from onnx_net2net.model.model import AnyModel, Model, Weight, load
from onnx_net2net.model.unread import unread
from onnx_net2net.operators.types import FLOATS
from onnx_net2net.widening.growth_record import unpack

__all__ = ["named_weights", "save_safetensors", "state_dict", "stored"]

NUMBER = re.compile(r"\d+")


def state_dict(
    model: AnyModel, like: Weights | None = None, base: AnyModel | None = None
) -> dict[str, Any]:
    """Return the weights of ``model`` as PyTorch tensors, named and laid out as by its author.

    That is every parameter, BatchNormalization statistic and persistent buffer, tied weights under
    each of their names; what the network does not read, as it was exported or absorbed. Where the
    export lost names, ``like`` gives the original state dict (or its file, or its module) and
    ``base`` the ONNX file exported from it, which ``model`` was grown from: weights are recognised
    there by value, and followed to ``model``.

    What a class computes from its sizes is not in a state dict: 1/sqrt(head_dim) after growing
    head_dim, and the epsilons of norms, of which ``norm_epsilons(model.history)`` tells what became
    of them (``onnx_net2net.widening.epsilons``). :func:`transfer` sets both.

    Raises Refused where names are lost and ``like`` does not bring them back, where growing
    added what the author's class cannot hold, and where a size grew that a weight has which the
    network does not read.
    """
    weights = named_weights(model, like, base)
    tensors: dict[int, Any] = {}  # tied weights share one
    return {
        name: tensors.setdefault(id(weight), to_tensor(weight.array()))
        if id(weight) not in tensors
        else tensors[id(weight)]
        for name, weight in weights.items()
    }


def save_safetensors(
    model: AnyModel,
    path: str | os.PathLike[str],
    like: Weights | None = None,
    base: AnyModel | None = None,
    *,
    force: bool = True,
) -> Path:
    """Write what :func:`state_dict` gives to a safetensors file, one tensor at a time.

    Takes no PyTorch. An existing file is kept with ``force=False``. Raises OutputError, and Refused
    as :func:`state_dict` does.
    """
    weights = named_weights(model, like, base)
    safetensors_file.write(Path(path), weights, force=force)
    return Path(path)


def named_weights(
    model: AnyModel, like: Weights | None = None, base: AnyModel | None = None
) -> dict[str, Weight]:
    """Return what :func:`state_dict` does, unread."""
    model = load(model)
    if (like is None) != (base is None):
        raise Refused(
            None,
            "names are recovered by comparing two things, and only one is given",
            "give the original weights (like) and the original ONNX file (base)",
        )
    _check_keys(model, by_value=like is not None)
    if like is not None and base is not None:
        return recovered(model, like, load(base))
    named = {name: model.weights[name] for name in stored(model)}
    lost = [name for name in named if MADE.match(name)]
    if lost:
        raise Refused(
            few(lost),
            "the export lost the author's names of these weights",
            "give the original weights and ONNX file (like and base, --like and --base), or "
            "export with onnx_net2net.from_torch",
        )
    _check_unread(model)
    named |= {alias: named[owner] for alias, owner in ties(model).items() if owner in named}
    return named


def _check_keys(model: Model, *, by_value: bool) -> None:
    """Raise Refused where growing added weights for which the author's class has no place.

    Parameters that ceased to be shared have keys where names are recovered ``by_value``.
    """
    for remedy, names in _added(model, by_value).items():
        if names:
            raise Refused(
                few(names),
                "growing added these, and the author's class has no such keys",
                f"{remedy}; or take the class that to_torch (export --to torch) writes",
            )


def _check_unread(model: Model) -> None:
    """Raise Refused for weights that nothing reads, of sizes that grew: they may have to, too."""
    former: set[int] = set()
    for step in model.history:
        if step["operation"] == "widen":
            former |= {along.old for growth in unpack(step).values() for along in growth.axes}
    weights = (model.weights[name] for name in unread(model)) if former else ()
    names = sorted(w.name for w in weights if w.dtype in FLOATS and former.intersection(w.shape))
    if names:
        raise Refused(
            few(names),
            "the network does not read this, so that nobody can say whether it grows",
            "absorb the larger module's, or use n2n.transfer; or export without what is not read: "
            "from_torch(..., unread=False)",
        )


def _added(model: Model, by_value: bool) -> dict[str, list[str]]:
    """Return the added weights under their present names, by what is to be done instead."""
    added: dict[str, list[str]] = {}
    try:
        for step in model.history:
            changes = step.get("changes", ())
            for renames in (change["renames"] for change in changes if "block" in change):
                for names in added.values():
                    names[:] = [renames.get(name, name) for name in names]
            for remedy, names in _added_by(step, by_value):
                added.setdefault(remedy, []).extend(names)
        weights = model.weights.keys()
        return {remedy: [n for n in names if n in weights] for remedy, names in added.items()}
    except (KeyError, TypeError, AttributeError, ValueError):
        raise InvalidModel(
            "the history does not tell which weights are new", "grow the model again"
        ) from None


def _added_by(step: Mapping[str, Any], by_value: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield what is to be done instead, and the weights that one step added."""
    if factors := step.get("inserted"):
        yield _without_factors(step), factors
    apart = [name for name in step.get("copied", {}) if not AUTHORED.match(name)]
    if apart and not by_value:
        yield "export with onnx_net2net.from_torch, where one parameter stays one", apart
    for change in step.get("changes", ()):
        if "after" in change:
            blocks = "copy numbered blocks instead of adding layers (deepen with block, --block)"
            yield blocks, list(change["parameters"])
        elif "block" in change:
            renamed = [new for new, old in change["sources"].items() if not _numbered(new, old)]
            yield f"copy blocks that are numbered, which '{change['block']}' is not", renamed


def _without_factors(step: Mapping[str, Any]) -> str:
    """Return the nearest widths at which growing takes no factors in front of sums."""
    old = {c["dimension"]: c["old"] for c in step["changes"]}
    choices = [
        f"widen {name} to {' or '.join(map(str, wider))}, or leave it at {old[name]}"
        if wider
        else f"leave {name} at {old[name]}"
        for name, wider in step.get("unfactored", {}).items()
    ]
    return "; ".join(choices) or "grow by multiples"


def _numbered(new: str, old: str) -> bool:
    """Return whether two names differ in a number alone."""
    return NUMBER.sub("0", new) == NUMBER.sub("0", old)


def stored(model: Model) -> list[str]:
    """Return the names of parameters, statistics and persistent buffers."""
    role = roles(model)
    buffers = {name for name, (kind, lasting) in recorded(model).items() if lasting}
    initializers = {entry.name for entry in model.proto.graph.initializer}
    return [
        name
        for name, weight in model.weights.items()
        if weight.dtype != TensorProto.STRING
        and (role[name] is not Role.CONSTANT or name in buffers)
        and (name in initializers or role[name] is not Role.CONSTANT)
    ]
