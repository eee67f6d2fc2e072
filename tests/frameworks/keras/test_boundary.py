"""The edges of a Keras model: names, inputs, outputs, and sizes that only a run tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_net2net.errors import Refused
from onnx_net2net.verification.verify import run
from tests.keras_models import in_order, keras, load, to_keras
from tests.networks import Net

from onnx_net2net.frameworks.keras.run_time_sizes import OPERATIONS  # isort: skip

tf = pytest.importorskip("tensorflow")

FLOAT = TensorProto.FLOAT


def tensor(name: str, shape: Any, kind: int = FLOAT) -> onnx.ValueInfoProto:
    """A declared tensor."""
    return helper.make_tensor_value_info(name, kind, shape)


def net(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray] | None = None,
    *,
    name: str = "net",
    opset: int = 18,
) -> Any:
    """A model of these nodes."""
    stored = [onnx.numpy_helper.from_array(a, key) for key, a in (weights or {}).items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, stored)
    opsets = [helper.make_opsetid("", opset)]
    return load(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def agrees(model: Any, feeds: dict[str, np.ndarray]) -> None:
    """Assert that Keras computes what onnxruntime does, with sizes that stay open in its graph."""
    wanted = run(model, feeds, optimised=False)
    network = to_keras(model)
    signature = [tf.TensorSpec(x.shape, x.dtype) for x in network.inputs]

    @tf.function(input_signature=signature)
    def called(*given: Any) -> Any:
        return network(list(given) if len(given) > 1 else given[0])

    found = called(*feeds.values())
    for value, out in zip(in_order(found), model.proto.graph.output, strict=True):
        want = wanted[out.name]
        assert (value.shape, value.dtype) == (want.shape, want.dtype)
        np.testing.assert_allclose(value, want, rtol=1e-4, atol=1e-5)


def normal(*shape: int) -> np.ndarray:
    """Random numbers."""
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


SEQUENCE = helper.make_tensor_sequence_value_info("pieces", FLOAT, [1, 3])
MAYBE = helper.make_value_info(
    "maybe", helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, [1, 3]))
)
AT = [helper.make_node("SequenceAt", ["pieces", "i"], ["y"])]
FIRST = {"i": np.array(0, np.int64)}
SPLIT = [helper.make_node("SplitToSequence", ["x"], ["pieces"], axis=1)]
CAST = [helper.make_node("Cast", ["x"], ["y"], to=FLOAT)]
Y = [tensor("y", None)]

REFUSED = {
    "input 'pieces': .*its type is sequence": lambda: net(AT, [SEQUENCE], Y, FIRST),
    "input 'maybe': .*its type is optional": lambda: net(
        [helper.make_node("OptionalGetElement", ["maybe"], ["y"])], [MAYBE], Y
    ),
    "output 'pieces': .*is sequence": lambda: net(SPLIT, [tensor("x", [2, 3])], [SEQUENCE]),
    "input 'x': tensors of int4 have no translation to Keras": lambda: net(
        CAST, [tensor("x", [3], TensorProto.INT4)], Y, opset=21
    ),
    "input 'x': tensors of strings have no translation to Keras": lambda: net(
        CAST, [tensor("x", [3], TensorProto.STRING)], Y
    ),
    "it has no input": lambda: net(
        [helper.make_node("Relu", ["w"], ["y"])], [], Y, {"w": normal(3)}
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_no_tensor_is_refused_by_name(reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        to_keras(REFUSED[reason]())


NAMES = [
    ("x", "x", "z"),  # the graph as an input
    ("net", "net", "net_model"),  # the layer and the model
    ("a b", "a b", "a_b"),  # the same where Keras' rules are kept
    ("1", "a/b:0", "a_b_0"),
    ("", "日本", "語"),
    ("if", "lambda", "None"),
]


@pytest.mark.parametrize("names", NAMES)
def test_any_names(names: tuple[str, str, str]) -> None:
    graph, one, other = names
    nodes = [
        helper.make_node("Sub", [one, other], ["y:0"]),
        helper.make_node("Relu", ["y:0"], ["/out"]),
    ]
    inputs = [tensor(one, ["batch size", 3]), tensor(other, ["batch size", 3])]
    model = net(nodes, inputs, [tensor("y:0", None), tensor("/out", None)], name=graph or "g")
    agrees(model, {one: normal(2, 3), other: normal(2, 3) * 2})


@pytest.mark.parametrize("names", [("z:0", "a:0"), ("z", "a"), ("/z", "_a"), ("語", "a b")])
def test_outputs_with_any_names_train_by_list_and_by_name(names: tuple[str, str]) -> None:
    """Layers of those names give the outputs, in the order of the file."""
    nodes = [helper.make_node("MatMul", ["x", w], [y]) for w, y in zip("wv", names, strict=True)]
    weights = {"w": normal(3, 2), "v": normal(3, 2) * 2}
    out = [tensor(name, ["n", 2]) for name in names]
    network = to_keras(net(nodes, [tensor("x", ["n", 3])], out, weights))
    data = np.eye(3, dtype=np.float32)
    found = network(data)
    np.testing.assert_allclose(found[0], weights["w"], rtol=1e-6)
    targets = [np.asarray(value) for value in found]
    network.compile("sgd", ["mse", "mae"])
    losses = network.fit(data, targets, verbose=0).history
    assert losses["loss"][0] < 1e-6
    named = dict(zip(network.output_names, targets, strict=True))
    network.compile("sgd", dict.fromkeys(named, "mse"))
    losses = network.fit(data, named, verbose=0).history
    assert losses["loss"][0] < 1e-6


def test_outputs_in_the_order_of_the_alphabet_are_a_dictionary(tmp_path: Any) -> None:
    """Lists of targets mean the order of the file all the same, also once it was loaded."""
    nodes = [helper.make_node("MatMul", ["x", n], [y]) for n, y in (("w", "cls"), ("v", "reg"))]
    weights = {"w": normal(3, 2), "v": normal(3, 2) * 2}
    out = [tensor("cls", ["n", 2]), tensor("reg", ["n", 2])]
    network = to_keras(net(nodes, [tensor("x", ["n", 3])], out, weights))
    data = np.eye(3, dtype=np.float32)
    targets = [weights["w"], weights["v"]]
    network.compile("sgd", ["mse", "mae"])
    network.save(tmp_path / "net.keras")
    for one in (network, keras.saving.load_model(tmp_path / "net.keras")):
        assert list(one(data)) == ["cls", "reg"]
        assert one.evaluate(data, targets, verbose=0)[0] < 1e-6
        assert one.evaluate(data, targets[::-1], verbose=0)[0] > 1e-3
        named = dict(zip(("reg", "cls"), targets[::-1], strict=True))
        assert one.evaluate(data, named, verbose=0)[0] < 1e-6


def test_a_loaded_model_keeps_the_order_and_is_compiled(tmp_path: Any) -> None:
    nodes = [helper.make_node("MatMul", ["x", n], [y]) for n, y in (("w", "z"), ("v", "a"))]
    weights = {"w": normal(3, 2), "v": normal(3, 2) * 2}
    out = [tensor("z", ["n", 2]), tensor("a", ["n", 2])]
    network = to_keras(net(nodes, [tensor("x", ["n", 3])], out, weights))
    network.compile("sgd", ["mse", "mae"])
    data = np.eye(3, dtype=np.float32)
    network.fit(data, [weights["w"], weights["v"]], verbose=0)
    network.save(tmp_path / "net.keras")
    again = keras.saving.load_model(tmp_path / "net.keras")
    assert again.output_names == ["z", "a"]
    assert again.evaluate(data, [weights["w"], weights["v"]], verbose=0)[0] < 1e-6


RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_recurrent_layers_of_any_length(name: str, direction: str) -> None:
    ways, gates = 1 + (direction == "bidirectional"), RECURRENT[name]
    weights = {"w": normal(ways, gates * 4, 5), "r": normal(ways, gates * 4, 4)}
    node = helper.make_node(name, ["x", "w", "r"], ["y", "h"], hidden_size=4, direction=direction)
    model = net(
        [node], [tensor("x", ["time", "batch", 5])], [tensor("y", None), tensor("h", None)], weights
    )
    for length in (1, 6, 70):
        agrees(model, {"x": normal(length, 2, 5)})


def body(nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[Any]) -> onnx.GraphProto:
    """A body of a loop."""
    return helper.make_graph(nodes, "body", inputs, outputs)


def test_scan_over_two_sequences_of_any_length() -> None:
    nodes = [
        helper.make_node("Mul", ["a", "b"], ["ab"]),
        helper.make_node("Add", ["s", "ab"], ["t"]),
        helper.make_node("Identity", ["t"], ["row"]),
    ]
    inner = body(
        nodes,
        [tensor("s", [3]), tensor("a", [3]), tensor("b", [3])],
        [tensor("t", [3]), tensor("row", [3])],
    )
    node = helper.make_node(
        "Scan", ["z", "p", "q"], ["last", "rows"], body=inner, num_scan_inputs=2
    )
    inputs = [tensor("p", ["n", 3]), tensor("q", ["n", 3])]
    model = net([node], inputs, [tensor("last", [3]), tensor("rows", ["n", 3])], {"z": normal(3)})
    for length in (1, 5, 80):
        agrees(model, {"p": normal(length, 3), "q": normal(length, 3) + 1})


def test_loops_as_often_as_an_input_says_collect_and_grow() -> None:
    nodes = [
        helper.make_node("Identity", ["c"], ["d"]),
        helper.make_node("Concat", ["s", "x"], ["t"], axis=0),
        helper.make_node("Cast", ["i"], ["row"], to=FLOAT),
    ]
    inner = body(
        nodes,
        [tensor("i", [], TensorProto.INT64), tensor("c", [], TensorProto.BOOL), tensor("s", None)],
        [tensor("d", [], TensorProto.BOOL), tensor("t", None), tensor("row", None)],
    )
    node = helper.make_node("Loop", ["n", "", "x"], ["last", "rows"], body=inner)
    inputs = [tensor("x", [2]), tensor("n", [], TensorProto.INT64)]
    model = net([node], inputs, [tensor("last", None), tensor("rows", None)])
    for count in (1, 4):
        agrees(model, {"x": normal(2), "n": np.array(count, np.int64)})


@pytest.mark.parametrize("op", ["Conv", "MaxPool", "AveragePool"])
@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_strided_same_windows_on_images_of_any_size(op: str, mode: str) -> None:
    given: dict[str, Any] = {"auto_pad": mode, "strides": [2, 3]}
    weights = {"w": normal(4, 3, 3, 3)} if op == "Conv" else {}
    if op != "Conv":
        given["kernel_shape"] = [3, 3]
    node = helper.make_node(op, ["x", *weights], ["y"], **given)
    model = net([node], [tensor("x", ["n", 3, "h", "w"])], Y, weights)
    for size in ((11, 14), (8, 9)):
        agrees(model, {"x": normal(2, 3, *size)})


def test_squeeze_without_axes_says_where_it_would_change_the_rank() -> None:
    node = helper.make_node("Squeeze", ["x"], ["y"])
    network = to_keras(net([node], [tensor("x", ["n", 1, 3])], Y))
    assert network.predict(normal(2, 1, 3), verbose=0).shape == (2, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="name the axes"):
        network.predict(normal(1, 1, 3), verbose=0)
    assert network(normal(1, 1, 3)).shape == (3,)  # where all sizes are known


@pytest.mark.parametrize("trained", [0, 1])
def test_weights_standardised_by_batch_normalization_train(trained: int) -> None:
    """As in NF-ResNet: what such a norm has of statistics is none of the network's."""
    channels = 4
    nodes = [
        helper.make_node("Reshape", ["w", "rows"], ["flat"]),
        helper.make_node(
            "BatchNormalization",
            ["flat", "gain", "zero", "mean", "variance"],
            ["even"] if not trained else ["even", "m", "v"],
            training_mode=trained,
        ),
        helper.make_node("Reshape", ["even", "square"], ["kernel"]),
        helper.make_node("Conv", ["x", "kernel"], ["y"], pads=[1, 1, 1, 1]),
    ]
    weights = {
        "w": normal(channels, 3, 3, 3),
        "rows": np.array([1, channels, -1]),
        "square": np.array([channels, 3, 3, 3]),
        "gain": np.ones(channels, np.float32),
        "zero": np.zeros(channels, np.float32),
        "mean": np.zeros(channels, np.float32),
        "variance": np.ones(channels, np.float32),
    }
    network = to_keras(net(nodes, [tensor("x", ["n", 3, 8, 8])], Y, weights))
    trainable = {variable.path.partition("/")[0] for variable in network.trainable_variables}
    assert "w" in trainable
    assert not trainable & {"mean", "variance"}
    data, targets = normal(2, 3, 8, 8), normal(2, channels, 8, 8)
    network.compile("sgd", "mse")
    losses = network.fit(data, targets, epochs=6, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert all(np.isfinite(np.asarray(v)).all() for v in network.variables)


# What is made of n, the length of an input, by operators on whole numbers.
CHAINS: dict[str, Callable[[Net, str], str]] = {
    "halved": lambda net, n: net("Div", n, net.put(np.array([2]))),
    "cancelled": lambda net, n: net("Div", net("Mul", n, net.put(np.array([6]))), n),
    "bounded": lambda net, n: net("Min", n, net.put(np.array([4]))),
    "chosen": lambda net, n: net(
        "Where", net("Greater", n, net.put(np.array([3]))), n, net.put(np.array([5]))
    ),
    "rounded": lambda net, n: net(
        "Cast",
        net("Ceil", net("Mul", net("Cast", n, to=FLOAT), net.put(np.array([0.3], np.float32)))),
        to=TensorProto.INT64,
    ),
    "towards zero": lambda net, n: net("Neg", net("Div", net("Neg", n), net.put(np.array([2])))),
}


def chain_model(name: str) -> Any:
    """As many rows as a chain makes of n."""
    built = Net(opset=18)
    shape = built("Shape", built.input("n", 3), start=0, end=1)
    target = built("Concat", CHAINS[name](built, shape), built.put(np.array([3])), axis=0)
    return load(built.model(built("Expand", built.weight(1, 3), target)))


@pytest.mark.parametrize("name", CHAINS)
def test_sizes_that_are_computed_from_an_open_one(name: str) -> None:
    for length in (1, 4, 9):
        agrees(chain_model(name), {"x": normal(length, 3)})


SPOILED = {"halved": "floordiv", "bounded": "min0", "chosen": "Where", "rounded": "Ceil"}


@pytest.mark.parametrize("name", SPOILED)
def test_a_size_that_is_computed_otherwise_is_seen(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OPERATIONS, SPOILED[name], lambda *sizes: keras.ops.cast(8, "int32"))
    with pytest.raises(AssertionError):
        agrees(chain_model(name), {"x": normal(9, 3)})
