"""Operands that may be left out: each is translated or refused, and none is passed over."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import defs, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_net2net.errors import InvalidModel, Refused
from onnx_net2net.model.model import load
from onnx_net2net.verification.verify import run
from tests.operators.test_attributes import FIRST, FRAMEWORKS, known, translated
from tests.operators.test_rules import BY_ID
from tests.samples.network import network

Optional = defs.OpSchema.FormalParameterOption.Optional
Variadic = defs.OpSchema.FormalParameterOption.Variadic
MOST = 16  # no operator of onnxruntime has more operands


def schemas(operator: tuple[str, str]) -> list[defs.OpSchema]:
    """All versions of an operator that onnx knows."""
    every = defs.get_all_schemas_with_history()
    return [s for s in every if (s.domain, s.name) == operator]


def takes_any_number(operator: tuple[str, str]) -> bool:
    return any(i.option == Variadic for s in schemas(operator) for i in s.inputs)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_operand_that_nobody_reads_is_refused_for_every_operator(framework: str) -> None:
    accepted = []
    for operator in sorted(known(framework)):
        proto = network(FIRST[operator])
        node = next(n for n in proto.graph.node if n.name == "node")
        if takes_any_number(operator):
            continue
        node.input.extend([*[""] * (MOST - len(node.input)), proto.graph.initializer[0].name])
        try:
            translated(framework, proto)
        except (InvalidModel, Refused) as problem:  # InvalidModel: not even its schema has so many
            assert "node" in str(problem), f"{operator}: {problem}"
        else:
            accepted.append(operator)
    assert accepted == []


# Optional operands that no sample gives, and what is tried in their place.
ELSEWHERE = {
    ("Attention", 6): "refused, or tried below",
    ("MaxUnpool", 2): "refused by Keras; PyTorch does what onnx defines",
    ("NonMaxSuppression", 3): "frameworks/torch/test_operators.py",
    ("NonMaxSuppression", 4): "frameworks/torch/test_operators.py",
}


def test_every_optional_operand_is_in_a_sample() -> None:
    given: dict[tuple[str, str], set[int]] = {}
    for sample in BY_ID.values():
        present = {i for i, name in enumerate(sample.node.input) if name}
        given.setdefault(sample.operator, set()).update(present)
    missing = {
        (operator[1], index)
        for operator, indices in given.items()
        for schema in schemas(operator)
        for index, operand in enumerate(schema.inputs)
        if operand.option == Optional and index not in indices
    }
    assert missing == ELSEWHERE.keys()


def single(
    op: str,
    feeds: dict[str, np.ndarray],
    constants: dict[str, np.ndarray],
    operands: list[str],
    **options: Any,
) -> onnx.ModelProto:
    """One node, all sizes fixed."""
    outputs = [f"y{i}" for i in range(options.pop("outputs", 1))]
    domain, opset = options.pop("domain", ""), options.pop("opset", 17)
    node = helper.make_node(op, operands, outputs, name="node", domain=domain, **options)
    graph = helper.make_graph(
        [node],
        op,
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in feeds.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def found(framework: str, proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What a framework computes; Keras in a graph, where values are not known."""
    made = translated(framework, proto)
    if framework == "torch":
        import torch

        values = made(*map(torch.from_numpy, feeds.values()))
        return [v.detach().numpy() for v in (values if isinstance(values, tuple) else [values])]
    from tests.keras_models import in_order, keras

    given = list(feeds.values())
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        made = tf.function(made)
    values = made(given if len(given) > 1 else given[0])
    return [np.asarray(v) for v in in_order(values)]


RNG = np.random.default_rng(3)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


NAMES = ["q", "k", "v", "pk", "pv", "ends", "total"]
GROUPS = {"domain": "com.microsoft", "num_heads": 4, "kv_num_heads": 2, "outputs": 3}
CACHES: dict[str, tuple[list[int], int]] = {
    # what the samples hold before the new entries, and the size of their caches
    "equal": ([4, 4], 4),
    "unequal": ([2, 4], 4),
    "longer than what they hold": ([1, 3], 9),
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", CACHES)
@pytest.mark.parametrize("rotated", [False, True])
def test_caches_are_filled_to_lengths_that_are_fed(
    framework: str, name: str, rotated: bool
) -> None:
    held, room = CACHES[name]
    feeds = {
        "q": floats(2, 1, 64), "k": floats(2, 1, 32), "v": floats(2, 1, 32),
        "pk": floats(2, 2, room, 16), "pv": floats(2, 2, room, 16),
        "ends": np.array(held, np.int32),
    }  # fmt: skip
    constants = {"total": np.array(max(held) + 1, np.int32)}
    operands, options = list(NAMES), dict(GROUPS)
    if rotated:
        constants.update(cos=floats(16, 8), sin=floats(16, 8))
        operands += ["cos", "sin"]
        options["do_rotary"] = 1
    proto = single("GroupQueryAttention", feeds, constants, operands, **options)
    wanted = list(run(load(proto), feeds).values())
    for want, value in zip(wanted, found(framework, proto, feeds), strict=True):
        np.testing.assert_allclose(value, want, rtol=1e-4, atol=1e-5)


def test_a_bias_of_scores() -> None:
    feeds = {"q": floats(2, 3, 32), "k": floats(2, 3, 16), "v": floats(2, 3, 16)}
    constants = {
        "ends": np.array([2, 2], np.int32), "total": np.array(3, np.int32), "b": floats(1, 1, 3, 3)
    }  # fmt: skip
    names = ["q", "k", "v", "", "", "ends", "total", "", "", "", "b"]
    proto = single("GroupQueryAttention", feeds, constants, names, **GROUPS)
    wanted = list(run(load(proto), feeds).values())
    for framework in FRAMEWORKS:
        for want, value in zip(wanted, found(framework, proto, feeds), strict=True):
            np.testing.assert_allclose(value, want, rtol=1e-4, atol=1e-5)


def test_a_cache_whose_length_is_fed() -> None:
    """Graphs that generate text compute it from a mask."""
    feeds = {
        "q": floats(2, 1, 64), "k": floats(2, 1, 32), "v": floats(2, 1, 32),
        "pk": floats(2, 2, 4, 16), "pv": floats(2, 2, 4, 16),
        "ends": np.array([4, 4], np.int32), "total": np.array(5, np.int32),
    }  # fmt: skip
    proto = single("GroupQueryAttention", feeds, {}, NAMES, **GROUPS)
    wanted = list(run(load(proto), feeds).values())
    for framework in FRAMEWORKS:
        for want, value in zip(wanted, found(framework, proto, feeds), strict=True):
            np.testing.assert_allclose(value, want, rtol=1e-4, atol=1e-5)


def test_lengths_of_keys() -> None:
    feeds = {"q": floats(2, 2, 3, 4), "k": floats(2, 2, 5, 4), "v": floats(2, 2, 5, 4)}
    names = ["q", "k", "v", "", "", "", "n"]
    proto = single("Attention", feeds, {"n": np.array([3, 5])}, names, opset=24)
    (want,) = run(load(proto), feeds).values()
    for framework in FRAMEWORKS:
        np.testing.assert_allclose(found(framework, proto, feeds)[0], want, rtol=1e-4, atol=1e-5)


def test_the_mask_of_dropout_is_what_was_dropped() -> None:
    torch = pytest.importorskip("torch")
    x = np.abs(floats(50, 40)) + 1
    proto = single("Dropout", {"x": x}, {"r": np.float32(0.25)}, ["x", "r"], outputs=2)
    made = translated("torch", proto)
    y, mask = made.eval()(torch.from_numpy(x))
    assert mask.all() and torch.equal(y, torch.from_numpy(x))
    y, mask = made.train()(torch.from_numpy(x))
    assert mask.dtype == torch.bool and 0.7 < mask.float().mean() < 0.8
    torch.testing.assert_close(y, torch.from_numpy(x) * mask / 0.75)


QUANTISED = ["a", "as", "az", "b", "bs", "bz", "ys", "yz"]


def quantised(rows: bool) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A square product of bytes; constants have names that Python keeps for itself."""
    zero = np.array([120, 110, 100], np.uint8) if rows else np.uint8(120)
    scale = np.array([0.5, 0.2, 0.1], np.float32) if rows else np.float32(0.5)
    feeds = {"a": RNG.integers(0, 255, (3, 3)).astype(np.uint8)}
    constants = {
        "as": np.float32(0.02), "az": np.uint8(120), "bs": np.float32(0.03), "bz": np.uint8(9),
        "b": RNG.integers(0, 255, (3, 3)).astype(np.uint8), "ys": scale, "yz": zero,
    }  # fmt: skip
    return single("QLinearMatMul", feeds, constants, QUANTISED), feeds


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_scales_of_rows_are_not_taken_for_those_of_columns(framework: str) -> None:
    proto, feeds = quantised(rows=False)
    (want,) = run(load(proto), feeds).values()
    np.testing.assert_array_equal(found(framework, proto, feeds)[0], want)
    proto, feeds = quantised(rows=True)
    if framework == "keras":
        with pytest.raises(Refused, match="by row"):
            translated(framework, proto)
    else:
        (want,) = ReferenceEvaluator(proto).run(None, feeds)
        np.testing.assert_array_equal(found(framework, proto, feeds)[0], want)
