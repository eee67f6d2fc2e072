"""The language of rules: a line of axis names says how an operator relates its axes.

    "... m k, ... k n -> ... m n"                      MatMul
    "b (g i) *s, (g o) i *k, (g o) -> b (g o) *t"      Conv with groups

A space separates axes, a comma tensors. ``(a b)`` is a row-major merge, ``(a + b)`` a
concatenation, ``1`` an axis of size 1, ``...`` leading axes that broadcast, ``*s`` several
axes that do not, ``_`` a tensor whose axes nothing may grow. A name in inputs only is
*contracted*; a name in an output is *passed*. ``~h`` marks an axis that is contracted
although its name is passed elsewhere (the recurrent weight of an LSTM).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, auto
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import onnx

from onnx_net2net.algebra.sizes import AnySize
from onnx_net2net.operators.notation import Spec, Term, leaves, parse, term


@dataclass(frozen=True)
class Pattern:
    """A parsed rule, its variadic names expanded for given ranks."""

    text: str
    inputs: tuple[Spec | None, ...]  # None: a tensor of pinned axes
    outputs: tuple[Spec | None, ...]
    contracted: Mapping[str, tuple[tuple[int, int], ...]]  # name -> (input, axis) it stands in
    broadcast: frozenset[str]

    @cached_property
    def output_axes(self) -> tuple[tuple[int, ...], ...]:
        """List for each input the axes of the first output that share a name with it."""
        first = [set(leaves(t)) for spec in self.outputs[:1] for t in spec or ()]
        own = [{n for t in spec or () for n in leaves(t)} for spec in self.inputs]
        return tuple(
            tuple(i for i, there in enumerate(first) if not here.isdisjoint(there)) for here in own
        )

    @cached_property
    def merged(self) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
        """List for each input and each output its axes that are merged, cut or left out."""
        terms = [t for spec in (*self.inputs, *self.outputs) for t in spec or ()]
        inside = {n for t in terms if not isinstance(t, str) for n in leaves(t)} | {"1"}

        def axes(spec: Spec | None) -> tuple[int, ...]:
            return tuple(i for i, t in enumerate(spec or ()) if not inside.isdisjoint(leaves(t)))

        return tuple(map(axes, self.inputs)), tuple(map(axes, self.outputs))

    @cached_property
    def plain(self) -> tuple[bool, ...]:
        """Tell for each input whether each of its axes is a name and nothing more."""
        return tuple(
            spec is not None and all(isinstance(t, str) and t[0] not in "~1" for t in spec)
            for spec in self.inputs
        )


class Repeated(NamedTuple):
    """An element that is the size of ``term``, negative where it counts from the end.

    Where it is a bound ``beyond`` all that ``term`` has, it must stay so.
    """

    sign: int
    term: Term
    beyond: int | None = None


@dataclass(frozen=True, slots=True)
class SizeRef:
    """A place that repeats sizes: an attribute, or elements of a shape-like input.

    ``terms`` are axis terms whose sizes the elements repeat (None: leave the element);
    a leading minus counts from the end.
    """

    where: str | int  # an attribute's name, or an input's index
    terms: tuple[Repeated | None, ...]
    drops: str = ""  # an attribute that the element-wise form replaces (Split's num_outputs)


def size_ref(where: str | int, *terms: str | Repeated | None, drops: str = "") -> SizeRef:
    """Say that attribute (by name) or input (by index) ``where`` repeats the sizes of ``terms``."""
    return SizeRef(where, tuple(repeated(t) if isinstance(t, str) else t for t in terms), drops)


def repeated(text: str, beyond: int | None = None) -> Repeated:
    """Return the size of an axis term; a leading minus counts from the end."""
    sign = -1 if text.startswith("-") else 1
    return Repeated(sign, term(text.removeprefix("-")), beyond)


@dataclass(frozen=True, slots=True)
class Norm:
    """A fused normalisation over one name whose affine map can absorb a change of scale.

    ``summands`` are the inputs whose sum is normalised, ``scale`` and ``bias`` the inputs of the
    affine map, ``centred`` tells LayerNorm from RMSNorm, ``epsilon`` is the attribute's default.
    """

    name: str
    centred: bool
    epsilon: float
    summands: tuple[int, ...] = (0,)
    scale: int = 1
    bias: int | None = None
    total: int | None = None  # the output that gives the sum itself

    def epsilon_of(self, node: onnx.NodeProto) -> float:
        """Return what a node states, or the default."""
        return next((a.f for a in node.attribute if a.name == "epsilon"), self.epsilon)


class Kind(StrEnum):
    """What an operator does to the entries of its operands, beyond their axes."""

    MOVE = auto()  # they are moved unchanged
    LINEAR = auto()  # they are added or subtracted
    PRODUCT = auto()  # they are multiplied, entry by entry
    SCALE = auto()  # the result is linear in the first operand
    AFFINE = auto()  # the same plus a bias
    ZERO = auto()  # f(0) = 0, entry by entry
    OTHER = ""


class Reduction(StrEnum):
    """What is computed over a name that stands in one operand alone."""

    SUM = auto()
    MEAN = auto()
    L1 = auto()
    L2 = auto()
    SUMSQUARE = auto()
    LOGSUMEXP = auto()
    MAX = auto()  # or the minimum
    UNREAD = auto()  # nothing: CastLike's second operand, what Slice cuts off


# Reductions that come out the same however often entries are copied.
AS_OFTEN = (Reduction.MAX, Reduction.UNREAD)


@dataclass(frozen=True)
class Rule:
    """How one node relates the axes of its tensors. See the module's docstring for ``pattern``."""

    pattern: str
    sizes: Mapping[str, AnySize] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)  # name -> why it may not grow
    normalised: Sequence[str] = ()  # exact only if every unit is copied equally often
    reduce: Mapping[str, str] = field(default_factory=dict)  # name -> sum, mean, l1, ..., unread
    size_refs: Sequence[SizeRef] = ()
    freeze: Mapping[str, float | int] = field(default_factory=dict)  # defaults that sizes give
    rescale: Mapping[str, int] = field(default_factory=dict)  # contracted inside: input to rescale
    kind: Kind = Kind.OTHER
    norm: Norm | None = None
    parts: Mapping[str, str] = field(default_factory=dict)  # name -> what people call it


class Unsupported(Exception):
    """Raised by a rule: this use of the operator is not understood, so pin what it touches."""


@dataclass(slots=True, eq=False)
class Op:
    """What a rule may look at: one node with the shapes and small values around it.

    Where any of them varies at run time it is a symbol, and shapes of outputs are not given.
    """

    node: onnx.NodeProto
    opset: int
    shapes: tuple[tuple[AnySize, ...] | None, ...]  # of the inputs; None where absent or unknown
    outputs: tuple[tuple[int, ...] | None, ...]
    values: tuple[np.ndarray | None, ...]  # small constant inputs

    def attr(self, name: str, default: Any = None) -> Any:
        """Return the attribute's Python value, or ``default``."""
        for attribute in self.node.attribute:
            if attribute.name == name:
                value = onnx.helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def has(self, index: int) -> bool:
        """Return whether input ``index`` is given."""
        return index < len(self.node.input) and bool(self.node.input[index])

    def shape(self, index: int) -> tuple[AnySize, ...]:
        """Return the shape of input ``index``. Raise Unsupported where it is unknown."""
        shape = self.shapes[index] if index < len(self.shapes) else None
        if shape is None:
            raise Unsupported(f"the shape of input {index} is unknown")
        return shape

    def rank(self, index: int = 0) -> int:
        """Return the rank of input ``index``."""
        return len(self.shape(index))

    def output(self, index: int = 0) -> tuple[int, ...]:
        """Return the shape of output ``index``. Raise Unsupported where it is unknown."""
        shape = self.outputs[index] if index < len(self.outputs) else None
        if shape is None:
            raise Unsupported(f"the shape of output {index} is unknown")
        return shape

    def value(self, index: int) -> np.ndarray | None:
        """Return the small constant at input ``index``, or None where absent or not constant."""
        return self.values[index] if index < len(self.values) else None

    def vector(self, index: int) -> list[Any]:
        """Return the numbers at input ``index``. Raise Unsupported where it is no known vector."""
        value = self.known(index)
        if value.ndim != 1:
            raise Unsupported(f"input {index} is no vector")
        return value.tolist()  # type: ignore[no-any-return]

    def known(self, index: int) -> np.ndarray:
        """Return the small constant at input ``index``. Raise Unsupported where it is not known."""
        value = self.value(index)
        if value is None:
            raise Unsupported(f"input {index} is not a constant")
        return value

    def axis(self, name: str = "axis", default: int = -1, rank: int | None = None) -> int:
        """Return the non-negative axis that attribute ``name`` states."""
        return place_of(self.attr(name, default), self.rank() if rank is None else rank)


Entry = str | Rule | Callable[[Op], str | Rule]


def place_of(axis: int, rank: int) -> int:
    """Return which of ``rank`` axes is meant; a negative one counts from the end.

    Raise Unsupported for one that is not there: runtimes make anything of it.
    """
    if not -rank <= int(axis) < rank:
        raise Unsupported(f"there is no axis {int(axis)} among {rank}")
    return int(axis) % rank


def names(prefix: str, count: int) -> list[str]:
    """Return ``count`` axis names: prefix0, prefix1, ..."""
    return [f"{prefix}{i}" for i in range(count)]


def line(inputs: Sequence[Sequence[str]], outputs: Sequence[Sequence[str]]) -> str:
    """Return a rule's text from lists of axis names."""
    sides = (", ".join(" ".join(spec) for spec in side) for side in (inputs, outputs))
    return " -> ".join(sides)


def ranks(shapes: Sequence[Sequence[Any] | None]) -> tuple[int | None, ...]:
    """Return the ranks of tensors, None where a tensor is absent or unknown."""
    return tuple([None if shape is None else len(shape) for shape in shapes])


@lru_cache(maxsize=4096)
def expand(text: str, ranks: tuple[int | None, ...], out: tuple[int | None, ...]) -> Pattern:
    """Return the pattern for tensors of the given ranks (None where a tensor is absent)."""
    inputs, outputs = parse(text)
    if len(ranks) > len(inputs) and any(r is not None for r in ranks[len(inputs) :]):
        raise Unsupported(f"it has {len(ranks)} inputs, its rule {len(inputs)}")
    left = tuple(_expand(s, r) for s, r in zip(inputs, ranks, strict=False))
    right = tuple(_expand(s, r) for s, r in zip(outputs, out, strict=False))
    dots = frozenset(t for s in left if s for t in s if isinstance(t, str) and t.startswith("..."))
    passed = {name for spec in right for item in spec or () for name in leaves(item)}
    contracted: dict[str, tuple[tuple[int, int], ...]] = {}
    for index, spec in enumerate(left):
        for axis, item in enumerate(spec or ()):
            for name in leaves(item):
                if not name.isdigit() and (name not in passed or name.startswith("~")):
                    name = name.lstrip("~")
                    contracted[name] = (*contracted.get(name, ()), (index, axis))
    return Pattern(text, left, right, contracted, dots)


def _expand(spec: Spec | None, rank: int | None) -> Spec | None:
    if spec is None or rank is None:
        return None
    extra = rank - sum(1 for t in spec if not _variadic(t))
    variadics = [t for t in spec if _variadic(t)]
    if extra < 0 or (extra and not variadics) or len(variadics) > 1:
        raise Unsupported(f"a tensor of rank {rank} does not fit its rule")
    result: list[Term] = []
    for item in spec:
        if item == "...":  # counted from the right: leading axes broadcast
            result.extend(f"...{extra - 1 - i}" for i in range(extra))
        elif _variadic(item):
            result.extend(f"{str(item)[1:]}.{i}" for i in range(extra))
        else:
            result.append(item)
    return tuple(result)


def _variadic(item: Term) -> bool:
    return isinstance(item, str) and (item == "..." or item.startswith("*"))
