"""What a Keras model was made from, and how its variables go back into that file.

note(network, model, table)          # by to_keras
restored(network)                    # the file again, with the values of the variables
contents(model, network)             # values by initializer, of a model that was saved, too
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np

from onnx_net2net.errors import Net2NetError
from onnx_net2net.frameworks.keras.moved import Terms, given_back
from onnx_net2net.frameworks.state_dicts import held
from onnx_net2net.model.model import Model

__all__ = ["contents", "note", "restored"]

Table = Sequence[tuple[Any, Terms]]
_ORIGINS: WeakKeyDictionary[keras.Model, tuple[Model, Table]] = WeakKeyDictionary()


def note(network: keras.Model, model: Model, table: Table) -> None:
    """Remember that ``network`` was made from ``model``, and what each variable holds of it."""
    _ORIGINS[network] = (model, table)


def restored(network: keras.Model) -> Model | None:
    """Return the model that ``network`` was made from, as it is now; None for any other."""
    if network not in _ORIGINS:
        return None
    model, table = _ORIGINS[network]
    arrays = _given_back(model, table, [variable for variable, _ in table])
    return model.with_changes(model.editable(), {n: held(n, a) for n, a in arrays.items()})


def contents(model: Model, network: keras.Model) -> dict[str, np.ndarray] | None:
    """Return the values of ``network`` by initializer of ``model``; None if it is not made from it.

    A network that was loaded is known by the names and shapes of its variables.
    """
    from onnx_net2net.frameworks.keras.importer import structure

    known = _ORIGINS.get(network)
    if known is not None and known[0].sha256() == model.sha256():
        return _given_back(model, known[1], [variable for variable, _ in known[1]])
    try:
        table = structure(model)[1]
    except Net2NetError:
        return None
    own = {variable.path: variable for variable in network.variables}
    given = [own.get(variable.path) for variable, _ in table]
    if any(
        mine is None or mine.shape != variable.shape
        for mine, (variable, _) in zip(given, table, strict=True)
    ):
        return None
    return _given_back(model, table, given)


def _given_back(model: Model, table: Table, variables: Sequence[Any]) -> dict[str, np.ndarray]:
    values = [keras.ops.convert_to_numpy(variable) for variable in variables]
    names = {name for _, terms in table for term in terms for name in term.sources}
    weights = {name: model.weights[name].array() for name in names}
    return given_back([terms for _, terms in table], values, weights)
