"""Changes of a model, one function each: what a careless exporter, a bad disk or a stranger does.

Each takes a ``random.Random`` and a ``ModelProto``, which it changes in place. All are listed in
:data:`MUTATIONS`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import onnx
from google.protobuf.message import DecodeError
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)

from onnx_net2net.model.history import HISTORY, TIES
from tests.fuzz import odd

TYPES = [*TensorProto.DataType.values(), 99, 16]
OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})
SHAPES = [[], [0], [1], [2, 3], [0, 2**62], [2**31, 2**31], [-1, 4], [2**40], [1] * 70]


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _graph(rng: random.Random, model: ModelProto) -> GraphProto:
    graphs = [graph for graph in _graphs(model.graph) if graph.node]
    return rng.choice(graphs) if graphs else model.graph


def _node(rng: random.Random, model: ModelProto) -> NodeProto:
    graph = _graph(rng, model)
    return rng.choice(graph.node) if graph.node else graph.node.add(op_type="Relu")


def _attribute(rng: random.Random, model: ModelProto) -> AttributeProto:
    for _ in range(8):
        node = _node(rng, model)
        if node.attribute:
            return rng.choice(node.attribute)
    return node.attribute.add(name="axis", type=AttributeProto.INT, i=1)


def _names(model: ModelProto) -> list[str]:
    names = {"", "nowhere"}
    for graph in _graphs(model.graph):
        names.update(v.name for v in (*graph.input, *graph.initializer))
        names.update(name for node in graph.node for name in node.output)
    return sorted(names)


# --- attributes ----------------------------------------------------------------------------------


def attribute_value(rng: random.Random, model: ModelProto) -> None:
    """Another value of the same type."""
    found = _attribute(rng, model)
    if found.type == AttributeProto.INT:
        found.i = odd.integer(rng, found.i)
    elif found.type == AttributeProto.FLOAT:
        found.f = rng.choice(odd.FLOATS)
    elif found.type == AttributeProto.STRING:
        found.s = rng.choice(odd.TEXTS)
    elif found.type == AttributeProto.INTS and found.ints:
        found.ints[rng.randrange(len(found.ints))] = odd.integer(rng, found.ints[0])
    elif found.type == AttributeProto.TENSOR:
        _change_tensor(rng, found.t)


def attribute_length(rng: random.Random, model: ModelProto) -> None:
    """A list of another length."""
    found = _attribute(rng, model)
    for field in (found.ints, found.floats, found.strings):
        if field:
            if rng.random() < 0.5:
                field.extend(list(field)[: rng.randrange(1, 3)])
            else:
                del field[-rng.randrange(1, 3) :]


def attribute_type(rng: random.Random, model: ModelProto) -> None:
    """A value of another type, or of a type that is not the one it says."""
    found = _attribute(rng, model)
    name = found.name
    if rng.random() < 0.3:
        found.type = rng.choice([*AttributeProto.AttributeType.values(), 0])
        return
    if rng.random() < 0.3:
        found.ref_attr_name = "elsewhere"
        return
    new = rng.choice(
        [
            {"type": AttributeProto.INT, "i": rng.choice(odd.INTEGERS)},
            {"type": AttributeProto.FLOAT, "f": rng.choice(odd.FLOATS)},
            {"type": AttributeProto.STRING, "s": rng.choice(odd.TEXTS)},
            {"type": AttributeProto.INTS, "ints": rng.choices(odd.INTEGERS, k=rng.randrange(4))},
            {"type": AttributeProto.FLOATS, "floats": rng.choices(odd.FLOATS, k=rng.randrange(4))},
            {"type": AttributeProto.STRINGS, "strings": rng.choices(odd.TEXTS, k=2)},
            {"type": AttributeProto.TENSOR, "t": TensorProto(dims=rng.choice(SHAPES), data_type=1)},
            {"type": AttributeProto.GRAPH, "g": GraphProto(name="inner")},
        ]
    )
    found.CopyFrom(AttributeProto(name=name, **new))


def attribute_missing(rng: random.Random, model: ModelProto) -> None:
    """One attribute less, or the same twice."""
    node = _node(rng, model)
    if node.attribute:
        place = rng.randrange(len(node.attribute))
        if rng.random() < 0.7:
            del node.attribute[place]
        else:
            node.attribute.append(node.attribute[place])


def attribute_added(rng: random.Random, model: ModelProto) -> None:
    """An attribute that the operator has, with an odd value."""
    node = _node(rng, model)
    if not onnx.defs.has(node.op_type, node.domain):
        return
    known = onnx.defs.get_schema(node.op_type, node.domain).attributes
    for name in rng.sample(sorted(known), min(1, len(known))):
        kind = known[name].type.value
        new = AttributeProto(name=name, type=kind)
        if kind == AttributeProto.INT:
            new.i = odd.integer(rng)
        elif kind == AttributeProto.INTS:
            new.ints.extend(odd.integer(rng) for _ in range(rng.randrange(4)))
        elif kind == AttributeProto.FLOAT:
            new.f = rng.choice(odd.FLOATS)
        elif kind == AttributeProto.STRING:
            new.s = rng.choice(odd.TEXTS)
        node.attribute.append(new)


# --- nodes ---------------------------------------------------------------------------------------


def node_inputs(rng: random.Random, model: ModelProto) -> None:
    """An input less, more, absent, or another one."""
    node = _node(rng, model)
    kind = rng.randrange(5)
    if kind == 0 and node.input:
        del node.input[rng.randrange(len(node.input))]
    elif kind == 1 and node.input:
        node.input[rng.randrange(len(node.input))] = ""
    elif kind == 2:
        node.input.append(rng.choice(_names(model)))
    elif node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(_names(model))


def node_outputs(rng: random.Random, model: ModelProto) -> None:
    """An output less, more, absent, or one that is there already."""
    node = _node(rng, model)
    kind = rng.randrange(4)
    if kind == 0 and node.output:
        del node.output[rng.randrange(len(node.output))]
    elif kind == 1 and node.output:
        node.output[rng.randrange(len(node.output))] = ""
    elif kind == 2:
        node.output.append("extra")
    elif node.output:
        node.output[0] = rng.choice(_names(model))


def node_operator(rng: random.Random, model: ModelProto) -> None:
    """Another operator, or another domain."""
    node = _node(rng, model)
    if rng.random() < 0.8:
        node.op_type = rng.choice(OPERATORS)
    else:
        node.domain = rng.choice(["com.microsoft", "ai.onnx.ml", "nowhere", "ai.onnx"])


def node_order(rng: random.Random, model: ModelProto) -> None:
    """Nodes removed, repeated, or out of order."""
    graph = _graph(rng, model)
    if not graph.node:
        return
    nodes = list(graph.node)
    kind, place = rng.randrange(3), rng.randrange(len(nodes))
    if kind == 0:
        del nodes[place]
    elif kind == 1:
        nodes.insert(place, nodes[place])
    else:
        nodes.insert(rng.randrange(len(nodes)), nodes.pop(place))
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


# --- tensors -------------------------------------------------------------------------------------


def _change_tensor(rng: random.Random, tensor: TensorProto) -> None:
    kind = rng.randrange(8)
    if kind == 0:
        del tensor.dims[:]
        tensor.dims.extend(rng.choice(SHAPES))
    elif kind == 1 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(odd.INTEGERS)
    elif kind == 2:
        tensor.data_type = rng.choice(TYPES)
    elif kind == 3:
        tensor.raw_data = tensor.raw_data[: len(tensor.raw_data) // 2]
    elif kind == 4:
        tensor.float_data.append(1.5)
    elif kind == 5:
        tensor.data_location = TensorProto.EXTERNAL
        for key in ("location", "offset", "length"):
            if rng.random() < 0.8:
                text = rng.choice([*odd.NAMES, *map(str, odd.INTEGERS)])
                tensor.external_data.add(key=key, value=text)
    elif kind == 6:
        tensor.name = rng.choice(odd.NAMES)
    else:
        tensor.segment.begin = 1


def tensor_header(rng: random.Random, model: ModelProto) -> None:
    """A weight whose type, sizes and contents do not belong together."""
    graph = _graph(rng, model)
    if graph.initializer:
        _change_tensor(rng, rng.choice(graph.initializer))


def tensor_values(rng: random.Random, model: ModelProto) -> None:
    """Small integer weights, which are sizes and axes more often than not, with odd values."""
    small = [t for g in _graphs(model.graph) for t in g.initializer if t.data_type in (6, 7)]
    small += [
        attribute.t
        for graph in _graphs(model.graph)
        for node in graph.node
        for attribute in node.attribute
        if attribute.HasField("t") and attribute.t.data_type in (6, 7)
    ]
    if not small:
        return tensor_header(rng, model)
    tensor = rng.choice(small)
    try:
        array = numpy_helper.to_array(tensor).copy()
    except (ValueError, TypeError):
        return None
    if not 0 < array.size < 64:
        return None
    for _ in range(rng.randrange(1, 3)):
        place = rng.randrange(array.size)
        number = odd.integer(rng, int(array.flat[place]))
        array.flat[place] = max(-(2**31), min(2**31 - 1, number)) if array.itemsize == 4 else number
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return None


def tensor_floats(rng: random.Random, model: ModelProto) -> None:
    """Small float weights, scales among them, with odd values."""
    small = [t for t in model.graph.initializer if t.data_type == 1 and 0 < sum(t.dims) < 32]
    if small:
        tensor = rng.choice(small)
        try:
            array = numpy_helper.to_array(tensor).copy()
        except (ValueError, TypeError):
            return
        if array.size:
            array.flat[rng.randrange(array.size)] = rng.choice(odd.FLOATS)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def tensor_listed(rng: random.Random, model: ModelProto) -> None:
    """A weight twice, gone, sparse, or an input of the network."""
    graph = model.graph
    if not graph.initializer:
        return
    place = rng.randrange(len(graph.initializer))
    tensor, kind = graph.initializer[place], rng.randrange(4)
    if kind == 0:
        graph.initializer.append(tensor)
    elif kind == 1:
        del graph.initializer[place]
    elif kind == 2:
        graph.input.append(helper.make_tensor_value_info(tensor.name, 1, rng.choice(SHAPES)))
    else:
        indices = helper.make_tensor("at", 7, [1], [rng.choice((0, 1, 10**9))])
        values = helper.make_tensor(tensor.name, 1, [1], [0.5])
        sparse = helper.make_sparse_tensor(values, indices, list(tensor.dims))
        del graph.initializer[place]
        graph.sparse_initializer.append(sparse)


# --- the interface -------------------------------------------------------------------------------


def value_info(rng: random.Random, model: ModelProto) -> None:
    """Inputs, outputs and inner tensors of other sizes, types and names."""
    graph = _graph(rng, model)
    values = [*graph.input, *graph.output, *graph.value_info]
    if not values:
        return
    value = rng.choice(values)
    tensor, kind = value.type.tensor_type, rng.randrange(6)
    if kind == 0:
        tensor.elem_type = rng.choice(TYPES)
    elif kind == 1:
        tensor.ClearField("shape")
    elif kind == 2 and tensor.shape.dim:
        dim = rng.choice(tensor.shape.dim)
        dim.dim_value = odd.integer(rng, dim.dim_value)
    elif kind == 3 and tensor.shape.dim:
        rng.choice(tensor.shape.dim).dim_param = rng.choice([*odd.NAMES, "a*b", "2**9**9", "s0//0"])
    elif kind == 4:
        value.name = rng.choice(odd.NAMES)
    else:
        value.type.sequence_type.elem_type.tensor_type.elem_type = 1


def interface(rng: random.Random, model: ModelProto) -> None:
    """An input or output less, or twice."""
    field = rng.choice((model.graph.input, model.graph.output))
    if field:
        place = rng.randrange(len(field))
        if rng.random() < 0.6:
            del field[place]
        else:
            field.append(field[place])


def fixed_input(rng: random.Random, model: ModelProto) -> None:
    """An input becomes a weight, of odd values if it is a number or a few."""
    graph = model.graph
    if not graph.input:
        return
    place = rng.randrange(len(graph.input))
    value = graph.input[place]
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    if value.type.tensor_type.elem_type not in (1, 6, 7, 9, 11) or not all(0 < d < 9 for d in dims):
        return
    kind, count = value.type.tensor_type.elem_type, 1
    for size in dims:
        count *= size
    if count > 64:
        return
    integers = [max(-(2**31), min(2**31 - 1, odd.integer(rng))) for _ in range(count)]
    numbers = rng.choices(odd.FLOATS, k=count) if kind in (1, 11) else integers
    if kind == 9:
        numbers = [number % 2 for number in integers]
    graph.initializer.append(helper.make_tensor(value.name, kind, dims, numbers))
    del graph.input[place]


def rename(rng: random.Random, model: ModelProto) -> None:
    """A tensor with another name, everywhere."""
    names = [name for name in _names(model) if name not in ("", "nowhere")]
    if not names:
        return
    old, new = rng.choice(names), rng.choice([*odd.NAMES, rng.choice(names)])
    for graph in _graphs(model.graph):
        for node in graph.node:
            for field in (node.input, node.output):
                for place, name in enumerate(field):
                    if name == old:
                        field[place] = new
        for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
            if value.name == old:
                value.name = new
    rng.choice(model.graph.node or [NodeProto()]).name = rng.choice(odd.NAMES)


# --- the model -----------------------------------------------------------------------------------


def versions(rng: random.Random, model: ModelProto) -> None:
    """Other versions of the format and of operator sets."""
    kind = rng.randrange(4)
    if kind == 0:
        model.ir_version = rng.choice([*range(1, 15), 2**40, -1])
    elif kind == 1:
        model.opset_import.add(domain=rng.choice(["", "ai.onnx.ml", "a"]), version=odd.integer(rng))
    elif kind == 2 and model.opset_import:
        rng.choice(model.opset_import).version = odd.integer(rng, 17)
    elif model.opset_import:
        rng.choice(model.opset_import).version = rng.randrange(6, 27)


def metadata(rng: random.Random, model: ModelProto) -> None:
    """History, ties and what other programs write, mistyped or cut off."""
    step = {
        "operation": "widen", "parent": "0" * 64, "version": "0.1.0", "inserted": ["w"], "seed": 0,
        "changes": [{"dimension": "fc1", "old": 3, "new": 4, "source": "0,0"}],
    }  # fmt: skip
    given = {
        HISTORY: [step], TIES: {"head.weight": "w"},
        "onnx_net2net.roles": {"w": ["parameter", True]}, "onnx_net2net.layout": {},
    }  # fmt: skip
    key = rng.choice(sorted(given))
    text = odd.text_of(rng, odd.altered(rng, given[key]))
    model.metadata_props.add(key=key, value=text)
    if model.graph.node and rng.random() < 0.3:
        node = rng.choice(model.graph.node)
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=rng.choice(odd.NAMES))
        node.doc_string = rng.choice(odd.NAMES)


def function(rng: random.Random, model: ModelProto) -> None:
    """A node becomes the call of a local function; now and then of one that calls itself."""
    graph = model.graph
    if not graph.node:
        return
    place = rng.randrange(len(graph.node))
    inner = NodeProto.FromString(graph.node[place].SerializeToString())
    inputs = [name or f"absent{i}" for i, name in enumerate(inner.input)]
    outputs = [name or f"unused{i}" for i, name in enumerate(inner.output)]
    if rng.random() < 0.3 and inner.attribute:
        chosen = rng.choice(inner.attribute)
        kind = chosen.type
        chosen.CopyFrom(AttributeProto(name=chosen.name, type=kind, ref_attr_name="given"))
    body = [inner]
    if rng.random() < 0.2:
        body.append(helper.make_node("F", inputs, ["loop"], domain="local"))
    imports = [*model.opset_import, helper.make_opsetid("local", 1)]
    made = helper.make_function("local", "F", inputs, outputs, body, imports[: rng.randrange(1, 4)])
    model.functions.append(made)
    if rng.random() < 0.8:
        model.opset_import.add(domain="local", version=1)
    call = helper.make_node("F", list(inner.input), list(inner.output), domain="local", given=1)
    graph.node[place].CopyFrom(call)


def nested(rng: random.Random, model: ModelProto) -> None:
    """The last node moves into the branches of an If, many deep now and then."""
    graph = model.graph
    if not graph.node or not graph.node[-1].output or not graph.node[-1].output[0]:
        return
    node = NodeProto.FromString(graph.node[-1].SerializeToString())
    name = node.output[0]
    graph.initializer.append(helper.make_tensor("always", 9, [], [rng.random() < 0.5]))
    for depth in range(rng.choice((1, 1, 2, 25, 40))):
        inner = f"{name}/{depth}"
        node.output[0] = inner
        result = onnx.ValueInfoProto(name=inner)
        branch = helper.make_graph([node], "branch", [], [result])
        node = (
            helper.make_node("If", ["always"], [name], then_branch=branch, else_branch=branch)
            if depth < 3
            else helper.make_node("If", ["always"], [name], then_branch=branch)
        )
    graph.node[-1].CopyFrom(node)


MUTATIONS: dict[Callable[[random.Random, ModelProto], None], int] = {
    attribute_value: 5, attribute_length: 2, attribute_type: 3, attribute_missing: 2,
    attribute_added: 4, node_inputs: 4, node_outputs: 2, node_operator: 3, node_order: 2,
    tensor_header: 3, tensor_values: 7, tensor_floats: 2, tensor_listed: 2, value_info: 4,
    interface: 1, fixed_input: 3, rename: 2, versions: 2, metadata: 2, function: 2, nested: 1,
}  # fmt: skip


def mutated(rng: random.Random, model: ModelProto) -> list[str]:
    """Change ``model`` one to four times; the names of the changes."""
    chosen = rng.choices(
        list(MUTATIONS), list(MUTATIONS.values()), k=rng.choice((1, 1, 2, 2, 3, 4))
    )
    done = []
    for change in chosen:
        # Protobuf and onnx refuse some values; what has been changed by then stays.
        try:
            change(rng, model)
            done.append(change.__name__)
        except (ValueError, TypeError, IndexError, DecodeError, onnx.checker.ValidationError):
            done.append(f"({change.__name__})")
    return done


def damaged(rng: random.Random, contents: bytes) -> bytes:
    """The bytes of a file with some flipped, cut off, repeated or inserted."""
    data = bytearray(contents)
    for _ in range(rng.choice((1, 1, 2, 5))):
        if not data:
            break
        place, kind = rng.randrange(len(data)), rng.randrange(5)
        if kind == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            del data[place:]
        elif kind == 3:
            data[place:place] = data[place : place + rng.randrange(1, 60)]
        else:
            del data[place : place + rng.randrange(1, 9)]
    return bytes(data)
