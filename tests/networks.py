"""A few lines build a small network with random weights.

net = Net(opset=17)
hidden = net("Relu", net("Gemm", net.input(2, 7), net.weight(7, 5), net.weight(5)))
model = net.model(net("MatMul", hidden, net.weight(5, 3)))
"""

from __future__ import annotations

from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

import onnx_net2net as n2n

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class Net:
    """Nodes and weights in order. ``store`` says where weights lie in the file: as initializers,
    as initializers listed among the inputs (IR version 3), or as Constant nodes."""

    def __init__(
        self,
        *,
        opset: int = 17,
        dtype: Any = np.float32,
        seed: int = 0,
        store: Literal["initializer", "input", "constant"] = "initializer",
        named: bool = True,
        ir_version: int = 10,
    ) -> None:
        self.opset, self.dtype, self.store, self.named = opset, np.dtype(dtype), store, named
        self.ir_version = ir_version
        self.rng = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.domains: set[str] = set()

    def input(self, *shape: int | str, dtype: Any = None) -> str:
        """A new input ``x``, ``x1`` ..."""
        name = f"x{len(self.inputs) or ''}"
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype or self.dtype))
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def weight(self, *shape: int, low: float = -1.0, high: float = 1.0, name: str = "") -> str:
        """Uniform random numbers."""
        return self.put(self.rng.uniform(low, high, shape).astype(self.dtype), name)

    def put(self, array: Any, name: str = "") -> str:
        """A weight with given contents."""
        name = name or f"w{len(self.weights)}"
        self.weights[name] = np.asarray(array)
        return name

    def __call__(self, op: str, *inputs: str, results: int = 1, **attributes: Any) -> Any:
        """Append a node; its output, or a list of them where ``results`` is not 1."""
        base = attributes.pop("name", f"{op.lower()}{len(self.nodes)}")
        outputs = [f"{base}_y"] if results == 1 else [f"{base}_y{i}" for i in range(results)]
        node = helper.make_node(op, inputs, outputs, name=base if self.named else "", **attributes)
        self.domains.add(node.domain)
        self.nodes.append(node)
        return outputs[0] if results == 1 else outputs

    def model(self, *outputs: str) -> ModelProto:
        """The network; its outputs are typed by shape inference."""
        tensors = [numpy_helper.from_array(a, n) for n, a in self.weights.items()]
        nodes, inputs = self.nodes, list(self.inputs)
        if self.store == "constant":
            nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in tensors] + nodes
            tensors = []
        elif self.store == "input":
            inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
        graph = helper.make_graph(
            nodes, "net", inputs, [onnx.ValueInfoProto(name=n) for n in outputs], tensors
        )
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(domain, 1) for domain in sorted(self.domains - {""})]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=self.ir_version)
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        for value, found in zip(model.graph.output, inferred.graph.output, strict=True):
            value.CopyFrom(found)
        return model


def arrays(model: ModelProto) -> dict[str, np.ndarray]:
    """The contents of all initializers."""
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def dropout_ratios(model: n2n.Model) -> list[float]:
    """Return the ratios of the Dropout nodes, which state no mode."""
    nodes = [node for node in model.proto.graph.node if node.op_type == "Dropout"]
    assert all(len(node.input) == 2 for node in nodes), "a mode is stated"
    return [float(model.weights[node.input[1]].array()) for node in nodes]


def row(*names: str) -> ModelProto:
    """Residual blocks of these names, one behind the other; one may stand for a part of a block."""
    net = Net()
    x = net.input("n", 6)
    for name in names:
        hidden = net("Relu", net("MatMul", x, net.weight(6, 5, name=f"{name}.up.weight")))
        x = net("Add", x, net("MatMul", hidden, net.weight(5, 6, name=f"{name}.down.weight")))
    return net.model(x)
