"""Concrete sizes for the dynamic dimensions of a model's inputs.

>>> specs = input_specs(model.proto.graph)           # tokens: (batch, sequence)
>>> [next(defaults(specs, k)) for k in range(2)]
[{'batch': 1, 'sequence': 6}, {'batch': 3, 'sequence': 11}]

A dimension without a name is called ``input[axis]``. Dimensions written as an
expression of others (``past + sequence``, ``2*s0``) are computed from them.
"""

from __future__ import annotations

import ast
import difflib
import itertools
import math
import operator
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from onnx_net2net.errors import UsageError

Sizes = dict[str, int]

# Elements of the largest input, over all samples of a batch.
_SIZE = "give one, such as --size batch=1 or sizes={'batch': 1}"
SAMPLE_ELEMENTS = 1 << 16

# Tried in this order, for all free dimensions but the batch, when a model rejects
# the first choice: windows, strides and patch sizes want powers of two or 224.
COMMON_SIZES = (8, 16, 32, 64, 4, 128, 224, 256, 2, 1, 384, 512, 448, 96, 160, 299, 640)


@dataclass(frozen=True)
class InputSpec:
    """One input of a model: what a value for it must look like.

    ``shape`` holds an int for a fixed axis and a name for a dynamic one; it is
    ``None`` where the model does not even give the rank. ``also`` is a finer type that one of two
    models takes, if they differ: values are cast to it.
    """

    name: str
    elem_type: int
    shape: tuple[int | str, ...] | None
    also: int | None = None

    @property
    def dtype(self) -> np.dtype:
        """The NumPy type of a value, e.g. float32; bfloat16 is that of ml_dtypes."""
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self.elem_type))

    @property
    def type_name(self) -> str:
        """The element type as ONNX calls it, in lower case: ``float``, ``int64``."""
        name: str = TensorProto.DataType.Name(self.elem_type)
        return name.lower()

    def lowered(self) -> InputSpec:
        """Return the same input in float32, if it is bfloat16 in all models."""
        half = self.elem_type == TensorProto.BFLOAT16 and self.also is None
        return replace(self, elem_type=TensorProto.FLOAT) if half else self

    def __str__(self) -> str:
        shape = "of any rank" if self.shape is None else f"({', '.join(map(str, self.shape))})"
        return f"{self.type_name} {shape}"


def input_specs(graph: onnx.GraphProto) -> list[InputSpec]:
    """Return the inputs a caller must feed, in order, without weights that are listed there."""
    given = {tensor.name for tensor in graph.initializer}
    specs = []
    for value in graph.input:
        if value.name in given:
            continue
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            raise UsageError(
                f"input {value.name!r} is a {str(kind).removesuffix('_type')}, not a tensor",
                "only models whose inputs are tensors can be compared",
            )
        tensor = value.type.tensor_type
        if tensor.elem_type == TensorProto.UNDEFINED:
            raise UsageError(f"input {value.name!r} has no element type", "export the model again")
        shape: list[int | str] = []
        for axis, dim in enumerate(tensor.shape.dim):
            # Some old exporters wrote -1 for "not known yet".
            fixed = dim.HasField("dim_value") and dim.dim_value >= 0
            shape.append(dim.dim_value if fixed else size_name(value.name, axis, dim.dim_param))
        known = tuple(shape) if tensor.HasField("shape") else None
        specs.append(InputSpec(value.name, tensor.elem_type, known))
    return specs


# Expressions ---------------------------------------------------------------------------------

# What exporters write for "not known": it names no size, and two of them may differ.
_PLACEHOLDERS = ("none", "unk", "unknown", "-1")


def size_name(tensor: str, axis: int, text: str) -> str:
    """Return the name of an axis' size where the file calls it ``text``: any string is a name.

    >>> size_name("x", 2, "batch-size"), size_name("x", 2, "?")
    ('batch-size', 'x[2]')
    """
    text = text.strip()
    names = any(map(str.isalnum, text)) and text.lower() not in _PLACEHOLDERS
    return text if names else f"{tensor}[{axis}]"


_OPERATORS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "max": max,
    "min": min,
    "floor": math.floor,
    "ceil": math.ceil,
    "ceiling": math.ceil,
}
# torch.export names its free symbols so; they may occur within expressions only.
_TORCH_SYMBOL = re.compile(r"[su]\d+$")
# Python would take letters beyond ASCII for others that look like them.
_EXPRESSION = re.compile(r"[\w\s()+*/%,-]{1,200}", re.ASCII)


def _parse(text: str) -> ast.expr | None:
    if not _EXPRESSION.fullmatch(text):
        return None
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _evaluate(tree: ast.expr, sizes: Mapping[str, Any]) -> Any:
    """Return the value of an expression of sizes; ValueError for anything but arithmetic."""
    match tree:
        case ast.Constant(value=int(value)):
            return value
        case ast.Name(id=name) if name in sizes:
            return sizes[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_evaluate(left, sizes), _evaluate(right, sizes))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_evaluate(operand, sizes))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            if name.lower() in _FUNCTIONS and args:
                return _FUNCTIONS[name.lower()](*(_evaluate(arg, sizes) for arg in args))
    raise ValueError(f"not an expression of sizes: {ast.dump(tree)}")


def made_of(dim: str, names: Collection[str]) -> set[str]:
    """Return the sizes that ``dim`` is computed from; ``names`` are all that the inputs have.

    >>> made_of("batch-size", ["batch-size"]), made_of("past + 1", ["past", "past + 1"])
    ({'batch-size'}, {'past'})

    Text is an expression only if all of its names are dimensions elsewhere, or look like torch's
    ``s0``; else it is a name.
    """
    tree = _parse(dim)
    if tree is None or isinstance(tree, ast.Name):
        return {dim}
    inside = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    inside = {name for name in inside if name.lower() not in _FUNCTIONS}
    if not inside or not all(name in names or _TORCH_SYMBOL.match(name) for name in inside):
        return {dim}
    try:
        _evaluate(tree, dict.fromkeys(inside, 1))
    except (ValueError, OverflowError):
        return {dim}
    except ZeroDivisionError:
        pass
    return inside


def computed(dim: str, sizes: Mapping[str, int]) -> int:
    """Return the size of ``dim``, an expression of ``sizes``; ValueError where it has none.

    >>> computed("past + 1", {"past": 7})
    8
    """
    try:
        return max(0, int(evaluated(dim, sizes)))
    except ArithmeticError as error:
        raise ValueError(str(error)) from error


def evaluated(dim: str, sizes: Mapping[str, Any]) -> Any:
    """Return the value of an expression of ``sizes``, numbers or symbols. Raises ValueError."""
    tree = _parse(dim)
    if tree is None:
        raise ValueError("it is no expression of sizes")
    return _evaluate(tree, sizes)


def free_dimensions(specs: Iterable[InputSpec]) -> dict[str, list[tuple[InputSpec, int]]]:
    """Return each independent dynamic dimension and the (input, axis) places where it stands."""
    places: dict[str, list[tuple[InputSpec, int]]] = {}
    for spec in specs:
        for axis, dim in enumerate(spec.shape or ()):
            if isinstance(dim, str):
                places.setdefault(dim, []).append((spec, axis))
    free: dict[str, list[tuple[InputSpec, int]]] = {}
    for dim, where in places.items():
        for name in sorted(made_of(dim, places)):
            if name == dim or name not in places:
                free.setdefault(name, []).extend(where)
    return free


def concrete(spec: InputSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return the shape of an input under given sizes of the free dimensions."""
    shape = []
    for dim in spec.shape or ():
        if isinstance(dim, int) or dim in sizes:
            shape.append(dim if isinstance(dim, int) else sizes[dim])
            continue
        if _parse(dim) is None:
            raise UsageError(f"no size is known for the dynamic dimension {dim!r}", _SIZE)
        try:
            shape.append(computed(dim, sizes))
        except ValueError as error:
            problem = f"the dynamic dimension {dim!r} cannot be computed: {error}"
            raise UsageError(problem, _SIZE) from error
    return tuple(shape)


# Choices -------------------------------------------------------------------------------------


def _role(places: Sequence[tuple[InputSpec, int]]) -> str:
    if any(axis == 0 for _, axis in places):
        return "batch"
    if any(axis >= 2 and len(spec.shape or ()) >= 4 for spec, axis in places):
        return "image"
    return "other"


def defaults(specs: Sequence[InputSpec], turn: int, samples: int = 3) -> Iterator[Sizes]:
    """Yield sizes for a turn, the preferred ones first; batch 1 in turn 0, up to ``samples`` in 1.

    The first choice is small, and distinct for every dimension, so that a mix-up shows.
    What follows is for models that accept only some sizes.
    """
    free = free_dimensions(specs)
    roles = {name: _role(places) for name, places in free.items()}
    batch = affordable(specs, _distinct(roles, 1, turn), samples) if turn else 1
    yield _related(_distinct(roles, batch, turn))
    if not roles:
        return
    cached = _cached(free, roles, batch, turn)
    if cached:
        yield cached
    yield _related({n: batch if r == "batch" else 8 * (1 + turn) for n, r in roles.items()})
    for common, size in itertools.product(COMMON_SIZES, dict.fromkeys((batch, 1, 2))):
        yield _related({name: size if r == "batch" else common for name, r in roles.items()})


def affordable(specs: Sequence[InputSpec], sizes: Sizes, samples: int) -> int:
    """Return how many samples to run: as many as wanted while inputs stay small, 3 at least."""
    largest = max((math.prod(concrete(spec, sizes)) for spec in specs), default=1)
    return max(3, min(samples, SAMPLE_ELEMENTS // max(largest, 1)))


def _distinct(roles: Mapping[str, str], batch: int, turn: int) -> Sizes:
    counters = {role: itertools.count() for role in ("batch", "image", "other")}
    sizes = {}
    for name, role in roles.items():
        k = next(counters[role])
        if role == "batch":
            sizes[name] = batch
        elif role == "image":
            sizes[name] = 64 + 32 * ((k + turn) % 2)
        else:
            sizes[name] = 6 + k + turn * (5 + k)
    return sizes


def _cached(
    free: Mapping[str, Sequence[tuple[InputSpec, int]]],
    roles: Mapping[str, str],
    batch: int,
    turn: int,
) -> Sizes:
    """Return sizes for a language model with a cache, by the names of its inputs, else none.

    A mask covers what is cached and what is new; exporters often do not say so in the dimensions.
    """
    past, new = 4 + turn, 3 + turn
    sizes: Sizes = {}
    for name, places in free.items():
        inputs = [spec.name.lower() for spec, _ in places]
        if roles[name] == "batch":
            sizes[name] = batch
        elif any("past" in input_name or "cache" in input_name for input_name in inputs):
            sizes[name] = past
        elif all("mask" in input_name for input_name in inputs):
            sizes[name] = past + new
        else:
            sizes[name] = new
    return sizes if past in sizes.values() and past + new in sizes.values() else {}


def _related(sizes: Sizes) -> Sizes:
    """Make ``total_sequence_length`` past + sequence, by convention: no expression says so."""
    past = [name for name in sizes if "past" in name and "total" not in name]
    new = [n for n in sizes if "seq" in n and "past" not in n and "total" not in n]
    if len(past) == 1 and new:
        total = sizes[past[0]] + sizes[new[0]]
        sizes.update({name: total for name in sizes if "total" in name})
    return sizes


def chosen(specs: Sequence[InputSpec], wanted: Mapping[str, int | Sequence[int]]) -> list[Sizes]:
    """Return all combinations of the sizes the user asked for; other dimensions stay open."""
    free = free_dimensions(specs)
    lists = {n: [size] if isinstance(size, int) else size for n, size in wanted.items()}
    for name, values in lists.items():
        if name not in free:
            near = difflib.get_close_matches(name, free, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            remedy = f"{hint}dynamic dimensions: {', '.join(free)}"
            if not free:
                remedy = "all dimensions of the inputs are fixed; leave the sizes away"
            raise UsageError(f"there is no dynamic dimension {name!r}", remedy)
        if not values or any(v < 1 for v in values):
            raise UsageError(
                f"sizes of {name!r} must be whole numbers from 1 up, not {wanted[name]!r}", _SIZE
            )
    return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
