"""What an operator is: one record for each, which everything else asks.

    "Relu": Operator("... -> ...", Kind.ZERO, activation=True, idempotent=True)

Rules say how the axes of an operator's tensors relate (see language.py). The rest are facts that
no rule tells. What a record leaves out holds of an operator that nothing is known of.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, Flag, auto
from functools import cached_property
from typing import Any

from onnx_net2net.operators import lower_bounds
from onnx_net2net.operators.formulas import Formula
from onnx_net2net.operators.hazards import Hazard
from onnx_net2net.operators.language import Entry, Kind, Op, Rule
from onnx_net2net.operators.lower_bounds import LowerBound
from onnx_net2net.operators.values import Value

FIRST = (0,)
EVERY = range(1 << 16)  # operands, of an operator that takes any number


class Operand(Enum):
    """What an operand is, if it is a weight."""

    WEIGHT = auto()  # learned, whatever it holds
    MATRIX = auto()  # learned, unless it is a formula's: frequencies, a transform, a running sum
    TABLE = auto()  # rows looked up by index: learned, unless a formula's, or single numbers
    AFFINE = auto()  # learned, unless made by the exporter for a module that has none: ones, zeros
    STATE = auto()  # where a recurrence starts: learned, unless it is all one number
    STATISTIC = auto()  # running mean or variance


class Extent(Flag):
    """What an operand of whole numbers tells."""

    PLACE = auto()  # a size or a place, and makes no more than there was
    SHAPE = auto()  # sizes: multiplied, how much is made, of each element of the first operand
    AMOUNT = auto()  # in another way, how much is made
    COUNT = auto()  # a count, of which 0 or less divides or never ends
    LENGTH = auto()  # of sequences


WEIGHT_BIAS = {1: Operand.WEIGHT, 2: Operand.AFFINE}
PRODUCT = {0: Operand.MATRIX, 1: Operand.MATRIX}
PRODUCT_BIAS = {**PRODUCT, 2: Operand.AFFINE}
SCALE_SHIFT = {1: Operand.AFFINE, 2: Operand.AFFINE}


@dataclass(frozen=True, eq=False)
class Operator:
    """All facts about one operator.

    ``rule`` relates its axes; None where nothing is known of them. ``kind`` is that of each of its
    rules, None where they tell it themselves.
    """

    rule: Entry | None = None
    kind: Kind | None = None
    activation: bool = False  # a nonlinearity between layers
    idempotent: bool = False  # f(f(x)) = f(x), whatever its attributes and bounds
    random: bool = False  # something else each time it runs, in training mode at least
    training: int | None = None  # the operand without which it is in no training mode
    in_order: bool = False  # gives the elements of its first operand in their order
    in_place: bool = False  # and in their places, though maybe in another type
    computes: bool = True  # else it moves elements, changes their type, or makes constants
    measures: bool = False  # reads the sizes of its operand, and no element
    compares: bool = False  # asks which of its elements are larger
    commutes: bool = False  # f(x, y) = f(y, x)
    quantizes: bool = False
    differentiable: bool = True  # else no gradient comes back to what it reads
    sequence: bool = False  # gives a sequence of tensors
    singular: int | None = None  # the operand that it has no value for where that is zero
    carries: Collection[int] = ()  # operands whose elements come out, at most rounded or bounded
    indexes: Mapping[int, int] = field(default_factory=dict)  # by operand: the one that it indexes
    multi_index: bool = False  # the indices' last axis holds one for each axis of what they index
    limits: Mapping[int, int] = field(default_factory=dict)  # by operand: the one that it is below
    extents: Mapping[int, Extent] = field(default_factory=dict)
    unlimited: bool = False  # takes whole numbers of any size: the largest is "no limit"
    hazard: Hazard | None = None  # why native code may not survive a node
    lower_bound: LowerBound | None = None  # of the result, from those of its operands
    value: Value | None = None  # what it computes from small constants, sizes among them
    # Of one element, by those at its place, symbols among them. None: it has no such operands.
    formula: Formula | None = None
    weights: Mapping[int, Operand] = field(default_factory=dict)
    terms: Collection[int] = ()  # operands that may be a bias, but a mask or sines as well
    summands: Collection[int] = ()  # operands that are added
    # Attributes and operands that nobody need read, and why.
    implied: Mapping[str | int, str] = field(default_factory=dict)
    # What schemas do not say of attributes.
    choices: Mapping[str, Collection[str]] = field(default_factory=dict)
    types: Mapping[str, int] = field(default_factory=dict)
    required: Collection[str] = ()
    flops: Callable[[Op], list[int]] | None = None  # its products, to be added; None: not counted

    def draws(self, inputs: Sequence[str]) -> bool:
        """Return whether a node with these inputs may draw random numbers."""
        switch = self.training
        return self.random and (switch is None or any(inputs[switch : switch + 1]))

    @cached_property
    def constant_rule(self) -> Rule | None:
        """Return the rule where it is the same for every node, else None."""
        if self.rule is None or callable(self.rule):
            return None
        return self.of_kind(Rule(self.rule) if isinstance(self.rule, str) else self.rule)

    def of_kind(self, rule: Rule) -> Rule:
        """Return ``rule`` with the operator's kind, where it has one for all nodes."""
        return rule if self.kind is None else replace(rule, kind=self.kind)

    @property
    def normalises(self) -> bool:
        """Return whether it is a norm whose result operands 1 and 2 scale and shift."""
        return self.weights.get(1) is Operand.AFFINE

    @property
    def reshapes(self) -> bool:
        """Return whether its result is its first operand in another form, and nothing else."""
        return self.in_order or (
            self.kind is Kind.MOVE and self.carries == FIRST and not self.indexes
        )


Table = dict[str, Operator]


def move(rule: Entry, carries: Collection[int] = FIRST, **facts: Any) -> Operator:
    """Return an operator that moves the elements of some operands unchanged."""
    facts.setdefault("lower_bound", lower_bounds.first if carries == FIRST else lower_bounds.lowest)
    return Operator(rule, Kind.MOVE, carries=carries, computes=False, **facts)


def family(names: str, record: Operator) -> Table:
    """Give all of these operators, named in one text, one record.

    >>> sorted(family("Cos Sin", Operator("... -> ...")))
    ['Cos', 'Sin']
    """
    return dict.fromkeys(names.split(), record)
