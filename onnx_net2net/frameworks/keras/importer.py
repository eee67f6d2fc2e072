"""From a model to a Keras model: what can be refused is refused before anything is built."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, count

import keras
import onnx
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

from onnx_net2net.errors import Refused
from onnx_net2net.frameworks.function_bodies import expanded
from onnx_net2net.frameworks.keras.layer import GraphLayer, Network, VariableSpec, encoded
from onnx_net2net.frameworks.keras.operators import translations
from onnx_net2net.frameworks.keras.operators.elementwise import NUMBERS
from onnx_net2net.frameworks.keras.types import type_name
from onnx_net2net.frameworks.roles import Role, paths, roles
from onnx_net2net.frameworks.step import ProgramStep
from onnx_net2net.model.model import Model
from onnx_net2net.model.tensors import clear_data, constants, data_fields, set_constant, subgraphs
from onnx_net2net.model.unread import without_unread
from onnx_net2net.verification.acceptance import require_accepted

__all__ = ["keras_model", "skeleton"]

# What a name that TensorFlow gives to a loss may not hold.
NO_SCOPE = re.compile(r"[^A-Za-z0-9_.\\/>-]", re.ASCII)


def keras_model(model: Model) -> keras.Model:
    """See :func:`onnx_net2net.frameworks.keras.to_keras`."""
    source, model = model, expanded(without_unread(model), translations().keys())
    _raise(list(_boundary(model.proto.graph)))
    specs = variables_of(model)
    proto = skeleton(model, frozenset(spec.initializer for spec in specs))
    stored = {entry.name for entry in proto.graph.initializer}
    given = [value for value in proto.graph.input if value.name not in stored]
    *names, layer_name, model_name = _unique(
        *(_name(value.name) for value in given),
        _name(proto.graph.name),
        _name(proto.graph.name) + "_model",
    )
    layer = GraphLayer(encoded(proto), [list(spec) for spec in specs], name=layer_name)
    _raise([problem for step in layer.program.main.every_step() for problem in _unknown(step)])
    require_accepted(source)
    inputs = [_input(value, name) for value, name in zip(given, names, strict=True)]
    layer.refusals = []
    outputs = layer(inputs)
    _raise(layer.refusals)
    layer.refusals = None
    for spec in specs:
        layer.by_initializer[spec.initializer].assign(model.weights[spec.initializer].array())
    keys = _unique(*(NO_SCOPE.sub("_", name) for name in layer.program.main.outputs))
    named = dict(zip(keys, outputs, strict=True))
    return Network(
        inputs if len(inputs) > 1 else inputs[0],
        named if len(named) > 1 else outputs[0],
        name=model_name,
    )


def variables_of(model: Model) -> list[VariableSpec]:
    """Return what is to be known of each parameter, then of each statistic."""
    names, kinds = paths(model), roles(model)
    specs = []
    for wanted in (Role.PARAMETER, Role.STATISTIC):
        for name, weight in model.weights.items():
            if kinds[name] is wanted:
                dtype = type_name(weight.dtype)
                trains = wanted is Role.PARAMETER
                specs.append(VariableSpec(name, names[name], trains, dtype, list(weight.shape)))
    return specs


def skeleton(model: Model, without: frozenset[str]) -> ModelProto:
    """Return the whole model but for the contents of these weights."""
    proto = model.editable()
    del proto.graph.value_info[:]
    for entry in proto.graph.initializer:
        if entry.name in without:
            clear_data(entry)
        elif not data_fields(entry) and entry.name in model.weights:
            entry.raw_data = bytes(model.weights[entry.name].payload())
    for graph in (proto.graph, *subgraphs(proto.graph)):
        for entry in graph.initializer:
            if entry.name in without:
                clear_data(entry)
        for name, value, node in list(constants(graph)):
            if name in without:
                clear_data(value)
                set_constant(node, value)
    return proto


def _unknown(step: ProgramStep) -> Iterator[Refused]:
    """Yield a refusal for an operator, or an attribute of it, that no translation knows."""
    if (step.domain, step.op) not in translations():
        yield Refused(step.label, f"operator {step.operator} has no translation to Keras")
        return
    if step.domain or not onnx.defs.has(step.op, step.opset, ""):
        return
    schema = onnx.defs.get_schema(step.op, step.opset, "")
    for name in step.attributes.keys() - schema.attributes.keys():
        yield Refused(step.label, f"attribute {name} is not one of {step.op} {step.opset}")


def _raise(problems: list[Refused]) -> None:
    """Raise all of them as one; nothing where there are none."""
    if not problems:
        return
    remedy = "try PyTorch (to_torch), or export the network with other operators and types"
    if len(problems) == 1:
        raise Refused(problems[0].node, problems[0].reason, problems[0].remedy or remedy)
    lines = "".join(f"\n  {p.node}: {p.reason}" for p in problems)
    raise Refused(None, f"{len(problems)} parts have no translation to Keras:{lines}", remedy)


def _name(name: str) -> str:
    """Return a name as Keras and TensorFlow allow it."""
    plain = re.sub(r"[^A-Za-z0-9_.]", "_", name).strip("._")
    return plain if plain[:1].isalpha() else f"graph_{plain}".rstrip("_")


def _unique(*names: str) -> list[str]:
    """Return the names, numbered where an earlier one is the same: Keras wants each once."""
    chosen: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in count(2))
        chosen.append(next(n for n in chain([name], numbered) if n not in chosen))
    return chosen


def _boundary(graph: GraphProto) -> Iterator[Refused]:
    """Yield refusals of what a Keras model cannot take or give."""
    stored = {entry.name for entry in graph.initializer}
    given = [value for value in graph.input if value.name not in stored]
    if not given:
        yield Refused("the model", "it has no input, which a Keras model needs")
    for word, values in (("input", given), ("output", graph.output)):
        for value in values:
            problem = _not_a_tensor(value)
            if problem:
                yield Refused(f"{word} '{value.name}'", problem)


def _not_a_tensor(value: ValueInfoProto) -> str:
    """Return why Keras has no tensor for a declared type; nothing where it has one."""
    kind = value.type.WhichOneof("value")
    if kind not in ("tensor_type", None):
        word = kind.removesuffix("_type").replace("_", " ")
        return f"its type is {word}, and Keras models take and give dense tensors only"
    number = value.type.tensor_type.elem_type
    if not number:
        return ""
    name = _dtype(number)
    return "" if name in NUMBERS else f"tensors of {name} have no translation to Keras"


def _dtype(number: int) -> str:
    """Return the name of an ONNX element type in messages and in Keras."""
    return "strings" if number == TensorProto.STRING else type_name(number)


def _input(value: ValueInfoProto, name: str) -> keras.KerasTensor:
    """Make an input with its declared type and shape; sizes with a name stay open."""
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        raise Refused(f"input '{value.name}'", "it has no declared rank")
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
    return keras.Input(batch_shape=shape, dtype=_dtype(kind.elem_type), name=name)
