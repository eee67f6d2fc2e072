"""The tensors of a skeleton as weights, and weights as tensors of a skeleton.

weights = weights_of(proto, lifted)                      # all, by name
declare(entry, weights["conv1.weight"])                  # an initializer's type and dims
change_inner(proto.graph, {"bias": weight})              # Constants, and those within bodies
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from onnx_net2net.model.tensors import clear_data, constants, set_constant, subgraphs
from onnx_net2net.model.weights import Inline, Weight

__all__ = ["change_inner", "declare", "weights_of"]


def _inner_tensors(
    graph: GraphProto,
) -> Iterator[tuple[str, TensorProto, NodeProto | None]]:
    """Yield Constants of the graph, then initializers and Constants of its subgraphs.

    Each by name, contents, and the Constant node where it is one.
    """
    yield from constants(graph)
    for inner in subgraphs(graph):
        for entry in inner.initializer:
            yield entry.name, entry, None
        yield from constants(inner)


def weights_of(proto: ModelProto, lifted: Mapping[str, Weight]) -> dict[str, Weight]:
    """Return all weights of the model by name."""
    weights: dict[str, Weight] = {}
    for entry in proto.graph.initializer:
        if not entry.HasField("segment"):
            weights[entry.name] = lifted.get(entry.name) or Inline(entry.name, entry)
    inner: dict[str, Weight | None] = {}
    for name, tensor, _ in _inner_tensors(proto.graph):
        # A name used twice in separate subgraphs means two tensors: neither can be asked for.
        ambiguous = name in weights or name in inner or tensor.HasField("segment")
        inner[name] = None if ambiguous else Inline(name, tensor)
    weights.update((name, weight) for name, weight in inner.items() if weight is not None)
    return weights


def declare(entry: TensorProto, weight: Weight) -> None:
    """Make the entry's dims and type those of its contents, and its own contents none."""
    clear_data(entry)
    entry.data_type = weight.dtype
    del entry.dims[:]
    entry.dims.extend(weight.shape)


def change_inner(graph: GraphProto, weights: Mapping[str, Weight]) -> set[str]:
    """Write contents of Constants and subgraph tensors into the skeleton; return their names."""
    changed: set[str] = set()
    if not weights:
        return changed
    for name, entry, node in list(_inner_tensors(graph)):
        if name not in weights:
            continue
        changed.add(name)
        tensor = TensorProto(name=entry.name, metadata_props=entry.metadata_props)
        declare(tensor, weights[name])
        tensor.raw_data = bytes(weights[name].payload())
        if node is None:
            entry.CopyFrom(tensor)
        else:
            set_constant(node, tensor)
    return changed
