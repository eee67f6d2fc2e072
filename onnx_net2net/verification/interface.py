"""Which inputs and outputs of two models belong together, and which cannot be compared.

>>> matched(a, b).problems
["the second model lacks output 'logits'", "the second model has an output 'y' that the first has not"]
>>> matched(a, b, by_position=True).by_position
["output 'logits' is compared with 'y', by position"]

Types must be equal, but for the precision of inputs: float16 against float32 is compared after a
cast, on numbers that both types hold, and is said.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx
from onnx import TensorProto

from onnx_net2net.errors import UsageError
from onnx_net2net.operators.types import FLOATS
from onnx_net2net.verification.comparison import epsilon
from onnx_net2net.verification.sizes import InputSpec, input_specs

# Types whose values may be cast from one to another, in each row.
_CASTS = (
    FLOATS,
    {TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64},
    {TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64},
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
    mapped: list[str] = field(default_factory=list)


def matched(
    a: onnx.GraphProto,
    b: onnx.GraphProto,
    *,
    by_position: bool = False,
    names: Mapping[str, str] | None = None,
) -> Matched:
    """Match inputs and outputs of two models by name, or by position whatever the names.

    ``names`` gives those of the second model by those of the first, where they differ.
    """
    first, second = input_specs(a), input_specs(b)
    result = Matched(first)
    inputs = [spec.name for spec in first], [spec.name for spec in second]
    outputs = [value.name for value in a.output], [value.name for value in b.output]
    if by_position and names:
        raise UsageError("names are matched by position or as mapped, not both", "leave out one")
    if names:
        _check_names(names, inputs, outputs)
    if by_position or names:
        if names:
            result.inputs = _mapped("input", *inputs, names, result)
            pairs = _mapped("output", *outputs, names, result)
        else:
            result.inputs = _paired("input", *inputs, result)
            pairs = _paired("output", *outputs, result)
        back = {other: name for name, other in result.inputs.items()}
        second = [replace(spec, name=back.get(spec.name, spec.name)) for spec in second]
        result.outputs = {other: name for name, other in pairs.items()}
    result.specs, problems, result.warnings = merged_specs(first, second)
    if not result.problems:
        result.problems = problems
    result.casts = [
        f"input {spec.name!r} is {_type_name(spec.also)} in one of the models: "
        f"compared as {spec.type_name}, after a cast"
        for spec in result.specs
        if spec.also is not None
    ]
    return result


def _check_names(names: Mapping[str, str], *sides: tuple[Sequence[str], Sequence[str]]) -> None:
    """Raise UsageError for a name that is neither an input nor an output."""
    for name, other in names.items():
        if not any(name in first and other in second for first, second in sides):
            raise UsageError(
                f"{name!r} of the first model and {other!r} of the second are no pair",
                "; ".join(f"{', '.join(first)} = {', '.join(second)}" for first, second in sides),
            )


def _mapped(
    kind: str,
    first: Sequence[str],
    second: Sequence[str],
    names: Mapping[str, str],
    result: Matched,
) -> dict[str, str]:
    """Return the second model's name by the first one's, as ``names`` has them."""
    pairs = {name: names[name] for name in first if names.get(name) in second}
    for other in second:
        if other in pairs and other not in pairs.values():
            raise UsageError(
                f"the second model has an {kind} {other!r}, which would be one too many",
                f"map it as well, or compare {other!r} with {other!r}",
            )
    if len({*pairs.values()}) < len(pairs):
        raise UsageError(f"an {kind} of the second model is mapped twice", "map each once")
    result.mapped += [f"{kind} {name!r} is compared with {pairs[name]!r}" for name in pairs]
    return pairs


def _paired(
    kind: str, first: Sequence[str], second: Sequence[str], result: Matched
) -> dict[str, str]:
    """Return the second model's name by the first one's, where they differ in one position."""
    if len(first) != len(second):
        result.problems.append(
            f"the {kind}s cannot be matched by position: the first model has {len(first)} "
            f"({', '.join(first)}), the second {len(second)} ({', '.join(second)})"
        )
        return {}
    pairs = {name: other for name, other in zip(first, second, strict=True) if name != other}
    result.by_position += [
        f"{kind} {name!r} is compared with {other!r}, by position" for name, other in pairs.items()
    ]
    return pairs


def merged_specs(
    a: Sequence[InputSpec], b: Sequence[InputSpec]
) -> tuple[list[InputSpec], list[str], list[str]]:
    """Return inputs that suit both models, the problems that make them differ, and warnings."""
    others = {spec.name: spec for spec in b}
    problems = _name_problems("input", [spec.name for spec in a], [spec.name for spec in b])
    merged, warnings = [], []
    for spec in a:
        other = others.get(spec.name, spec)
        differ = f"input {spec.name!r} is {spec} in the first model and {other} in the second"
        if not _agree(spec, other):
            problems.append(differ)
            merged.append(spec)
            continue
        if _fixed(spec.shape) != _fixed(other.shape):
            warnings.append(differ)
        shape = other.shape if spec.shape is None else spec.shape
        if spec.shape is not None and other.shape is not None:
            sizes = zip(spec.shape, other.shape, strict=True)
            shape = tuple(y if isinstance(y, int) else x for x, y in sizes)
        merged.append(replace(_coarser(spec, other), shape=shape))
    return merged, problems, warnings


def _name_problems(kind: str, first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Return what one of the models has and the other lacks, by names."""
    return [
        *(f"the second model lacks {kind} {name!r}" for name in first if name not in second),
        *(
            f"the second model has an {kind} {name!r} that the first has not"
            for name in second
            if name not in first
        ),
    ]


def _agree(spec: InputSpec, other: InputSpec) -> bool:
    """Return whether there are values that suit both inputs."""
    if not castable(spec.elem_type, other.elem_type):
        return False
    if spec.shape is None or other.shape is None:
        return True
    return len(spec.shape) == len(other.shape) and not any(
        isinstance(x, int) and isinstance(y, int) and x != y
        for x, y in zip(spec.shape, other.shape, strict=True)
    )


def _coarser(spec: InputSpec, other: InputSpec) -> InputSpec:
    """Return the input in the type with fewer numbers, which are numbers of the other type, too."""
    if spec.elem_type == other.elem_type:
        return spec

    def numbers(elem_type: int) -> float:
        """Count the numbers between 0 and 1, or whole numbers, in some measure."""
        dtype = InputSpec("", elem_type, None).dtype
        return 1 / epsilon(dtype) if epsilon(dtype) else dtype.itemsize

    coarse, fine = sorted((spec.elem_type, other.elem_type), key=numbers)
    return replace(spec, elem_type=coarse, also=fine)


def castable(a: int, b: int) -> bool:
    """Return whether values of one element type can be compared with those of the other."""
    return a == b or any(a in row and b in row for row in _CASTS)


def _type_name(elem_type: int) -> str:
    return str(TensorProto.DataType.Name(elem_type)).lower()


def _fixed(shape: tuple[int | str, ...] | None) -> tuple[int | None, ...] | None:
    return None if shape is None else tuple(d if isinstance(d, int) else None for d in shape)


def compare_outputs(
    a: onnx.GraphProto, b: onnx.GraphProto, result: Matched, cast: Callable[[str], bool]
) -> None:
    """Note differences in names, order and declared types; ``cast`` permits another precision."""
    first = [v.name for v in a.output]
    second = [result.outputs.get(v.name, v.name) for v in b.output]
    names = _name_problems("output", first, second)
    if not names and first != second and not result.mapped:
        names.append(f"the outputs stand in another order: {second} instead of {first}")
    if not first:
        names.append("the first model has no outputs")
    if not any("by position" in problem for problem in result.problems):
        result.problems += names
    types = {name: v.type.tensor_type.elem_type for name, v in zip(second, b.output, strict=True)}
    for value in a.output:
        mine, other = value.type.tensor_type.elem_type, types.get(value.name, 0)
        if not (mine and other) or mine == other:
            continue
        differ = f"output {value.name!r} is {_type_name(other)} instead of {_type_name(mine)}"
        if castable(mine, other) and cast(value.name):
            result.casts.append(f"{differ}: compared after a cast")
        else:
            result.problems.append(differ)
