"""What is known of the weights of a model, whatever the dynamic sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

from onnx import TensorProto

from onnx_net2net.analysis.onnx_inference import Shape
from onnx_net2net.analysis.values import small
from onnx_net2net.model.graph import Graph
from onnx_net2net.operators.values import MOST, Array

INTEGERS = {TensorProto.BOOL, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8}
MOST_SCALES = 16  # elements; a longer float vector is a weight, not a parameter


@dataclass
class StoredFacts:
    """Shapes, types and small contents of weights by name."""

    shape: dict[str, Shape] = field(default_factory=dict)
    dtype: dict[str, int] = field(default_factory=dict)
    value: dict[str, Array] = field(default_factory=dict)  # shape-like
    scales: dict[str, Array] = field(default_factory=dict)  # small float weights, e.g. Resize's
    entries: dict[str, TensorProto] = field(default_factory=dict)
    stuck: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, graph: Graph) -> StoredFacts:
        """Read the weights of a graph, of the large ones shapes and types alone."""
        stored = cls()
        for name, weight in graph.model.weights.items():
            stored.shape[name], stored.dtype[name] = weight.shape, weight.dtype
            size = prod(weight.shape)
            if weight.given and size <= (MOST if weight.dtype in INTEGERS else MOST_SCALES):
                array = weight.array()
                if small(array):
                    stored.value[name] = array
                elif size <= MOST_SCALES and weight.dtype != TensorProto.STRING:
                    stored.scales[name] = array
        stored.entries.update((entry.name, entry) for entry in graph.model.proto.graph.initializer)
        return stored
