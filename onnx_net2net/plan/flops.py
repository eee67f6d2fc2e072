"""Multiply-adds of one node: what its record counts, else what its function text calls.

Flops().products(Op(Conv ...))            # [elements of the output * elements of one filter]
Flops().products(Op(FusedMatMul ...))     # those of the MatMul in its text
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnx_net2net.algebra.sizes import AnySize, trial
from onnx_net2net.analysis.onnx_inference import Shape
from onnx_net2net.analysis.shapes import infer
from onnx_net2net.errors import InvalidModel
from onnx_net2net.model.graph import Graph
from onnx_net2net.model.model import load
from onnx_net2net.operators import facts, looked_at, multiply_adds
from onnx_net2net.operators.function_texts import OPSET
from onnx_net2net.operators.functions import body, functions
from onnx_net2net.operators.language import Op, Unsupported


class Flops:
    """Counts nodes; bodies of those that look alike are made once."""

    def __init__(self) -> None:
        self._of_texts: dict[tuple[object, ...], list[int]] = {}

    def products(self, op: Op) -> list[int]:
        """Return the products that a node sums, to be added; none where it is not counted.

        Each is a product of sizes: where one of the sizes doubles, so does the number. Raise
        Unsupported where a shape that it takes is not known.
        """
        if not _text_multiplies(op.node):
            return multiply_adds(op)
        key = (op.node.domain, *looked_at(op))
        if key not in self._of_texts:
            self._of_texts[key] = _of_text(op)
        return self._of_texts[key]


def _text_multiplies(node: NodeProto) -> bool:
    """Return whether a node's operator has a text that calls one whose products are counted."""
    text = functions().get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))
    # A sum over one operand has no products.
    calls = [line.node for line in text.lines if len(line.node.input) > 1] if text else []
    return any(facts(call.op_type).flops for call in calls)


def _of_text(op: Op) -> list[int]:
    """Return the products of the nodes that an operator's text puts in place of ``op``."""
    call = NodeProto()
    call.CopyFrom(op.node)
    call.input[:] = [name and f"in{i}" for i, name in enumerate(op.node.input)]
    call.output[:] = [name and f"out{i}" for i, name in enumerate(op.node.output)]
    nodes = body(call, op.rank, lambda name: False, bool)
    # No count looks at types.
    inputs, outputs = (
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, _numbers(shape))
            for name, shape in zip(names, shapes, strict=False)
            if name
        ]
        for names, shapes in ((call.input, op.shapes), (call.output, op.outputs))
    )
    values = zip(call.input, op.values, strict=False)
    constants = [numpy_helper.from_array(v, n) for n, v in values if n and v is not None]
    # What comes out says what sizes are that only numbers fed would say: to count, any of that size
    # will do.
    for name, shape in zip(call.output, op.outputs, strict=False):
        at = next((i for i, node in enumerate(nodes) if name and name in node.output), None)
        if at is not None and shape is not None:
            made, sizes = f"{name}/made", f"{name}/sizes"
            nodes[at].output[:] = [made if n == name else n for n in nodes[at].output]
            nodes.insert(at + 1, helper.make_node("ConstantOfShape", [sizes], [name]))
            constants.append(numpy_helper.from_array(np.asarray(shape, np.int64), sizes))
    graph = helper.make_graph(nodes, "body", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", OPSET)]
    try:
        inner = Graph(load(helper.make_model(graph, opset_imports=opsets)))
    except InvalidModel as problem:
        raise Unsupported(str(problem)) from None
    shapes = infer(inner)

    def known(name: str) -> Shape | None:
        return None if name in shapes.sizes else shapes.of(name)

    products = []
    for node in inner.nodes:
        operands, results = (tuple(map(known, n)) for n in (node.inputs, node.outputs))
        products += multiply_adds(Op(node.proto, OPSET, operands, results, (None,) * len(operands)))
    return products


def _numbers(shape: Sequence[AnySize] | None) -> list[str | int | None] | None:
    return None if shape is None else [int(trial(size)) for size in shape]
