"""The solver on small networks: what it ties together, what it stops at, and that it says why."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

import onnx_net2net as n2n
from onnx_net2net.algebra.axes import Axis, atoms, canonical
from onnx_net2net.analysis.solver import Solution, solve
from onnx_net2net.model.graph import Graph
from onnx_net2net.operators import looked_at, registry
from onnx_net2net.operators.language import Op, Rule
from onnx_net2net.operators.record import Operator
from onnx_net2net.widening.dimensions import analyse


def network(text: str, opset: int = 18) -> n2n.Model:
    """The model that ``text`` describes; inputs called ``w...`` become random weights."""
    head = f'<ir_version: 9, opset_import: ["": {opset}, "com.example": 1]> agraph '
    proto = parser.parse_model(head + text)
    random = np.random.default_rng(3)
    for value in [v for v in proto.graph.input if v.name.startswith("w")]:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = random.normal(0, 0.7, shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, value.name))
        proto.graph.input.remove(value)
    onnx.checker.check_model(proto)
    return n2n.load(proto)


def solved(text: str, opset: int = 18) -> Solution:
    return solve(Graph(network(text, opset)))


def axis(solution: Solution, name: str, index: int) -> Axis:
    found = solution.of(name)
    assert found is not None
    return canonical(found[index])


def reasons(solution: Solution, name: str, index: int) -> list[str]:
    """What pins an axis of a tensor."""
    return [f"{w.node}: {w.reason}" for a in atoms(axis(solution, name, index)) for w in a.pins]


MLP = """(float[b,6] x, float[6,9] w1, float[9] wb, float[9,4] w2) => (float[b,4] y) {
    h = MatMul (x, w1)
    hb = Add (h, wb)
    r = Relu (hb)
    y = MatMul (r, w2)
}"""


def test_rows_bias_activation_and_columns_are_one_axis() -> None:
    found = solved(MLP)
    hidden = axis(found, "w1", 1)
    assert all(axis(found, name, -1) is hidden for name in ("wb", "h", "hb", "r"))
    assert axis(found, "w2", 0) is hidden
    assert not reasons(found, "w1", 1)


def test_the_interface_is_pinned_by_name() -> None:
    found = solved(MLP)
    assert reasons(found, "w1", 0) == ["None: axis 1 of the network's input 'x'"]
    assert reasons(found, "w2", 1) == ["None: axis 1 of the network's output 'y'"]


def test_an_unknown_operator_pins_what_it_touches_and_nothing_else() -> None:
    found = solved("""(float[b,6] x, float[6,9] w1, float[9,11] w2, float[11,4] w3)
        => (float[b,4] y) {
            h = MatMul (x, w1)
            g = com.example.Mystery (h)
            k = MatMul (h, w2)
            y = MatMul (k, w3)
        }""")
    assert list(found.barriers.values()) == ["operator com.example.Mystery is not known"]
    assert reasons(found, "w1", 1) == ["Mystery 'g': operator com.example.Mystery is not known"]
    assert not reasons(found, "w2", 1)


def test_what_follows_an_unknown_operator_is_pinned_too() -> None:
    found = solved("""(float[b,6] x, float[6,9] w1, float[9,4] w2) => (float[b,4] y) {
            h = MatMul (x, w1)
            g = com.example.Mystery (h)
            y = MatMul (g, w2)
        }""")
    assert any("the shape of input 0 is unknown" in why for why in reasons(found, "w2", 0))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("r = Softmax (h)", "Softmax 'r'"),
        ("r = CumSum (h, one)", "CumSum 'r'"),
        ("r, i = TopK (h, nine)", "TopK 'r'"),
        ("r = ScatterElements <axis=1> (h, index, h)", "ScatterElements 'r'"),
    ],
)
def test_what_a_rule_fixes_names_the_node(body: str, reason: str) -> None:
    text = f"""(float[5,6] x, float[6,9] w1, float[9,4] w2) => (float[5,4] y) {{
            one = Constant <value: tensor = int64 {{1}}> ()
            nine = Constant <value: tensor = int64[1] {{9}}> ()
            shape = Shape (x)
            index = ConstantOfShape <value: tensor = int64[1] {{2}}> (shape)
            h = MatMul (x, w1)
            {body}
            y = MatMul (r, w2)
        }}"""
    why = reasons(solved(text), "w1", 1)
    assert why
    assert why[0].startswith(reason)


def test_a_random_operator_is_a_barrier() -> None:
    found = solved("""(float[b,6] x, float[6,9] w1, float[9,4] w2) => (float[b,4] y) {
            h = MatMul (x, w1)
            noise = RandomNormalLike (h)
            s = Add (h, noise)
            y = MatMul (s, w2)
        }""")
    assert any("RandomNormalLike 'noise'" in why for why in reasons(found, "w1", 1))


def test_two_widths_that_happen_to_be_equal_stay_apart() -> None:
    found = solved("""(float[b,9] x, float[9,9] w1, float[9,9] w2, float[9,9] w3)
        => (float[b,9] y) {
            h = MatMul (x, w1)
            k = MatMul (h, w2)
            y = MatMul (k, w3)
        }""")
    assert axis(found, "w1", 1) is not axis(found, "w2", 1)
    assert axis(found, "w1", 1) is axis(found, "w2", 0)
    assert not reasons(found, "w1", 1) and not reasons(found, "w2", 1)


def test_a_residual_sum_ties_both_branches() -> None:
    found = solved("""(float[b,6] x, float[6,9] w1, float[9,9] w2, float[9,4] w3)
        => (float[b,4] y) {
            h = MatMul (x, w1)
            k = MatMul (h, w2)
            s = Add (h, k)
            y = MatMul (s, w3)
        }""")
    assert axis(found, "w1", 1) is axis(found, "w2", 1)


def test_axes_of_dynamic_size_get_distinct_sizes() -> None:
    shapes = solved("""(float[batch,length,6] x, float[6,4] w1) => (float[batch,length,4] y) {
            y = MatMul (x, w1)
        }""").shapes
    batch, length = shapes.binding["batch"], shapes.binding["length"]
    assert batch != length
    assert shapes.of("y") == (batch, length, 4)


def _planted(name: str, wrong: Rule, text: str) -> bool:
    """Whether a wrong rule for ``name`` is seen: refused, pinned, or different when run."""
    table = registry()
    kept = table["", name]
    table["", name] = Operator(wrong)
    try:
        model = network(text)
        if analyse(model).solution.barriers:
            return True
        wide = {
            d.name: d.width + 3 if d.growth == "any" else 2 * d.width
            for d in n2n.inspect(model)
            if d.growth != "fixed"
        }
        try:
            return not n2n.verify(model, n2n.widen(model, wide, seed=1), seeds=1)
        except n2n.Net2NetError:
            return True
    finally:
        table["", name] = kept


PLANTED: list[Any] = [
    pytest.param("MatMul", Rule("... m k, ... j n -> ... m n"), id="a product that ties nothing"),
    pytest.param("Add", Rule("a b, c -> a b"), id="a sum that ties nothing"),
    pytest.param("Relu", Rule("a b -> b a"), id="a swap that does not happen"),
    pytest.param("Relu", Rule("a b -> a"), id="too few axes"),
    pytest.param("Relu", Rule("a (p q) -> a p"), id="a split that does not fit"),
    pytest.param("Softmax", Rule("... -> ..."), id="a softmax taken for pointwise"),
]


@pytest.mark.parametrize(("name", "wrong"), PLANTED)
def test_a_planted_wrong_rule_is_caught(name: str, wrong: Rule) -> None:
    assert _planted(
        name,
        wrong,
        f"""(float[b,6] x, float[6,9] w1, float[9] wb, float[9,9] w2, float[9,4] w3)
        => (float[b,4] y) {{
            h = MatMul (x, w1)
            hb = Add (h, wb)
            r = Relu (hb)
            s = {"Softmax" if name == "Softmax" else "Tanh"} (r)
            k = MatMul (s, w2)
            y = MatMul (k, w3)
        }}""",
    )


def test_a_rule_whose_shapes_contradict_onnx_is_a_barrier() -> None:
    table = registry()
    kept = table["", "Relu"]
    table["", "Relu"] = Operator(Rule("a b -> b a"))
    try:
        found = solved(MLP)
    finally:
        table["", "Relu"] = kept
    assert list(found.barriers.values()) == ["axis 0 of 'r' does not fit (rule: a b -> b a)"]


def test_solving_does_not_depend_on_other_models() -> None:
    first, second = solved(MLP), solved(MLP)
    assert {str(a) for a in atoms(axis(first, "w1", 1))} == {"9"}
    assert not set(atoms(axis(first, "w1", 1))) & set(atoms(axis(second, "w1", 1)))


def test_analysis_is_reused() -> None:
    model = network(MLP)
    assert n2n.inspect(model) is n2n.inspect(model)


def test_what_a_rule_may_look_at_is_what_its_memory_goes_by() -> None:
    """A rule is made once for all nodes that look alike: nothing that it sees may be left out."""
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    op = Op(node, 17, ((2, 6), (2,)), ((4, 3),), (None, np.array([4, 3])))
    others = {
        "node": helper.make_node("Reshape", ["x", "shape"], ["y"], allowzero=1),
        "opset": 18,
        "shapes": ((3, 4), (2,)),
        "outputs": ((3, 4),),
        "values": (None, np.array([3, 4])),
    }
    assert others.keys() == {field.name for field in dataclasses.fields(Op)}
    for name, value in others.items():
        assert looked_at(dataclasses.replace(op, **{name: value})) != looked_at(op), name
