"""Widen what a backend test says can grow: each dimension alone, then all at once.

    for between in between_products(case):      # the same test, with axes of its own inside
        for widths, result in growths(between): # {"inner": 5}, Outcome("right")

A test of one operator has hardly an axis that is not an input's or an output's. So one axis of what
it reads comes from a product, and one of what it gives goes through another. Judged twice: by what
onnxruntime computes before and after from the inputs of the test ("wrong"), and by ``verify``, with
inputs of its own ("rejected"; "unverified" where the source does not run on them, or gives NaN).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

import onnx_net2net as n2n
from tests.backend.cases import Case
from tests.backend.outcome import Outcome, difference, expected
from tests.judging import Subject, everything, wider

LARGEST = 64  # a longer axis is not multiplied


def growths(case: Case) -> Iterator[tuple[dict[str, int], Outcome]]:
    """What becomes of every growth of the case; none where nothing of it can grow."""
    try:
        subject = Subject(n2n.load(case.model))
    except n2n.Net2NetError:
        return  # refused when read: the tests of the imports list those
    if expected(case) is None:
        return
    wanted = [{d.name: wider(d)} for d in subject.growable]
    if len(wanted) > 1:
        wanted.append(everything(subject.growable))
    for widths in wanted:
        yield widths, _grown(case, subject, widths)


def _grown(case: Case, subject: Subject, widths: dict[str, int]) -> Outcome:
    try:
        grown = n2n.widen(subject.model, widths)
    except n2n.Net2NetError as error:
        return Outcome("refused", " ".join(str(error).split()))
    except Exception as error:
        return Outcome("crash", f"{type(error).__name__}: {error}"[:300])
    after = expected(replace(case, model=ModelProto.FromString(grown.to_bytes())))
    if after is None:
        return Outcome("wrong", "it does not run")
    problem = difference(case, expected(case) or [], after, 30.0)  # more parts, another order
    if problem:
        return Outcome("wrong", problem)
    try:
        report = subject.judge(grown)
    except n2n.Net2NetError as error:  # no random inputs on which the source runs
        return Outcome("unverified", " ".join(str(error).split()))
    if "nothing could be compared" in report.verdict:
        return Outcome("unverified", report.verdict)
    return Outcome("right") if report else Outcome("rejected", report.verdict)


def between_products(case: Case) -> Iterator[Case]:
    """The case with a product before its inputs and behind its outputs, along each axis."""
    rank = max((len(_shape(v)) for v in case.model.graph.input if _is_plain(v)), default=0)
    for axis in range(rank):
        model = ModelProto()
        model.CopyFrom(case.model)
        if _put_between(model, axis):
            names = {value.name.rstrip("@"): value.name for value in model.graph.input}
            feeds = {names[name]: array for name, array in case.feeds.items()}
            yield Case(f"{case.name}/{axis}", model, feeds, [])


def _put_between(model: ModelProto, axis: int) -> bool:
    """Multiply inputs and outputs along an axis; False where there is none to multiply."""
    fixed = {entry.name for entry in model.graph.initializer}
    before, after = [], []
    for value in model.graph.input:
        if _is_plain(value) and axis < len(_shape(value)) and value.name not in fixed:
            before += _product(model, f"{value.name}@", value.name, _shape(value), axis)
            value.name += "@"
    for value in model.graph.output:
        if before and _is_plain(value) and _shape(value):
            at = min(axis, len(_shape(value)) - 1)
            after += _product(model, value.name, f"{value.name}@", _shape(value), at)
            value.name += "@"
    nodes = [*before, *model.graph.node, *after]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bool(before)


def _product(
    model: ModelProto, source: str, target: str, shape: list[int], axis: int
) -> list[NodeProto]:
    if shape[axis] > LARGEST:
        return [helper.make_node("Identity", [source], [target])]
    rng = np.random.default_rng(shape[axis])
    weight = rng.standard_normal((shape[axis], shape[axis])).astype(np.float32)
    name = f"{target}.weight"
    model.graph.initializer.append(numpy_helper.from_array(weight, name))
    perm = [*range(axis), *range(axis + 1, len(shape)), axis]
    back = [int(i) for i in np.argsort(perm)]
    return [
        helper.make_node("Transpose", [source], [f"{target}.last"], perm=perm),
        helper.make_node("MatMul", [f"{target}.last", name], [f"{target}.product"]),
        helper.make_node("Transpose", [f"{target}.product"], [target], perm=back),
    ]


def _is_plain(value: ValueInfoProto) -> bool:
    """Whether it is a float32 tensor of known sizes."""
    kind = value.type.tensor_type
    dims = kind.shape.dim
    known = all(dim.HasField("dim_value") and dim.dim_value > 0 for dim in dims)
    return kind.elem_type == TensorProto.FLOAT and known and len(dims) > 0


def _shape(value: ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]
