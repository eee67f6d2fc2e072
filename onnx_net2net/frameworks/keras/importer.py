"""From a model to a Keras model: what can be refused is refused before anything is built."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import keras
import numpy as np
import onnx
from onnx import GraphProto, TensorProto, ValueInfoProto

from onnx_net2net.errors import Net2NetError, Refused
from onnx_net2net.frameworks.function_bodies import expanded
from onnx_net2net.frameworks.keras.arranged import Arranged, channels_last
from onnx_net2net.frameworks.keras.builder import Builder
from onnx_net2net.frameworks.keras.history import operations, recursion, valid_name
from onnx_net2net.frameworks.keras.moved import Terms, sum_of
from onnx_net2net.frameworks.keras.operators import translations
from onnx_net2net.frameworks.keras.operators.elementwise import NUMBERS
from onnx_net2net.frameworks.keras.origin import given_back_by, note, origin_of
from onnx_net2net.frameworks.keras.same_structure import twins
from onnx_net2net.frameworks.keras.types import type_name
from onnx_net2net.frameworks.keras.values import policy_of
from onnx_net2net.frameworks.program import Program
from onnx_net2net.frameworks.step import ProgramStep
from onnx_net2net.model.model import Model
from onnx_net2net.model.unread import without_unread
from onnx_net2net.verification.acceptance import require_accepted

__all__ = ["LAYOUTS", "contents", "keras_model", "structure"]

LAYOUTS = ("nchw", "nhwc")


@dataclass(frozen=True)
class Structure:
    """A Keras model, what each of its variables has to hold, and which tensors are turned.

    ``turned`` are inputs and outputs of the ONNX graph whose channels are last in the Keras model.
    """

    network: keras.Model
    table: list[tuple[Any, Terms]]
    turned: frozenset[str]


def keras_model(model: Model, layout: str) -> keras.Model:
    """See :func:`onnx_net2net.frameworks.keras.to_keras`."""
    made = structure(model, layout)
    for variable, terms in made.table:
        variable.assign(sum_of(terms, lambda name: model.weights[name].array()))
    note(made.network, model, made.table, made.turned)
    return made.network


def structure(model: Model, layout: str = "nchw") -> Structure:
    """Return the Keras model without the values of its weights.

    With "nhwc" an input's channels are last where that saves turning a tensor.
    """
    source, model = model, expanded(without_unread(model), translations().keys())
    _raise(list(_boundary(model.proto.graph)))
    program = Program(model)
    program.fuse(translations().keys())
    _raise([problem for step in program.main.every_step() for problem in _unknown(step)])
    require_accepted(source)
    stored = {entry.name for entry in model.proto.graph.initializer}
    given = [value for value in model.proto.graph.input if value.name not in stored]
    graph = model.proto.graph
    wanted = [value.name for value in (*given, *graph.output)]
    names = _unique(*map(valid_name, (*wanted, graph.name or "network")))
    if layout == "nchw":
        return _built(program, given, names, frozenset(), last=False)
    best = _built(program, given, names, frozenset(), last=True)
    for value in given:
        if len(value.type.tensor_type.shape.dim) > 2:
            tried = _built(program, given, names, best.turned | {value.name}, last=True)
            best = min(best, tried, key=_turns)
    return best


def _built(
    program: Program, given: list[ValueInfoProto], names: list[str], turned: Set[str], *, last: bool
) -> Structure:
    """Build a network whose inputs ``turned`` have their channels last.

    With ``last`` so do outputs whose channels lie last within.
    """
    builder = Builder(program, names[:-1])
    inputs = {
        value.name: _input(value, name, turned=value.name in turned)
        for value, name in zip(given, names, strict=False)
    }
    outputs = builder.build(inputs)
    _raise(builder.refusals)
    wanted = {x: x.axes if last and x.is_channels_last else None for x in outputs}
    stored = [x.stored(wanted[x]) for x in outputs]
    builder.name_others(stored)
    named = [
        keras.layers.Identity(dtype=policy_of(value), name=name)(value)
        for value, name in zip(stored, names[len(given) :], strict=False)
    ]
    tensors = [x.value for x in inputs.values()]
    called = names[len(given) : -1]
    with recursion(sum(1 for _ in operations(named))):
        network = keras.Model(
            tensors if len(tensors) > 1 else tensors[0],
            # Keras sorts a dictionary: what is given as a list would be exchanged.
            named[0] if len(named) == 1
            else dict(zip(called, named, strict=True)) if called == sorted(called)
            else named,
            name=names[-1],
        )  # fmt: skip
    graph = program.main.outputs
    behind = {name for name, x in zip(graph, outputs, strict=True) if wanted[x]}
    return Structure(network, _complete(network, builder.table), frozenset(turned) | behind)


def _turns(made: Structure) -> int:
    """Return how many tensors are turned in a network."""
    names = [type(operation).__name__ for operation in made.network.operations]
    return names.count("Permute") + names.count("Transpose")


def _complete(network: keras.Model, table: list[tuple[Any, Terms]]) -> list[tuple[Any, Terms]]:
    """Return what each variable of the network holds; none may keep arbitrary numbers."""
    own = {id(variable) for variable in network.variables}
    complete = [(variable, terms) for variable, terms in table if id(variable) in own]
    held = {id(variable) for variable, _ in complete}
    missing = [
        variable.path
        for variable in network.variables
        if id(variable) not in held and variable.name != "seed_generator_state"
    ]
    assert not missing, f"nothing says what {missing} hold"
    return complete


def contents(model: Model, network: keras.Model) -> dict[str, np.ndarray] | None:
    """Return the values of ``network`` by initializer of ``model``; None if it is not made from it.

    A network that was loaded, cloned, frozen or whose layers have other names is known by its
    structure; one that has become part of another, by the names and shapes of its variables.
    """
    known = origin_of(network)
    if known is not None and known[0].sha256() == model.sha256():
        return given_back_by(model, known[1], [variable for variable, _ in known[1]])
    try:
        for layout in LAYOUTS:
            made = structure(model, layout)
            own_of, table = twins(made.network, network), made.table
            if own_of is not None:
                return given_back_by(model, table, [own_of[id(variable)] for variable, _ in table])
            if len(made.network.variables) != len(network.variables):
                break  # no layout makes it the same
    except Net2NetError:
        return None
    own = {variable.path: variable for variable in network.variables}
    given = [own.get(variable.path) for variable, _ in table]
    if any(
        mine is None or mine.shape != variable.shape
        for mine, (variable, _) in zip(given, table, strict=True)
    ):
        return None
    return given_back_by(model, table, given)


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


def _input(value: ValueInfoProto, name: str, *, turned: bool) -> Arranged:
    """Make an input with its declared type and shape; sizes with a name stay open."""
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        raise Refused(f"input '{value.name}'", "it has no declared rank")
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
    axes = channels_last(len(shape)) if turned else tuple(range(len(shape)))
    sizes = [shape[axis] for axis in axes]
    x = keras.Input(batch_shape=sizes, dtype=_dtype(kind.elem_type), name=name)
    return Arranged(x, axes, len(shape))
