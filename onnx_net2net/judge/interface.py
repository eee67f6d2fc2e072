"""Do two models take the same inputs and give the same outputs, by name, type and shape?

>>> specs, problems, warnings = merged_specs(input_specs(a), input_specs(b))
>>> problems + output_problems(a, b)
["the second model lacks output 'logits'", "the second model has an output 'y' that the first has not"]
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx

from onnx_net2net.judge.sizes import InputSpec


def merged_specs(
    a: Sequence[InputSpec], b: Sequence[InputSpec]
) -> tuple[list[InputSpec], list[str], list[str]]:
    """Inputs that suit both models, the problems that make them differ, and warnings."""
    others = {spec.name: spec for spec in b}
    problems = [
        f"the second model lacks input {spec.name!r}" for spec in a if spec.name not in others
    ]
    known = {spec.name for spec in a}
    problems += [
        f"the second model has an input {spec.name!r} that the first has not"
        for spec in b
        if spec.name not in known
    ]
    merged, warnings = [], []
    for spec in a:
        other = others.get(spec.name, spec)
        problem = _input_problem(spec, other)
        if problem is not None:
            problems.append(problem)
            merged.append(spec)
        else:
            both = replace(spec, shape=_narrower(spec.shape, other.shape))
            if _fixed(spec.shape) != _fixed(other.shape):
                warnings.append(
                    f"input {spec.name!r} is {spec} in the first model and {other} in the second"
                )
            merged.append(both)
    return merged, problems, warnings


def _input_problem(spec: InputSpec, other: InputSpec) -> str | None:
    differ = f"input {spec.name!r} is {spec} in the first model and {other} in the second"
    if spec.elem_type != other.elem_type:
        return differ
    if spec.shape is None or other.shape is None:
        return None
    if len(spec.shape) != len(other.shape):
        return differ
    clash = any(
        isinstance(x, int) and isinstance(y, int) and x != y
        for x, y in zip(spec.shape, other.shape, strict=True)
    )
    return differ if clash else None


def _narrower(
    a: tuple[int | str, ...] | None, b: tuple[int | str, ...] | None
) -> tuple[int | str, ...] | None:
    if a is None or b is None:
        return b if a is None else a
    return tuple(y if isinstance(y, int) else x for x, y in zip(a, b, strict=True))


def _fixed(shape: tuple[int | str, ...] | None) -> tuple[int | None, ...] | None:
    return None if shape is None else tuple(d if isinstance(d, int) else None for d in shape)


def output_problems(a: onnx.GraphProto, b: onnx.GraphProto) -> list[str]:
    """Differences in names, order and declared types of the outputs."""
    first, second = [v.name for v in a.output], [v.name for v in b.output]
    problems = [f"the second model lacks output {n!r}" for n in first if n not in second]
    problems += [
        f"the second model has an output {n!r} that the first has not"
        for n in second
        if n not in first
    ]
    if not problems and first != second:
        problems.append(f"the outputs stand in another order: {second} instead of {first}")
    if not first:
        problems.append("the first model has no outputs")
    types: Mapping[str, int] = {v.name: v.type.tensor_type.elem_type for v in b.output}
    for value in a.output:
        mine, other = value.type.tensor_type.elem_type, types.get(value.name, 0)
        if mine and other and mine != other:
            name = onnx.TensorProto.DataType.Name
            problems.append(f"output {value.name!r} is {name(other)} instead of {name(mine)}")
    return problems
