"""Nodes that no layer of Keras computes, as one layer that saves and loads as any other.

    layer = GraphLayer(graph=encoded(proto))
    outputs = layer([images])

Its configuration holds the nodes and the constants that they read; it has no weights.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

import keras
from google.protobuf.message import DecodeError
from keras import ops
from onnx import ModelProto

from onnx_net2net.errors import InvalidModel, Refused
from onnx_net2net.frameworks.keras.operators import translations
from onnx_net2net.frameworks.keras.output_spec import TRIALS, output_spec
from onnx_net2net.frameworks.keras.program import KerasProgram
from onnx_net2net.frameworks.keras.translator import KerasTranslator
from onnx_net2net.frameworks.keras.values import tensor
from onnx_net2net.model.attributes import check_attributes, check_attributes_as_written
from onnx_net2net.model.validation import check_model, check_nodes, opset_versions

__all__ = ["GraphLayer", "decoded", "encoded"]

# A few bytes can stand for more than any memory holds. Tables of zeros pack well, too.
_FREE, _MOST_PER_BYTE = 256 << 20, 100
_AGAIN = "export the network to Keras again"


def encoded(proto: ModelProto) -> str:
    """Return a skeleton as text, for a configuration in JSON."""
    return base64.b64encode(zlib.compress(proto.SerializeToString())).decode()


def decoded(text: str) -> ModelProto:
    """Return the skeleton of a text, checked as a model's file is: a .keras file is one, too.

    Raises :class:`InvalidModel`.
    """
    proto = ModelProto()
    try:
        unpacking = zlib.decompressobj()
        contents = unpacking.decompress(base64.b64decode(text), _FREE + _MOST_PER_BYTE * len(text))
        if not unpacking.eof:
            raise InvalidModel("the graph of a layer is cut off, or unpacks to too much", _AGAIN)
        proto.ParseFromString(contents)
    except (DecodeError, TypeError, ValueError, zlib.error) as error:
        raise InvalidModel(f"the graph of a layer cannot be read: {error}", _AGAIN) from None
    if proto.functions:
        raise InvalidModel("the graph of a layer has functions of its own", _AGAIN)
    check_model(proto)
    check_attributes_as_written(proto)
    check_attributes(proto, opset_versions(proto))
    check_nodes(proto)
    return proto


@keras.saving.register_keras_serializable("onnx_net2net", name="Graph")
class GraphLayer(keras.layers.Layer):
    """An ONNX graph. Called with the list of its inputs, it gives the list of its outputs."""

    def __init__(self, graph: str, **options: Any) -> None:
        # Casting whole networks is what dtype policies are for; here the file has the types.
        options.setdefault("autocast", False)
        super().__init__(**options)
        self.graph = graph
        self.refusals: list[Refused] | None = None
        self._proto = decoded(graph)
        self.program = KerasProgram(self._proto, translations().keys())
        draws = any(step.facts.random for step in self.program.main.every_step())
        self.seed_generator = keras.random.SeedGenerator() if draws else None

    def get_config(self) -> dict[str, Any]:
        """Return what :meth:`from_config` needs."""
        return {**super().get_config(), "graph": self.graph, "autocast": False}

    def call(self, inputs: Any, training: bool | None = None) -> list[Any]:
        """Return the outputs in the order of the graph."""
        given = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        translator = KerasTranslator(
            self.program,
            translations(),
            training=bool(training),
            seed=self.seed_generator,
            refusals=self.refusals,
        )
        main = self.program.main
        results = translator.run(main, dict(zip(main.inputs, given, strict=True)))
        if self.refusals:
            return [ops.zeros(()) for _ in results]
        return [tensor(value) for value in results]

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        """Return shapes and types of the outputs."""
        if keras.backend.backend() == "tensorflow":
            return super().compute_output_spec(inputs, training=training)
        given = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        asked, fewest = self.refusals, None
        for trial in range(len(TRIALS)):
            self.refusals = []
            spec = output_spec(self.call, self._proto, given, trial)
            if fewest is None or len(self.refusals) < len(fewest):
                best, fewest = spec, self.refusals
            if not fewest:
                break
        # Keras may keep a copy of what is assigned, so that it has to be whole by then.
        self.refusals = None if asked is None else [*asked, *(fewest or [])]
        return best
