"""A small network around a sample: every axis of the node can grow, unless its rule forbids it.

A scalar input drives weights as large as each operand; each output is weighed and summed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.samples import Sample

MICROSOFT = "com.microsoft"


@dataclass
class _Builder:
    sample: Sample
    nodes: list[NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def weight(self, name: str, array: np.ndarray) -> str:
        self.weights[name] = array
        return name


def network(sample: Sample) -> ModelProto:
    """Return a copy of the network of ``sample``, which is built once in a process."""
    proto = ModelProto()
    proto.CopyFrom(_network(sample))
    return proto


@cache
def _network(sample: Sample) -> ModelProto:
    build = _Builder(sample)
    build.weights.update(sample.weights)
    for seed, (name, (dtype, shape)) in enumerate(sample.inputs.items()):
        _write(build, name, np.dtype(dtype), shape, seed)
    build.nodes.append(sample.node)
    names = [name for name in sample.node.output if name]
    tensors = _evaluate(_model(build, names, typed=False), sample.runs)
    totals = [
        _read(build, name, np.asarray(tensor), seed)
        for seed, (name, tensor) in enumerate(zip(names, tensors, strict=True))
    ]
    return _model(build, totals, typed=True)


def _write(build: _Builder, name: str, dtype: np.dtype, shape: tuple[int, ...], seed: int) -> None:
    """``name`` = a function of the input and of weights of its own shape."""
    rng = np.random.default_rng([seed, 3])
    scale = build.weight(f"{name}.weight", rng.uniform(0.3, 1.5, shape).astype(np.float32))
    signs = rng.choice([-1.0, 1.0], shape)
    build.weights[scale] = (build.weights[scale] * signs).astype(np.float32)
    shift = build.weight(f"{name}.bias", rng.uniform(-1, 1, shape).astype(np.float32))
    within = build.sample.within.get(name)
    if within is None and dtype.kind in "iu":
        within = (0.0, 9.0) if dtype.kind == "u" else (-4.9, 4.9)
    plain = dtype == np.float32 and within is None
    tensor = build.add("Mul", ["drive", scale], f"{name}.scaled")
    tensor = build.add("Add", [tensor, shift], name if plain else f"{name}.shifted")
    if within is not None:
        low, high = within
        gate = build.add("Sigmoid", [tensor], f"{name}.gate")
        width = build.weight(f"{name}.width", np.float32(high - low))
        base = build.weight(f"{name}.base", np.float32(low))
        tensor = build.add("Mul", [gate, width], f"{name}.spread")
        tensor = build.add("Add", [tensor, base], name if dtype == np.float32 else f"{name}.moved")
    if dtype == np.bool_:
        zero = build.weight(f"{name}.zero", np.float32(0))
        build.add("Greater", [tensor, zero], name)
    elif dtype != np.float32:
        build.add("Cast", [tensor], name, to=helper.np_dtype_to_tensor_dtype(dtype))


def _read(build: _Builder, name: str, tensor: np.ndarray, seed: int) -> str:
    """The sum of ``name`` weighed by weights of its own shape."""
    rng = np.random.default_rng([seed, 5])
    if tensor.dtype != np.float32:
        build.add("Cast", [name], f"{name}.float", to=TensorProto.FLOAT)
    factor = build.weight(f"{name}.head", rng.uniform(-1, 1, tensor.shape).astype(np.float32))
    source = name if tensor.dtype == np.float32 else f"{name}.float"
    if not build.sample.inputs:  # what is computed from weights alone is a weight itself
        source = build.add("Mul", [source, "drive"], f"{name}.driven")
    weighed = build.add("Mul", [source, factor], f"{name}.weighed")
    return build.add("ReduceSum", [weighed], f"{name}.total", keepdims=0)


def _model(build: _Builder, outputs: list[str], *, typed: bool) -> ModelProto:
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [])
        if typed
        else onnx.ValueInfoProto(name=name)
        for name in outputs
    ]
    graph = helper.make_graph(
        build.nodes,
        build.sample.id,
        [helper.make_tensor_value_info("drive", TensorProto.FLOAT, [1])],
        values,
        [numpy_helper.from_array(np.asarray(a), name) for name, a in build.weights.items()],
    )
    opsets = [helper.make_opsetid("", build.sample.opset)]
    if build.sample.node.domain:
        opsets.append(helper.make_opsetid(build.sample.node.domain, 1))
    version = 10 if build.sample.opset < 23 else 13
    return helper.make_model(graph, opset_imports=opsets, ir_version=version)


def evaluate(model: ModelProto, drive: float, runs: bool) -> list[np.ndarray]:
    """The network's outputs, by onnxruntime or by onnx's reference."""
    feeds = {"drive": np.array([drive], np.float32)}
    if not runs:
        return [np.asarray(t) for t in ReferenceEvaluator(model).run(None, feeds)]
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feeds))


def _evaluate(model: ModelProto, runs: bool) -> list[np.ndarray]:
    return evaluate(model, 0.7, runs)
