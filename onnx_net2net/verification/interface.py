"""Which inputs and outputs of two models belong together, and which cannot be compared.

>>> found = matched(a, b)
>>> found.problems
["the second model lacks output 'logits'", "the second model has an output 'y' that the first has not"]
>>> matched(a, b, by_position=True).by_position
["output 'logits' is compared with 'y', by position"]

Types must be equal, but for the precision of inputs: float16 against float32 is compared after a
cast, on numbers that both types hold, and is said.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import onnx
from onnx import TensorProto

from onnx_net2net.operators.types import FLOATS
from onnx_net2net.verification.comparison import epsilon
from onnx_net2net.verification.sizes import InputSpec, input_specs

# Types whose values may be cast from one to another, in each row.
_CASTS = (
    FLOATS,
    (TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
    (TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
)


@dataclass
class Matched:
    """Inputs that suit both models, and what is to be said of the two interfaces.

    ``inputs`` gives the second model's name of each input, ``outputs`` the first model's name of
    each output of the second, both only where the names differ.
    """

    specs: list[InputSpec]
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    casts: list[str] = field(default_factory=list)
    by_position: list[str] = field(default_factory=list)


def matched(a: onnx.GraphProto, b: onnx.GraphProto, *, by_position: bool = False) -> Matched:
    """Match the inputs of two models by name or, if asked to, by position whatever the names."""
    first, second = input_specs(a), input_specs(b)
    found = Matched(first)
    if by_position:
        found.inputs = _paired("input", [s.name for s in first], [s.name for s in second], found)
        back = {other: name for name, other in found.inputs.items()}
        second = [replace(spec, name=back.get(spec.name, spec.name)) for spec in second]
        pairs = _paired("output", [v.name for v in a.output], [v.name for v in b.output], found)
        found.outputs = {other: name for name, other in pairs.items()}
    found.specs, problems, found.warnings = merged_specs(first, second)
    if not found.problems:
        found.problems = problems
    found.casts = [
        f"input {spec.name!r} is {_type_name(spec.also)} in one of the models: "
        f"compared as {spec.type_name}, after a cast"
        for spec in found.specs
        if spec.also is not None
    ]
    return found


def _paired(
    kind: str, first: Sequence[str], second: Sequence[str], found: Matched
) -> dict[str, str]:
    """The second model's name by the first one's, where they differ at the same position."""
    if len(first) != len(second):
        found.problems.append(
            f"the {kind}s cannot be matched by position: the first model has {len(first)} "
            f"({', '.join(first)}), the second {len(second)} ({', '.join(second)})"
        )
        return {}
    pairs = {name: other for name, other in zip(first, second, strict=True) if name != other}
    found.by_position += [
        f"{kind} {name!r} is compared with {other!r}, by position" for name, other in pairs.items()
    ]
    return pairs


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
            both = replace(_coarser(spec, other), shape=_narrower(spec.shape, other.shape))
            if _fixed(spec.shape) != _fixed(other.shape):
                warnings.append(
                    f"input {spec.name!r} is {spec} in the first model and {other} in the second"
                )
            merged.append(both)
    return merged, problems, warnings


def _coarser(spec: InputSpec, other: InputSpec) -> InputSpec:
    """The input in the type with fewer numbers, which are numbers of the other type, too."""
    if spec.elem_type == other.elem_type:
        return spec
    coarse, fine = sorted(
        (spec.elem_type, other.elem_type), key=lambda kind: _fineness(InputSpec("", kind, None))
    )
    return replace(spec, elem_type=coarse, also=fine)


def _fineness(spec: InputSpec) -> float:
    """More for a type with more numbers between 0 and 1, or more whole numbers."""
    unit = epsilon(spec.dtype)
    return 1 / unit if unit else spec.dtype.itemsize


def castable(a: int, b: int) -> bool:
    """Whether values of one element type can be compared with those of the other."""
    return a == b or any(a in row and b in row for row in _CASTS)


def _type_name(elem_type: int) -> str:
    return str(TensorProto.DataType.Name(elem_type)).lower()


def _input_problem(spec: InputSpec, other: InputSpec) -> str | None:
    differ = f"input {spec.name!r} is {spec} in the first model and {other} in the second"
    if not castable(spec.elem_type, other.elem_type):
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


def compare_outputs(
    a: onnx.GraphProto, b: onnx.GraphProto, found: Matched, cast: Callable[[str], bool]
) -> None:
    """Note differences in names, order and declared types; ``cast`` permits another precision."""
    first = [v.name for v in a.output]
    second = [found.outputs.get(v.name, v.name) for v in b.output]
    names = list(_name_problems(first, second))
    if not names and first != second:
        names.append(f"the outputs stand in another order: {second} instead of {first}")
    if not first:
        names.append("the first model has no outputs")
    if not any("by position" in problem for problem in found.problems):
        found.problems += names
    types = {name: v.type.tensor_type.elem_type for name, v in zip(second, b.output, strict=True)}
    for value in a.output:
        mine, other = value.type.tensor_type.elem_type, types.get(value.name, 0)
        if not (mine and other) or mine == other:
            continue
        told = f"output {value.name!r} is {_type_name(other)} instead of {_type_name(mine)}"
        if castable(mine, other) and cast(value.name):
            found.casts.append(f"{told}: compared after a cast")
        else:
            found.problems.append(told)


def _name_problems(first: Sequence[str], second: Sequence[str]) -> Iterator[str]:
    yield from (f"the second model lacks output {n!r}" for n in first if n not in second)
    for name in second:
        if name not in first:
            yield f"the second model has an output {name!r} that the first has not"
