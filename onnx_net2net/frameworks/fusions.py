"""Groups of steps that stand for one: GELU, LayerNorm, attention, a layer with its bias.

    condense(program)        # its steps become what their author wrote

Each idiom is a list of patterns and a function that gives the step in their place, or None where
the match is no such thing. Steps of the domain ``idiom`` are known to the translators alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from onnx_net2net.frameworks.attributes import Attributes
from onnx_net2net.frameworks.fusion_patterns import Match, Pattern, Surroundings
from onnx_net2net.frameworks.program import Program
from onnx_net2net.frameworks.step import Section, Step

IDIOM = "idiom"
Made = list[Step] | None
FLOATS = (1, 10, 11, 16)


def _step(root: Step, op: str, inputs: list[str], domain: str = "", **attributes: object) -> Step:
    opset = root.opset if domain == root.domain else 1
    outputs, stated = (root.output,), Attributes(attributes)
    return Step(op, domain, tuple(inputs), outputs, stated, root.label, opset)


# ---- steps that do nothing ---------------------------------------------------------------------


def _unchanged(around: Surroundings, found: Match) -> Made:
    """``x`` itself, where the other operand neither widens it nor changes its type."""
    root, program = found.steps[0], around.program
    x = found.names["x"]
    other = next((n for n in root.inputs if n != x), x)
    ranks = program.rank(x), program.rank(other)
    if None in ranks or ranks[0] < ranks[1]:  # type: ignore[operator]
        return None
    return [_step(root, "Identity", [x])]


# ---- activations -------------------------------------------------------------------------------


def _gelu(approximate: str) -> Callable[[Surroundings, Match], Made]:
    def made(around: Surroundings, found: Match) -> Made:
        return [_step(found.steps[0], "Gelu", [found.names["x"]], approximate=approximate)]

    return made


def _plain(op: str) -> Callable[[Surroundings, Match], Made]:
    def made(around: Surroundings, found: Match) -> Made:
        return [_step(found.steps[0], op, [found.names["x"]])]

    return made


def _hard_swish(around: Surroundings, found: Match) -> Made:
    inner = found.steps[1].attributes
    if abs(inner.get("alpha", 0.2) - 1 / 6) > 1e-6 or inner.get("beta", 0.5) != 0.5:
        return None
    return _plain("HardSwish")(around, found)


# ---- norms -------------------------------------------------------------------------------------


def _last_axis(around: Surroundings, found: Match) -> bool:
    """Whether all means are over the last axis and keep it."""
    rank = around.program.rank(found.names["x"])
    for step in found.steps:
        if step.op != "ReduceMean":
            continue
        axes = step.attributes.get("axes")
        if axes is None and len(step.inputs) > 1:
            constant = around.program.constant(step.inputs[1])
            axes = None if constant is None else constant.reshape(-1).tolist()
        if rank is None or axes not in ([-1], [rank - 1]) or not step.attributes.get("keepdims", 1):
            return False
    return True


def _vector(around: Surroundings, name: str, x: str) -> bool:
    """Whether ``name`` holds one number for each entry of the last axis of ``x``."""
    dims = around.program.dims(name)
    return (
        dims is not None
        and len(dims) == 1
        and isinstance(dims[0], int)
        and (dims[0] == around.program.size(x, -1) or dims[0] > 1)
    )


def _layer_norm(around: Surroundings, found: Match) -> Made:
    names = found.names
    epsilon = around.number(names["eps"])
    if epsilon is None or not _last_axis(around, found):
        return None
    if not all(_vector(around, names[k], names["x"]) for k in ("w", "b") if k in names):
        return None
    inputs = [names["x"], names["w"], names["b"]]
    return [_step(found.steps[0], "LayerNormalization", inputs, axis=-1, epsilon=epsilon)]


def _rms_norm(around: Surroundings, found: Match) -> Made:
    names = found.names
    epsilon = around.number(names["eps"])
    if epsilon is None or not _last_axis(around, found):
        return None
    if not _vector(around, names["w"], names["x"]):
        return None
    inputs = [names["x"], names["w"]]
    return [_step(found.steps[0], "RMSNormalization", inputs, axis=-1, epsilon=epsilon)]


# ---- layers ------------------------------------------------------------------------------------


def _weight(around: Surroundings, name: str) -> tuple[str, bool] | None:
    """A matrix of weights, and whether it is stored as (out, in)."""
    program = around.program
    step = around.producer.get(name)
    stored = False
    if step is not None and step.op == "Transpose" and not step.domain:
        if list(step.attributes.get("perm", [1, 0])) != [1, 0]:
            return None
        name, stored = step.inputs[0], True
    if not program.is_weight(name) or program.rank(name) != 2:
        return None
    return name, stored


def _linear(around: Surroundings, found: Match) -> Made:
    names, program = found.names, around.program
    weight = _weight(around, names["w"])
    if weight is None or (program.rank(names["x"]) or 0) < 2:
        return None
    name, stored = weight
    inputs = [names["x"], name]
    if "b" in names:
        width = program.size(name, 0 if stored else 1)
        if not program.is_weight(names["b"]) or program.dims(names["b"]) != (width,):
            return None
        inputs.append(names["b"])
    elif not stored:
        return None
    return [_step(found.steps[0], "Linear", inputs, IDIOM, transposed=int(stored))]


def _fake_quantize(around: Surroundings, found: Match) -> Made:
    outer, inner = found.steps[0], found.steps[1]
    if len(outer.inputs) != len(inner.inputs) or outer.attributes != inner.attributes:
        return None
    for a, b in zip(outer.inputs[1:], inner.inputs[1:], strict=True):
        first, second = around.program.constant(a), around.program.constant(b)
        if a != b and (first is None or second is None or not np.array_equal(first, second)):
            return None
    stated = {name: inner.attributes[name] for name in inner.attributes}
    outer.attributes.seen.update(stated)  # they are the same
    return [_step(outer, "FakeQuantize", list(inner.inputs), IDIOM, **stated)]


# ---- attention ---------------------------------------------------------------------------------


def _attention(around: Surroundings, found: Match) -> Made:
    """Scaled products, a mask, softmax over the last axis, and a product."""
    names, program, root = found.names, around.program, found.steps[0]
    if any(program.rank(names[k]) != 4 for k in ("q", "k", "v")):
        return None
    if program.dtype(names["q"]) not in FLOATS or not _softmax_last(found, program):
        return None
    scale = 1.0
    for key in ("s", "t", "u", "d"):
        if key not in names:
            continue
        number = around.number(names[key])
        if not number:
            return None
        scale = scale / number if key == "d" else scale * number
    if "mask" in names and (program.rank(names["mask"]) or 5) > 4:
        return None
    key, steps = _untransposed(around, names["k"], f"{root.output}/key", root)
    inputs = [names["q"], key, names["v"], *([names["mask"]] if "mask" in names else [])]
    return [*steps, _step(root, "Attention", inputs, IDIOM, scale=scale)]


def _softmax_last(found: Match, program: Program) -> bool:
    step = next(s for s in found.steps if s.op == "Softmax")
    old = program.opset.get("", 1) < 13
    return step.attributes.get("axis", 1 if old else -1) in (-1, 3)


def _untransposed(around: Surroundings, name: str, new: str, root: Step) -> tuple[str, list[Step]]:
    """The keys whose last two axes are swapped in ``name``, and a step that gives them."""
    step = around.producer.get(name)
    perm = [0, 1, 3, 2]
    if step is not None and step.op == "Transpose" and not step.domain:
        inner = list(step.attributes.get("perm", [3, 2, 1, 0]))
        perm, name = [inner[i] for i in perm], step.inputs[0]
    elif step is not None and step.op == "Reshape":
        source = _flattened_transpose(around, step)
        if source is not None:
            return source, []
    if perm == [0, 1, 2, 3]:
        return name, []
    around.program.derive(new, name, perm)
    return new, [
        Step("Transpose", "", (name,), (new,), Attributes(perm=perm), root.label, root.opset)
    ]


def _flattened_transpose(around: Surroundings, last: Step) -> str | None:
    """``k`` of k.reshape(-1, t, d).transpose(1, 2).reshape(b, h, d, t)."""
    middle = around.producer.get(last.inputs[0])
    if middle is None or middle.op != "Transpose" or middle.attributes.get("perm") != [0, 2, 1]:
        return None
    first = around.producer.get(middle.inputs[0])
    if first is None or first.op != "Reshape" or around.program.rank(first.inputs[0]) != 4:
        return None
    # Two choices of all dynamic sizes tell a transposition from a coincidence.
    for shapes in (around.program.shapes, around.program.shapes.elsewhere):
        source, flat, result = (shapes.of(n) for n in (first.inputs[0], first.output, last.output))
        if source is None or flat != (source[0] * source[1], *source[2:]):
            return None
        if result != (source[0], source[1], source[3], source[2]):
            return None
    return first.inputs[0]


_SCORES = "(MatMul(Mul(q, s), Mul(k, t)) | MatMul(Mul(q, s), k) | MatMul(q, k))"
_SCALED = f"(Div({_SCORES}, d) | Mul({_SCORES}, u) | {_SCORES})"
_SOFTMAX = f"(Softmax(Add({_SCALED}, mask)) | Softmax({_SCALED}))"
_HALF = "Mul(x, 0.5)"
_ERF = "Add(Erf(Div(x, 1.4142135381698608) | Mul(x, 0.7071067811865476)), 1)"
_CUBE = "(Pow(x, 3) | Mul(x, Mul(x, x)))"
_TANH = f"Add(Tanh(Mul(Add(x, Mul({_CUBE}, 0.044715)), 0.7978845608028654)), 1)"
_CENTRED = "(d := Sub(x, ReduceMean(x)))"
_SQUARES = "(Pow(d, 2) | Mul(d, d))"
_DEVIATION = f"Sqrt(Add(ReduceMean({_SQUARES}), eps))"
_ROOT = "Sqrt(Add(ReduceMean(Pow(x, 2) | Mul(x, x)), eps))"


def _gelu_forms(half: str, inner: str) -> list[str]:
    return [f"Mul({half}, {inner})", f"Mul(x, Mul({inner}, 0.5))", f"Mul(Mul(x, {inner}), 0.5)"]


# In order: what an earlier one makes, a later one may read.
IDIOMS: list[tuple[list[Pattern], Callable[[Surroundings, Match], Made]]] = [
    (
        [Pattern(t) for t in ("Add(x, 0)", "And(x, 1)", "Mul(x, 1)", "Div(x, 1)", "Sub(x, 0)")],
        _unchanged,
    ),
    ([Pattern(t) for t in _gelu_forms(_HALF, _ERF)], _gelu("none")),
    ([Pattern(t) for t in _gelu_forms(_HALF, _TANH)], _gelu("tanh")),
    ([Pattern("Mul(x, Sigmoid(x))")], _plain("Swish")),
    ([Pattern("Mul(x, Tanh(Softplus(x)))")], _plain("Mish")),
    ([Pattern("Mul(x, HardSigmoid(x))")], _hard_swish),
    ([Pattern(f"Add(Mul(Div({_CENTRED}, {_DEVIATION}), w), b)")], _layer_norm),
    (
        [
            Pattern(f"Mul(Mul(x, Reciprocal({_ROOT})), w)"),
            Pattern(f"Mul(Mul(x, Div(1, {_ROOT})), w)"),
            Pattern(f"Mul(Div(x, {_ROOT}), w)"),
        ],
        _rms_norm,
    ),
    (
        [
            Pattern(f"MatMul(Where(IsNaN(p := {_SOFTMAX}), 0, p), v)"),
            Pattern(f"MatMul({_SOFTMAX}, v)"),
        ],
        _attention,
    ),
    ([Pattern("Add(MatMul(x, w), b)"), Pattern("MatMul(x, w)")], _linear),
    ([Pattern("DequantizeLinear(QuantizeLinear(x))")], _fake_quantize),
]


def condense(program: Program) -> None:
    """Replace every group of steps that is an idiom, in the program and in its bodies."""
    for section in _sections(program.main):
        for patterns, make in IDIOMS:
            _replace(program, section, patterns, make)


def _sections(section: Section) -> Iterator[Section]:
    yield section
    for step in section.steps:
        for body in step.bodies.values():
            yield from _sections(body)


def _instead(
    around: Surroundings, found: Match, make: Callable[[Surroundings, Match], Made]
) -> Made:
    """The steps in place of a match; None where it states what the idiom does not look at."""
    for step in found.steps:
        step.attributes.begin()
    made = make(around, found)
    if made is None or any(step.ignored() for step in found.steps):
        return None
    return made


def _replace(
    program: Program,
    section: Section,
    patterns: list[Pattern],
    make: Callable[[Surroundings, Match], Made],
) -> None:
    around = Surroundings(program, section)
    roots = {pattern.root for pattern in patterns}
    gone: set[int] = set()
    made: dict[int, list[Step]] = {}
    for step in reversed(section.steps):
        if step.op not in roots or step.domain or id(step) in gone:
            continue
        for pattern in patterns:
            found = pattern.match(around, step)
            steps = None
            if found is not None and not any(id(s) in gone for s in found.steps):
                steps = _instead(around, found, make)
            if found is not None and steps is not None:
                gone.update(id(s) for s in found.steps)
                made[id(step)] = steps
                break
    if made:
        section.steps = [
            new
            for step in section.steps
            for new in (made.get(id(step)) or ([] if id(step) in gone else [step]))
        ]
