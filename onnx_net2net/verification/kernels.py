"""How far a runtime's kernels of functions lie from the functions, and copies that show it.

>>> kernels = Kernels(run)                               # run: (model, x) -> y
>>> kernels.error(sigmoid_node, opsets)                  # onnxruntime's is off by a step of 1e-7
Error(absolute=1.7e-07, relative=None)
>>> blurred(proto, kernels, sign=1)                      # each function's result moved by as much

Rounding is relative to a number, but a kernel may be less exact than that where its result is
small: near saturation the sigmoid of onnxruntime jumps between 0 and 1e-7. Moving weights by one
ulp rarely shows this, for it moves what the function is given, not what it gives. So each
elementwise function of one input is tried by itself, once, against the same in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper

from onnx_net2net.model.tensors import graphs
from onnx_net2net.operators import facts

Run = Callable[[onnx.ModelProto, np.ndarray], np.ndarray | None]  # None where it does not run
Opsets = Mapping[str, int]

# In eps of the result: rounding alone, a kernel that is exact relative to its result, and one whose
# largest error is so large a part of its largest result that it computes another function.
ROUNDING, EXACT, ANOTHER = 0.55, 8.0, 64.0
# Where kernels are tried: functions of a network saturate within these limits.
_LIMIT, _POINTS = 32.0, 1 << 15
_PLAIN = (AttributeProto.FLOAT, AttributeProto.INT, AttributeProto.STRING)
_EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Error:
    """The largest error of a kernel: relative to its result, else absolute."""

    absolute: float | None = None
    relative: float | None = None


class Kernels:
    """The errors of kernels, each measured when first asked for."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._known: dict[tuple[bytes, int], Error | None] = {}

    def error(self, node: onnx.NodeProto, opsets: Opsets) -> Error | None:
        """Return the error in float32; None of what is exact or no function of single elements."""
        if len(node.input) != 1 or len(node.output) != 1:
            return None
        if any(attribute.type not in _PLAIN for attribute in node.attribute):
            return None  # it carries a graph or a tensor
        alone = onnx.NodeProto(op_type=node.op_type, domain=node.domain)
        alone.input.append("x")
        alone.output.append("y")
        alone.attribute.extend(node.attribute)
        key = alone.SerializeToString(deterministic=True), opsets.get(node.domain, 1)
        if key not in self._known:
            self._known[key] = self._measured(alone, opsets)
        return self._known[key]

    def _measured(self, node: onnx.NodeProto, opsets: Opsets) -> Error | None:
        # Numbers of both signs in no order: evenly spread, and on every scale.
        rng = np.random.default_rng(0)
        even = rng.uniform(-_LIMIT, _LIMIT, _POINTS // 2)
        small = np.exp2(rng.uniform(-20, np.log2(_LIMIT), _POINTS // 2))
        points = np.concatenate([even, small * rng.choice([-1.0, 1.0], small.size)])
        single = rng.permutation(points).astype(np.float32)
        result = self._run(_model(node, opsets, TensorProto.FLOAT), single)
        if result is None or result.dtype != single.dtype or result.shape != single.shape:
            return None
        half = _POINTS // 2
        again = self._run(_model(node, opsets, TensorProto.FLOAT), single[:half])
        if again is None or not np.array_equal(again, result[:half], equal_nan=True):
            return None  # it depends on its neighbours
        exact = self._exact(_model(node, opsets, TensorProto.DOUBLE), single.astype(np.float64))
        if exact is None or exact.shape != result.shape:
            return None
        with np.errstate(invalid="ignore"):
            apart = np.abs(result - exact)
        error: np.ndarray = np.where(np.isfinite(apart), apart, 0.0)
        size = np.where(np.isfinite(exact), np.abs(exact), 0.0)
        if error.max() > ANOTHER * _EPS * size.max():
            return None
        loose = error > EXACT * _EPS * size
        if loose.any():
            return Error(absolute=float(error[loose].max()))
        relative = float((error[size > 0] / size[size > 0]).max(initial=0.0))
        return Error(relative=relative) if relative > ROUNDING * _EPS else None

    def _exact(self, model: onnx.ModelProto, x: np.ndarray) -> np.ndarray | None:
        """Compute it in float64, by the runtime or by onnx's reference implementation."""
        result = self._run(model, x)
        if result is not None:
            return result
        from onnx.reference import ReferenceEvaluator

        try:
            with np.errstate(all="ignore"):
                results: Any = ReferenceEvaluator(model).run(["y"], {"x": x})
                return np.asarray(results[0])
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            return None


def _model(node: onnx.NodeProto, opsets: Opsets, elem_type: int) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, elem_type, [None]) for name in "xy")
    if facts(node.op_type, node.domain).in_place:  # its type may be another
        y = onnx.ValueInfoProto(name="y")
    graph = helper.make_graph([node], "kernel", [x], [y])
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


# Copies ----------------------------------------------------------------------------------------


def blurred(model: onnx.ModelProto, kernels: Kernels, seed: int) -> onnx.ModelProto:
    """Make a copy in which each function's result is moved by up to the error of its kernel.

    All floats of the model must be float32.
    """
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    copy = deepcopy(model)
    moves = 0
    for graph in graphs(copy.graph):
        nodes = list(graph.node)
        del graph.node[:]
        for node in nodes:
            error = kernels.error(node, opsets)
            moves += error is not None
            graph.node.extend([node] if error is None else _moved(node, error, [seed, moves]))
    return copy


def _moved(node: onnx.NodeProto, error: Error, seed: list[int]) -> Iterator[onnx.NodeProto]:
    """Yield the node, its input with a rounding of its own, for exp and its like amplify that."""
    name, draw = node.output[0], float(seed[0] * 7919 + 2 * seed[1])
    by, middle, operator = (
        (error.absolute, 0.0, "Add") if error.absolute else (error.relative or 0.0, 1.0, "Mul")
    )
    # No exporter writes names like these.
    exact, rounded = f"{name} (kernel)", f"{name} (rounded)"
    yield from _noisy("Mul", node.input[0], rounded, 1.0, _EPS, draw)
    node.input[0], node.output[0] = rounded, exact
    yield node
    yield from _noisy(operator, exact, name, middle, by, draw + 1)


def _noisy(
    operator: str, x: str, y: str, middle: float, by: float, seed: float
) -> Iterator[onnx.NodeProto]:
    """Yield y = x + noise or x * noise, the noise between ``middle - by`` and ``middle + by``."""
    noise = f"{y} (noise)"
    yield helper.make_node(
        "RandomUniformLike", [x], [noise], low=middle - by, high=middle + by, seed=seed
    )
    yield helper.make_node(operator, [x, noise], [y])
