"""Networks that look as if a copy or a factor were exact, and where it is not.

Whatever is offered must hold: a block that calls itself exact is copied and judged, a layer is
factored right or refused by name.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node

import onnx_net2net as n2n
from onnx_net2net.deepening import identity_init

FLOAT = TensorProto.FLOAT
Parts = tuple[list[NodeProto], dict[str, np.ndarray]]
RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def network(
    nodes: list[NodeProto], weights: dict[str, np.ndarray], shape: tuple[int, ...] = (3, 6)
) -> ModelProto:
    domains = {node.domain for node in nodes if node.domain}
    graph = helper.make_graph(
        nodes,
        "trap",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def stack(block: Callable[[str, str, str], Parts], first: Parts = ([], {})) -> ModelProto:
    """Two blocks, each made by its name, what it reads and what it writes."""
    nodes, weights = [*first[0]], dict(first[1])
    last = nodes[-1].output[0] if nodes else "x"
    for index in range(2):
        more, held = block(f"blocks.{index}.", last, f"o{index}")
        nodes, weights, last = nodes + more, weights | held, f"o{index}"
    return network([*nodes, make_node("Identity", [last], ["y"])], weights)


def normed(prefix: str) -> dict[str, np.ndarray]:
    return {prefix + "n.weight": normal(6) + 2, prefix + "n.bias": normal(6)}


def norm(prefix: str, read: str, written: str) -> NodeProto:
    names = [read, prefix + "n.weight", prefix + "n.bias"]
    return make_node("LayerNormalization", names, [written], axis=-1, epsilon=1e-12)


def primitive_norm(prefix: str, read: str, written: str, axis: int) -> Parts:
    """LayerNorm over any axis, written out."""
    size = (3, 6)[axis]
    nodes = [
        make_node("ReduceMean", [read, prefix + "axis"], [prefix + "mean"]),
        make_node("Sub", [read, prefix + "mean"], [prefix + "d"]),
        make_node("Mul", [prefix + "d", prefix + "d"], [prefix + "dd"]),
        make_node("ReduceMean", [prefix + "dd", prefix + "axis"], [prefix + "v"]),
        make_node("Add", [prefix + "v", prefix + "eps"], [prefix + "ve"]),
        make_node("Sqrt", [prefix + "ve"], [prefix + "r"]),
        make_node("Div", [prefix + "d", prefix + "r"], [prefix + "n"]),
        make_node("Mul", [prefix + "n", prefix + "n.weight"], [prefix + "nw"]),
        make_node("Add", [prefix + "nw", prefix + "n.bias"], [written]),
    ]
    shape = (size, *[1] * (-1 - axis))
    weights = {prefix + "n.weight": normal(*shape) + 2, prefix + "n.bias": normal(*shape)}
    numbers = {prefix + "axis": np.array([axis]), prefix + "eps": np.float32(1e-12)}
    return nodes, weights | numbers


def normed_in_primitives(p: str, x: str, y: str) -> Parts:
    """A block of BERT: two sums, each normed."""
    return normed_twice(p, x, y, -1)


def normed_along_another_axis(p: str, x: str, y: str) -> Parts:
    """What is normal along one axis is not along the other."""
    return normed_twice(p, x, y, -2)


def normed_twice(p: str, x: str, y: str, axis: int) -> Parts:
    first, second = (
        primitive_norm(p + "1.", p + "s", p + "h", axis),
        primitive_norm(p, p + "t", y, -1),
    )
    nodes = [
        make_node("MatMul", [x, p + "a.weight"], [p + "a"]),
        make_node("Add", [x, p + "a"], [p + "s"]),
        *first[0],
        make_node("MatMul", [p + "h", p + "f.weight"], [p + "f"]),
        make_node("Add", [p + "h", p + "f"], [p + "t"]),
        *second[0],
    ]
    weights = {p + "a.weight": normal(6, 6), p + "f.weight": normal(6, 6)}
    return nodes, first[1] | second[1] | weights


def residual_behind_the_norm(p: str, x: str, y: str) -> Parts:
    """The sum takes up what the norm gives, not what the block reads."""
    nodes = [
        norm(p, x, p + "h"),
        make_node("MatMul", [p + "h", p + "fc.weight"], [p + "m"]),
        make_node("Add", [p + "h", p + "m"], [y]),
    ]
    return nodes, normed(p) | {p + "fc.weight": normal(6, 6)}


def one_affine_for_two_norms(p: str, x: str, y: str) -> Parts:
    nodes = [
        make_node("MatMul", [x, p + "a.weight"], [p + "a"]),
        make_node("Add", [x, p + "a"], [p + "s"]),
        norm(p, p + "s", p + "h"),
        make_node("MatMul", [p + "h", p + "f.weight"], [p + "f"]),
        make_node("Add", [p + "h", p + "f"], [p + "t"]),
        norm(p, p + "t", y),
    ]
    return nodes, normed(p) | {p + "a.weight": normal(6, 6), p + "f.weight": normal(6, 6)}


def normed_on_the_way(p: str, x: str, y: str) -> Parts:
    """The identity branch of MobileOne and RepVGG."""
    statistics = [p + "n.weight", p + "n.bias", p + "n.mean", p + "n.var"]
    nodes = [
        make_node("BatchNormalization", [x, *statistics], [p + "h"]),
        make_node("MatMul", [x, p + "fc.weight"], [p + "m"]),
        make_node("Add", [p + "h", p + "m"], [y]),
    ]
    more = {p + "n.mean": normal(6), p + "n.var": normal(6) ** 2 + 1, p + "fc.weight": normal(6, 6)}
    return nodes, normed(p) | more


def clipped_sum(p: str, x: str, y: str) -> Parts:
    nodes = [
        make_node("MatMul", [x, p + "fc.weight"], [p + "m"]),
        make_node("Add", [x, p + "m"], [p + "s"]),
        make_node("Relu", [p + "s"], [y]),
    ]
    return nodes, {p + "fc.weight": normal(6, 6)}


def divided_by_its_own_norm(p: str, x: str, y: str) -> Parts:
    """Zero weights would give 0 / 0."""
    nodes = [
        make_node("MatMul", [x, p + "fc.weight"], [p + "m"]),
        make_node("ReduceL2", [p + "m", p + "axes"], [p + "l"], keepdims=1),
        make_node("Div", [p + "m", p + "l"], [p + "d"]),
        make_node("Add", [x, p + "d"], [y]),
    ]
    return nodes, {p + "fc.weight": normal(6, 6), p + "axes": np.array([1])}


def times_its_own_reciprocal(p: str, x: str, y: str) -> Parts:
    nodes = [
        make_node("MatMul", [x, p + "fc.weight"], [p + "m"]),
        make_node("ReduceL2", [p + "m", p + "axes"], [p + "l"], keepdims=1),
        make_node("Reciprocal", [p + "l"], [p + "r"]),
        make_node("Mul", [p + "m", p + "r"], [p + "d"]),
        make_node("Add", [x, p + "d"], [y]),
    ]
    return nodes, {p + "fc.weight": normal(6, 6), p + "axes": np.array([1])}


def times_its_own_logarithm(p: str, x: str, y: str) -> Parts:
    nodes = [
        make_node("MatMul", [x, p + "fc.weight"], [p + "m"]),
        make_node("Abs", [p + "m"], [p + "a"]),
        make_node("ReduceLogSum", [p + "a", p + "axes"], [p + "l"], keepdims=1),
        make_node("Mul", [p + "m", p + "l"], [p + "d"]),
        make_node("Add", [x, p + "d"], [y]),
    ]
    return nodes, {p + "fc.weight": normal(6, 6), p + "axes": np.array([1])}


def weight_by_its_norm(p: str, x: str, y: str) -> Parts:
    """A weight of a length that is learned (weight_norm): the length may be zero."""
    nodes = [
        make_node("ReduceL2", [p + "fc.v", p + "axes"], [p + "l"], keepdims=1),
        make_node("Div", [p + "fc.v", p + "l"], [p + "u"]),
        make_node("Mul", [p + "u", p + "fc.g"], [p + "w"]),
        make_node("MatMul", [x, p + "w"], [p + "m"]),
        make_node("Add", [x, p + "m"], [y]),
    ]
    weights = {p + "fc.v": normal(6, 6), p + "fc.g": normal(1, 6)}
    return nodes, weights | {p + "axes": np.array([0])}


def weight_of_length_one(p: str, x: str, y: str) -> Parts:
    nodes, weights = weight_by_its_norm(p, x, y)
    weights[p + "fc.g"] = np.float32(0.5)
    return nodes, weights


def dropped_in_training_mode(p: str, x: str, y: str) -> Parts:
    names = [p + "m", p + "ratio", p + "training"]
    nodes = [
        make_node("Dropout", [x, *names[1:]], [p + "x"]),
        make_node("MatMul", [p + "x", p + "fc.weight"], [p + "m"]),
        make_node("Add", [p + "x", p + "m"], [y]),
    ]
    settings = {p + "ratio": np.float32(0.5), p + "training": np.array(True)}
    return nodes, settings | {p + "fc.weight": normal(6, 6)}


def integer_and_real_weights(p: str, x: str, y: str) -> Parts:
    """Integers cannot be set to zero by the copy, so what they write does not vanish."""
    nodes = [
        make_node("Cast", [p + "q.weight"], [p + "w"], to=FLOAT),
        make_node("MatMul", [x, p + "w"], [p + "q"]),
        make_node("Add", [x, p + "q"], [p + "s"]),
        make_node("MatMul", [p + "s", p + "fc.weight"], [p + "m"]),
        make_node("Add", [p + "s", p + "m"], [y]),
    ]
    return nodes, {p + "q.weight": np.eye(6, dtype=np.int8), p + "fc.weight": normal(6, 6)}


def masked_by_a_comparison(p: str, x: str, y: str) -> Parts:
    nodes = [
        make_node("Greater", [x, p + "zero"], [p + "above"]),
        make_node("Cast", [p + "above"], [p + "mask"], to=FLOAT),
        make_node("MatMul", [x, p + "a.weight"], [p + "a"]),
        make_node("Mul", [p + "mask", p + "a"], [p + "g"]),
        make_node("MatMul", [x, p + "fc.weight"], [p + "m"]),
        make_node("Sum", [x, p + "g", p + "m"], [y]),
    ]
    weights = {p + "zero": np.float32(0), p + "a.weight": normal(6, 6)}
    return nodes, weights | {p + "fc.weight": normal(6, 6)}


def dropped_by_a_ratio(p: str, x: str, y: str) -> Parts:
    nodes = [
        make_node("MatMul", [x, p + "fc.weight"], [p + "m"]),
        make_node("Dropout", [p + "m", p + "ratio"], [p + "d"]),
        make_node("Add", [x, p + "d"], [y]),
    ]
    return nodes, {p + "ratio": np.float32(0.5), p + "fc.weight": normal(6, 6)}


def divided_where_relu_gives_zeros(p: str, x: str, y: str) -> Parts:
    """A copy behind the Relu would give 0 / 0; one before it does not."""
    nodes = [
        make_node("ReduceL2", [x, p + "axes"], [p + "l"], keepdims=1),
        make_node("Div", [x, p + "l"], [p + "d"]),
        make_node("MatMul", [p + "d", p + "fc.weight"], [p + "m"]),
        make_node("Add", [x, p + "m"], [p + "s"]),
        make_node("Relu", [p + "s"], [y]),
    ]
    return nodes, {p + "fc.weight": -np.abs(normal(6, 6)), p + "axes": np.array([1])}


def added_by_strangers(p: str, x: str, y: str) -> Parts:
    nodes = [
        make_node("MatMul", [x, p + "fc.weight"], [p + "m"]),
        make_node("Add", [x, p + "m"], [y], domain="custom"),
    ]
    return nodes, {p + "fc.weight": normal(6, 6)}


def one_weight_zero_and_one(p: str, x: str, y: str) -> Parts:
    """The norm's scale would have to be one, and zero for the branch to vanish."""
    nodes = [
        make_node("Mul", [x, p + "n.weight"], [p + "m"]),
        make_node("Add", [x, p + "m"], [p + "s"]),
        norm(p, p + "s", y),
    ]
    return nodes, normed(p)


def normed_in_other_rows(p: str, x: str, y: str) -> Parts:
    """The same norm again, but over rows of another length."""
    nodes = [
        make_node("MatMul", [x, p + "fc.weight"], [p + "m"]),
        make_node("Add", [x, p + "m"], [p + "s"]),
        make_node("Reshape", [p + "s", "long"], [p + "l"]),
        norm(p, p + "l", p + "h"),
        make_node("Reshape", [p + "h", "rows"], [p + "r"]),
        norm(p + "rows.", p + "r", y),
    ]
    weights = {p + "n.weight": normal(18) + 2, p + "n.bias": normal(18)}
    shapes = {"long": np.array([1, 18]), "rows": np.array([3, 6])}
    return nodes, weights | shapes | normed(f"{p}rows.") | {p + "fc.weight": normal(6, 6)}


def summed_while_flat(p: str, x: str, y: str) -> Parts:
    nodes = [
        make_node("Reshape", [x, "flat"], [p + "f"]),
        make_node("MatMul", [p + "f", p + "fc.weight"], [p + "m"]),
        make_node("Add", [p + "f", p + "m"], [p + "s"]),
        make_node("Reshape", [p + "s", "rows"], [y]),
    ]
    shapes = {"flat": np.array([-1, 2]), "rows": np.array([3, 6])}
    return nodes, shapes | {p + "fc.weight": normal(2, 2)}


NORMED: Parts = (
    [make_node("LayerNormalization", ["x", "g", "b"], ["e"], axis=-1, epsilon=1e-12)],
    {"g": normal(6) + 2, "b": normal(6)},
)
HALF_CLIPPED: Parts = (
    [
        make_node("MatMul", ["x", "in.weight"], ["p"]),
        make_node("Relu", ["p"], ["r"]),
        make_node("Concat", ["r", "negative"], ["e"], axis=1),
    ],
    {"in.weight": normal(6, 4), "negative": -np.abs(normal(3, 2))},
)
STACKS = {
    "residual behind the norm": stack(residual_behind_the_norm, NORMED),
    "normed on the way": stack(normed_on_the_way),
    "one affine for two norms": stack(one_affine_for_two_norms, NORMED),
    "clipped sum of what may be negative": stack(clipped_sum, HALF_CLIPPED),
    "divided by its own norm": stack(divided_by_its_own_norm),
    "times its own reciprocal": stack(times_its_own_reciprocal),
    "times its own logarithm": stack(times_its_own_logarithm),
    "a weight divided by its norm": stack(weight_by_its_norm),
    "a weight of a length that stays": stack(weight_of_length_one),
    "one weight zero and one": stack(one_weight_zero_and_one, NORMED),
    "normed in other rows": stack(normed_in_other_rows, NORMED),
    "normed in primitives": stack(normed_in_primitives, NORMED),
    "normed along another axis": stack(normed_along_another_axis, NORMED),
    "summed while flat": stack(summed_while_flat),
    "divided where relu gives zeros": stack(divided_where_relu_gives_zeros),
    "integer and real weights": stack(integer_and_real_weights),
    "masked by a comparison": stack(masked_by_a_comparison),
    "dropped by a ratio": stack(dropped_by_a_ratio),
}
WHY_NOT = {
    "residual behind the norm": "stands between its input and its sum, and is not what ends it",
    "normed on the way": "stands between its input and its sum",
    "one affine for two norms": "its last norm shares its scale or bias",
    "divided by its own norm": "might divide zero by zero",
    "times its own reciprocal": "might divide zero by zero",
    "times its own logarithm": "might divide zero by zero",
    "a weight of a length that stays": "might divide zero by zero",
    "one weight zero and one": "would have to be one for a norm and zero elsewhere",
    "normed in other rows": "stands between its input and its sum",
    "normed along another axis": "stands between its input and its sum, and is not what ends it",
}


@pytest.mark.parametrize("name", STACKS)
def test_blocks_that_call_themselves_exact_are(name: str) -> None:
    model = n2n.load(STACKS[name])
    exact = [block.name for block in n2n.blocks(model) if block.exact]
    assert ("blocks.0" in exact) == ("blocks.1" in exact) == (name not in WHY_NOT)
    for block in exact:  # parts of the others, too
        assert n2n.verify(model, n2n.deepen(model, block=block))


@pytest.mark.parametrize("name", STACKS)
def test_repeated_blocks_are_listed_with_the_reason_why_not(name: str) -> None:
    model = n2n.load(STACKS[name])
    found = [block for block in n2n.blocks(model) if block.series == "blocks"]
    assert [block.name for block in found] == ["blocks.0", "blocks.1"]
    for block in [block for block in found if not block.exact]:
        assert block.reason and block.remedy and WHY_NOT[name] in (found[0].reason or "")
        with pytest.raises(n2n.Refused, match="cannot be copied exactly") as caught:
            n2n.deepen(model, block=block.name)
        assert block.reason in caught.value.reason and caught.value.remedy == block.remedy


@pytest.mark.parametrize("block", [dropped_in_training_mode, added_by_strangers])
def test_what_no_rule_explains_is_no_identity(block: Callable[[str, str, str], Parts]) -> None:
    """Neither can be run: the one is random, the other unknown to onnxruntime."""
    model = n2n.load(stack(block))
    found = {b.name: b for b in n2n.blocks(model)}
    for name in [name for name, b in found.items() if b.exact]:
        assert block is dropped_in_training_mode
        assert found[name].input == f"{name}.x"  # behind the dropout, not before it


TRANSPOSED = network(
    [
        make_node("Conv", ["x", "c.weight"], ["c"]),
        make_node("Transpose", ["c"], ["t"], perm=[0, 2, 1]),
        make_node("Tanh", ["t"], ["y"]),
    ],
    {"c.weight": normal(6, 6, 1)},
    (3, 6, 6),
)
JOINED = network(
    [
        make_node("MatMul", ["x", "a.weight"], ["a"]),
        make_node("MatMul", ["x", "b.weight"], ["b"]),
        make_node("Concat", ["a", "b"], ["c"], axis=1),
        make_node("Relu", ["c"], ["y"]),
    ],
    {"a.weight": normal(6, 4), "b.weight": normal(6, 3)},
)
SCALAR_BIAS = network(
    [make_node("Gemm", ["x", "a.weight", "a.bias"], ["a"]), make_node("Tanh", ["a"], ["y"])],
    {"a.weight": normal(6, 4), "a.bias": normal(1)},
)
SHARED_TRANSPOSE = network(
    [
        make_node("Transpose", ["a.weight"], ["w"], perm=[1, 0]),
        make_node("MatMul", ["x", "w"], ["a"]),
        make_node("MatMul", ["a", "w"], ["b"]),
        make_node("Tanh", ["b"], ["y"]),
    ],
    {"a.weight": normal(6, 6)},
)


@pytest.mark.parametrize(
    ("proto", "places"),
    [
        (TRANSPOSED, "cty"),
        (JOINED, "abcy"),
        (SCALAR_BIAS, "ay"),
        (SHARED_TRANSPOSE, "aby"),
    ],
    ids=["transposed", "joined", "scalar bias", "shared transpose"],
)
@pytest.mark.parametrize("init", ["factor", "residual", "auto"])
def test_a_layer_is_inserted_right_or_refused(proto: ModelProto, places: str, init: str) -> None:
    model = n2n.load(proto)
    for place in places:
        try:
            deeper = n2n.deepen(model, after=place, init=init)
        except n2n.Refused as refusal:
            assert refusal.remedy
            continue
        assert n2n.verify(model, deeper)


def test_an_operator_of_another_domain_is_no_activation() -> None:
    proto = network(
        [
            make_node("MatMul", ["x", "a.weight"], ["a"]),
            make_node("Relu", ["a"], ["y"], domain="custom"),
        ],
        {"a.weight": normal(6, 4)},
    )
    model = n2n.load(proto)
    deeper = n2n.deepen(model, after="a")
    custom = [n.op_type for n in deeper.proto.graph.node if n.domain == "custom"]
    assert custom == ["Relu"]
    with pytest.raises(n2n.Refused, match="nothing is known"):
        n2n.deepen(model, after="y")


def test_a_stage_is_a_row_of_blocks_even_if_they_differ() -> None:
    """As Swin's do, of which every other one shifts its windows."""
    nodes: list[NodeProto] = []
    weights: dict[str, np.ndarray] = {}
    last = "x"
    for at, activation in enumerate(["Tanh", "Sin"]):
        p = f"stages.1.blocks.{at}."
        nodes += [
            make_node("MatMul", [last, p + "fc1.weight"], [p + "a"]),
            make_node(activation, [p + "a"], [p + "h"]),
            make_node("MatMul", [p + "h", p + "fc2.weight"], [p + "b"]),
            make_node("Add", [last, p + "b"], [p + "y"]),
        ]
        weights |= {p + "fc1.weight": normal(6, 9), p + "fc2.weight": normal(9, 6)}
        last = p + "y"
    model = n2n.load(network([*nodes, make_node("Identity", [last], ["y"])], weights))
    found = [block.name for block in n2n.blocks(model)]
    assert found == ["stages.1.blocks.0", "stages.1.blocks.1"]


# ---- planted faults ------------------------------------------------------------------------------


def test_a_norm_along_another_axis_taken_for_the_same_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(identity_init, "_axis", lambda shape: -1)
    model = n2n.load(STACKS["normed along another axis"])
    assert "blocks.0" in {block.name for block in n2n.blocks(model) if block.exact}
    assert not n2n.verify(model, n2n.deepen(model, block="blocks.0"))
