"""Nodes that are one operator together become it: the same numbers, gradients and variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnx_net2net.frameworks.keras.moved import given_back
from onnx_net2net.frameworks.program import Program
from onnx_net2net.model.model import Model
from onnx_net2net.verification.verify import run
from tests.analysis import test_fusions as norms
from tests.frameworks.keras.test_training import stepper, tf
from tests.keras_models import differences, keras, load, outputs, to_keras
from tests.networks import Net

from onnx_net2net.frameworks.keras import origin  # isort: skip
from onnx_net2net.frameworks.keras.layers import makers  # isort: skip
from onnx_net2net.frameworks.keras.operators import translations  # isort: skip

BATCH, LENGTH, HEADS, SIZE = 2, 6, 3, 4
WIDTH = HEADS * SIZE
Form = Callable[[Net, str], str]
LAYER, RMS = ("", "LayerNormalization"), ("", "RMSNormalization")
ATTENTION, QUANTIZE = ("fusion", "Attention"), ("fusion", "FakeQuantize")


def put(net: Net, *values: float, dtype: Any = np.float32) -> str:
    """A constant: a number where one is given, else a vector."""
    return net.put(np.array(values if len(values) > 1 else values[0], dtype))


def gelu(net: Net, x: str) -> str:
    wide = net("Add", net("Erf", net("Div", x, put(net, 2**0.5))), put(net, 1.0))
    return net("Mul", net("Mul", x, wide), put(net, 0.5))


def gelu_tanh(net: Net, x: str) -> str:
    cube = net("Mul", net("Pow", x, put(net, 3.0)), put(net, 0.044715))
    inner = net("Tanh", net("Mul", net("Add", x, cube), put(net, (2 / np.pi) ** 0.5)))
    return net("Mul", net("Mul", x, put(net, 0.5)), net("Add", inner, put(net, 1.0)))


def swish(net: Net, x: str) -> str:
    return net("Mul", x, net("Sigmoid", x))


def mish(net: Net, x: str) -> str:
    return net("Mul", net("Tanh", net("Softplus", x)), x)


def hard_swish(net: Net, x: str) -> str:
    return net("Mul", x, net("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def quantized(net: Net, x: str) -> str:
    scale, zero = put(net, 0.02), put(net, 3, dtype=np.int8)
    return net("DequantizeLinear", net("QuantizeLinear", x, scale, zero), scale, zero)


def heads(net: Net, x: str) -> str:
    """A product, by head: (batch, head, position, size)."""
    shape = put(net, 0, LENGTH, HEADS, SIZE, dtype=np.int64)
    split = net("Reshape", net("MatMul", x, net.weight(WIDTH, WIDTH)), shape)
    return net("Transpose", split, perm=[0, 2, 1, 3])


def attention(net: Net, x: str, mask: str = "", query: str = "", *, guarded: bool = False) -> str:
    """As exporters write it; ``guarded`` against rows of the mask that hide every key."""
    q = net("Mul", query or heads(net, x), put(net, 0.7))
    scores = net("MatMul", q, net("Transpose", heads(net, x), perm=[0, 1, 3, 2]))
    scores = net("Softmax", net("Add", scores, mask) if mask else scores, axis=-1)
    if guarded:
        scores = net("Where", net("IsNaN", scores), put(net, 0.0), scores)
    y = net("Transpose", net("MatMul", scores, heads(net, x)), perm=[0, 2, 1, 3])
    return net("Reshape", y, put(net, 0, LENGTH, WIDTH, dtype=np.int64))


def masked(guarded: bool) -> Form:
    return lambda net, x: attention(net, x, net.input(LENGTH, LENGTH), guarded=guarded)


def learned_bias(net: Net, x: str) -> str:
    return attention(net, x, net.weight(1, HEADS, LENGTH, LENGTH, name="bias"))


def learned_query(net: Net, x: str) -> str:
    """One query for the whole batch."""
    return attention(net, x, query=net.weight(1, HEADS, LENGTH, SIZE, name="query"))


FORMS: dict[str, tuple[Form, tuple[str, str]]] = {
    "gelu": (gelu, ("", "Gelu")),
    "gelu_tanh": (gelu_tanh, ("", "Gelu")),
    "swish": (swish, ("", "Swish")),
    "mish": (mish, ("", "Mish")),
    "hard_swish": (hard_swish, ("", "HardSwish")),
    "quantized": (quantized, QUANTIZE),
    "attention": (attention, ATTENTION),
    "masked": (masked(False), ATTENTION),
    "guarded": (masked(True), ATTENTION),
    "learned_bias": (learned_bias, ATTENTION),
    "learned_query": (learned_query, ATTENTION),
}


def built(form: Form) -> Model:
    """A form between two products."""
    net = Net(opset=18)
    x = net("MatMul", net.input("batch", LENGTH, WIDTH), net.weight(WIDTH, WIDTH))
    return load(net.model(net("MatMul", form(net, x), net.weight(WIDTH, 5))))


MODELS: dict[str, tuple[Callable[[], Model], tuple[str, str] | None]] = {
    name: (lambda form=form: built(form), op) for name, (form, op) in FORMS.items()
}
for norm in norms.FORMS:
    kind = LAYER if norm.__name__.startswith("layer") else RMS
    known = norm not in (norms.rms_middle, norms.layer_difference)
    MODELS[norm.__name__] = (lambda norm=norm: norms.stream(norm), kind if known else None)


def feeds_for(model: Model, hidden: float = -1e4) -> dict[str, np.ndarray]:
    """Random numbers; the mask hides what comes later, and all from the second query."""
    rng = np.random.default_rng(1)
    given = {}
    for value in model.proto.graph.input:
        shape = [d.dim_value or BATCH for d in value.type.tensor_type.shape.dim]
        given[value.name] = rng.normal(size=shape).astype(np.float32)
    if "x1" in given:
        given["x1"] = np.where(np.tri(LENGTH), np.float32(0), np.float32(hidden))
        given["x1"][1] = hidden
    return given


def unfused(model: Model, monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(Program, "fuse", lambda self, known: None)
        return to_keras(model)


def operators(model: Model) -> set[tuple[str, str]]:
    """What the steps are that layers are made of."""
    program = Program(model)
    program.fuse(translations().keys())
    return {(step.domain, step.op) for step in program.main.every_step()}


def wrong(network: Any, model: Model, feeds: dict[str, np.ndarray]) -> list[str]:
    return differences(list(run(model, feeds, optimised=False).values()), outputs(network, feeds))


def gradients(network: Any, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of each parameter of the file, in its layout."""
    values = [tf.constant(value) for value in feeds.values()]
    given = values if len(values) > 1 else values[0]
    _, found = stepper(network, given, [tf.zeros_like(network(given))])()
    pairs = zip(network.trainable_variables, found, strict=True)
    own = {
        id(v): np.zeros(v.shape) if g is None else np.asarray(tf.convert_to_tensor(g))
        for v, g in pairs
    }
    model, table = origin.origin_of(network)
    zeros = {name: np.zeros_like(weight.array()) for name, weight in model.weights.items()}
    return given_back([terms for _, terms in table], [own[id(v)] for v, _ in table], zeros)


@pytest.mark.parametrize("name", MODELS)
def test_a_fusion_computes_and_trains_as_its_nodes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, operator = MODELS[name]
    model = make()
    feeds = feeds_for(model)
    plain, network = unfused(model, monkeypatch), to_keras(model)
    assert operator is None or operator in operators(model)
    assert wrong(network, model, feeds) == wrong(plain, model, feeds) == []
    after, before = gradients(network, feeds), gradients(plain, feeds)
    assert after.keys() == before.keys() and after
    if operator != QUANTIZE:
        for key, value in before.items():
            np.testing.assert_allclose(after[key], value, rtol=2e-3, atol=1e-4, err_msg=key)


def test_gradients_pass_a_rounding_within_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(quantized)
    feeds = feeds_for(model)
    first = next(iter(gradients(to_keras(model), feeds)))
    assert np.abs(gradients(to_keras(model), feeds)[first]).max() > 0.1
    assert not np.any(gradients(unfused(model, monkeypatch), feeds)[first])


@pytest.mark.parametrize("guarded", [True, False])
def test_a_query_that_sees_no_key(guarded: bool) -> None:
    """Zeros where the file guards against it, and then gradients that are numbers; else NaN."""
    model = built(masked(guarded))
    feeds = feeds_for(model, -np.inf)
    network = to_keras(model)
    (wanted,) = run(model, feeds, optimised=False).values()
    assert np.isnan(wanted).any() != guarded
    np.testing.assert_allclose(outputs(network, feeds)[0], wanted, rtol=1e-4, atol=1e-5)
    if guarded:
        assert all(np.isfinite(value).all() for value in gradients(network, feeds).values())


FAULTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a scale left out": ("attention", lambda entry: spoiled(entry, scale=1.0)),
    "a mask left out": ("masked", lambda entry: lambda call, q, k, v, *_: entry(call, q, k, v)),
    "a zero point left out": (
        "quantized",
        lambda entry: lambda call, x, s, z: entry(call, x, s, keras.ops.zeros_like(z)),
    ),
}


def spoiled(entry: Any, **attributes: Any) -> Any:
    def other(call: Any, *operands: Any) -> Any:
        call.step.attributes.update(attributes)
        return entry(call, *operands)

    return other


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, spoil = FAULTS[fault]
    make, operator = MODELS[name]
    model = make()
    monkeypatch.setitem(translations(), operator, spoil(translations()[operator]))
    assert wrong(to_keras(model), model, feeds_for(model))


# The same in steps that become layers.
STEPS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "the other gelu": ("gelu_tanh", lambda step: step.attributes.update(approximate="none")),
    "an epsilon left out": ("rms_divides", lambda step: step.attributes.update(epsilon=1e-5)),
    "a bias left out": ("layer", lambda step: setattr(step, "inputs", step.inputs[:2])),
}


@pytest.mark.parametrize("fault", STEPS)
def test_planted_faults_in_layers_are_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, spoil = STEPS[fault]
    make, operator = MODELS[name]
    assert operator is not None
    model, maker = make(), makers()[operator]

    def spoiled(build: Any, step: Any) -> Any:
        spoil(step)
        return maker(build, step)

    monkeypatch.setitem(makers(), operator, spoiled)
    assert wrong(to_keras(model), model, feeds_for(model))
