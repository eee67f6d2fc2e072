"""What a Keras model was made from, and how its variables go back into that file.

note(network, model, table, turned)  # by to_keras
restored(network)                    # the file again, with the values of the variables
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np

from onnx_net2net.frameworks.keras.moved import Terms, given_back
from onnx_net2net.frameworks.keras.same_structure import twins
from onnx_net2net.frameworks.state_dicts import held
from onnx_net2net.model.model import Model

__all__ = ["given_back_by", "note", "origin_of", "restored", "turned_by"]

Table = Sequence[tuple[Any, Terms]]
_TURNED: WeakKeyDictionary[keras.Model, frozenset[str]] = WeakKeyDictionary()
_ORIGINS: WeakKeyDictionary[keras.Model, tuple[Model, Table]] = WeakKeyDictionary()


def note(network: keras.Model, model: Model, table: Table, turned: frozenset[str]) -> None:
    """Remember that ``network`` was made from ``model``, and what each variable holds of it.

    ``turned`` are the inputs and outputs of ``model`` whose channels are last in ``network``.
    """
    _ORIGINS[network] = (model, table)
    _TURNED[network] = turned


def turned_by(network: keras.Model) -> frozenset[str]:
    """Return the inputs and outputs of the file whose channels are last in a network."""
    return _TURNED[network]


def origin_of(network: keras.Model) -> tuple[Model, Table] | None:
    """Return what :func:`note` was told of a network."""
    return _ORIGINS.get(network)


def restored(network: keras.Model) -> Model | None:
    """Return the model that ``network`` was made from, as it is now; None for any other.

    A copy of a network that was made in this process is known by its structure.
    """
    known = _known(network)
    if known is None:
        return None
    model, table, variables = known
    arrays = given_back_by(model, table, variables)
    return model.with_changes(model.editable(), {n: held(n, a) for n, a in arrays.items()})


def _known(network: keras.Model) -> tuple[Model, Table, list[Any]] | None:
    """Return what a network was made from, and its variables in the order of the table."""
    if network in _ORIGINS:
        model, table = _ORIGINS[network]
        return model, table, [variable for variable, _ in table]
    matches = {}
    for made, (model, table) in list(_ORIGINS.items()):
        own_of = twins(made, network)
        if own_of is not None:
            variables = [own_of[id(variable)] for variable, _ in table]
            matches[model.sha256()] = model, table, variables
    return next(iter(matches.values())) if len(matches) == 1 else None


def given_back_by(model: Model, table: Table, variables: Sequence[Any]) -> dict[str, np.ndarray]:
    """Return the initializers that ``variables`` hold, each in the place of one of the table."""
    values = [keras.ops.convert_to_numpy(variable) for variable in variables]
    names = {name for _, terms in table for term in terms for name in term.sources}
    weights = {name: model.weights[name].array() for name in names}
    return given_back([terms for _, terms in table], values, weights)
