"""Keras layers that ONNX has an operator for, kept as one node while a model is exported.

    with kept() as calls:                       # layers write marks into the graph of TensorFlow
        proto, _ = from_function(traced, custom_op_handlers=calls.handlers())

tf2onnx sees TensorFlow's graph, where BatchNormalization is arithmetic and a recurrent layer a
loop. Here such a layer leaves a mark instead, and tf2onnx is told what to write for it. The mark is
a Print of its inputs and weights, which no optimiser may take away. A form that the operator does
not have is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops
from onnx.helper import tensor_dtype_to_np_dtype

from onnx_net2net.frameworks.keras.replaced import replaced

__all__ = ["CONSTANT", "Calls", "Mark", "kept"]

MARK = "onnx_net2net_mark"
CONSTANT = "onnx_net2net_constant"  # how tensors are named that no layer has as a variable
# The activations of recurrent layers, as ONNX names them.
ACTIVATIONS = {
    "relu": "Relu", "sigmoid": "Sigmoid", "softplus": "Softplus", "softsign": "Softsign",
    "tanh": "Tanh",
}  # fmt: skip
# The gates of a layer in ONNX's order, by their place in Keras'.
GATES = {"GRU": [0, 1, 2], "LSTM": [0, 3, 1, 2], "RNN": [0]}
RECURRENT = {"GRU": keras.layers.GRU, "LSTM": keras.layers.LSTM, "RNN": keras.layers.SimpleRNN}
TRANSPOSED = [getattr(keras.layers, f"Conv{rank}DTranspose") for rank in (1, 2, 3)]
CELLS = {
    "GRU": keras.layers.GRUCell, "LSTM": keras.layers.LSTMCell, "RNN": keras.layers.SimpleRNNCell,
}  # fmt: skip


@dataclass
class Mark:
    """One call of a layer: its operator, what the node states, and what is known of its inputs."""

    op: str
    attributes: dict[str, Any]
    axis: int = 1
    bias: bool = True
    given: list[str] = field(default_factory=list)  # what the node gives, once it is written


@dataclass
class Calls:
    """The calls that were marked, by number; ``written`` counts those that became nodes."""

    marked: list[Mark] = field(default_factory=list)
    written: int = 0

    def mark(self, call: Mark, outputs: list[Any], inputs: list[Any]) -> list[Any]:
        """Return ``outputs``, which have the right types and shapes, as what the layer gives."""
        import tensorflow as tf

        number = len(self.marked)
        self.marked.append(call)
        return [
            tf.raw_ops.Print(input=output, data=inputs, message=f"{MARK} {number} {at}")
            for at, output in enumerate(outputs)
        ]

    def handlers(self) -> dict[str, tuple[Callable[..., Any], list[str]]]:
        """Return what to tell tf2onnx: who writes which operator."""
        lacking = {
            "BiasAdd": _biased, "Conv3D": _grouped, "Erfc": _complement, "Expm1": _exponential,
        }  # fmt: skip
        return {"Print": (self._write, []), **{op: (write, []) for op, write in lacking.items()}}

    def _write(self, graph: Any, node: Any, name: str, _: Any) -> None:
        mark, *numbers = node.get_attr_str("message").split(" ")
        (placeholder, *inputs), (output,) = list(node.input), list(node.output)
        dtype, shape = graph.get_dtype(output), graph.get_shape(output)
        graph.remove_node(name)
        if mark != MARK:
            graph.replace_all_inputs(output, placeholder)
            return
        number, at = map(int, numbers)
        call, nodes = self.marked[number], _Nodes(graph)
        if not call.given:
            write = WRITERS.get(call.op, _recurrence)
            call.given = write(nodes, call, inputs, shape)
            self.written += 1
        graph.make_node(
            "Identity", [call.given[at]], outputs=[output], shapes=[shape], dtypes=[dtype]
        )


def _complement(graph: Any, node: Any, name: str, _: Any) -> None:
    """Write 1 - erf(x), which tf2onnx lacks for GELU."""
    _from_one(graph, node, name, "Erf", lambda one, erf: [one, erf])


def _exponential(graph: Any, node: Any, name: str, _: Any) -> None:
    """Write exp(x) - 1, which tf2onnx lacks for CELU."""
    _from_one(graph, node, name, "Exp", lambda one, power: [power, one])


def _from_one(graph: Any, node: Any, name: str, op: str, order: Callable[..., list[str]]) -> None:
    """Write the difference of 1 and of ``op``, in ``order``."""
    (x,), (output,) = list(node.input), list(node.output)
    dtype, shape = graph.get_dtype(output), graph.get_shape(output)
    graph.remove_node(name)
    nodes = _Nodes(graph)
    one = nodes.constant(np.ones((), tensor_dtype_to_np_dtype(dtype)))
    (value,) = nodes.add(op, [x])
    graph.make_node("Sub", order(one, value), outputs=[output], shapes=[shape], dtypes=[dtype])


def _biased(graph: Any, node: Any, name: str, _: Any) -> None:
    """Add along the channels: tf2onnx takes the last axis unless the bias is a constant."""
    (x, bias), (output,) = list(node.input), list(node.output)
    dtype, shape = graph.get_dtype(output), graph.get_shape(output)
    behind = list(range(1, graph.get_rank(x) - 1))
    if behind and node.get_attr_str("data_format").startswith("NC"):
        bias = _Nodes(graph).axes("Unsqueeze", bias, behind)
    graph.remove_node(name)
    graph.make_node("Add", [x, bias], outputs=[output], shapes=[shape], dtypes=[dtype])


def _grouped(graph: Any, node: Any, name: str, _: Any) -> None:
    """Write what tf2onnx does for Conv3D, with the groups, which it forgets on three axes."""
    from tf2onnx.onnx_opset.nn import ConvOp

    x, kernel = (graph.get_shape(value) for value in node.input)
    channels = x[1 if node.get_attr_str("data_format") == "NCDHW" else -1]
    ConvOp.any_version(graph.opset, graph, node)
    node.set_attr("group", channels // kernel[-2])


@dataclass
class _Nodes:
    """Writes nodes into tf2onnx' graph."""

    graph: Any

    def add(self, op: str, inputs: list[str], count: int = 1, **attributes: Any) -> list[str]:
        """Write a node and return its outputs."""
        made = self.graph.make_node(op, inputs, attr=attributes, output_count=count)
        return list(made.output)

    def constant(self, array: np.ndarray) -> str:
        """Write a tensor that is no weight."""
        from tf2onnx import utils

        return str(self.graph.make_const(utils.make_name(CONSTANT), array).output[0])

    def axes(self, op: str, x: str, axes: list[int]) -> str:
        """Write a Squeeze or Unsqueeze."""
        return self.add(op, [x, self.constant(np.array(axes, np.int64))])[0]


# ---- BatchNormalization ------------------------------------------------------------------------


def _normalised(calls: Calls, layer: Any, inputs: Any) -> Any:
    """Mark the layer, and return what it gives in inference mode."""
    dtype = keras.backend.result_type(inputs.dtype, "float32")
    x = ops.cast(inputs, dtype)
    size = x.shape[layer.axis]
    axis = layer.axis % len(x.shape)
    call = Mark("BatchNormalization", {"epsilon": layer.epsilon, "momentum": layer.momentum}, axis)
    gamma = layer.gamma if layer.scale else ops.ones(size, dtype)
    beta = layer.beta if layer.center else ops.zeros(size, dtype)
    weights = (gamma, beta, layer.moving_mean, layer.moving_variance)
    inputs = [x, *(ops.cast(weight, dtype) for weight in weights)]
    (y,) = calls.mark(call, [x], inputs)
    return ops.cast(y, layer.compute_dtype)


def _normalisation(nodes: _Nodes, call: Mark, inputs: list[str], shape: list[int]) -> list[str]:
    """Write the node with its channels on axis 1, as ONNX wants them."""
    x, *weights = inputs
    rank = len(shape)
    if call.axis == 1:
        return nodes.add("BatchNormalization", [x, *weights], **call.attributes)
    first = [0, call.axis, *(a for a in range(1, rank) if a != call.axis)]
    (turned,) = nodes.add("Transpose", [x], perm=first)
    (y,) = nodes.add("BatchNormalization", [turned, *weights], **call.attributes)
    return nodes.add("Transpose", [y], perm=[first.index(a) for a in range(rank)])


# ---- transposed convolutions -------------------------------------------------------------------


def _convolved(calls: Calls, layer: Any, inputs: Any) -> Any:
    """Mark the layer: an exporter that sees its sizes alone confuses short and long ones."""
    import tensorflow as tf

    x = ops.convert_to_tensor(inputs)
    first = layer.data_format == "channels_first"
    axes = range(2, 2 + layer.rank) if first else range(1, 1 + layer.rank)
    probe = [7] * len(x.shape)
    probe[1 if first else -1] = x.shape[1 if first else -1]
    longer = [layer.compute_output_shape(probe)[a] - 7 * layer.strides[a - axes[0]] for a in axes]
    pads, extra = [], []
    for size, stride, dilation, more in zip(
        layer.kernel_size, layer.strides, layer.dilation_rate, longer, strict=True
    ):
        cut = (size - 1) * dilation + 1 - stride - more  # of the whole, at both ends together
        pads.append((max(cut, 0) // 2, max(cut, 0) - max(cut, 0) // 2))
        extra.append(max(-cut, 0))
    attributes = {
        "strides": list(layer.strides),
        "dilations": list(layer.dilation_rate),
        "pads": [before for before, _ in pads] + [after for _, after in pads],
        "output_padding": extra,
    }
    dynamic = tf.shape(x)
    sizes = [dynamic[0] if x.shape[0] is None else x.shape[0], *[layer.filters] * (layer.rank + 1)]
    for a, more in zip(axes, longer, strict=True):
        given = dynamic[a] if x.shape[a] is None else x.shape[a]
        sizes[a] = given * layer.strides[a - axes[0]] + more
    call = Mark("ConvTranspose", attributes, axis=1 if first else len(x.shape) - 1)
    kernel = ops.convert_to_tensor(layer.kernel)
    (y,) = calls.mark(call, [tf.zeros(sizes, x.dtype)], [x, kernel])
    if layer.use_bias:
        shape = [1] * len(x.shape)
        shape[call.axis] = layer.filters
        y = ops.add(y, ops.reshape(layer.bias, shape))
    return y if layer.activation is None else layer.activation(y)


def _convolution(nodes: _Nodes, call: Mark, inputs: list[str], shape: list[int]) -> list[str]:
    """Write the node with channels on axis 1, and the kernel's inputs and outputs first."""
    x, kernel = inputs
    rank = len(shape)
    (w,) = nodes.add("Transpose", [kernel], perm=[rank - 1, rank - 2, *range(rank - 2)])
    if call.axis == 1:
        return nodes.add("ConvTranspose", [x, w], **call.attributes)
    (turned,) = nodes.add("Transpose", [x], perm=[0, rank - 1, *range(1, rank - 1)])
    (y,) = nodes.add("ConvTranspose", [turned, w], **call.attributes)
    return nodes.add("Transpose", [y], perm=[0, *range(2, rank), 1])


# ---- dropout -----------------------------------------------------------------------------------


def _dropout(nodes: _Nodes, call: Mark, inputs: list[str], shape: list[int]) -> list[str]:
    """Write the node, which does nothing in inference."""
    if nodes.graph.opset < 12:
        return nodes.add("Dropout", inputs, **call.attributes)
    ratio = nodes.constant(np.array(call.attributes["ratio"], np.float32))
    return nodes.add("Dropout", [*inputs, ratio])


WRITERS = {
    "BatchNormalization": _normalisation, "ConvTranspose": _convolution, "Dropout": _dropout,
}  # fmt: skip


# ---- recurrent layers --------------------------------------------------------------------------


def _looped(
    calls: Calls,
    original: Callable[..., Any],
    layer: Any,
    given: tuple[Any, Any, Any],
    options: Any,
) -> Any:
    """Return the last output, all outputs and the states, as ``inner_loop`` does."""
    import tensorflow as tf

    x, states, mask = given
    op = next((op for op, kind in RECURRENT.items() if type(layer) is kind), "")
    call = _recurrent(op, layer)
    drops = options.get("training") and (layer.dropout or layer.recurrent_dropout)
    if call is None or mask is not None or drops:
        return original(layer, x, states, mask, **options)
    cell, states = layer.cell, list(keras.tree.flatten(states))
    weights = [cell.kernel, cell.recurrent_kernel, *([cell.bias] if call.bias else [])]
    weights += [] if all(map(_zero, states)) else states
    shape = tf.shape(x)
    outputs = [tf.zeros((shape[0], shape[1], cell.units), x.dtype)]
    outputs += [tf.zeros((shape[0], cell.units), x.dtype) for _ in states]
    every, *last = calls.mark(call, outputs, [x, *map(ops.convert_to_tensor, weights)])
    if layer.go_backwards:
        every = tf.reverse(every, [1])
    return last[0], every, last


def _recurrent(op: str, layer: Any) -> Mark | None:
    """Return the call of ``op`` that does what ``layer`` does, None where there is none."""
    cell = layer.cell
    if not op or type(cell) is not CELLS[op] or layer.stateful:
        return None
    if cell.compute_dtype != "float32":  # the only type that onnxruntime takes
        return None
    gates = [cell.activation] if op == "RNN" else [cell.recurrent_activation, cell.activation]
    gates += [cell.activation] if op == "LSTM" else []
    names = [ACTIVATIONS.get(str(keras.activations.serialize(gate))) for gate in gates]
    if None in names:
        return None
    attributes: dict[str, Any] = {"hidden_size": cell.units}
    if names not in (["Tanh"], ["Sigmoid", "Tanh"], ["Sigmoid", "Tanh", "Tanh"]):
        attributes["activations"] = names
    if layer.go_backwards:
        attributes["direction"] = "reverse"
    if op == "GRU" and cell.reset_after:
        attributes["linear_before_reset"] = 1
    return Mark(op, attributes, bias=cell.use_bias)


def _zero(state: Any) -> bool:
    """Return whether a layer made this state itself."""
    import tensorflow as tf

    if state.op.type == "Fill":
        state = state.op.inputs[1]
    array = tf.get_static_value(state)
    return array is not None and not np.any(array)


def _recurrence(nodes: _Nodes, call: Mark, inputs: list[str], shape: list[int]) -> list[str]:
    """Write the node: gates in ONNX's order, time before samples, one direction."""
    x, kernel, recurrent, *rest = inputs
    bias = _biases(nodes, call, rest.pop(0)) if call.bias else ""
    w, r = (
        nodes.axes("Unsqueeze", nodes.add("Transpose", [ordered], perm=[1, 0])[0], [0])
        for ordered in (_ordered(nodes, call, kernel, 1), _ordered(nodes, call, recurrent, 1))
    )
    (turned,) = nodes.add("Transpose", [x], perm=[1, 0, 2])
    states = ["", *(nodes.axes("Unsqueeze", state, [0]) for state in rest)]
    operands = [turned, w, r, bias, *states]
    while not operands[-1]:
        operands.pop()
    made = 3 if call.op == "LSTM" else 2
    every, *last = nodes.add(call.op, operands, made, **call.attributes)
    (outputs,) = nodes.add("Transpose", [nodes.axes("Squeeze", every, [1])], perm=[1, 0, 2])
    return [outputs, *(nodes.axes("Squeeze", state, [0]) for state in last)]


def _ordered(nodes: _Nodes, call: Mark, weight: str, axis: int) -> str:
    """Put the gates along ``axis`` into ONNX's order."""
    order = GATES[call.op]
    if order == sorted(order):
        return weight
    since_18 = {"num_outputs": len(order)} if nodes.graph.opset >= 18 else {}
    parts = nodes.add("Split", [weight], len(order), axis=axis, **since_18)
    return nodes.add("Concat", [parts[gate] for gate in order], axis=axis)[0]


def _biases(nodes: _Nodes, call: Mark, bias: str) -> str:
    """Write the bias of the input and that of the state, which only a GRU of Keras has."""
    if call.attributes.get("linear_before_reset"):
        shape = nodes.constant(np.array([1, -1], np.int64))
        return nodes.add("Reshape", [bias, shape])[0]
    width = len(GATES[call.op]) * call.attributes["hidden_size"]
    zeros = nodes.constant(np.zeros(width, np.float32))
    both = nodes.add("Concat", [_ordered(nodes, call, bias, 0), zeros], axis=0)[0]
    return nodes.axes("Unsqueeze", both, [0])


# ---- while a model is traced -------------------------------------------------------------------


@contextmanager
def kept() -> Iterator[Calls]:
    """Have layers leave marks; outside, they are what they were."""
    import tensorflow as tf

    compiled, original_map = tf.function, tf.vectorized_map
    calls = Calls()
    normal = keras.layers.BatchNormalization
    plain = normal.call

    def normalised(layer: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        if training and layer.trainable:  # whatever the model is told
            return plain(layer, inputs, training=training, mask=mask)
        return _normalised(calls, layer, inputs)

    def convolved(layer: Any, inputs: Any) -> Any:
        return _convolved(calls, layer, inputs)

    def uncompiled(function: Any = None, **options: Any) -> Any:
        """Leave out XLA, into whose functions tf2onnx does not look: grouped convolutions."""
        return compiled(function, **{**options, "jit_compile": None})

    def mapped(function: Any, elems: Any, **options: Any) -> Any:
        """Stop where tf2onnx would compute something else: TimeDistributed of open length."""
        if any(value.shape[0] is None for value in tf.nest.flatten(elems)):
            raise NotImplementedError("it maps a layer over a length that is not fixed")
        return original_map(function, elems, **options)

    def looped(original: Callable[..., Any]) -> Callable[..., Any]:
        def inner_loop(
            layer: Any, sequences: Any, initial_state: Any, mask: Any, **options: Any
        ) -> Any:
            return _looped(calls, original, layer, (sequences, initial_state, mask), options)

        return inner_loop

    with ExitStack() as undo:
        undo.enter_context(replaced(normal, "call", normalised))
        undo.enter_context(replaced(tf, "function", uncompiled))
        undo.enter_context(replaced(tf, "vectorized_map", mapped))
        for kind in TRANSPOSED:
            undo.enter_context(replaced(kind, "call", convolved))
        for kind in RECURRENT.values():
            undo.enter_context(replaced(kind, "inner_loop", looped(kind.inner_loop)))
        yield calls
