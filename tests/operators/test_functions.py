"""Every function text against ONNX Runtime's own kernel of the operator."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnxruntime as ort
import pytest
from onnx import NodeProto, helper, numpy_helper

from onnx_net2net.operators import functions as module
from onnx_net2net.operators import registry
from onnx_net2net.operators.function_texts import OPSET, TEXTS
from onnx_net2net.operators.functions import body, functions, parsed
from onnx_net2net.operators.language import Unsupported
from tests.operators.test_rules import BY_ID
from tests.samples import Sample, weight
from tests.samples.microsoft import fused
from tests.samples.microsoft import sample as plain
from tests.samples.microsoft_attention import attention, grouped, multi_head

# Forms that no rule needs to know, or that differ from a sample in no axis.
IMAGE = {"x": (2, 3, 7, 6)}
KERNEL = {"w": weight(4, 3, 3, 3), "b": weight(4)}
PARAMETERS: dict[str, list[float]] = {
    "Relu": [],
    "Sigmoid": [],
    "Tanh": [],
    "Clip": [-0.4, 0.6],
    "HardSigmoid": [0.3, 0.4],
    "LeakyRelu": [0.2],
}
GEMM = {"w": weight(5, 4), "c": weight(4)}
ALPHAS = {"Elu": 0.7, "LeakyRelu": 0.2, "ThresholdedRelu": 0.4}
TURNED = [
    ({"a": (2, 5, 3), "b": (2, 4, 5)}, {"transA": 1, "transB": 1, "alpha": 0.3}),
    ({"a": (2, 3, 5, 4), "b": (2, 3, 6, 4)}, {"transB": 1}),
    ({"a": (2, 3, 4, 5), "b": (2, 3, 4, 6)}, {"transA": 1}),
    ({"a": (5, 2, 4), "b": (2, 4, 3)}, {"transBatchA": 1}),
    ({"a": (5, 2, 4), "b": (3, 2, 4)}, {"transBatchA": 1, "transBatchB": 1, "transB": 1}),
    ({"a": (2, 3, 5, 4), "b": (4, 2, 3, 6)}, {"transBatchB": 1}),
]
MORE = [
    *(
        plain(
            name, fused("FusedConv", "x w b", activation=name, activation_params=given or None),
            IMAGE, KERNEL, "",
        )
        for name, given in PARAMETERS.items()
    ),
    *(
        plain(
            name, fused("FusedGemm", "a w c", activation=name, activation_alpha=ALPHAS.get(name)),
            {"a": (3, 5)}, GEMM, "",
        )
        for name in ("Elu", "LeakyRelu", "Sigmoid", "Softplus", "Softsign", "Tanh",
                     "ThresholdedRelu")
    ),
    *(
        plain(f"turned-{i}", fused("FusedMatMul", "a b", **attributes), shapes, None, "")
        for i, (shapes, attributes) in enumerate(TURNED)
    ),
    plain("default", fused("QuickGelu", "x"), {"x": (3, 4)}, None, ""),
    plain("silu", fused("QuickGelu", "x", alpha=1.0), {"x": (3, 4)}, None, ""),
    plain("lower", fused("Trilu", "a k", upper=0), {"a": (2, 4, 5)}, {"k": np.array(1)}, ""),
    multi_head("lengths", "q k v _ lengths"),
    multi_head("rows", "q k v _ rows scores", unidirectional=1),
    multi_head("filter", "q k v b mask", mask_filter_value=-3.0),
    multi_head("later", "q k vd _ _ _ pk pv", "", "y k2 v2", unidirectional=1),
    grouped("window", "q k v _ _ n total", "", "y k2 v2", local_window_size=2, scale=0.3),
    grouped("capped", "q k v _ _ n total", "", "y k2 v2", softcap=0.7),
    grouped("both", "q k v _ _ n total _ _ _ scores", "", "y k2 v2", softcap=0.7),
    grouped("bias", "qkv _ _ _ _ n total _ _ _ scores", "", "y k2 v2"),
    attention("later", "x w b wide past", "", "y present", unidirectional=1),
]  # fmt: skip
MORE_WEIGHTS = {
    "lengths": np.array([4, 2], np.int32),
    "scores": weight(1, 1, 4, 4),
    "wide": np.tri(2, 11, 6, np.int32),
    "rows": np.tri(4, 5, 1, np.int32)[None].repeat(2, 0),
}
for extra in MORE:
    extra.weights.update({
        name: value for name, value in MORE_WEIGHTS.items()
        if name in extra.node.input and name not in extra.inputs
    })  # fmt: skip
SAMPLES = {
    **{key: sample for key, sample in BY_ID.items() if sample.operator in functions()},
    **{f"more:{sample.node.op_type}-{sample.id}": sample for sample in MORE},
}
# What kernels of float16 there are on a CPU.
HALF = {"SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "FastGelu"}


def feeds(sample: Sample) -> dict[str, np.ndarray]:
    """Activations by name."""
    rng = np.random.default_rng(7)
    found = {}
    for name, (dtype, shape) in sample.inputs.items():
        low, high = sample.within.get(name, (0, 40) if np.dtype(dtype).kind in "iu" else (-2, 2))
        found[name] = rng.uniform(low, high, shape).astype(dtype)
    return found


def computed(
    nodes: list[NodeProto], opset: int, outputs: list[str], constants: dict[str, np.ndarray],
    given: dict[str, np.ndarray],
) -> list[np.ndarray]:  # fmt: skip
    """What onnxruntime makes of nodes, without optimisations."""
    graph = helper.make_graph(
        nodes,
        "body",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in given.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, given))


def lower(node: NodeProto, ranks: dict[str, int]) -> list[NodeProto]:
    """The body of a node whose operands have these numbers of axes."""
    return body(node, lambda i: ranks[node.input[i]], {*ranks}.__contains__, bool)


def pairs(sample: Sample, dtype: type = np.float32) -> list[tuple[np.ndarray, np.ndarray]]:
    """What the fused kernel computes, and what its text does."""

    def cast(value: np.ndarray) -> np.ndarray:
        return value.astype(dtype) if value.dtype == np.float32 else value

    given = {name: cast(value) for name, value in feeds(sample).items()}
    constants = {name: cast(np.asarray(value)) for name, value in sample.weights.items()}
    ranks = {name: value.ndim for name, value in {**given, **constants}.items()}
    outputs = [name for name in sample.node.output if name]
    run = partial(computed, outputs=outputs, constants=constants, given=given)
    wanted = run([sample.node], sample.opset)
    return list(zip(wanted, run(lower(sample.node, ranks), OPSET), strict=True))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference in units of the largest value."""
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    a, b = (x.astype(np.float64) for x in (a, b))
    return float(np.abs(a - b).max() / (np.abs(a).max() + 1e-9))


@pytest.mark.parametrize("key", SAMPLES)
def test_a_text_computes_what_the_kernel_does(key: str) -> None:
    assert max(distance(a, b) for a, b in pairs(SAMPLES[key])) < 3e-6


@pytest.mark.parametrize("key", SAMPLES)
def test_a_text_computes_what_the_kernel_does_in_half_precision(key: str) -> None:
    sample = SAMPLES[key]
    try:
        found = pairs(sample, np.float16)
    except Exception as problem:  # onnxruntime's own exceptions have no common base
        assert "NOT_IMPLEMENTED" in str(problem) or "Type" in str(problem)
        assert sample.node.op_type not in HALF, problem
        pytest.skip("there is no such kernel on a CPU")
    assert max(distance(a, b) for a, b in found) < 4e-3


def test_every_text_has_a_sample() -> None:
    assert functions().keys() == {sample.operator for sample in SAMPLES.values()}
    assert len(functions()) == sum(map(len, TEXTS.values()))


def test_records_do_not_repeat_what_texts_say() -> None:
    """Weights, products and what translations need not read follow from the nodes of a text."""
    telling = {key for key in functions() if (r := registry()[key]).weights or r.flops or r.implied}
    assert telling == {("", "SimplifiedLayerNormalization")}, "whose weights say that it is a norm"


# An edit of a text that a sample must show.
FAULTS = {
    "a residual left out": ("SkipLayerNormalization", "Add (x, skip)", "Identity (x)"),
    "positions taken away": ("EmbedLayerNormalization", "Add (word, place)", "Sub (word, place)"),
    "another epsilon": ("SkipSimplifiedLayerNormalization", "= 1e-12", "= 1e-2"),
    "a factor left out": ("FusedMatMul", "Mul (product, factor)", "Identity (product)"),
    "parameters exchanged": ("FusedConv", "@activation_params_0", "@activation_params_1"),
    "keys for queries": ("Attention", "(query_part, split)", "(key_part, split)"),
    "the last row hidden, too": (
        "MultiHeadAttention",
        "And (later, not_final)",
        "Or (later, later)",
    ),
    "keys for values": ("GroupQueryAttention", "(value_wide, together)", "(key_wide, together)"),
    "tanh for erf": ("BiasGelu", "Gelu (sum)", 'Gelu <approximate = "tanh"> (sum)'),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, old, new = FAULTS[fault]
    text = next(t for t in TEXTS["com.microsoft"] if t.split(maxsplit=1)[0] == name)
    assert old in text
    spoiled = {**functions(), ("com.microsoft", name): parsed(text.replace(old, new))}
    monkeypatch.setattr(module, "functions", lambda: spoiled)

    def fails(sample: Sample) -> bool:
        try:
            return not max(distance(a, b) for a, b in pairs(sample)) < 3e-6
        except (AssertionError, Unsupported):
            return True

    assert any(fails(s) for s in SAMPLES.values() if s.node.op_type == name)


REASONS = {
    "attribute": (fused("Gelu", "x", planted=3), "looks at its attribute planted"),
    "operand": (fused("QuickGelu", "x x"), "looks at its operand 1"),
    "form": (fused("FusedGemm", "x x", activation="Softmax"), "does not say what 'y' is unless"),
    "output": (fused("SkipLayerNormalization", "x x x", "y mean"), "what 'mean' is"),
    "buffer": (
        fused("Attention", "x x", num_heads=1, past_present_share_buffer=1),
        "unless past_present_share_buffer=0",
    ),
}


@pytest.mark.parametrize("name", REASONS)
def test_what_no_text_covers_is_refused_by_name(name: str) -> None:
    node, reason = REASONS[name]
    with pytest.raises(Unsupported, match=reason):
        lower(node, {"x": 2})


def test_names_of_a_body_are_new() -> None:
    node = fused("BiasGelu", "x b")
    (add, gelu) = body(node, lambda i: 1, {"x", "b", "y", "y/sum"}.__contains__, bool)
    assert add.output == gelu.input == ["y_/sum"] and gelu.output == ["y"]


def test_lines_that_nothing_needs_are_left_out() -> None:
    node = fused("EmbedLayerNormalization", "ids _ words places _ g b _ at", "y lengths")
    ops = [n.op_type for n in body(node, lambda i: 2, lambda name: False, {"y"}.__contains__)]
    assert ops == ["Gather", "Gather", "Add", "LayerNormalization"]


def test_a_condition_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="is no condition"):
        parsed("Gelu (x) => (y) {\n    y = Gelu (x)   # if x\n}")
