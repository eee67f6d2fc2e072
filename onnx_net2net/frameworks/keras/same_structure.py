"""Whether two Keras models are one network, whatever their layers are called.

twins(network, other)                # {variable of network: variable of other}, None if they differ

Layers may have other names, be frozen, or compute in another precision; their classes, settings and
wiring must be the same. So a model is known again after ``clone_model``, after it was loaded, and
after its author renamed or froze layers.
"""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["twins"]

# What says nothing of what a layer computes.
FREE = frozenset({"build_config", "name", "trainable"})


def twins(network: keras.Model, other: keras.Model) -> dict[int, Any] | None:
    """Return the variables of ``other`` by the ids of those of ``network``; None if they differ."""
    if not all(isinstance(getattr(m, "operations", None), list) for m in (network, other)):
        return None
    if len(network.operations) != len(other.operations) or _skeleton(network) != _skeleton(other):
        return None
    pairs: dict[int, Any] = {}
    for one, its_twin in zip(network.operations, other.operations, strict=True):
        mine, yours = (getattr(operation, "variables", []) for operation in (one, its_twin))
        kinds = [[(v.name, v.shape, str(v.dtype)) for v in own] for own in (mine, yours)]
        if kinds[0] != kinds[1]:
            return None
        pairs |= {id(a): b for a, b in zip(mine, yours, strict=True)}
    return pairs


def _skeleton(network: keras.Model) -> Any:
    """Return the configuration with numbers for names."""
    config = network.get_config()
    numbers = {layer["name"]: number for number, layer in enumerate(config.get("layers", ()))}
    return _numbered(config, numbers)


def _numbered(value: Any, numbers: dict[str, int]) -> Any:
    if isinstance(value, list | tuple):
        if len(value) == 3 and isinstance(value[0], str) and value[0] in numbers:
            return [numbers[value[0]], *value[1:]]  # an output of a layer
        return [_numbered(item, numbers) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") == "__keras_tensor__":
        return _numbered(value["config"]["keras_history"], numbers)
    return {
        key: _numbered(list(item.items()) if _is_named(key, item) else item, numbers)
        for key, item in value.items()
        if key not in FREE and not (key == "dtype" and isinstance(item, dict))
    }


def _is_named(key: str, item: Any) -> bool:
    """Return whether these are inputs or outputs by names of their own, which are no settings."""
    return key in ("input_layers", "output_layers") and isinstance(item, dict)
