"""What a network costs, against the counter of PyTorch on the author's own module, and by hand."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import onnx_net2net as n2n
from onnx_net2net.model.model import load
from onnx_net2net.operators import registry
from onnx_net2net.operators.language import Op
from onnx_net2net.plan.costs import Workload, costs
from onnx_net2net.plan.forecast import Forecast
from onnx_net2net.widening.dimensions import analyse
from tests.console import FIXTURES
from tests.networks import Net
from tests.operators.test_functions import SAMPLES as FUSED
from tests.operators.test_rules import BY_ID
from tests.samples import Sample
from tests.samples.network import network

# What PyTorch's counter passes over or stops at: kernels of recurrent layers, branches, loops. And
# the last residual of this wavenet, which nothing reads: the exporters leave it out.
UNSEEN = {"gru", "gru-state", "if", "loop", "lstm", "lstm-state", "rnn-state", "scan", "wavenet"}


@cache
def cases() -> dict[str, Any]:
    """The networks that the fixtures were exported from, by name."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    sys.path.insert(0, str(FIXTURES / "makers"))
    try:
        from make_torch import CASES
    finally:
        sys.path.remove(str(FIXTURES / "makers"))
    return {case.name: case for case in CASES}


@cache
def counted_by_torch(name: str) -> int:
    """The FLOPs of the author's module on inputs of the fixture's sizes."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    case = cases()[name]
    inputs = case.inputs(torch.Generator().manual_seed(0), case.sizes)
    module = case.build().eval()
    # Other kernels of attention are counted as what they compute only from some version on.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return int(counter.get_total_flops())


EXPORTS = sorted(
    path for path in FIXTURES.glob("*.onnx")
    if path.suffixes[0].startswith((".dynamo", ".ts")) and path.name.split(".")[0] not in UNSEEN
)  # fmt: skip


@pytest.mark.parametrize("path", EXPORTS, ids=lambda path: path.stem)
def test_flops_are_those_that_torch_counts(path: Path) -> None:
    name = path.name.split(".")[0]
    if name not in cases():
        pytest.skip("not made by make_torch.py")
    assert costs(load(path), cases()[name].sizes).flops == counted_by_torch(name)


BY_HAND = {
    # Of the branches the one with two layers counts.
    "if.dynamo": (2, 2 * 2 * (9 * 14 + (14 * 17 + 17 * 11) + 11 * 4)),
    "loop.ts17": (3, 2 * 3 * (9 * 13 + 3 * (13 * 19 + 19 * 13) + 13 * 4)),
    "scan.dynamo": (2, 2 * 2 * (7 * 6 * 10 + 7 * 10 * 10 + 10 * 4)),
    # A matrix for each gate and operand, then a linear layer; a bias is not counted.
    "lstm-state.ts11": (3, 2 * 3 * (8 * 4 * 9 * (6 + 9) + 9 * 4)),
    "gru-state.dynamo": (3, 2 * 3 * (8 * 3 * 9 * (6 + 9) + 9 * 4)),
    "rnn-state.ts17": (2, 2 * 2 * (8 * 9 * (5 + 9) + 9 * 4)),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_flops_of_control_flow_and_recurrent_layers(name: str) -> None:
    batch, flops = BY_HAND[name]
    assert costs(load(FIXTURES / f"{name}.onnx"), {"batch": batch}).flops == flops


# ---- operator by operator -----------------------------------------------------------------------

# Rules in which two operands share an axis that is summed over or looked up, and why they are no
# products of matrices.
NOT_COUNTED = {
    ("", "RotaryEmbedding"): "looks up positions",
    ("", "Scatter"): "writes at indices",
    ("", "ScatterElements"): "writes at indices",
    ("", "ScatterND"): "writes at indices",
    ("com.microsoft", "RotaryEmbedding"): "looks up positions",
}


def sizes_of(sample: Sample) -> tuple[dict[str, int], set[str]]:
    """The sizes of the names in the rule of a sample's node, and those that operands share."""
    solution = analyse(load(network(sample))).solution
    at = solution.graph.producer[next(o for o in sample.node.output if o)].position
    if at not in solution.applied:
        return {}, set()
    applied = solution.applied[at]
    places = applied.pattern.contracted
    shared = {n for n in places if len({i for i, _ in places[n]}) > 1}
    return {n: axis.size for n, axis in applied.env.items()}, shared | set(applied.rule.rescale)


def counted(sample: Sample) -> int:
    """The multiply-adds of a sample's node."""
    load_ = Workload(load(network(sample)), {})
    node = load_.graph.producer[next(o for o in sample.node.output if o)]
    return sum(load_.terms.get(node.position, ()))


COUNTS = {key for key, record in registry().items() if record.flops}
# What a text calls is counted of the operators that have one, none of which has a count besides.
COUNTS |= {s.operator for s in FUSED.values() if counted(s)}
CONTRACTING = {key: s for key, s in BY_ID.items() if sizes_of(s)[1] or s.operator in COUNTS}


@pytest.mark.parametrize("key", CONTRACTING)
def test_every_sum_of_products_is_counted(key: str) -> None:
    operator = CONTRACTING[key].operator
    assert (operator in COUNTS) != (operator in NOT_COUNTED), "count it, or say why not"
    # A sum over one operand has no products.
    products = operator in COUNTS and len(CONTRACTING[key].node.input) > 1
    assert bool(counted(CONTRACTING[key])) == products


def test_every_count_has_a_sample() -> None:
    assert COUNTS | NOT_COUNTED.keys() == {s.operator for s in CONTRACTING.values()}


def by_rule(sample: Sample) -> int:
    """The same from the names in its rule: each product of sizes is that of all names in it."""
    sizes, _ = sizes_of(sample)
    # Either the places that a window is read from or those that it writes to.
    unused = "t" if sample.node.op_type == "ConvTranspose" else "s"
    if any(name.startswith("k.") for name in sizes) and any(n.startswith("t") for n in sizes):
        sizes = {n: size for n, size in sizes.items() if not n.startswith(unused)}
    return prod(size for name, size in sizes.items() if name not in OTHERS)


# Names that stand for biases, blocks of scales, and offsets of windows.
OTHERS = {"e", "f", "q"}
PRODUCTS = [
    key for key, s in CONTRACTING.items()
    if any(mark in s.node.op_type for mark in ("Conv", "MatMul", "Gemm"))
    and s.node.op_type != "MatMulNBits"
]  # fmt: skip


@pytest.mark.parametrize("key", PRODUCTS)
def test_counts_agree_with_the_rules(key: str) -> None:
    assert counted(CONTRACTING[key]) == by_rule(CONTRACTING[key])


EINSUMS = {
    "ij,jk->ik": ([(2, 3), (3, 5)], [2 * 3 * 5]),
    "ij,jk": ([(2, 3), (3, 5)], [2 * 3 * 5]),
    "...ij,...jk->...ik": ([(7, 2, 3), (1, 3, 5)], [7 * 2 * 3 * 5]),
    # From left to right; what no later operand has is summed over at once.
    "ij,jk,kl->il": ([(2, 3), (3, 5), (5, 7)], [2 * 3 * 5, 2 * 5 * 7]),
    "ij,k->i": ([(2, 3), (5,)], [2]),
    "ij->i": ([(2, 3)], []),
}


@pytest.mark.parametrize("equation", EINSUMS)
def test_einsum_by_hand(equation: str) -> None:
    shapes, products = EINSUMS[equation]
    net = Net()
    inputs = [net.input(*shape) for shape in shapes]
    model = load(net.model(net("Einsum", *inputs, equation=equation)))
    (terms,) = Workload(model, {}).terms.values()
    assert terms == products


ATTENTIONS = {
    "ai.onnx": ("Attention", [(2, 5, 12), (2, 7, 6), (2, 7, 8)], 2 * 5 * 7 * (12 + 16)),
    "cached": (
        "Attention",
        [(2, 4, 5, 3), (2, 2, 7, 3), (2, 2, 7, 4), None, (2, 2, 9, 3), (2, 2, 9, 4)],
        2 * 4 * 5 * (7 + 9) * (3 + 4),
    ),
}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_by_hand(name: str) -> None:
    """Grouped heads: 4 of queries, 2 of keys and values; every query meets every key."""
    op, shapes, products = ATTENTIONS[name]
    net = Net(opset=23)
    inputs = [net.input(*shape) if shape else "" for shape in shapes]
    heads = {"q_num_heads": 4, "kv_num_heads": 2} if len(shapes[0]) == 3 else {}
    model = load(net.model(net(op, *inputs, **heads)))
    (terms,) = Workload(model, {}).terms.values()
    assert sum(terms) == products


def attended(op: Op) -> int:
    """The multiply-adds of fused attention: its projections, then queries and values by keys."""
    rows, result = prod(op.shape(0)[:2]), prod(op.output())
    if op.node.op_type == "GroupQueryAttention":
        return 2 * result * op.output(1)[2]
    cache = {"Attention": 4, "MultiHeadAttention": 6}[op.node.op_type]
    past = op.shape(cache)[-2] if op.has(cache) else 0
    if cache == 6:
        return (prod(op.shape(0)) + result) * (op.shape(1)[2 if op.rank(1) == 4 else 1] + past)
    inner, width = op.shape(1)
    queries = rows * (width - op.output()[-1]) // 2
    return rows * inner * width + (queries + result) * (op.shape(0)[1] + past)


FUSED_ATTENTIONS = [key for key, s in FUSED.items() if s.node.op_type.endswith("Attention")]


@pytest.mark.parametrize("key", FUSED_ATTENTIONS)
def test_texts_of_attention_count_what_it_multiplies(key: str) -> None:
    workload = Workload(load(network(FUSED[key])), {})
    node = workload.graph.producer[FUSED[key].node.output[0]]
    assert sum(workload.terms[node.position]) == attended(workload.op(node, workload.shapes.shape))


def test_fused_operators_are_counted() -> None:
    counted = {s.operator for s in FUSED.values()} & COUNTS
    assert {"Attention", "FusedConv", "MatMulIntegerToFloat"} <= {name for _, name in counted}


def test_a_form_that_no_text_covers_is_told() -> None:
    proto = network(FUSED["microsoft_attention:Attention-one-size"])
    node = next(n for n in proto.graph.node if n.op_type == "Attention")
    node.attribute.append(helper.make_attribute("do_rotary", 1))
    assert costs(load(proto)).uncounted == {"Attention": 1}


def test_a_length_that_is_fed_is_that_of_the_cache() -> None:
    """What the node returns says how many keys there are, where no constant does."""
    proto = network(FUSED["microsoft_attention:GroupQueryAttention-cache"])
    whole = costs(load(proto)).flops
    (total,) = (t for t in proto.graph.initializer if t.name == "total")
    proto.graph.input.append(helper.make_tensor_value_info(total.name, total.data_type, total.dims))
    proto.graph.initializer.remove(total)
    assert costs(load(proto)).flops == whole > 0


@pytest.mark.parametrize("name", ["bert-classic.fused", "bert-classic.mha", "gqa.handmade"])
def test_a_forecast_of_fused_attention_with_other_heads(name: str) -> None:
    """Texts split heads off by an attribute, which grows with them."""
    analysis = analyse(load(FIXTURES / f"{name}.onnx"))
    heads = [d for d in analysis.dimensions if d.width == 3 and d.growth == "any"]
    assert heads
    for dimension in heads:
        grown = n2n.widen(analysis.model, {dimension.name: 5})
        assert costs(grown).flops == Forecast(analysis, {}).flops({dimension: 5}, {})


# ---- parameters, activations, sizes -------------------------------------------------------------


def test_parameters_are_those_of_the_module() -> None:
    module = cases()["resnet"].build()
    states = [t for t in module.state_dict().values() if t.is_floating_point()]
    raw = costs(load(FIXTURES / "resnet.dynamo-raw.onnx"))
    scalars = sum(w.size for w in load(FIXTURES / "resnet.dynamo-raw.onnx").weights.values()
                  if w.shape in ((), (1,)) and w.dtype == 1)  # fmt: skip
    assert raw.parameters - scalars == sum(t.numel() for t in states)


def test_activations_by_hand() -> None:
    """What nodes write, but for what only rearranges another or is computed from weights."""
    net = Net(dtype=np.float16)
    hidden = net("Relu", net("MatMul", net.input("batch", 6), net.weight(6, 4)))
    turned = net("Transpose", hidden)
    weight = net("Mul", net.weight(4, 3), net.weight(4, 3))
    model = load(net.model(net("MatMul", net("Transpose", turned), weight)))
    found = costs(model, {"batch": 5})
    assert (found.activations, found.bytes) == (5 * (4 + 4 + 3), 2 * 5 * (4 + 4 + 3))
    assert (found.parameters, found.flops) == (6 * 4 + 2 * 4 * 3, 2 * 5 * (6 * 4 + 4 * 3))
    assert found.sizes == {"batch": 5}


def test_sizes_are_those_that_verify_tries_first() -> None:
    for path in sorted(FIXTURES.glob("*.dynamo.onnx")):
        model = load(path)
        first = n2n.verify(model, model, seeds=1).trials[0]
        assert costs(model).sizes == (first.sizes or {}), path.name


def test_what_is_not_known_is_told() -> None:
    net = Net()
    net.domains.add("com.example")
    x = net("Fancy", net.input("n", 3), domain="com.example")
    found = costs(load(net.model(net("MatMul", x, net.weight(3, 2)))))
    assert found.uncounted == {"Fancy": 1, "MatMul": 1} and found.flops == 0


def test_a_size_that_does_not_exist() -> None:
    model = load(FIXTURES / "gpt2.dynamo.onnx")
    with pytest.raises(n2n.UsageError, match="no dynamic dimension 'length'"):
        costs(model, {"length": 7})


def test_a_planted_fault_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution that forgets its groups is not what torch counts."""
    wrong = replace(
        registry()["", "Conv"], flops=lambda op: [prod(op.output()) * 9 * op.shape(0)[1]]
    )
    monkeypatch.setitem(registry(), ("", "Conv"), wrong)
    name = "resnext"
    found = costs(load(FIXTURES / f"{name}.dynamo.onnx"), cases()[name].sizes)
    assert found.flops != counted_by_torch(name)
