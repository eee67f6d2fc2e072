"""Do two Keras models compute the same, up to their own rounding noise?

    inference(small, large, examples)      # an OutputReport for each output
    training(small, large, examples)       # the same, or in words why not

The judge is that of :func:`onnx_net2net.verify`. A model's noise is how far it moves when its
parameters are changed by one unit in the last place. Neither model is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from onnx_net2net.errors import UsageError
from onnx_net2net.frameworks.transfer import output_reports
from onnx_net2net.frameworks.verify_export import random_feeds
from onnx_net2net.model.model import Model
from onnx_net2net.verification.judgement import Runs
from onnx_net2net.verification.precision import nudged_array
from onnx_net2net.verification.report import OutputReport, Trial

__all__ = ["Examples", "inference", "training"]

SEEDS = 3
SIGNS = (1, -1)

Outputs = dict[str, np.ndarray]


class Examples:
    """Inputs of the smaller model, in its order: the user's, or random ones."""

    def __init__(self, exported: Model, model: keras.Model, inputs: Any = None) -> None:
        self.names = list(getattr(model, "output_names", None) or [])
        if inputs is not None:
            arrays = keras.tree.flatten(keras.tree.map_structure(np.asarray, inputs))
            self.trials = [Trial("the example inputs")]
            self.inputs = [arrays]
            return
        planned = random_feeds(exported, SEEDS)
        self.trials = [trial for trial, _ in planned]
        self.inputs = [
            [_input(feeds, given.name) for given in model.inputs] for _, feeds in planned
        ]

    def runs(self, model: keras.Model, sign: int = 0, **how: Any) -> list[Outputs]:
        """Return the outputs of ``model`` for each input; ``sign`` moves what it holds."""
        rng = np.random.default_rng(sign + 1)
        values = [
            [
                nudged_array(array, rng, sign)
                if sign and keras.backend.is_float_dtype(variable.dtype)
                else array
                for variable in variables
                for array in [np.array(keras.ops.convert_to_numpy(variable))]
            ]
            for variables in (model.trainable_variables, model.non_trainable_variables)
        ]
        return [self._run(model, values, inputs, how) for inputs in self.inputs]

    def _run(
        self,
        model: keras.Model,
        values: Sequence[list[np.ndarray]],
        inputs: Sequence[np.ndarray],
        how: Mapping[str, Any],
    ) -> Outputs:
        layout = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
        packed = keras.tree.pack_sequence_as(layout, list(inputs))
        result, _ = model.stateless_call(*values, packed, **how)
        leaves = map(keras.ops.convert_to_numpy, keras.tree.flatten(result))
        names = self.names
        return {names[i] if i < len(names) else str(i): leaf for i, leaf in enumerate(leaves)}


def _input(feeds: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in feeds:
        raise UsageError(f"the network does not read its input {name}", "give example_inputs")
    return feeds[name]


def inference(small: keras.Model, large: keras.Model, examples: Examples) -> list[OutputReport]:
    """Compare both models in inference mode."""
    return _compared(small, large, examples, training=False)


def training(
    small: keras.Model, large: keras.Model, examples: Examples
) -> list[OutputReport] | str:
    """Compare both models in training mode, their Dropout layers off; or say why not."""
    with _without_dropout(small), _without_dropout(large):
        first, again = (_drawn(small, examples, seed) for seed in (0, 1))
        for a, b in zip(first, again, strict=True):
            if any(not np.array_equal(a[name], b[name], equal_nan=True) for name in a):
                return "it draws random numbers, even with its Dropout layers off"
        return _compared(small, large, examples, training=True)


def _drawn(model: keras.Model, examples: Examples, seed: int) -> list[Outputs]:
    """Return outputs in training mode, with other random numbers for each ``seed``."""
    seeds = [v for v in model.non_trainable_variables if v.name == "seed_generator_state"]
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in seeds]
    try:
        for variable, value in zip(seeds, before, strict=True):
            variable.assign(value + np.asarray(seed, value.dtype))
        return examples.runs(model, training=True)
    finally:
        for variable, value in zip(seeds, before, strict=True):
            variable.assign(value)


@contextmanager
def _without_dropout(model: keras.Model) -> Iterator[None]:
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Dropout)]
    rates = [layer.rate for layer in layers]
    try:
        for layer in layers:
            layer.rate = 0.0
        yield
    finally:
        for layer, rate in zip(layers, rates, strict=True):
            layer.rate = rate


def _compared(
    small: keras.Model, large: keras.Model, examples: Examples, *, training: bool
) -> list[OutputReport]:
    runs = []
    for model in (small, large):
        runs.append(Runs(examples.runs(model, training=training)))
        for sign in SIGNS:
            runs[-1].absorb(examples.runs(model, sign, training=training))
    return output_reports(runs[0], runs[1], examples.trials)
