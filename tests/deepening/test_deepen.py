"""Inserted layers compute the identity, exactly, wherever they may stand; and they can learn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_net2net as n2n
from onnx_net2net.deepening import insertion
from onnx_net2net.deepening.deepen import deepen
from onnx_net2net.deepening.insertion import dirac
from onnx_net2net.deepening.places import every_place, place_of
from onnx_net2net.model.history import HISTORY
from onnx_net2net.operators import registry
from onnx_net2net.step import Deepen
from onnx_net2net.verification.verify import run, tensors
from onnx_net2net.widening.dimensions import analyse
from tests.console import FIXTURES
from tests.judging import subject

NAMES = sorted(path.name for path in FIXTURES.glob("*.onnx"))


def fixture(name: str) -> n2n.Model:
    return n2n.load(FIXTURES / name)


def small(*nodes: onnx.NodeProto, shape: tuple[int, ...], **weights: np.ndarray) -> n2n.Model:
    """A network x -> y of these nodes."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return n2n.load(proto)


def mlp(activation: str) -> n2n.Model:
    rng = np.random.default_rng(0)
    return small(
        helper.make_node("Gemm", ["x", "fc.weight", "fc.bias"], ["h"], "fc"),
        helper.make_node(activation, ["h"], ["a"], "act"),
        helper.make_node("Gemm", ["a", "out.weight"], ["y"], "out"),
        shape=(2, 5),
        **{
            "fc.weight": rng.normal(size=(5, 7)),
            "fc.bias": rng.normal(size=7),
            "out.weight": rng.normal(size=(7, 3)),
        },
    )


# ---- exact, everywhere ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_of_every_fixture(name: str) -> None:
    """All insertion points at once: identity where it is exact, a residual elsewhere."""
    source = subject(name)
    found = list(every_place(analyse(source.model)))
    if not found:
        pytest.skip("no layer with weights in the main graph")
    deeper = deepen(source.model, [place.tensor for place in found])
    assert len(deeper.changes) == len(found)
    report = source.judge(deeper)
    assert report, report.verdict


@pytest.mark.parametrize("init", Deepen.arguments()["init"].metadata["kind"].known)
@pytest.mark.parametrize("name", ["resnet.dynamo.onnx", "gpt2.ts17.onnx", "keras-cnn.tf2onnx.onnx"])
def test_every_init(name: str, init: str) -> None:
    source = subject(name)
    found = [p for p in every_place(analyse(source.model)) if init != "identity" or p.idempotent]
    right = 0
    for place in found[:4]:
        try:
            deeper = deepen(source.model, place.name, init=init, count=2, seed=3)
        except n2n.Refused as refusal:
            assert init == "factor" and refusal.remedy == "use --init residual"
            continue
        assert source.agrees(deeper)
        right += 1
    assert right or (name, init) == ("gpt2.ts17.onnx", "identity")


def test_every_place_of_the_fixtures_has_a_layer() -> None:
    """Most layers with weights are places; where one is not, it is refused with its reason."""
    model = fixture("resnet.dynamo.onnx")
    names = [place.name for place in every_place(analyse(model))]
    assert "layer1.0.conv1" in names and "fc" in names


@pytest.mark.parametrize(
    ("kernel", "group"), [((3, 3), 1), ((1, 7), 1), ((3,), 6), ((2, 2), 1), ((3, 3, 3), 2), ((), 1)]
)
def test_dirac_kernels(kernel: tuple[int, ...], group: int) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 6, *(9,) * len(kernel))).astype(np.float32)
    weights = dirac(6, kernel, group)
    if not kernel:
        np.testing.assert_array_equal(x @ weights, x)
        return
    pads = [(k - 1) // 2 for k in kernel] + [k // 2 for k in kernel]
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=pads, group=group)
    model = small(node, shape=x.shape, w=weights)
    np.testing.assert_array_equal(run(model, {"x": x})["y"], x)


def test_the_neighbourhood_gives_kernel_norm_and_activation() -> None:
    model, batch = fixture("resnet.dynamo-raw.onnx"), np.ones((1, 3, 40, 36), np.float32)
    for calibration, norm, normed, training in [
        (None, None, False, True),  # a norm that was not measured would change training
        ([{"x": batch}], None, True, True),
        (None, True, True, False),
        ([{"x": batch}], False, False, True),
    ]:
        deeper = deepen(model, "layer1.0.conv1", calibration=calibration, norm=norm)
        ops = [n.op_type for n in deeper.proto.graph.node if "deeper" in n.output[0] + n.name]
        assert ops == ["Conv", *["BatchNormalization"] * normed, "Relu"]
        (change,) = deeper.changes
        assert change.init == "identity" and change.training == training
    channels, _, *kernel = deeper.weights["layer1.0.conv1.weight"].shape
    assert deeper.weights["layer1.0.conv1_deeper.weight"].shape == (channels, channels, *kernel)


def test_factorised_kernels_come_in_pairs() -> None:
    model = fixture("inception.dynamo.onnx")
    kernels = {
        place.name: insertion.windows(place, None)
        for place in every_place(analyse(model))
        if place.convolved
    }
    pairs = [found for found in kernels.values() if len(found) == 2]
    assert pairs and all(first == second[::-1] for first, second in pairs)


def test_options_are_followed() -> None:
    model = fixture("resnet.dynamo.onnx")
    deeper = deepen(model, "layer1.0.conv1", kernel=5, norm=False, count=3)
    weights = [name for name in deeper.weights if "_deeper" in name]
    assert sum(name.endswith(".weight") for name in weights) == 3 == len(deeper.changes)
    assert deeper.weights["layer1.0.conv1_deeper_3.weight"].shape[2:] == (5, 5)
    assert not any("norm" in name for name in weights)
    assert n2n.verify(model, deeper)


def test_globs_and_repetition() -> None:
    model = fixture("resnet.dynamo.onnx")
    deeper = deepen(model, ["layer1.*", "fc"])
    assert {change.after.split(".")[0] for change in deeper.changes} == {"layer1", "fc"}
    assert n2n.verify(model, deepen(deeper, "layer1.0.conv1"))


@pytest.mark.parametrize("name", ["resnet.dynamo.onnx", "llama.dynamo.onnx", "unet.ts17.onnx"])
def test_widening_after_deepening_and_the_other_way_round(name: str) -> None:
    model = fixture(name)
    found = [place.tensor for place in every_place(analyse(model))][:5]
    deeper = deepen(model, found)
    free = [d for d in n2n.inspect(deeper) if d.growth == "any" and d.width > 1]
    wide = n2n.widen(deeper, {d.name: d.width + 3 for d in free})
    assert n2n.verify(model, wide)
    names = [d.name for d in n2n.inspect(model) if d.growth == "any"][:3]
    first = n2n.widen(model, {d.name: d.width + 3 for d in n2n.inspect(model) if d.name in names})
    assert n2n.verify(model, deepen(first, found))


def test_an_activation_is_copied_only_where_its_bounds_are_known() -> None:
    """The Constants of a Clip further on come too late for a layer before them."""
    model = small(
        helper.make_node("MatMul", ["x", "fc.weight"], ["h"], "fc"),
        helper.make_node("Constant", [], ["low"], "low", value_float=-0.3),
        helper.make_node("Constant", [], ["high"], "high", value_float=0.4),
        helper.make_node("Clip", ["h", "low", "high"], ["a"], "clip"),
        helper.make_node("MatMul", ["a", "out.weight"], ["y"], "out"),
        shape=(3, 5),
        **{
            "fc.weight": np.random.default_rng(0).normal(size=(5, 7)),
            "out.weight": np.random.default_rng(1).normal(size=(7, 3)),
        },
    )
    early = deepen(model, "h")
    assert [n.op_type for n in early.proto.graph.node].count("Relu") == 1
    assert n2n.verify(model, early)
    late = deepen(model, "a", init="identity")
    assert [n.op_type for n in late.proto.graph.node].count("Clip") == 2
    assert n2n.verify(model, late)


# ---- training ------------------------------------------------------------------------------------


def test_a_calibrated_norm_is_the_identity_in_training_mode() -> None:
    """Normalised by the statistics of the very batch, as training does, and scaled back."""
    model = fixture("resnet.dynamo-raw.onnx")
    rng = np.random.default_rng(4)
    batches = [{"x": rng.normal(size=(3, 3, 40, 36)).astype(np.float32)} for _ in range(2)]
    place = place_of(analyse(model), "layer1.0.conv1")
    deeper = deepen(model, "layer1.0.conv1", calibration=batches)
    assert n2n.verify(model, deeper) and deeper.changes[0].training
    values = np.concatenate([tensors(model, [place.tensor], b)[place.tensor] for b in batches])
    mean, var = values.mean((0, 2, 3)), values.var((0, 2, 3))
    norm = {
        part: deeper.weights[f"layer1.0.conv1_deeper_norm.{part}"].array()
        for part in ("weight", "bias", "running_mean", "running_var")
    }
    np.testing.assert_allclose(norm["running_mean"], mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm["running_var"], var, rtol=1e-4, atol=1e-6)
    shaped = [a[:, None, None] for a in (mean, np.sqrt(var + 1e-5), norm["weight"], norm["bias"])]
    again = (values - shaped[0]) / shaped[1] * shaped[2] + shaped[3]
    np.testing.assert_allclose(again, values, rtol=1e-4, atol=1e-5)


def test_a_residual_branch_is_not_dead() -> None:
    """One half random, the other zero: never both, or no gradient would flow."""
    deeper = deepen(mlp("Tanh"), "fc")
    assert n2n.verify(mlp("Tanh"), deeper)
    first, last = (deeper.weights[f"fc_deeper.{i}.weight"].array() for i in (0, 1))
    assert first.std() > 0.1 and not last.any()


def test_factors_are_orthogonal_and_random() -> None:
    one, other = (deepen(mlp("Tanh"), "fc", init="factor", seed=seed) for seed in (0, 1))
    q = one.weights["fc_deeper.weight"].array()
    np.testing.assert_allclose(q @ q.T, np.eye(7), atol=1e-6)
    assert not np.allclose(q, other.weights["fc_deeper.weight"].array())


# ---- refusals and history ------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["Sigmoid", "Tanh", "LeakyRelu", "Elu", "Softsign"])
def test_an_inexact_identity_is_refused_with_the_init_that_is_exact(activation: str) -> None:
    with pytest.raises(n2n.Refused, match="not idempotent") as caught:
        deepen(mlp(activation), "fc", init="identity")
    assert caught.value.remedy == "use --init residual, exact anywhere"
    assert n2n.verify(mlp(activation), deepen(mlp(activation), "fc", init="residual"))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"after": "layer1.0.conv"}, "there is no node, tensor, parameter or module"),
        ({"after": "layerX*"}, "no layer matches"),
        ({"after": "fc", "init": "zero"}, "init: 'zero' is not one of"),
        ({"after": "fc", "count": 0}, "count: 0 is not"),
        ({"after": "fc", "kernel": 0}, "kernel: 0 is not"),
        ({"after": "fc", "seed": -1}, "seed: -1 is not"),
        ({"after": []}, "nothing to deepen"),
        ({"after": "layer1.0.conv1", "calibration": []}, "no samples"),
    ],
)
def test_requests_that_make_no_sense(arguments: dict, problem: str) -> None:
    with pytest.raises(n2n.UsageError, match=problem) as caught:
        deepen(fixture("resnet.dynamo.onnx"), **arguments)
    assert caught.value.remedy


def test_a_kernel_for_a_dense_layer_is_refused() -> None:
    with pytest.raises(n2n.Refused, match="no kernel fits"):
        deepen(fixture("resnet.dynamo.onnx"), "fc", kernel=3)


def test_history_is_kept_and_the_source_untouched(tmp_path: Path) -> None:
    model = fixture("resnet.dynamo.onnx")
    before = model.proto.SerializeToString()
    deeper = deepen(n2n.widen(model, {"conv1": 19}), "conv1")
    assert model.proto.SerializeToString() == before
    steps = json.loads(deeper.metadata[HISTORY])
    assert [step["operation"] for step in steps] == ["widen", "deepen"]
    deeper.save(tmp_path / "deeper.onnx")
    onnx.checker.check_model(tmp_path / "deeper.onnx", full_check=True)
    assert n2n.verify(model, tmp_path / "deeper.onnx")


# ---- planted faults ------------------------------------------------------------------------------


def test_an_activation_wrongly_taken_for_idempotent_is_caught(monkeypatch) -> None:
    key = "", "Tanh"
    monkeypatch.setitem(registry(), key, replace(registry()[key], idempotent=True))
    assert not n2n.verify(mlp("Tanh"), deepen(mlp("Tanh"), "fc"))


def test_a_norm_that_forgets_epsilon_is_caught(monkeypatch) -> None:
    monkeypatch.setattr(insertion, "EPSILON", 0.0)
    model = fixture("resnet.dynamo-raw.onnx")
    broken = deepen(model, "layer1.0.conv1", norm=True)
    monkeypatch.undo()
    for node in broken.proto.graph.node:
        if node.op_type == "BatchNormalization" and "deeper" in node.name:
            node.attribute[0].f = 1e-2
    assert not n2n.verify(model, broken)


def test_a_kernel_off_its_centre_is_caught(monkeypatch) -> None:
    monkeypatch.setattr(insertion, "dirac", lambda c, k, g: np.roll(dirac(c, k, g), 1, axis=-1))
    model = fixture("resnet.dynamo.onnx")
    assert not n2n.verify(model, deepen(model, "layer1.0.conv1"))
