"""The graph as one Keras layer, which saves, loads and trains as any other.

    layer = GraphLayer(graph=encoded(skeleton), variables=[["fc.weight", "fc.weight", True, ...]])
    outputs = layer([images], training=True)

Its configuration holds the graph without the weights; those are the layer's variables.
"""

from __future__ import annotations

import base64
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from google.protobuf.message import DecodeError
from keras import ops
from onnx import ModelProto

from onnx_net2net.errors import InvalidModel, Refused
from onnx_net2net.frameworks.keras.operators import translations
from onnx_net2net.frameworks.keras.output_spec import TRIALS, output_spec, simple
from onnx_net2net.frameworks.keras.program import KerasProgram
from onnx_net2net.frameworks.keras.translator import KerasTranslator
from onnx_net2net.frameworks.keras.values import tensor
from onnx_net2net.frameworks.roles import Role
from onnx_net2net.model.attributes import check_attributes, check_attributes_as_written
from onnx_net2net.model.history import VARIANCE
from onnx_net2net.model.tensors import constants, data_fields, set_constant, subgraphs
from onnx_net2net.model.validation import check_model, check_nodes, opset_versions

__all__ = ["GraphLayer", "Network", "VariableSpec", "decoded", "encoded"]

# A few bytes can stand for more than any memory holds. Tables of zeros pack well, too.
_FREE, _MOST_PER_BYTE = 256 << 20, 100
_AGAIN = "export the network to Keras again"


class VariableSpec(NamedTuple):
    """A variable: its initializer, its path, whether it trains, its type and shape."""

    initializer: str
    path: str
    trainable: bool
    dtype: str
    shape: Sequence[int]


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
    check_attributes(_without_holes(proto), opset_versions(proto))
    check_nodes(proto)
    return proto


def _without_holes(proto: ModelProto) -> ModelProto:
    """Return a copy whose Constants that are variables, and so have no contents, are of size 0."""
    whole = ModelProto()
    whole.CopyFrom(proto)
    for graph in (whole.graph, *subgraphs(whole.graph)):
        for _, value, node in list(constants(graph)):
            if not data_fields(value):
                value.dims[:] = [0]
                set_constant(node, value)
    return whole


@keras.saving.register_keras_serializable("onnx_net2net", name="Graph")
class GraphLayer(keras.layers.Layer):
    """An ONNX graph. Called with the list of its inputs, it gives the list of its outputs.

    ``graph`` is the encoded skeleton, ``variables`` are rows of :class:`VariableSpec`. Variables
    keep the layout of their initializers and are named by their paths.
    """

    def __init__(self, graph: str, variables: Sequence[Sequence[Any]], **options: Any) -> None:
        # Casting whole networks is what dtype policies are for; here the file has the types.
        options.setdefault("autocast", False)
        super().__init__(**options)
        self.graph = graph
        self.specs = [VariableSpec(*row) for row in variables]
        self.refusals: list[Refused] | None = None
        self._proto = decoded(graph)
        self._population = any(entry.key == VARIANCE for entry in self._proto.metadata_props)
        kinds = {
            spec.initializer: Role.PARAMETER if spec.trainable else Role.STATISTIC
            for spec in self.specs
        }
        self.program = KerasProgram(self._proto, kinds, translations().keys())
        draws = any(step.facts.random for step in self.program.main.every_step())
        self.seed_generator = keras.random.SeedGenerator() if draws else None
        self.by_initializer: dict[str, Any] = {}

    def get_config(self) -> dict[str, Any]:
        """Return what :meth:`from_config` needs."""
        rows = [[*spec[:4], list(spec.shape)] for spec in self.specs]
        return {**super().get_config(), "graph": self.graph, "variables": rows, "autocast": False}

    def build(self, input_shape: Any = None) -> None:
        """Make the variables, arbitrary until they are loaded or assigned."""
        for spec in self.specs:
            variable = self.add_weight(
                shape=tuple(spec.shape),
                initializer=simple,
                dtype=spec.dtype,
                trainable=spec.trainable,
                autocast=False,
                aggregation="none" if spec.trainable else "mean",
                name=spec.path,
            )
            if keras.backend.backend() == "torch":
                # PyTorch's ParameterDict, where Keras keeps them by path, takes no dots.
                variable._path = variable.path.replace(".", "/")
            self.by_initializer[spec.initializer] = variable
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> list[Any]:
        """Return the outputs in the order of the graph."""
        given = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        translator = KerasTranslator(
            self.program,
            translations(),
            {name: ops.convert_to_tensor(v) for name, v in self.by_initializer.items()},
            training=bool(training),
            seed=self.seed_generator,
            update=self._update,
            refusals=self.refusals,
            population=self._population,
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

    def _update(self, initializer: str, value: Any) -> None:
        """Move a statistic of BatchNormalization; one that the graph computes is left."""
        variable = self.by_initializer.get(initializer)
        if variable is not None and not variable.trainable:
            variable.assign(value)


@keras.saving.register_keras_serializable("onnx_net2net")
class Network(keras.Model):
    """A functional model whose several outputs keep their order, in lists of losses and targets.

    Keras sorts a plain dict by its keys, so that a list of targets would go to other outputs.
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **options: Any) -> None:
        super().__init__(inputs, _ordered(outputs), name=name, **options)

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, loss_weights: Any = None, **options: Any
    ) -> None:
        """Like ``keras.Model.compile``; Keras wants losses in a dict of the outputs' class."""
        super().compile(optimizer, _ordered(loss), _ordered(loss_weights), **options)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile a loaded model as the saved one was, which Keras leaves to the class."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)


def _ordered(value: Any) -> Any:
    return OrderedDict(value) if isinstance(value, dict) else value
