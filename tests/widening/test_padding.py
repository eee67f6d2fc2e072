"""Any width through LayerNorm and RMSNorm: exact with eta, wrong without it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_net2net as n2n
from tests.console import ROOT
from tests.networks import Net

FIXTURES = ROOT / "fixtures"


def stream(name: str) -> tuple[n2n.Model, n2n.Dimension]:
    """The residual stream of a fixture: the dimension that most nodes touch."""
    model = n2n.load(FIXTURES / f"{name}.onnx")
    growing = [d for d in n2n.inspect(model) if d.growth != "fixed"]
    return model, max(growing, key=lambda d: len(d.nodes))


@pytest.mark.parametrize("name", ["gpt2.dynamo", "vit.ts17", "llama-positions.dynamo23"])
@pytest.mark.parametrize("factor", [1.1, 1.9, 2.0, 2.7])
def test_the_residual_stream_grows_to_any_width(name: str, factor: float) -> None:
    model, dimension = stream(name)
    assert dimension.growth == "any"
    grown = n2n.widen(model, {dimension.name: round(factor * dimension.width)}, seed=2)
    assert n2n.verify(model, grown, seeds=1)


def test_padding_and_other_growth_go_together() -> None:
    model, dimension = stream("gpt2.dynamo")
    widths = {d.name: d.width + 5 for d in n2n.inspect(model) if d.growth == "any"}
    assert dimension.name in widths
    assert n2n.verify(model, n2n.widen(model, widths, seed=4), seeds=1)


def test_without_eta_the_judge_objects() -> None:
    model, dimension = stream("vit.dynamo")
    grown = n2n.widen(model, {dimension.name: dimension.width + 5})
    proto = onnx.ModelProto.FromString(grown.to_bytes())
    for node in proto.graph.node:
        if node.op_type == "LayerNormalization":
            for attribute in node.attribute:
                if attribute.name == "epsilon":
                    attribute.f *= 1e4
    assert not n2n.verify(model, proto, seeds=1)
    proto = onnx.ModelProto.FromString(grown.to_bytes())
    scales = {n.input[1] for n in proto.graph.node if n.op_type == "LayerNormalization"}
    chosen = next(t for t in proto.graph.initializer if t.name in scales)
    chosen.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(chosen) * 1.05, chosen.name))
    assert not n2n.verify(model, proto, seeds=1)


def test_post_norm_streams_grow_by_multiples_and_say_why() -> None:
    _, dimension = stream("bert.dynamo")
    assert dimension.growth == "multiple"
    assert dimension.reason is not None and "padding would not be exact" in dimension.reason


# A scale of units as it is stored, or in another form; read again, as a weight and as a summand.
SCALES: dict[str, list[tuple[str, list[str], str]]] = {
    "as it is": [("Identity", ["y0"], "y")],
    "a row": [("Reshape", ["vector", "row"], "gamma"), ("Identity", ["y0"], "y")],
    "of a column": [
        ("Squeeze", ["column", "last"], "flat"),
        ("Unsqueeze", ["flat", "first"], "gamma"),
        ("Identity", ["y0"], "y"),
    ],
    "read again": [
        ("Reshape", ["vector", "row"], "gamma"),
        ("MatMul", ["gamma", "w3"], "again"),
        ("Add", ["y0", "again"], "y"),
    ],
    "added, too": [
        ("Reshape", ["vector", "row"], "gamma"),
        ("Add", ["e", "gamma"], "f"),
        ("MatMul", ["f", "w3"], "again"),
        ("Add", ["y0", "again"], "y"),
    ],
    "computed": [("Abs", ["vector"], "gamma"), ("Identity", ["y0"], "y")],
    "in another order": [("Gather", ["vector", "order"], "gamma"), ("Identity", ["y0"], "y")],
    "each from elsewhere": [
        ("GatherElements", ["vector", "order"], "gamma"),
        ("Identity", ["y0"], "y"),
    ],
}


def layer_scale(form: str = "as it is") -> onnx.ModelProto:
    """x W1 gamma added to x W0, then LayerNorm: pads of W1 must hold a weighted mean."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("MatMul", ["x", "w1"], ["b"]),
        helper.make_node("Mul", ["b", "gamma"], ["c"]),
        helper.make_node("Add", ["a", "c"], ["d"]),
        helper.make_node("LayerNormalization", ["d", "scale", "bias"], ["e"], axis=-1),
        helper.make_node("MatMul", ["e", "w2"], ["y0"]),
    ]
    made = [helper.make_node(op, inputs, [output]) for op, inputs, output in SCALES[form]]
    early = [node for node in made if node.output[0] in ("flat", "gamma")]
    nodes = [*early, *nodes, *(node for node in made if node not in early)]
    read = {name for node in nodes for name in node.input}
    weights = [
        *(weight(name, 5, 8) for name in ("w0", "w1")),
        *(weight(name, 8) for name in ("gamma", "vector", "scale", "bias")),
        weight("column", 8, 1),
        *(weight(name, 8, 3) for name in ("w2", "w3")),
        numpy_helper.from_array(np.array([1, 8]), "row"),
        numpy_helper.from_array(np.array([5, 3, 1, 0, 2, 4, 7, 6]), "order"),
        *(numpy_helper.from_array(np.array([n]), s) for n, s in ((-1, "last"), (0, "first"))),
    ]
    computed = {name for node in early for name in node.output}
    graph = helper.make_graph(
        nodes,
        "layer_scale",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 3])],
        [entry for entry in weights if entry.name in read - computed],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("form", SCALES)
def test_layer_scale_is_seen_through(form: str) -> None:
    model = n2n.load(layer_scale(form))
    dimension = next(d for d in n2n.inspect(model) if d.growth != "fixed")
    if form in ("added, too", "computed", "in another order", "each from elsewhere"):
        assert dimension.growth != "any"
    else:
        assert dimension.growth == "any"
        assert n2n.verify(model, n2n.widen(model, {dimension.name: 13}))
    assert n2n.verify(model, n2n.widen(model, {dimension.name: 16}))


SHIFTS = {
    "b - mean s": [("Mul", "mean s", "ms"), ("Sub", "b ms", "shift"), ("Add", "xs shift", "ln")],
    "(-mean) s + b": [
        ("Neg", "mean", "minus"), ("Mul", "minus s", "ms"), ("Add", "ms b", "shift"),
        ("Add", "xs shift", "ln"),
    ],
    "no bias": [("Mul", "mean s", "ms"), ("Sub", "xs ms", "ln")],
}  # fmt: skip


# Scale and bias as they are stored, or as exporters of Keras reshape them; or read again.
ROW = [("Reshape", "gamma row", "g"), ("Reshape", "beta row", "b")]
STORED = {"as it is": [], "a row": ROW, "read again": [*ROW, ("MatMul", "g w3", "again")]}


def multiplied_out(shift: str, stored: str = "as it is") -> tuple[n2n.Model, int]:
    """A norm as Keras has it, x s + (b - mean s), and its nodes."""
    rng = np.random.default_rng(0)
    steps = [
        *(step for step in STORED[stored] if "b" not in step[1:] or shift != "no bias"),
        ("MatMul", "x w1", "y"), ("ReduceMean", "y last", "mean"), ("Sub", "y mean", "c"),
        ("Mul", "c c", "square"), ("ReduceMean", "square last", "var"), ("Add", "var eps", "moved"),
        ("Sqrt", "moved", "root"), ("Reciprocal", "root", "inverse"), ("Mul", "inverse g", "s"),
        ("Mul", "y s", "xs"), *SHIFTS[shift], ("MatMul", "ln w2", "read"),
        ("Add", "read again", "out") if stored == "read again" else ("Identity", "read", "out"),
    ]  # fmt: skip
    weights = {"w1": (7, 12), "g": (12,), "b": (12,), "gamma": (12,), "beta": (12,), "w2": (12, 5)}
    arrays = {name: rng.normal(size=shape).astype("f") for name, shape in weights.items()}
    arrays |= {"w3": arrays["w2"][::-1].copy(), "row": np.array([1, 12])}
    arrays |= {"eps": np.array(0.1, "f"), "last": np.array([-1])}
    read = {name for _, inputs, _ in steps for name in inputs.split()}
    read -= {output for _, _, output in steps}
    graph = helper.make_graph(
        [helper.make_node(op, inputs.split(), [output]) for op, inputs, output in steps],
        "norm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 7])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(a, name) for name, a in arrays.items() if name in read],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return n2n.load(proto), len(steps)


@pytest.mark.parametrize("stored", ["as it is", "a row"])
@pytest.mark.parametrize("shift", SHIFTS)
def test_a_norm_that_is_multiplied_out_is_padded(shift: str, stored: str) -> None:
    """Epsilon follows, and no node is inserted."""
    model, nodes = multiplied_out(shift, stored)
    grown = n2n.widen(model, {"w1": 17})
    assert len(grown.proto.graph.node) == nodes
    assert grown.weights["eps"].array() == pytest.approx(0.1 * 12 / 17)
    assert n2n.verify(model, grown)


def test_a_scale_that_is_read_again_is_not_the_norms_own() -> None:
    """A smaller one would change what else reads it."""
    model, nodes = multiplied_out("b - mean s", "read again")
    grown = n2n.widen(model, {"w1": 17})
    assert len(grown.proto.graph.node) > nodes, "it grows by shares"
    assert grown.weights["eps"].array() == pytest.approx(0.1)
    assert n2n.verify(model, grown)


def test_an_index_is_never_padded() -> None:
    """Units chosen by an index tensor are copied by copying indices; an index has no mean."""
    rng = np.random.default_rng(1)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Gather", ["x", "index"], ["a"], axis=1),
        helper.make_node("LayerNormalization", ["a", "scale", "bias"], ["b"], axis=-1),
        helper.make_node("MatMul", ["b", "w"], ["y"]),
    ]
    index = numpy_helper.from_array(rng.permutation(6).astype(np.int64), "index")
    graph = helper.make_graph(
        nodes,
        "chosen",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 3])],
        [index, weight("scale", 6), weight("bias", 6), weight("w", 6, 3)],
    )
    opset = [helper.make_opsetid("", 17)]
    model = n2n.load(helper.make_model(graph, opset_imports=opset, ir_version=8))
    dimension = next(d for d in n2n.inspect(model) if d.growth != "fixed")
    assert dimension.growth == "multiple"
    assert n2n.verify(model, n2n.widen(model, {dimension.name: 12}))


def normed(net: Net, tensor: str, width: int) -> str:
    return net("LayerNormalization", tensor, net.weight(width), net.weight(width))


def test_latents_that_one_weight_writes_are_padded_each() -> None:
    net = Net()
    written = net("MatMul", net.input("batch", 7), net.weight(7, 12))
    written = net("Add", written, net.weight(12))
    one, two, rest = net("Split", written, net.put(np.array([4, 6, 2])), axis=1, results=3)
    read = [net("MatMul", normed(net, t, n), net.weight(n, 3)) for t, n in ((one, 4), (two, 6))]
    last = net("MatMul", rest, net.weight(2, 3))
    model = n2n.load(net.model(net("Sum", *read, last)))
    widths = {d.name: 2 * d.width + 1 for d in n2n.inspect(model) if d.growth == "any"}
    assert sorted(widths.values()) == [5, 9, 13]
    assert n2n.verify(model, n2n.widen(model, widths), seeds=1)


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 2, 1]], ids=["inner", "outer"])
def test_a_norm_of_each_head_is_padded_in_all_of_them(order: list[int]) -> None:
    net = Net()
    written = net("MatMul", net.input("batch", 7), net.weight(7, 12))
    sizes = np.array([0, 3, 4])[order]
    heads = net("Reshape", written, net.put(sizes))
    merged = net("Reshape", normed(net, net("Transpose", heads, perm=order), 4), net.put([0, 12]))
    model = n2n.load(net.model(net("MatMul", merged, net.weight(12, 2))))
    widths = {d.name: d.width + 2 for d in n2n.inspect(model) if d.growth == "any"}
    assert sorted(widths.values()) == [5, 6]
    assert n2n.verify(model, n2n.widen(model, widths), seeds=1)


def branch(net: Net, name: str) -> onnx.GraphProto:
    """Rows that a branch of an If writes by a weight from outside."""
    node = helper.make_node("MatMul", [net.inputs[0].name, net.weight(5, 9)], [name])
    output = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 9])
    return helper.make_graph([node], name, [], [output])


@pytest.mark.parametrize("norm", ["LayerNormalization", "SimplifiedLayerNormalization"])
def test_what_a_body_writes_is_not_padded(norm: str) -> None:
    """Nobody tells the weights inside what the norm behind it needs: zeros, or a mean."""
    net = Net(opset=17)
    x = net.input("batch", 5)
    positive = net("Greater", net("ReduceSum", x, keepdims=0), net.put(np.float32(0)))
    branches = {f"{way}_branch": branch(net, way) for way in ("then", "else")}
    stream = net("Add", net("If", positive, **branches), net("MatMul", x, net.weight(5, 9)))
    normed_stream = net(norm, stream, net.weight(9))
    model = n2n.load(net.model(net("MatMul", normed_stream, net.weight(9, 3))))
    dimension = next(d for d in n2n.inspect(model) if d.width == 9)
    assert dimension.growth == "multiple"
    assert dimension.reason is not None and "body of an If" in dimension.reason
    assert n2n.verify(model, n2n.widen(model, {dimension.name: 18}), seeds=1)
