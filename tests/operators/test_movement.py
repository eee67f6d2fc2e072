"""Movement rules by brute force, without the engine: random shapes, bounds and pads.

For every axis that a rule lets grow, the operands are gathered by a source map and the sizes
that the rule's size_refs name are rewritten; the operator must then yield its old output, gathered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod

import numpy as np
import onnx
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from onnx import NodeProto, helper
from onnx.reference import ReferenceEvaluator

from onnx_net2net import operators
from onnx_net2net.analysis.solver import solve
from onnx_net2net.model.graph import Graph
from onnx_net2net.model.model import load
from onnx_net2net.operators import lookup
from onnx_net2net.operators.factors import factors
from onnx_net2net.operators.language import Op, Rule, SizeRef, Unsupported, expand, size_ref
from onnx_net2net.operators.notation import Group, Spec, Term
from tests.samples import indexing, movement, node
from tests.samples.network import network

# The machine that runs this may be busy; the seed is fixed so that a failure is found again.
settings.register_profile("movement", deadline=None, derandomize=True, max_examples=60)
BRUTE = settings.get_profile("movement")

SAMPLES = movement.SAMPLES + indexing.SAMPLES
Arrays = dict[str, np.ndarray]
Sizes = Mapping[str, int]
Sources = Mapping[str, np.ndarray]


def run(proto: NodeProto, arrays: Arrays, opset: int) -> list[np.ndarray]:
    """The outputs of one node."""
    values = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in arrays.items()
    ]
    outputs = [onnx.ValueInfoProto(name=n) for n in proto.output]
    graph = helper.make_graph([proto], "node", values, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return [np.asarray(t) for t in ReferenceEvaluator(model).run(None, arrays)]


def size(term: Term, sizes: Sizes) -> int:
    """How long an axis is."""
    if isinstance(term, str):
        return 1 if term == "1" else sizes[term]
    parts = [size(t, sizes) for t in term.terms]
    return prod(parts) if isinstance(term, Group) else sum(parts)


def entries(term: Term, sizes: Sizes, sources: Sources) -> np.ndarray:
    """Which old entry of the axis each new one repeats."""
    if isinstance(term, str):
        return sources.get(term, np.arange(size(term, sizes)))
    result = np.zeros(1 if isinstance(term, Group) else 0, np.int64)
    for before, part in enumerate(term.terms):
        inner = entries(part, sizes, sources)
        if isinstance(term, Group):
            result = (result[:, None] * size(part, sizes) + inner).ravel()
        else:
            offset = sum(size(t, sizes) for t in term.terms[:before])
            result = np.concatenate([result, offset + inner])
    return result


def gathered(array: np.ndarray, spec: Spec | None, sizes: Sizes, sources: Sources) -> np.ndarray:
    """``array`` after growth."""
    for axis, term in enumerate(spec or ()):
        array = np.take(array, entries(term, sizes, sources), axis)
    return array


def rewritten(old: Sequence[int], place: SizeRef, sizes: Sizes, sources: Sources) -> list[int]:
    """The elements of a shape after growth: those that repeated a size still do."""
    grown = {**sizes, **{name: len(source) for name, source in sources.items()}}
    result = list(old)
    for index, item in enumerate(place.terms):
        if item is None:
            continue
        if item.beyond is not None:
            enough = size(item.term, grown) <= abs(item.beyond)
            result[index] = item.beyond if enough else item.sign * (2**31 - 1)
        elif old[index] == item.sign * size(item.term, sizes):
            result[index] = item.sign * size(item.term, grown)
    return result


def apply_slots(
    proto: NodeProto, arrays: Arrays, rule: Rule, sizes: Sizes, sources: Sources
) -> tuple[NodeProto, Arrays]:
    """The node and its operands with rewritten sizes."""
    changed = NodeProto()
    changed.CopyFrom(proto)
    for place in rule.size_refs:
        if isinstance(place.where, int):
            name = proto.input[place.where]
            arrays[name] = np.array(rewritten(arrays[name].tolist(), place, sizes, sources))
            continue
        for attribute in changed.attribute:
            if attribute.name == place.where:
                attribute.ints[:] = rewritten(list(attribute.ints), place, sizes, sources)
    return changed, arrays


def broken(proto: NodeProto, arrays: Arrays, opset: int, rule: Rule | None = None) -> list[str]:
    """The names that the rule lets grow although the operator then computes something else."""
    outputs = run(proto, arrays, opset)
    values = tuple(a if a.dtype == np.int64 else None for a in arrays.values())
    shapes = tuple(a.shape for a in arrays.values())
    if rule is None:
        found = lookup(Op(proto, opset, shapes, tuple(o.shape for o in outputs), values))
        rule = Rule(found) if isinstance(found, str) else found
    ranks = tuple(len(s) for s in shapes)
    pattern = expand(rule.pattern, ranks, tuple(o.ndim for o in outputs))
    sizes = dict(rule.sizes)
    for spec, shape in zip(pattern.inputs, shapes, strict=True):
        for term, length in zip(spec or (), shape, strict=spec is not None):
            if isinstance(term, str):
                assert sizes.setdefault(term, length) == length or term == "1"
    problems = []
    for name, length in sizes.items():
        if name in rule.fixed or length == 1:
            continue
        sources = {name: np.array([*range(length), length - 1, 0, 0])}
        grown = {
            n: gathered(a, spec, sizes, sources)
            for (n, a), spec in zip(arrays.items(), pattern.inputs, strict=True)
        }
        results = run(*apply_slots(proto, grown, rule, sizes, sources), opset)
        for old, new, spec in zip(outputs, results, pattern.outputs, strict=True):
            if not np.array_equal(gathered(old, spec, sizes, sources), new):
                problems.append(name)
    return problems


def data(shape: Sequence[int]) -> np.ndarray:
    """Entries that all differ."""
    return np.arange(1, 1 + prod(shape), dtype=np.float32).reshape(shape)


SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=4)


@st.composite
def merges(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Two shapes made of the same prime factors, in one order or in two."""
    primes = draw(st.lists(st.sampled_from([2, 2, 3, 5]), min_size=1, max_size=6))

    def shape(parts: list[int]) -> list[int]:
        cuts = sorted(draw(st.sets(st.integers(1, len(parts)), max_size=4)))
        return [prod(parts[a:b]) for a, b in zip([0, *cuts], [*cuts, len(parts)], strict=True)]

    return shape(primes), shape(draw(st.sampled_from([primes, sorted(primes), primes[::-1]])))


@BRUTE
@given(merges(), st.data())
@example(([4, 6, 2], [2, 6, 4]), None)
def test_reshape(shapes: tuple[list[int], list[int]], more: st.DataObject | None) -> None:
    before, after = shapes
    asked = list(after)
    if more is not None and more.draw(st.booleans()):
        asked[more.draw(st.integers(0, len(after) - 1))] = -1
    for index, length in enumerate(asked):
        if index < len(before) and before[index] == length and (more is None or index % 2):
            asked[index] = 0
    arrays = {"x": data(before), "w": np.array(asked)}
    assert broken(node("Reshape", "x w"), arrays, 17) == []


@BRUTE
@given(merges())
def test_factors_merge_to_both_shapes(shapes: tuple[list[int], list[int]]) -> None:
    found = factors(*shapes)
    sides = expand(found.text, (len(shapes[0]),), (len(shapes[1]),))
    for spec, shape in zip((sides.inputs[0], sides.outputs[0]), shapes, strict=True):
        assert spec is not None
        assert [size(term, found.sizes) for term in spec] == shape


@st.composite
def cuts(draw: st.DrawFn) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """A shape, and starts, ends, axes and steps."""
    shape = draw(SHAPES)
    axes = draw(st.lists(st.integers(0, len(shape) - 1), unique=True, min_size=1))
    starts = [draw(st.integers(-shape[a] - 1, shape[a])) for a in axes]
    ends = [draw(st.integers(-shape[a] - 1, shape[a] + 1)) for a in axes]
    return shape, starts, ends, axes, [draw(st.sampled_from([1, 1, 1, 2, 3, -1])) for _ in axes]


@BRUTE
@given(cuts())
@example(([4], [0], [5], [0], [1]))  # the end lies beyond the axis, until that grows
@example(([6], [1], [6], [0], [2]))
@example(([8], [2], [-3], [0], [1]))
def test_slice(cut: tuple[list[int], ...]) -> None:
    shape, *bounds = cut
    arrays = {"x": data(shape), **{f"w{i}": np.array(b) for i, b in enumerate(bounds)}}
    proto = node("Slice", "x w0 w1 w2 w3")
    assume(prod(run(proto, arrays, 13)[0].shape))
    assert broken(proto, arrays, 13) == []
    if set(bounds[3]) == {1}:
        starts, ends, axes = bounds[:3]
        old = node("Slice", "x", starts=starts, ends=ends, axes=axes)
        assert broken(old, {"x": data(shape)}, 9) == []


@BRUTE
@given(SHAPES, st.data())
def test_pad(shape: list[int], more: st.DataObject) -> None:
    pads = [more.draw(st.integers(-2, 3)) for _ in range(2 * len(shape))]
    kept = [
        n + min(a, 0) + min(b, 0) for n, a, b in zip(shape, pads, pads[len(shape) :], strict=False)
    ]
    assume(min(kept) > 0)
    assume(min(pads) >= 0)  # onnx's reference cannot crop; a sample runs that in onnxruntime
    arrays = {"x": data(shape), "w": np.array(pads)}
    assert broken(node("Pad", "x w"), arrays, 13) == []
    if max(pads[i] + pads[i + len(shape)] for i in range(len(shape))) < min(shape):
        assert broken(node("Pad", "x w", mode="edge"), arrays, 13) == []


@BRUTE
@given(SHAPES, st.data())
def test_split(shape: list[int], more: st.DataObject) -> None:
    axis = more.draw(st.integers(-len(shape), len(shape) - 1))
    inner = more.draw(st.sets(st.integers(1, shape[axis]), max_size=3)) - {shape[axis]}
    cut = [0, *sorted(inner), shape[axis]]
    sizes = [b - a for a, b in pairwise(cut)]
    outputs = " ".join(f"y{i}" for i in range(len(sizes)))
    arrays = {"x": data(shape), "w": np.array(sizes)}
    assert broken(node("Split", "x w", outputs, axis=axis), arrays, 13) == []
    old = node("Split", "x", outputs, axis=axis, split=sizes)
    assert broken(old, {"x": data(shape)}, 11) == []


@BRUTE
@given(SHAPES, st.data())
def test_tile_and_expand(shape: list[int], more: st.DataObject) -> None:
    repeats = [more.draw(st.integers(1, 3)) for _ in shape]
    arrays = {"x": data(shape), "w": np.array(repeats)}
    assert broken(node("Tile", "x w"), arrays, 13) == []
    target = [more.draw(st.sampled_from([1, n])) if n > 1 else 4 for n in shape]
    target = [*more.draw(st.lists(st.integers(1, 3), max_size=2)), *target]
    arrays["w"] = np.array(target[more.draw(st.integers(0, len(target) - 1)) :])
    assert broken(node("Expand", "x w"), arrays, 13) == []


@BRUTE
@given(SHAPES, st.data())
def test_gather_elements(shape: list[int], more: st.DataObject) -> None:
    axis = more.draw(st.integers(0, len(shape) - 1))
    chosen = [*shape[:axis], more.draw(st.integers(1, 6)), *shape[axis + 1 :]]
    indices = np.random.default_rng(3).integers(0, shape[axis], chosen)
    arrays = {"x": data(shape), "w": indices}
    assert broken(node("GatherElements", "x w", axis=axis), arrays, 13) == []


def test_a_wrong_rule_is_seen() -> None:
    arrays = {"x": data([3, 4]), "w": np.array([4, 3])}
    planted = Rule("a b, _ -> b a", size_refs=[size_ref(1, "b", "a")])
    assert broken(node("Reshape", "x w"), arrays, 13, planted) == ["a", "b"]


def test_a_missing_slot_is_seen() -> None:
    arrays = {"x": data([3, 8]), "w0": np.array([2]), "w1": np.array([6]), "w2": np.array([1])}
    planted = Rule("a (b + k + e), _, _, _ -> a k", {"b": 2, "k": 4, "e": 2})
    assert broken(node("Slice", "x w0 w1 w2"), arrays, 13, planted) == ["b", "k"]


@pytest.mark.parametrize("shape", [(3, 0), (0,)])
def test_reshape_of_nothing_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(Unsupported, match="no entries"):
        factors(shape, (0,))


# Attributes that say how entries are computed, not where they lie.
HARMLESS = {
    "AffineGrid": "align_corners",
    "ArgMax": "select_last_index",
    "ArgMin": "select_last_index",
    "ConstantOfShape": "value",
    "EyeLike": "dtype k",
    "GridSample": "align_corners mode padding_mode",
    "MaxRoiPool": "spatial_scale",
    "NonMaxSuppression": "center_point_box",
    "Pad": "value",
    "Range": "stash_type",
    # At scale 1 every interpolation, whatever its coefficients, yields the entry itself.
    "Resize": "antialias cubic_coeff_a exclude_outside extrapolation_value mode nearest_mode",
    "RoiAlign": "coordinate_transformation_mode mode sampling_ratio spatial_scale",
    "ScatterElements": "reduction",  # what is indexed never grows
    "ScatterND": "reduction",
    "Split": "num_outputs",  # the outputs are counted; growing drops it
    "TensorScatter": "mode",
    "TopK": "k largest sorted",
    "Trilu": "upper",
    "Unique": "axis sorted",
    "Upsample": "mode",
}


def attributes(op: str) -> set[str]:
    """All attributes that an operator has at any opset from 7 on."""
    history = [
        s for s in onnx.defs.get_all_schemas_with_history() if (s.domain, s.name) == ("", op)
    ]
    history.sort(key=lambda schema: schema.since_version)
    ends = [schema.since_version for schema in history[1:]] + [1000]
    return {a for s, end in zip(history, ends, strict=True) if end > 7 for a in s.attributes}


@pytest.mark.parametrize("op", sorted({s.node.op_type for s in SAMPLES}))
def test_every_attribute_is_considered(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[str] = set()
    attr = Op.attr

    def recorded(self: Op, name: str, default: object = None) -> object:
        if self.node.op_type == op:
            read.add(name)
        return attr(self, name, default)

    monkeypatch.setattr(Op, "attr", recorded)
    monkeypatch.setattr(operators, "_made", {})  # nothing that was looked at before
    for sample in SAMPLES:
        if sample.node.op_type == op:
            solve(Graph(load(network(sample))))
    assert attributes(op) == read | set(HARMLESS.get(op, "").split())
