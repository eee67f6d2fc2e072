"""Grown weights in the larger network's own graph, whose numbers follow its own sizes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

import onnx_net2net as n2n
from onnx_net2net.errors import Refused
from onnx_net2net.model.model import Model, load_shape
from onnx_net2net.model.tensors import clear_data
from onnx_net2net.plan.like import parameters
from onnx_net2net.plan.norm_inputs import factors_for
from onnx_net2net.plan.settle import Settled, settle
from onnx_net2net.widening.dimensions import analyse
from tests.console import FIXTURES

WIDER = {
    "gpt2": ("*lm_head", "*attn:heads", "*c_fc"),
    "llama": ("*embed_tokens", "*q_proj:kv_heads", "*gate_proj"),
}


def pair(name: str, factor: float = 1.5, **copies: object) -> tuple[Model, ModelProto]:
    """A grown network, and one of its shape with other weights."""
    small = n2n.load(FIXTURES / f"{name}.dynamo.onnx")
    steps: list[dict[str, object]] = [
        {"operation": "widen", "factor": factor, "names": WIDER[name]}
    ]
    steps += [{"operation": "deepen", **copies}] if copies else []
    grown = n2n.grow(small, plan=steps)
    proto = onnx.load_from_string(grown.to_bytes())
    rng = np.random.default_rng(1)
    for entry in proto.graph.initializer:
        if entry.name in parameters(analyse(grown)):
            array = rng.normal(size=list(entry.dims)).astype(np.float32)
            entry.CopyFrom(numpy_helper.from_array(array, entry.name))
    return grown, proto


def change(proto: ModelProto, old: float, new: float) -> None:
    """Let a stored number be another one."""
    for entry in proto.graph.initializer:
        if not entry.dims and np.isclose(numpy_helper.to_array(entry), old, 1e-4, 0):
            array = np.array(new, numpy_helper.to_array(entry).dtype)
            entry.CopyFrom(numpy_helper.from_array(array, entry.name))
            return
    raise AssertionError(f"there is no {old}")


def equal(grown: Model, settled: Settled) -> bool:
    return bool(n2n.verify(grown, settled.model))


def test_weights_alone() -> None:
    grown, proto = pair("gpt2", 2)
    assert not n2n.verify(grown, n2n.load(proto))
    settled = settle(grown, n2n.load(proto))
    assert equal(grown, settled) and not settled.epsilons and not settled.scales


def test_a_scale_of_queries_is_made_up_for_by_their_projection() -> None:
    grown, proto = pair("gpt2", 2)
    change(proto, 0.6687403, 0.5)
    settled = settle(grown, n2n.load(proto))
    assert equal(grown, settled)
    assert {scale.path for scale in settled.scales} == {
        f"model.transformer.h.{block}.attn" for block in (0, 1)
    }
    first = settled.scales[-1]
    assert (round(first.grown, 4), first.large) == (0.6687, 0.5)
    assert [name.rpartition(".")[2] for name in first.weights] == ["weight", "bias"]


def test_a_scale_passes_a_rotary_embedding() -> None:
    grown, proto = pair("llama", 2)
    change(proto, 0.70710677, 0.9)
    settled = settle(grown, n2n.load(proto))
    assert equal(grown, settled)
    assert len({name for scale in settled.scales for name in scale.weights}) == 4  # q and k


def test_epsilons_are_told_and_set() -> None:
    grown, proto = pair("gpt2")  # padded, so that they are smaller than those of the class
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                attribute.f = 1e-5
    settled = settle(grown, n2n.load(proto))
    assert equal(grown, settled)
    paths = [epsilon.path for epsilon in settled.epsilons]
    assert len(paths) == 5 and "model.transformer.h.1.ln_2" in paths
    assert all(e.old == np.float32(1e-5) and e.new < 0.99e-5 for e in settled.epsilons)


def test_epsilons_that_norms_of_several_operators_share() -> None:
    grown, proto = pair("llama", 2)
    change(proto, 1e-6, 1e-3)
    settled = settle(grown, n2n.load(proto))
    assert equal(grown, settled)
    assert [e.old for e in settled.epsilons] == [np.float32(1e-3)] * 5
    assert settled.epsilons[0].path == "model.model.norm"


def _class_epsilons(proto: ModelProto, name: str) -> None:
    """Give all norms the epsilon that the class has for every size."""
    if name == "llama":
        return change(proto, 1e-6 * 2 / 3, 1e-6)
    for attribute in (a for node in proto.graph.node for a in node.attribute):
        if attribute.name == "epsilon":
            attribute.f = 1e-5
    return None


@pytest.mark.parametrize("name", WIDER)
def test_weights_make_up_for_epsilons_that_must_stay(name: str) -> None:
    """The inputs of all norms are larger: also in front of a head that is tied to the embedding."""
    grown, proto = pair(name)
    _class_epsilons(proto, name)
    settled = settle(grown, n2n.load(proto), keep_epsilons=True)
    assert equal(grown, settled) and not settled.epsilons
    assert len(settled.scales) == 5
    factors = {round(float(f[0][1][0]) ** 2, 4) for f in settled.factors.values()}
    assert max(factors) == 1.5


def test_a_factor_that_is_left_out_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(*arguments: object) -> dict[str, float]:
        return dict(list(factors_for(*arguments).items())[1:])  # type: ignore[arg-type,union-attr]

    monkeypatch.setattr("onnx_net2net.plan.settle.factors_for", forgetful)
    grown, proto = pair("gpt2")
    _class_epsilons(proto, "gpt2")
    assert not equal(grown, settle(grown, n2n.load(proto), keep_epsilons=True))


def test_epsilons_change_where_nothing_can_make_up_for_them() -> None:
    """The vectors are given out as well, or what is added to them is not stored for the class."""
    grown, proto = pair("gpt2")
    _class_epsilons(proto, "gpt2")
    analysis = analyse(n2n.load(proto))
    norms, stored = dict.fromkeys(analysis.norms.values(), 1.2), set(parameters(analysis))
    assert factors_for(analysis, norms, stored)
    (positions,) = (name for name in stored if name.endswith("wpe.weight"))
    assert factors_for(analysis, norms, stored - {positions}) is None
    assert factors_for(analysis, dict(list(norms.items())[1:]), stored) is None
    grown_proto = onnx.load_from_string(grown.to_bytes())
    norm = next(node for node in proto.graph.node if node.op_type == "LayerNormalization")
    for model in (grown_proto, proto):
        output = onnx.helper.make_tensor_value_info(norm.input[0], TensorProto.FLOAT, None)
        model.graph.output.append(output)
    assert settle(n2n.load(grown_proto), n2n.load(proto), keep_epsilons=True).epsilons


def _renamed(proto: ModelProto) -> None:
    next(n for n in proto.graph.node if n.op_type == "Tanh").op_type = "Sigmoid"


def _swapped(proto: ModelProto) -> None:
    """Another order of two layers that have the same shapes."""
    first, second = [n for n in proto.graph.node if n.op_type == "LayerNormalization"][:2]
    first.input[1], second.input[1] = second.input[1], first.input[1]


def _stretched(proto: ModelProto) -> None:
    node = next(n for n in proto.graph.node if n.op_type == "Softmax")
    next(a for a in node.attribute if a.name == "axis").i = 2


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (lambda proto: change(proto, 0, 1), "Range 'node_arange.*' reads 1 in place of 0"),
        (lambda proto: change(proto, 0.044715, 0.05), "reads 0.05 in place of 0.044715"),
        (lambda proto: change(proto, 3.0, 2.0), "reads 2 in place of 3"),
        (_renamed, "it has Sigmoid 'node_tanh' in place of Tanh 'node_tanh'"),
        (_swapped, r"reads 'model\.transformer\.h\.0\.ln_1\.weight' in place of"),
        (_stretched, "Softmax 'node_Softmax_100' has another axis"),
    ],
)
def test_what_nothing_can_make_up_for_is_refused(
    fault: Callable[[ModelProto], None], problem: str
) -> None:
    grown, proto = pair("gpt2", 2)
    fault(proto)
    with pytest.raises(Refused, match=f"(?s)would not compute the same.*{problem}"):
        settle(grown, n2n.load(proto))


@pytest.mark.parametrize("zero", ["last", "cancel"])
@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_copy_that_is_zero_may_be_of_another_kind(block: int, zero: str) -> None:
    """Of the three blocks the second is a copy: what it computes is multiplied by zeros."""
    grown, proto = pair("gpt2", 2, block={"h.0": 1}, zero=zero)
    [n for n in proto.graph.node if n.op_type == "Tanh"][block].op_type = "Sigmoid"
    if block == 1 and zero == "last":
        assert equal(grown, settle(grown, n2n.load(proto)))
    else:
        with pytest.raises(Refused, match="it has Sigmoid"):
            settle(grown, n2n.load(proto))


def test_only_stored_weights_are_replaced() -> None:
    """A table that a class computes anew stays its own: here it says something else."""
    grown, proto = pair("llama", 2)
    large = n2n.load(proto)
    stored = set(parameters(analyse(large)))
    tables = {name for name in stored if name.endswith("inv_freq")}
    assert len(tables) == 1 and equal(grown, settle(grown, large))
    with pytest.raises(Refused, match="in place of"):
        settle(grown, large, stored - tables)


def test_an_absent_table_is_that_of_the_smaller_network_unless_it_grew() -> None:
    small = n2n.load(FIXTURES / "llama.dynamo.onnx")
    for widths, fits in (
        ({"model.model.layers.0.mlp.gate_proj": 60}, True),
        (
            {"model.model.rotary_emb": 4},
            False,
        ),
    ):
        grown = n2n.widen(small, widths)
        proto = onnx.load_from_string(grown.to_bytes())
        for entry in proto.graph.initializer:
            if entry.name in parameters(analyse(grown)):
                clear_data(entry)
        large = load_shape(proto)
        stored = {n for n in parameters(analyse(large)) if not n.endswith("inv_freq")}
        if fits:
            assert equal(grown, settle(grown, large, stored))
        else:
            with pytest.raises(Refused, match="which depends on a size that grew"):
                settle(grown, large, stored)


def test_what_is_added_beside_zeros_counts() -> None:
    """The last projection of a copy is zero; a number that its node adds is compared still."""
    grown, proto = pair("gpt2", 2, block={"h.0": 1})
    large = n2n.load(proto)
    stored = set(parameters(analyse(large)))
    (bias,) = (name for name in stored if name.endswith("h.1.mlp.c_proj.bias"))
    (reader,) = (node for node in large.proto.graph.node if bias in node.input)
    assert reader.op_type == "Gemm" and equal(grown, settle(grown, large, stored))
    with pytest.raises(Refused, match="in place of"):
        settle(grown, large, stored - {bias})
