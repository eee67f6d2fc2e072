"""Does onnxruntime take a model at all? Asked before anything is made of a stranger's file.

    require_accepted(model)         # raises InvalidModel

No weight is read: onnxruntime is given the graph, with one empty file as the contents of all that
is big. What it has no kernel for, or no knowledge of yet, is no fault of the model; onnx's own
checker has to accept that.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import onnx
from google.protobuf.message import EncodeError
from onnx import ModelProto, TensorProto, helper

from onnx_net2net.errors import InvalidModel
from onnx_net2net.model.isolation import Isolated
from onnx_net2net.model.model import Model
from onnx_net2net.model.tensors import carried, data_fields
from onnx_net2net.verification.engine import CPU, ERRORS, lacks_kernel, open_engine, process_of
from onnx_net2net.verification.precision import has_bfloat16
from onnx_net2net.verification.trials import first_line

__all__ = ["require_accepted"]

_REMEDY = "export the model again; what onnxruntime does not run is not translated"
_IR_VERSION = 10  # that every onnxruntime of today takes; later ones only add element types
_HOLES = "contents"
MOST_BYTES = 1 << 30
# What onnxruntime says of operators and attributes that are younger than it, or left out.
_UNKNOWN = (
    "is not a registered function/op",
    "Unrecognized attribute",
    "(layout == 1) are not supported",
)


def require_accepted(model: Model) -> None:
    """Raise :class:`InvalidModel` unless onnxruntime makes a session of ``model``."""
    proto = model.editable()
    proto.ir_version = min(proto.ir_version, _IR_VERSION)
    with tempfile.TemporaryDirectory(prefix="onnx-net2net-") as scratch:
        path = Path(scratch, "model.onnx")
        with open(path.with_name(_HOLES), "wb") as holes:
            holes.truncate(_point_at_holes(model, proto))
        try:
            path.write_bytes(proto.SerializeToString())
        except (EncodeError, ValueError):
            raise InvalidModel("over 2 GiB in attributes of nodes", _REMEDY) from None
        # Of what this onnxruntime is too old for, or lacks kernels of, onnx has to judge.
        if model.opset.get("", 1) <= _newest_opset() and not has_bfloat16(model):
            problem = _problem(path, process_of(model))
        else:
            problem = _problem_by_onnx(proto)
    if problem is not None:
        raise InvalidModel(f"onnxruntime does not take the model: {problem}", _REMEDY)


def _point_at_holes(model: Model, proto: ModelProto) -> int:
    """Let all that the skeleton lacks lie in one file; return how long that must be.

    onnxruntime finds room for all contents together: beyond MOST_BYTES they are declared as inputs.
    """
    longest = total = 0
    for entry in list(proto.graph.initializer):
        if data_fields(entry) or 0 in entry.dims or entry.name not in model.weights:
            continue
        size = model.weights[entry.name].nbytes
        total += size
        if total > MOST_BYTES:
            known = {value.name for value in proto.graph.input}
            if entry.name not in known:
                made = helper.make_tensor_value_info(entry.name, entry.data_type, entry.dims)
                proto.graph.input.append(made)
            proto.graph.initializer.remove(entry)
            continue
        entry.data_location = TensorProto.EXTERNAL
        for key, value in (("location", _HOLES), ("offset", "0"), ("length", str(size))):
            entry.external_data.add(key=key, value=value)
        longest = max(longest, size)
    return longest


def _problem(path: Path, process: Isolated | None) -> str | None:
    """Return what onnxruntime says against the model, None where it takes it or lacks a kernel."""
    try:
        open_engine(str(path), CPU, optimised=False, process=process, lean=True)
    except ERRORS as error:
        if lacks_kernel(error) or any(said in str(error) for said in _UNKNOWN):
            return _problem_by_onnx(onnx.ModelProto.FromString(path.read_bytes()))
        return first_line(error).replace(f"Load model from {path} failed:", "")
    return None


def _problem_by_onnx(proto: ModelProto) -> str | None:
    """Return what onnx's checker says against a graph that onnxruntime cannot judge."""
    for entry in proto.graph.initializer:
        entry.ClearField("data_location")
        entry.ClearField("external_data")
    context = onnx.checker.C.CheckerContext()
    context.ir_version = proto.ir_version
    context.opset_imports = {entry.domain: entry.version for entry in proto.opset_import}
    try:
        for node in proto.graph.node:
            if not any(carried(node)):  # a body by itself reads what it does not know
                onnx.checker.check_node(node, context)
    except onnx.checker.ValidationError as error:
        return first_line(error)
    return None


@functools.cache
def _newest_opset() -> int:
    """Return the newest operator set that this onnxruntime takes."""
    for version in range(onnx.defs.onnx_opset_version(), 1, -1):
        text = f'<ir_version: 8, opset_import: ["": {version}]> probe (float[1] x) => (float[1] y)'
        model = onnx.parser.parse_model(text + " {y = Neg(x)}")
        try:
            open_engine(model.SerializeToString(), CPU, optimised=False)
        except ERRORS:
            continue
        return version
    return 1
