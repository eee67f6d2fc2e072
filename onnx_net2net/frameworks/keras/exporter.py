"""A Keras model as an ONNX model that keeps what training needs.

    model = from_keras(keras_model)
    model.weights["conv1/kernel"]        # names and layouts are Keras' own, nothing is folded

The exporter folds what it knows to be constant: BatchNormalization into convolutions, transposed
copies of kernels. Here the variables are inputs of the exported function, whose values it cannot
know, and become weights again afterwards.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from onnx import GraphProto, ModelProto, StringStringEntryProto, TensorProto, defs, numpy_helper

from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.frameworks.keras.dropout import draws, kept_dropout
from onnx_net2net.frameworks.keras.history import valid_name
from onnx_net2net.frameworks.keras.kept_layers import kept
from onnx_net2net.frameworks.keras.origin import restored
from onnx_net2net.frameworks.roles import KIND
from onnx_net2net.frameworks.unkept import RANDOM, Drawn
from onnx_net2net.model.model import Model, load
from onnx_net2net.model.tensors import subgraphs

__all__ = ["called", "exported", "from_keras", "variables"]

STORED = "onnx_net2net_variable_"  # with a number: an input that stands for a variable

# What the author's code, Keras or the exporter raises at what cannot be exported.
FAILURES = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip


def from_keras(
    model: keras.Model, example: Any = None, *, opset: int = 18, dropout: bool = True
) -> Model:
    """Return ``model`` in inference mode, with its variables as weights under their own paths.

    >>> from_keras(keras.applications.ResNet50(weights=None)).weights["conv1_conv/kernel"].shape
    (7, 7, 3, 64)

    Kernels keep Keras' layout (spatial axes, inputs, outputs); the graph turns them. A model made
    by ``to_keras`` gives its graph again, with the values that its variables have now.

    A model without inputs of its own, a subclass of ``keras.Model`` or a Sequential that was never
    called, is exported as one call with inputs of the types and shapes of ``example``: an array, or
    a list or dict of them. Its first axis stays open.

    BatchNormalization stays one node, whose statistics move where the file is trained again: in
    Keras (``to_keras``) just as those of ``model``, in PyTorch towards the unbiased variance; with
    a mask or ``renorm`` it trains on as one without. LSTM, GRU and SimpleRNN stay nodes that can
    grow; with a mask, in another type than float32, or with other activations than ONNX names, they
    are loops. What is frozen (``trainable=False``) trains again.

    Calls of Dropout, those within attention included, become Dropout nodes, which do nothing in
    inference; ``to_keras`` and ``to_torch`` drop by them again. Whatever else the model draws at
    random in training mode (noise, dropout of whole channels) is named by a warning and in the
    model's metadata. ``dropout=False`` leaves all of it out.

    Raises UsageError where the model is not built, runs on another backend than TensorFlow, or
    tf2onnx is not installed, and Refused for what tf2onnx cannot translate, and for variables that
    move in inference mode too (``stateful``), since a file has no state.
    """
    if example is not None and not getattr(model, "inputs", None):
        model = called(model, example)
    return restored(model) or exported(model, {}, opset, dropout=dropout)


def called(model: keras.Model, example: Any) -> keras.Model:
    """Return a functional model of one call of ``model`` with such inputs as ``example``.

    Raises UsageError where it cannot be called so.
    """

    def symbolic(path: tuple[Any, ...], value: Any) -> keras.KerasTensor:
        kind = keras.backend.standardize_dtype(value.dtype)
        name = "_".join(str(part) for part in path if not isinstance(part, int))
        return keras.Input(value.shape[1:], dtype=kind, name=valid_name(name) if name else None)

    try:
        given = keras.tree.flatten_with_path(example)
        inputs = keras.tree.pack_sequence_as(example, [symbolic(*entry) for entry in given])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns of what it raises afterwards
            return keras.Model(inputs, model(inputs), name=model.name)
    except FAILURES as error:
        problem = f"the model cannot be called with such an example: {_told(error)}"
        raise UsageError(problem, "give an example of its inputs, as call takes them") from error


def exported(
    model: keras.Model, names: Mapping[str, str], opset: int = 18, *, dropout: bool = False
) -> Model:
    """Return what :func:`from_keras` does, with other ``names`` for some paths of variables."""
    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            f"export from the {keras.backend.backend()} backend", "set KERAS_BACKEND=tensorflow"
        )
    if not getattr(model, "inputs", None):
        raise UsageError(
            "the model has no inputs of its own",
            "give an example of its inputs: from_keras(model, example)",
        )
    proto, lost = _converted(model, opset, dropout=dropout)
    if lost:
        warnings.warn(f"not kept of how it trains: {lost}", stacklevel=3)
        _add(proto.metadata_props, RANDOM, lost)
    return load(_weighted(proto, model, names))


def variables(model: keras.Model) -> dict[str, Any]:
    """Return the variables of ``model`` by what :func:`from_keras` calls them, layer by layer.

    Raises UsageError where several have one path.
    """
    named = {variable.path: variable for variable in model.weights}
    if len(named) < len(model.weights):
        paths = [variable.path for variable in model.weights]
        several = min(path for path in paths if paths.count(path) > 1)
        raise UsageError(f"several variables are called {several}", "give each layer its own name")
    return named


def _converted(model: Any, opset: int, *, dropout: bool) -> tuple[ModelProto, str]:
    """Export as a function of the inputs and of all variables, which are named by number.

    Return in words, too, what is not kept of how the model trains.
    """
    import tensorflow as tf
    from tensorflow.python.autograph.impl.api import StagingError

    try:
        import tf2onnx
    except ModuleNotFoundError:
        raise UsageError(
            "tf2onnx is not installed", "pip install 'onnx-net2net[tensorflow]'"
        ) from None
    failures = (*FAILURES, StagingError, tf.errors.OpError)
    moved: set[str] = set()
    function, signature = _function(model, moved, training=False)
    traced = tf.function(function, input_signature=signature)

    def trace(training: bool) -> str:
        function, signature = _function(model, set(), training=training)
        try:
            tf.function(function, input_signature=signature).get_concrete_function()
        except failures as error:
            return f"{type(error).__name__}: {_told(error)}"
        return ""

    drawn = draws(model, trace) if dropout else Drawn()
    proto: ModelProto
    with _quiet(), _bfloat16(), kept() as calls, kept_dropout(calls, drawn.ratios):
        try:
            proto, _ = tf2onnx.convert.from_function(
                traced,
                input_signature=signature,
                opset=opset,
                custom_op_handlers=calls.handlers(),
            )
        except failures as error:
            raise Refused(None, f"tf2onnx cannot export it: {_told(error)}") from error
    if moved:
        reason = f"each call changes {', '.join(sorted(moved))}, and a file holds no state"
        remedy = "set stateful=False, and do not call layers with training=True"
        raise Refused(None, reason, remedy)
    lost = len(calls.marked) - calls.written
    if lost:
        raise Refused(None, f"tf2onnx lost {lost} of {len(calls.marked)} layers of the model")
    _check_operators(proto)
    _fill(proto, traced.get_concrete_function(*signature), {spec.name for spec in signature})
    return proto, drawn.message()


def _function(
    model: Any, moved: set[str], *, training: bool
) -> tuple[Callable[..., Any], list[Any]]:
    """Return ``model`` as a function of the inputs and of all variables, and its signature.

    A call adds to ``moved`` the variables that it changed.
    """
    import tensorflow as tf

    inputs = [tf.TensorSpec(x.shape, x.dtype, name=x.name) for x in model.inputs]
    variables = _variables(model)
    stored = [tf.TensorSpec(v.shape, v.dtype, name=f"{STORED}{i}") for i, v in enumerate(variables)]
    layout = model.inputs[0] if isinstance(model, keras.Sequential) else model.input

    def function(*given: Any) -> Any:
        data, values = list(given[: len(inputs)]), list(given[len(inputs) :])
        packed = keras.tree.pack_sequence_as(layout, data)
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(mapping) as scope:
            results = model(packed, training=training)
        moved.update(_moved(mapping, scope.state_mapping))
        return results

    return function, [*inputs, *stored]


def _told(error: Exception) -> str:
    """Return an error's message in a line, without lines of code and a terminal's colours."""
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    text = re.sub(r'^ *File ".*", line \d+, in .*\n.*\n', "", text, flags=re.MULTILINE)
    text = text.removeprefix("in user code:").partition("Arguments received by")[0]
    return " ".join(text.split())


def _moved(mapping: list[tuple[Any, Any]], after: Mapping[int, Any]) -> list[str]:
    """Return the variables that changed, but for the seeds of what is not random in inference."""
    changed = [
        variable.path
        for variable, value in mapping
        if after[id(variable)] is not value and variable.name != "seed_generator_state"
    ]
    hidden = after.keys() - {id(variable) for variable, _ in mapping}
    return [*changed, *(["the state of a layer"] if hidden else [])]


def _check_operators(proto: ModelProto) -> None:
    """Raise where tf2onnx left operators of TensorFlow, which it does not know, in the graph."""
    unknown = {
        node.op_type
        for graph in (proto.graph, *subgraphs(proto.graph))
        for node in graph.node
        if not node.domain and not defs.has(node.op_type)
    }
    if unknown:
        raise Refused(None, f"tf2onnx has no translation of {', '.join(sorted(unknown))}")


def _fill(proto: ModelProto, traced: Any, known: set[str]) -> None:
    """Give tensors that the function captured, which tf2onnx takes for inputs, their values."""
    captured = {inner.name: outer for outer, inner in traced.graph.captures}
    graph = proto.graph
    for value in list(graph.input):
        if value.name.partition(":")[0] not in known:
            graph.initializer.append(
                numpy_helper.from_array(captured[value.name].numpy(), value.name)
            )
            graph.input.remove(value)


def _variables(model: Any) -> list[Any]:
    return [*model.trainable_variables, *model.non_trainable_variables]


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide that tf2onnx warns of each rewriting it tries; what is lost is told in the end."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _bfloat16() -> Iterator[None]:
    """Have bfloat16 written as such, which tf2onnx writes as float16, which ends at 65504."""
    from tensorflow.core.framework.types_pb2 import DT_BFLOAT16
    from tf2onnx.tf_utils import TF_TO_ONNX_DTYPE as TYPES

    before = TYPES[DT_BFLOAT16]
    TYPES[DT_BFLOAT16] = TensorProto.BFLOAT16
    try:
        yield
    finally:
        TYPES[DT_BFLOAT16] = before


def _say(entry: TensorProto, kind: str) -> None:
    """Write down what Keras knows of a tensor, where roles.py looks for it."""
    _add(entry.metadata_props, KIND, kind)


def _add(properties: Any, key: str, value: str) -> None:
    properties.append(StringStringEntryProto(key=key, value=value))


def _weighted(proto: ModelProto, model: Any, names: Mapping[str, str]) -> ModelProto:
    """Turn the inputs that stand for variables into initializers under their paths, or others."""
    graph = proto.graph
    for entry in graph.initializer:
        _say(entry, "CONSTANT")
    known = {f"{STORED}{i}": variable for i, variable in enumerate(_variables(model))}
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    renamed: dict[str, str] = {}
    kept = [value for value in graph.input if value.name.partition(":")[0] not in known]
    for value in graph.input:
        variable = known.get(value.name.partition(":")[0])
        if variable is None or value.name not in taken:
            continue
        path = names.get(variable.path, variable.path)
        while path in taken:
            path += "_"
        renamed[value.name] = path
        array = np.asarray(keras.ops.convert_to_numpy(variable))
        graph.initializer.append(numpy_helper.from_array(array, path))
        if variable.trainable:
            _say(graph.initializer[-1], "PARAMETER")
    del graph.input[:]
    graph.input.extend(kept)
    renamed |= _output_names(graph, model)
    for holder in (graph, *subgraphs(graph)):
        for node in holder.node:
            for tensors in (node.input, node.output):
                tensors[:] = [renamed.get(name, name) for name in tensors]
    for output in graph.output:
        output.name = renamed.get(output.name, output.name)
    return proto


def _output_names(graph: GraphProto, model: Any) -> dict[str, str]:
    """Return the author's names for the outputs, which the exporter calls ``Identity:0``."""
    wanted = getattr(model, "output_names", None) or []
    if isinstance(getattr(model, "output", None), dict):
        wanted = sorted(model.output)  # TensorFlow's order of the values of a dict
    if len(wanted) != len(graph.output):
        return {}
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    taken |= {value.name for value in (*graph.input, *graph.initializer)}
    names: dict[str, str] = {}
    for output, name in zip(graph.output, wanted, strict=True):
        while name in taken:
            name += "_"
        taken.add(name)
        names[output.name] = name
    return names
