"""What a Keras model drops at random while it trains, so that its export can keep it.

    drawn = draws(model, trace)
    with kept() as calls, kept_dropout(calls, drawn.ratios):      # Dropout leaves marks
        ...
    drawn.lost                              # what else is random, by the layer that draws it

The model is traced in both modes: a call of Dropout in training mode is the call at the same place
in inference mode, where the layer does nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
from keras import ops

from onnx_net2net.frameworks.keras.kept_layers import Calls, Mark
from onnx_net2net.frameworks.keras.replaced import replaced
from onnx_net2net.frameworks.unkept import Drawn

__all__ = ["draws", "kept_dropout"]

# Words in the names of TensorFlow's operators that draw random numbers.
DRAWING = (
    "Multinomial",
    "Random",
    "RngReadAndSkip",
    "SampleDistorted",
    "Shuffle",
    "TruncatedNormal",
)

Ratios = Mapping[Any, list[float]]  # by a layer, of its calls in order; 0 where nothing is kept


def draws(model: keras.Model, trace: Callable[[bool], str]) -> Drawn:
    """Return what ``model`` draws at random in training mode, and nothing of it in inference.

    ``trace`` calls it in training mode or in inference, and returns why that failed, if it did.
    """
    ratios, drawing, unknown = _traced(trace, training=True)
    if any(map(any, ratios.values())):
        calls, _, failed = _traced(trace, training=False)
        unknown = unknown or failed
        for layer in [layer for layer in ratios if len(calls[layer]) != len(ratios[layer])]:
            drawing += [layer] if any(ratios.pop(layer)) else []
    named = {layer: layer.path or layer.name for layer in drawing}
    named |= {model: "the model itself"} if model in named else {}
    lost = [f"{name} ({type(layer).__name__})" for layer, name in named.items()]
    return Drawn(dict(ratios), lost, unknown)


def _traced(
    trace: Callable[[bool], str], *, training: bool
) -> tuple[dict[Any, list[float]], list[Any], str]:
    """Return the ratios of all calls of Dropout, the layers that draw otherwise, and a failure."""
    from tensorflow.python.framework import op_callbacks

    ratios: dict[Any, list[float]] = defaultdict(list)
    stack: list[Any] = []
    drawing: list[Any] = []
    call, dropout = keras.layers.Layer.__call__, keras.layers.Dropout.call

    def called(layer: Any, *args: Any, **kwargs: Any) -> Any:
        stack.append(layer)
        try:
            return call(layer, *args, **kwargs)
        finally:
            stack.pop()

    def dropped(layer: Any, inputs: Any, training: Any = False) -> Any:
        simple = layer.noise_shape is None and layer.rate < 1
        ratios[layer].append(float(layer.rate) if training and simple else 0.0)
        return inputs if ratios[layer][-1] else dropout(layer, inputs, training=training)

    def created(kind: Any, *_: Any, **__: Any) -> None:
        if stack and any(word in str(kind) for word in DRAWING):
            drawing.append(stack[-1])

    with ExitStack() as undo:
        undo.enter_context(replaced(keras.layers.Layer, "__call__", called))
        undo.enter_context(replaced(keras.layers.Dropout, "call", dropped))
        undo.callback(op_callbacks.remove_op_callback, created)
        op_callbacks.add_op_callback(created)
        return ratios, drawing, trace(training)


@contextmanager
def kept_dropout(calls: Calls, ratios: Ratios) -> Iterator[None]:
    """Have calls of Dropout that do nothing in inference leave a mark."""
    numbers: Counter[Any] = Counter()
    dropout = keras.layers.Dropout.call

    def dropped(layer: Any, inputs: Any, training: Any = False) -> Any:
        known, number = ratios.get(layer, []), numbers[layer]
        numbers[layer] += 1
        if training or number >= len(known) or not known[number]:
            return dropout(layer, inputs, training=training)
        x = ops.convert_to_tensor(inputs)
        return calls.mark(Mark("Dropout", {"ratio": known[number]}), [x], [x])[0]

    with replaced(keras.layers.Dropout, "call", dropped):
        yield
