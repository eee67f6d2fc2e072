"""If, Loop and Scan: dimensions inside and across their bodies, each grown and run.

Networks are written in ONNX's text form. Inputs called ``w...`` become weights; ``{0}`` in a
body's weight stands for values drawn at random.
"""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError

import onnx_net2net as n2n
from onnx_net2net.analysis import solver
from onnx_net2net.model.editing import Editor
from onnx_net2net.model.graph import Graph
from onnx_net2net.model.subgraphs import Links

RNG = np.random.default_rng(7)


def network(text: str, opset: int = 18) -> n2n.Model:
    """The model that ``text`` describes, its weights drawn at random."""
    head = f'<ir_version: 9, opset_import: ["": {opset}, "com.example": 1]> agraph '
    proto = parser.parse_model(head + re.sub(r"\{random (\d+)\}", _values, text))
    for value in [v for v in proto.graph.input if v.name.startswith("w")]:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = RNG.normal(0, 0.7, shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, value.name))
        proto.graph.input.remove(value)
    onnx.checker.check_model(proto)
    return n2n.load(proto)


def _values(match: re.Match[str]) -> str:
    return "{" + ", ".join(f"{v:.3f}" for v in RNG.normal(0, 0.7, int(match[1]))) + "}"


def growth(model: n2n.Model) -> dict[int, str]:
    """How the dimensions of a network, told apart by width, may grow."""
    return {d.width: d.growth for d in n2n.inspect(model)}


def reason(model: n2n.Model, width: int) -> str:
    """Why the dimension of this width cannot grow."""
    found = [d for d in n2n.inspect(model) if d.width == width]
    return " ".join(str(d.reason) for d in found)


def check(model: n2n.Model, *widths: int) -> None:
    """Grow the dimensions of these widths, each and all at once, and compare."""
    found = {d.width: d for d in n2n.inspect(model)}
    assert sorted(w for w, d in found.items() if d.growth == "any") == sorted(widths), found
    each = [{found[width].name: width + 3} for width in widths]
    everything = {found[width].name: width + 2 for width in widths}
    for wanted in [*each, everything]:
        grown = n2n.widen(model, wanted, seed=1)
        onnx.checker.check_model(grown.to_bytes(), full_check=True)
        report = n2n.verify(model, grown, seeds=2)
        assert report, (wanted, [(o.name, o.max_abs, o.problem) for o in report.outputs])


BRANCHES = """
(float[b,6] x, float[6,9] w1, float[9,11] w2, float[9,13] w3, float[13,11] w4, float[11,4] w5)
=> (float[b,4] y) {
    h = MatMul (x, w1)
    h_relu = Relu (h)
    s = ReduceSum <keepdims=0> (x)
    zero = Constant <value_float: float = 0.0> ()
    cond = Greater (s, zero)
    picked = If (cond) <
        then_branch = yes () => (float[b,11] t) <float[11] wt = {random 11}>
            { t_matmul = MatMul (h_relu, w2)  t = Add (t_matmul, wt) },
        else_branch = no () => (float[b,11] e)
            { e_matmul = MatMul (h_relu, w3)  e_tanh = Tanh (e_matmul)  e = MatMul (e_tanh, w4) }>
    y = MatMul (picked, w5)
}
"""


def test_both_branches_of_an_if_grow_with_what_is_around_them() -> None:
    check(network(BRANCHES), 9, 11, 13)


def test_a_weight_inside_a_branch_is_a_site() -> None:
    sites = {d.width: d.sites for d in n2n.inspect(network(BRANCHES))}
    assert sites[11] == [("w2", 1), ("w4", 1), ("w5", 0), ("wt", 0)]


def test_branches_that_use_one_name_for_two_tensors() -> None:
    text = BRANCHES
    for name in ("t_matmul", "e_matmul"):
        text = text.replace(name, "inner")
    text = re.sub(r"\b(t|e)\b", "result", text)
    model = network(text)
    assert model.proto.graph.node[5].attribute[0].g.output[0].name == "result"
    check(model, 9, 11, 13)


def test_branches_with_weights_of_one_name() -> None:
    text = BRANCHES.replace("(float[b,11] e)", "(float[b,11] e) <float[11] wt = {random 11}>")
    text = text.replace("e = MatMul (e_tanh, w4)", "u = MatMul (e_tanh, w4) e = Add (u, wt)")
    check(network(text), 9, 11, 13)


STATIC = """
(float[b,1,6] x, float[6,9] w1, float[9,4] w2) => (float[b,4] y) {
    h = MatMul (x, w1)
    shape = Shape (h)
    index = Constant <value_ints: ints = [%d]> ()
    size = Gather (shape, index)
    wanted = Constant <value_ints: ints = [%d]> ()
    cond = Equal (size, wanted)
    flat = If (cond) <
        then_branch = yes () => (t) { axes = Constant <value_ints: ints = [1]> ()
                                      t = Squeeze (h, axes) },
        else_branch = no () => (e) { e = Identity (h) }>
    flat_relu = Relu (flat)
    y = MatMul (flat_relu, w2)
}
"""


def test_only_the_branch_counts_that_is_always_taken() -> None:
    check(network(STATIC % (1, 1)), 9)


def test_a_condition_that_tells_a_grown_size_keeps_its_value() -> None:
    check(network(STATIC % (2, 9)), 9)


def test_branches_of_different_rank_are_refused_where_either_can_run() -> None:
    model = network(STATIC % (0, 1))
    assert growth(model)[9] == "fixed"
    assert "If" in reason(model, 9)


LOOP = """
(float[b,6] x, float[6,9] w1, float[9,13] w2, float[13,9] w3, float[9,4] w4)
=> (float[b,4] y, float[n,b,4] z) {
    start = MatMul (x, w1)
    trips = Constant <value_int: int = 3> ()
    true = Constant <value: tensor = bool {1}> ()
    last, seen = Loop (trips, true, start) <
        body = step (int64 i, bool go, float[b,9] h) => (bool on, float[b,9] next, float[b,9] out)
            <float[13] wb = {random 13}> {
                up = MatMul (h, w2)
                biased = Add (up, wb)
                act = Tanh (biased)
                down = MatMul (act, w3)
                next = Add (h, down)
                out = Relu (next)
                on = Identity (go)
            }>
    y = MatMul (last, w4)
    z = MatMul (seen, w4)
}
"""


EARLY = "one = Constant <value_int: int = 1> () on = Less (i, one)"


def test_a_loop_grows_in_its_state_and_inside() -> None:
    check(network(LOOP), 9, 13)


def test_a_loop_that_may_stop_early() -> None:
    check(network(LOOP.replace("on = Identity (go)", EARLY)), 9, 13)


def test_a_loop_whose_length_is_unknown() -> None:
    text = LOOP.replace("trips = Constant <value_int: int = 3> ()", "trips = Size (x)")
    check(network(text), 9, 13)


def test_sizes_behind_a_loop_that_may_stop_early_follow_its_length() -> None:
    text = LOOP.replace(
        "z = MatMul (seen, w4)",
        """
        shape = Shape <start=0, end=2> (seen)
        rows = ReduceProd (shape)
        width = Constant <value_ints: ints = [9]> ()
        flat_shape = Concat <axis=0> (rows, width)
        flat = Reshape (seen, flat_shape)
        z = MatMul (flat, w4)""",
    ).replace("float[n,b,4] z", "float[n,4] z")
    check(network(text.replace("on = Identity (go)", EARLY)), 9, 13)


def test_trips_counted_off_a_grown_size_stay_the_same() -> None:
    text = LOOP.replace(
        "trips = Constant <value_int: int = 3> ()",
        """
        shape = Shape <start=1> (start)
        zero = Constant <value_int: int = 0> ()
        trips = Gather (shape, zero)""",
    )
    check(network(text), 9, 13)


def test_a_state_that_changes_its_shape_is_refused() -> None:
    text = LOOP.replace("next = Add (h, down)", "next = Concat <axis=0> (h, down)")
    text = text.replace("float[b,9] next", "float[m,9] next")
    model = network(text.replace("float[n,b,4] z", "float[n,m,4] z"))
    assert growth(model)[9] == growth(model)[13] == "fixed"
    assert "changes" in reason(model, 9)


def test_one_state_that_changes_leaves_the_other_free() -> None:
    model = network("""
        (float[b,6] x, float[6,9] w1, float[9,9] w2, float[9,4] w3, float[6,11] w4, float[11,4] w5)
        => (float[b,4] y, float[m,4] z) {
            start = MatMul (x, w1)
            other = MatMul (x, w4)
            trips = Constant <value_int: int = 3> ()
            last, rows = Loop (trips, , start, other) <
                body = step (int64 i, bool go, float[b,9] h, float[r,11] g)
                => (bool on, float[b,9] next, float[s,11] more) {
                    next = MatMul (h, w2)
                    more = Concat <axis=0> (g, other)
                    on = Identity (go)
                }>
            y = MatMul (last, w3)
            z = MatMul (rows, w5)
        }""")
    check(model, 9)
    assert "changes" in reason(model, 11)


SCAN = """
(float[b,5,6] x, float[6,9] w1, float[9,9] w2, float[9,4] w3)
=> (float[b,4] y, float[b,5,4] z) {
    items = MatMul (x, w1)
    axis = Constant <value_ints: ints = [1]> ()
    start = ReduceMax <keepdims=0> (items, axis)
    last, seen = Scan <num_scan_inputs = 1, scan_input_axes = [%d], scan_output_axes = [%d],
                       scan_input_directions = [1],
        body = step (float[b,9] h, float[b,9] item) => (float[b,9] next, float[b,9] out) {
            moved = MatMul (h, w2)
            sum = Add (moved, item)
            next = Tanh (sum)
            out = Relu (sum)
        }> (start, items)
    y = MatMul (last, w3)
    z = MatMul (seen, w3)
}
"""


@pytest.mark.parametrize(("taken", "given"), [(1, 1), (-2, -2)])
def test_a_scan_grows(taken: int, given: int) -> None:
    check(network(SCAN % (taken, given)), 9)


def test_the_axis_that_a_scan_walks_along_is_fixed() -> None:
    model = network(
        SCAN.replace("float[b,5,6] x", "float[b,6] x")
        .replace(
            "items = MatMul (x, w1)",
            "wide = MatMul (x, wx) shape = Constant <value_ints: ints = [0, 5, 6]> ()"
            " split = Reshape (wide, shape) items = MatMul (split, w1)",
        )
        .replace("float[6,9] w1", "float[6,30] wx, float[6,9] w1")
        % (1, 1)
    )
    assert growth(model)[5] == "fixed"
    assert "its body runs along it" in reason(model, 5)


NESTED = """
(float[b,6] x, float[6,9] w1, float[9,13] w2, float[13,9] w3, float[9,4] w4, float[9,9] w5)
=> (float[b,4] y) {
    start = MatMul (x, w1)
    trips = Constant <value_int: int = 4> ()
    one = Constant <value_int: int = 1> ()
    last = Loop (trips, , start) <
        body = step (int64 i, bool go, float[b,9] h) => (bool on, float[b,9] next) {
            odd = Greater (i, one)
            next = If (odd) <
                then_branch = yes () => (float[b,9] t) {
                    t = Loop (one, , h) <
                        body = inner (int64 j, bool k, float[b,9] g) => (bool l, float[b,9] f) {
                            up = MatMul (g, w2)  act = Relu (up)  down = MatMul (act, w3)
                            f = Add (down, start)  l = Identity (k)
                        }>
                },
                else_branch = no () => (float[b,9] e) { e_in = MatMul (h, w5)  e = Tanh (e_in) }>
            on = Identity (go)
        }>
    y = MatMul (last, w4)
}
"""


def test_bodies_within_bodies() -> None:
    check(network(NESTED), 9, 13)


def test_a_share_is_inserted_inside_the_body() -> None:
    text = LOOP.replace(
        "down = MatMul (act, w3)",
        """
        turned = Transpose <perm=[1,0]> (act)
        dots = MatMul (act, turned)
        mixed = MatMul (dots, act)
        down = MatMul (mixed, w3)""",
    )
    model = network(text)
    check(model, 9, 13)
    grown = n2n.widen(model, {d.name: 20 for d in n2n.inspect(model) if d.width == 13})
    main = [node.op_type for node in grown.proto.graph.node]
    loop = next(node for node in grown.proto.graph.node if node.op_type == "Loop")
    body = next(a.g for a in loop.attribute if a.name == "body")
    assert "Mul" in [node.op_type for node in body.node]
    assert "Mul" not in main


def test_sizes_computed_inside_a_body() -> None:
    check(
        network("""
        (float[b,6] x, float[6,15] w1, float[15,15] w2, float[15,4] w3) => (float[b,4] y) {
            start = MatMul (x, w1)
            outside = Shape <end=1> (x)
            trips = Constant <value_int: int = 2> ()
            last = Loop (trips, , start) <
                body = step (int64 i, bool go, float[b,15] h) => (bool on, float[b,15] next) {
                    heads = Constant <value_ints: ints = [3, 5]> ()
                    split_shape = Concat <axis=0> (outside, heads)
                    split = Reshape (h, split_shape)
                    turned = Transpose <perm=[0,2,1]> (split)
                    back_to = Shape (h)
                    flat = Reshape (turned, back_to)
                    mixed = MatMul (flat, w2)
                    next = Tanh (mixed)
                    on = Identity (go)
                }>
            y = MatMul (last, w3)
        }"""),
        3,
        5,
    )


def test_a_body_that_passes_a_grown_size_on_is_refused() -> None:
    model = network("""
        (float[b,6] x, float[6,9] w1, float[9,4] w2) => (float[b,4] y) {
            h = MatMul (x, w1)
            s = ReduceSum <keepdims=0> (x)
            zero = Constant <value_float: float = 0.0> ()
            cond = Greater (s, zero)
            size = If (cond) <
                then_branch = yes () => (int64[1] t) { t = Shape <start=1> (h) },
                else_branch = no () => (int64[1] e) { e = Constant <value_ints: ints = [3]> () }>
            factor = Cast <to=1> (size)
            scaled = Mul (h, factor)
            y = MatMul (scaled, w2)
        }""")
    name = next(d.name for d in n2n.inspect(model) if d.width == 9)
    with pytest.raises(n2n.Refused, match="passes on a size that grows"):
        n2n.widen(model, {name: 12})


def test_a_branch_that_gives_a_size_when_it_is_always_taken() -> None:
    check(
        network("""
        (float[b,6] x, float[6,9] w1, float[9,4] w2) => (float[b,4] y) {
            h = MatMul (x, w1)
            cond = Constant <value: tensor = bool {1}> ()
            size = If (cond) <
                then_branch = yes () => (int64[1] t) { t = Shape <start=1> (h) },
                else_branch = no () => (int64[1] e) { e = Constant <value_ints: ints = [3]> () }>
            rows = Shape <end=1> (h)
            shape = Concat <axis=0> (rows, size)
            same = Reshape (h, shape)
            factor = Cast <to=1> (size)
            scaled = Mul (same, factor)
            y = MatMul (scaled, w2)
        }"""),
        9,
    )


def test_an_unknown_operator_with_a_subgraph_stops_everything_it_touches() -> None:
    model = network("""
        (float[b,6] x, float[6,9] w1, float[9,11] w2, float[11,4] w3, float[11,9] w4)
        => (float[b,4] y) {
            h = MatMul (x, w1)
            k = MatMul (h, w2)
            u = com.example.Twice (k) <body = g () => (float[b,11] t) { t = MatMul (h, w2) }>
            y = MatMul (u, w3)
        }""")
    found = growth(model)
    assert found[9] == found[11] == "fixed"
    assert "operator Twice is not known" in reason(model, 9)


def test_body_inputs_and_outputs_state_their_new_sizes() -> None:
    model = network(LOOP)
    name = next(d.name for d in n2n.inspect(model) if d.width == 9)
    grown = n2n.widen(model, {name: 20})
    loop = next(node for node in grown.proto.graph.node if node.op_type == "Loop")
    body = loop.attribute[0].g
    values = (*body.input[2:], *body.output[1:])
    assert [v.type.tensor_type.shape.dim[1].dim_value for v in values] == [20, 20, 20]


@pytest.mark.parametrize("forgotten", ["enter", "carry", "leave"])
def test_a_forgotten_link_is_caught(forgotten: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def tie(solution: solver.Solution, node: solver.Node) -> None:
        kept, node.links = (
            node.links,
            Links(
                **{
                    name: [] if name == forgotten else getattr(node.links, name)
                    for name in ("enter", "carry", "leave", "pinned")
                }
            ),
        )
        plain(solution, node)
        node.links = kept

    plain = solver._tie
    monkeypatch.setattr(solver, "_tie", tie)
    text = LOOP.replace("Add (h, down)", "Tanh (down)")
    with pytest.raises((AssertionError, n2n.Net2NetError, ValidationError, InferenceError)):
        check(network(text), 9, 13)


def test_what_an_edit_makes_dead_goes_from_bodies_and_from_what_holds_them() -> None:
    """The main graph's nodes are copied when some go; bodies must have been cleaned before."""
    model = n2n.load(
        parser.parse_model(
            """
            <ir_version: 8, opset_import: ["" : 17]>
            branches (float[2, 3] x, bool c) => (float[6] y)
            <int64[1] k = {6}, int64[1] m = {3}, int64[1] n = {2}>
            {
                outer = Concat<axis = 0> (n, m)
                z = Reshape(x, outer)
                y = If(c) <
                    then_branch = t () => (float[6] r) {
                        inner = Concat<axis = 0> (k)
                        r = Reshape(z, inner)
                    },
                    else_branch = e () => (float[6] q) { q = Reshape(z, k) }
                >
            }
            """
        )
    )
    graph = Graph(model)
    editor = Editor(graph)
    for node in graph.nodes:
        if node.op == "Reshape" and node.inputs[1] in ("outer", "inner"):
            sizes = [2, 3] if node.inputs[1] == "outer" else [6]
            editor.connect(node, 1, editor.add_weight("sizes", np.asarray(sizes, np.int64)))
    edited = onnx.ModelProto.FromString(editor.finish().to_bytes())
    onnx.checker.check_model(edited, full_check=True)
    assert "Concat" not in str(edited.graph.node)
    assert {t.name for t in edited.graph.initializer} == {"k", "sizes", "sizes_2"}
