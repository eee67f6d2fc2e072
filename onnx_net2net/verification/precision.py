"""Copies of a model that compute the same function, with other rounding errors or more outputs.

>>> double = in_precision(model, TensorProto.DOUBLE)     # every float tensor in float64
>>> moved = nudged(model)                                # its weights moved by one ulp

How far their outputs lie from the model's own is its rounding noise: moving each operand by a
random ulp is Monte Carlo arithmetic (Parker, 1997), and float64 gives the error itself.
Arguments are never modified.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnx.defs
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from onnx_net2net.model.model import Computed, Model, Weight
from onnx_net2net.model.schemas import schema_of
from onnx_net2net.model.tensors import graphs, nodes
from onnx_net2net.operators.types import FLOATS
from onnx_net2net.verification.comparison import is_float
from onnx_net2net.verification.recurrence import is_recurrent, unrolled

HALF_TYPES = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})

# Attributes that hold an element type.
_TYPE_ATTRIBUTES = {"to", "dtype"}


# One ulp -------------------------------------------------------------------------------------


def nudged_array(array: np.ndarray, rng: np.random.Generator, sign: int = 1) -> np.ndarray:
    """Move a quarter of the elements by one unit in the last place, up or down.

    With ``sign`` -1 each moves the other way. That is half a unit on average (root mean square),
    somewhat more than rounding to nearest does. Whole numbers stay: 0, 1, a mask or an exponent
    are meant exactly.
    """
    if not is_float(array.dtype):
        return array
    draw = rng.integers(0, 8, array.shape, np.uint8)
    # Neighbouring numbers of one sign have neighbouring bit patterns.
    bits = np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")
    up = (draw == 0).astype(np.int8) - (draw == 1)
    moved = (bits + (sign * up).astype(bits.dtype)).astype(bits.dtype).view(array.dtype)
    with np.errstate(invalid="ignore"):
        keep = (np.floor(array) == array) | np.isnan(array)
    return np.where(keep, array, moved.reshape(array.shape))


def nudged_feeds(feeds: dict[str, np.ndarray], seed: Sequence[int]) -> dict[str, np.ndarray]:
    """Return the same inputs, each floating-point number moved by one ulp."""
    rng = np.random.default_rng(seed)
    return {name: nudged_array(value, rng) for name, value in feeds.items()}


def nudged(
    model: Model, seed: int = 0, sign: int = 1, proto: onnx.ModelProto | None = None
) -> Model:
    """Move every weight of a model by one ulp, computed one tensor at a time.

    ``proto`` is an edited copy of its skeleton, if there is one already. Single numbers (exponents,
    scales) stay as they are.
    """

    def moved(name: str) -> Computed:
        weight = model.weights[name]

        def contents() -> np.ndarray:
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            return nudged_array(weight.array(), rng, sign)

        return Computed(name, weight.dtype, weight.shape, contents)

    if proto is None:
        proto = model.editable()
    names = [n for n, w in model.weights.items() if w.dtype in FLOATS and w.size > 1]
    return model.with_changes(proto, {name: moved(name) for name in names})


# Another type --------------------------------------------------------------------------------


def in_precision(
    model: Model,
    target: int,
    sources: frozenset[int] = FLOATS,
    lacking: Callable[[onnx.NodeProto], bool] | None = None,
) -> Model:
    """Make a copy in which every tensor of one of the ``sources`` types has the type ``target``.

    Recurrent nodes are written out in float64. Nodes that are ``lacking`` a kernel for the target
    compute in float32, between Casts.
    """
    copy, opsets = model.editable(), model.opset
    for graph in graphs(copy.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            _retype_value(value.type, target, sources)
        for tensor in () if graph is copy.graph else graph.initializer:
            _convert(tensor, target, sources)
        nodes = list(graph.node)
        del graph.node[:]
        for node in nodes:
            _retype(node, target, sources)
            if target == TensorProto.DOUBLE and is_recurrent(node):
                graph.node.extend(unrolled(node, opsets.get("", 1)))
            elif target == TensorProto.FLOAT or not node.output:
                graph.node.append(node)
            else:
                single = lacking is not None and lacking(node)
                graph.node.extend(_with_casts(node, target, opsets, single))
    tensors = [t for t in copy.graph.initializer if t.data_type in sources - {target}]
    if any(tensor.HasField("segment") for tensor in tensors):
        raise ValueError("a tensor in segments cannot be cast")  # onnxruntime takes none, either
    return model.with_changes(copy, {t.name: _cast(model.weights[t.name], target) for t in tensors})


def _retype_value(kind: onnx.TypeProto, target: int, sources: frozenset[int]) -> None:
    """Change the type of a tensor, or of those in a sequence."""
    if kind.WhichOneof("value") == "sequence_type":
        _retype_value(kind.sequence_type.elem_type, target, sources)
    elif kind.tensor_type.elem_type in sources:
        kind.tensor_type.elem_type = target


def _cast(weight: Weight, target: int) -> Computed:
    """Return a weight in another type, computed when it is needed."""
    dtype = helper.tensor_dtype_to_np_dtype(target)
    return Computed(weight.name, target, weight.shape, lambda: weight.array().astype(dtype))


def _convert(tensor: onnx.TensorProto, target: int, sources: frozenset[int]) -> None:
    if tensor.data_type in sources and tensor.data_type != target:
        array = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(target))
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _retype(node: onnx.NodeProto, target: int, sources: frozenset[int]) -> None:
    for attribute in list(node.attribute):
        # Only a tensor's type can be changed.
        if node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
            array = np.array(helper.get_attribute_value(attribute), np.float32)
            node.attribute.remove(attribute)
            node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(array)))
    if node.op_type == "ConstantOfShape" and not node.attribute:
        node.attribute.append(
            helper.make_attribute("value", helper.make_tensor("value", TensorProto.FLOAT, [1], [0]))
        )
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSOR:
            _convert(attribute.t, target, sources)
        elif attribute.name in _TYPE_ATTRIBUTES and attribute.i in sources:
            attribute.i = target


def _with_casts(
    node: onnx.NodeProto, target: int, opsets: Mapping[str, int], single: bool
) -> Iterator[onnx.NodeProto]:
    """Yield the node, between Casts where its schema or, if ``single``, the runtime needs them."""
    schema = schema_of(node, opsets)
    inputs = _in_float32(schema, node.input, schema.inputs, single) if schema else []
    outputs = _in_float32(schema, node.output, schema.outputs, single) if schema else []
    for index in inputs:
        narrow = f"{node.output[0]}/single_{index}"
        yield helper.make_node("Cast", [node.input[index]], [narrow], to=TensorProto.FLOAT)
        node.input[index] = narrow
    widened = []
    for index in outputs:
        wide = node.output[index]
        node.output[index] = f"{wide}/single"
        widened.append(helper.make_node("Cast", [node.output[index]], [wide], to=target))
    yield node  # copied as it is now
    yield from widened


def _in_float32(
    schema: onnx.defs.OpSchema,
    names: Sequence[str],
    formal: Sequence[onnx.defs.OpSchema.FormalParameter],
    single: bool,
) -> list[int]:
    """Return which inputs or outputs hold float32 and, but for ``single``, cannot be wider."""
    positions = []
    for index, name in enumerate(names):
        types = formal[min(index, len(formal) - 1)].types
        if name and "tensor(float)" in types and (single or "tensor(double)" not in types):
            positions.append(index)
    return positions


# Questions and outputs -----------------------------------------------------------------------


def takes_bfloat16(graph: onnx.GraphProto) -> bool:
    """Return whether an input or output is bfloat16, which onnxruntime does not take from NumPy."""
    values = (*graph.input, *graph.output)
    return any(v.type.tensor_type.elem_type == TensorProto.BFLOAT16 for v in values)


def has_bfloat16(model: Model) -> bool:
    """Return whether a weight, an input or an output is bfloat16, or a node casts to it."""
    held = any(weight.dtype == TensorProto.BFLOAT16 for weight in model.weights.values())
    cast = any(
        attribute.name in _TYPE_ATTRIBUTES and attribute.i == TensorProto.BFLOAT16
        for node in nodes(model.proto.graph)
        for attribute in node.attribute
    )
    return held or cast or takes_bfloat16(model.proto.graph)


def is_single(model: Model) -> bool:
    """Return whether all floats that the model says the type of are float32."""
    values = (*model.proto.graph.input, *model.proto.graph.output)
    held = {weight.dtype for weight in model.weights.values()}
    held.update(value.type.tensor_type.elem_type for value in values)
    for node in nodes(model.proto.graph):
        held.update(a.i for a in node.attribute if a.name in _TYPE_ATTRIBUTES)
    return not held & (FLOATS - {TensorProto.FLOAT})


def with_outputs(model: Model, names: Sequence[str]) -> Model:
    """Add tensors to the outputs of a model, of types that the runtime is left to infer."""
    proto = model.editable()
    present = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in present)
    return model.with_changes(proto, {})
