"""Widths and copies of blocks that reach a budget of parameters or of floating-point operations.

    choice = choose(forecast, goal("parameters", "2x", forecast.costs.parameters), Wishes())
    choice.widths, choice.copies

In proportion: all widths grow by one factor, and copies are spread evenly over the blocks. Where
factors are merged into one axis, as heads and their size are, the outer one grows: a network has
more heads, not larger ones. Source of growing both together: EfficientNet, Tan and Le, ICML 2019.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from onnx_net2net.deepening.repeated_segments import evenly
from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.plan.forecast import Copies, Forecast, Formula, Widths
from onnx_net2net.step import MOST
from onnx_net2net.widening.dimensions import Dimension
from onnx_net2net.widening.request import MOST as WIDEST
from onnx_net2net.widening.request import TIMES
from onnx_net2net.widening.scaling import Scaling

TOLERANCE = Fraction(2, 100)
PREFERENCES = ("balanced", "width", "depth")
_FEW = 24  # dimensions, among which single steps are tried; more are fine enough as they are
_STEPS = 8
_TRIES = 32  # numbers of copies; each takes some fifty counts
_LARGEST = 10**18
_TIMES = 10**6
_MOST = f"at most {float(_LARGEST):.0e}"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
_AMOUNT = re.compile(
    r"(\d+(?:_\d+)*(?:\.\d+)?(?:e\d{1,2})?) *([xkmgbt]?)", re.IGNORECASE | re.ASCII
)
OPTIONS = {"parameters": "--params", "flops": "--flops"}


@dataclass(frozen=True)
class Goal:
    """How much is asked for; ``asked`` is how it was said."""

    measure: str  # "parameters" or "flops"
    target: int
    asked: str

    def met(self, cost: int) -> bool:
        """Whether ``cost`` is near enough."""
        return abs(cost - self.target) <= TOLERANCE * self.target

    def off(self, cost: int) -> float:
        """How far ``cost`` is from the target, relative to it."""
        return cost / self.target - 1


@dataclass(frozen=True)
class Choice:
    """What was chosen: new widths, copies by block, and why so."""

    widths: dict[Dimension, int]
    copies: dict[str, int]
    factor: float
    cost: int
    nearest: bool = False  # no unit more or less comes nearer to the goal, which it does not meet


def goal(measure: str, asked: str | int, present: int) -> Goal:
    """Return the budget that ``2x``, ``25M`` or a number means for a model with ``present`` now."""
    option = OPTIONS[measure]
    if isinstance(asked, int) and asked > _LARGEST:
        raise UsageError(f"{option}: a number of {asked.bit_length()} bits is absurd", _MOST)
    text = str(asked).strip()
    match = _AMOUNT.fullmatch(text)
    if match is None:
        problem = f"{option} {text!r} is not an amount"
        raise UsageError(problem, f"a factor such as {option} 2x, or a number such as 25M")
    number, unit = Fraction(match[1].replace("_", "")), match[2].upper()
    target = math.floor(number * (present if unit == "X" else _UNITS[unit]))
    if not present:
        raise UsageError(f"{option} {text}: the model has no {measure} that are counted")
    if target > _LARGEST:
        raise UsageError(f"{option} {text[:40]}: that is absurd", _MOST)
    if target > _TIMES * present:
        problem = f"{option} {text[:40]}: that is absurd for a model that has {present:,} now"
        raise UsageError(problem, f"at most {_TIMES}x")
    if target <= present:
        less = "what" if target == present else "less than"
        raise UsageError(
            f"{option} {text}: {target:,} is {less} the model has now ({present:,})",
            f"growing only adds; for a factor write {option} 2x",
        )
    return Goal(measure, target, text)


@dataclass
class Search:
    """Candidates for one goal, and the costs that are forecast for them."""

    forecast: Forecast
    goal: Goal
    scaling: Scaling
    series: list[list[str]]  # names of the blocks that may be copied

    @property
    def blocks(self) -> int:
        """How many blocks may be copied."""
        return sum(map(len, self.series))

    @cached_property
    def _coarse(self) -> tuple[Formula, Scaling]:
        """Costs, and widths, where equal ones of equal steps stay equal: one factor scales all."""
        alike, scaling = _merged(self.scaling, lambda leader: self.scaling.steps[leader])
        return self.forecast.formula(self.goal.measure, alike), scaling

    @cached_property
    def _fine(self) -> tuple[Formula, Scaling]:
        """Costs, and widths, where each dimension with those tied to it may have its own."""
        alike, scaling = _merged(self.scaling, lambda leader: leader)
        return self.forecast.formula(self.goal.measure, alike), scaling

    def cost(self, widths: Widths, copies: Copies) -> int:
        """Return what the goal measures; ``widths`` are those of leaders."""
        formula, scaling = self._fine
        return formula(scaling.complete(widths), copies)

    def copies(self, total: int) -> dict[str, int]:
        """``total`` copies, to each series its part, spread evenly over its blocks."""
        copies: dict[str, int] = {}
        done, before = 0, 0
        for names in self.series:
            before += len(names)
            until = (2 * total * before + self.blocks) // (2 * self.blocks)
            counts = evenly(len(names), until - done) if until > done else []
            copies.update({n: c for n, c in zip(names, counts, strict=False) if c})
            done = until
        return copies

    def most_copies(self) -> int:
        """Return the smallest number of copies that the budget has no room for, by themselves."""
        most = self.blocks * MOST
        target = self.goal.target
        formula, _ = self._coarse
        return min(most, 1 + _last(lambda n: formula({}, self.copies(n)) < target, most))

    def factors(self, copies: Copies) -> tuple[float, float]:
        """Return the factors of all widths just below and above the goal, with these copies."""
        formula, scaling = self._coarse

        def is_below(factor: float) -> bool:
            return formula(scaling.widths(factor), copies) < self.goal.target

        low, high = 1.0, 1.0
        while is_below(high):
            if not scaling.steps or high > WIDEST:
                return high, high
            low, high = high, high * 2
        while high - low > 1e-7 * low:
            middle = (low + high) / 2
            low, high = (middle, high) if is_below(middle) else (low, middle)
        return low, high

    def factor(self, number: int) -> float:
        """Return the factor of all widths that comes nearest to the goal with so many copies."""
        copies = self.copies(number)
        formula, scaling = self._coarse
        target = self.goal.target
        ends = self.factors(copies)
        return min(ends, key=lambda factor: abs(formula(scaling.widths(factor), copies) - target))

    def fitted(self, copies: dict[str, int]) -> Choice:
        """Return the widths that come nearest to the goal with these copies."""
        low, high = (
            self._choice(self.scaling.widths(factor), copies, factor)
            for factor in self.factors(copies)
        )
        nearest = min(low, high, key=self._distance)
        if self.goal.met(nearest.cost) and nearest.widths:
            return nearest
        # One step of all widths is too coarse: some take it and others do not.
        return self._refined(min((nearest, *self._between(low, high)), key=self._distance))

    def _between(self, low: Choice, high: Choice) -> Iterator[Choice]:
        """Yield the choices nearest to the goal of those where the first of the dimensions have
        the higher widths.
        """
        leaders = [d for d in self.scaling.steps if low.widths.get(d) != high.widths.get(d)]

        def mixed(number: int) -> Choice:
            widths = low.widths | {d: high.widths[d] for d in leaders[:number]}
            return self._choice(widths, low.copies, high.factor)

        below = _last(lambda n: mixed(n).cost < self.goal.target, len(leaders))
        yield from map(mixed, range(below, min(below + 2, len(leaders) + 1)))

    def _refined(self, choice: Choice) -> Choice:
        """Change a few dimensions by one step more or less, each time the one that helps most."""
        for _ in range(_STEPS):
            steps = self._steps(choice) if len(self.scaling.steps) <= _FEW else ()
            better = min((choice, *steps), key=self._distance)
            if better is choice or (self.goal.met(choice.cost) and choice.widths):
                break
            choice = better
        return choice

    def _steps(self, choice: Choice) -> Iterator[Choice]:
        for dimension, step in self.scaling.steps.items():
            for width in (choice.widths.get(dimension, dimension.width) + s for s in (-step, step)):
                if dimension.width < width <= min(WIDEST, TIMES * dimension.width):
                    yield self._choice(
                        {**choice.widths, dimension: width}, choice.copies, choice.factor
                    )

    def _choice(
        self, widths: dict[Dimension, int], copies: dict[str, int], factor: float
    ) -> Choice:
        widths = self.scaling.complete(widths)
        return Choice(widths, copies, factor, self.cost(widths, copies))

    def _distance(self, choice: Choice) -> tuple[bool, int]:
        """Return how far a choice is from the goal; what grows nothing is the last to be taken."""
        return not (choice.widths or choice.copies), abs(choice.cost - self.goal.target)

    def best(self, prefer: str) -> Choice:
        """Return the first choice, in the order of preference, that meets the goal."""
        tried: list[Choice] = []
        for number in self._order(prefer):
            choice = self.fitted(self.copies(number))
            if self.goal.met(choice.cost) and (choice.widths or choice.copies):
                return choice
            tried.append(choice)
        nearest = min(tried, key=self._distance)
        if self._is_exhausted(nearest):
            return replace(nearest, nearest=True)
        raise Missed(self.goal, nearest.cost)

    def _is_exhausted(self, choice: Choice) -> bool:
        """Whether what is missing is less than half a unit of any dimension: nothing is nearer."""
        if set(self.scaling.steps.values()) != {1}:
            return False  # a smaller step could be asked for
        missing = abs(choice.cost - self.goal.target)
        return all(abs(step.cost - choice.cost) >= 2 * missing for step in self._steps(choice))

    def _order(self, prefer: str) -> list[int]:
        """Numbers of copies to try."""
        most = self.most_copies() if self.series else 0
        if prefer == "depth":
            return list(range(most, -1, -1))[:_TRIES]
        if prefer == "width" or not most:
            return list(range(most + 1))[:_TRIES]

        def shallow(number: int) -> bool:
            return 1 + number / self.blocks < self.factor(number)

        if not self.scaling.steps:
            return list(range(most, -1, -1))[:_TRIES]
        last = _last(shallow, most)
        start = min((n for n in (last, last + 1) if n <= most), key=self._imbalance)
        return sorted(range(most + 1), key=lambda n: (abs(n - start), n))[:_TRIES]

    def _imbalance(self, number: int) -> float:
        """How far the factors of depth and width are apart with so many copies."""
        return abs(1 + number / self.blocks - self.factor(number))


def _merged(
    scaling: Scaling, group: Callable[[Dimension], Hashable]
) -> tuple[dict[Dimension, Dimension], Scaling]:
    """Return for each dimension the one that stands for it, and how those scale: leaders of one
    width and ``group`` are alike, and so are those tied to them that have one width.
    """
    first: dict[Hashable, Dimension] = {}
    alike: dict[Dimension, Dimension] = {}
    tied: dict[Dimension, dict[Dimension, Fraction]] = {}
    for leader in scaling.steps:
        key = leader.width, group(leader)
        lead = alike[leader] = first.setdefault(key, leader)
        for dimension, ratio in scaling.tied.get(leader, {}).items():
            other = alike[dimension] = first.setdefault((key, dimension.width), dimension)
            tied.setdefault(lead, {})[other] = ratio
    steps = {d: step for d, step in scaling.steps.items() if alike[d] is d}
    return alike, replace(scaling, steps=steps, tied=tied)


def _last(holds: Callable[[int], bool], most: int) -> int:
    """Return the last number up to ``most`` for which ``holds``, which does so from 0 on."""
    low, high = 0, 1
    while high <= most and holds(high):
        low, high = high, high * 2
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


class Missed(Refused):
    """The goal cannot be reached: what comes nearest to it."""

    def __init__(self, goal: Goal, nearest: int) -> None:
        what = "FLOPs" if goal.measure == "flops" else goal.measure
        super().__init__(
            None,
            f"no widths and depths were found within {float(TOLERANCE):.0%} of {goal.target:,} "
            f"{what}; the nearest give {nearest:,} ({goal.off(nearest):+.1%})",
            f"{OPTIONS[goal.measure]} {nearest}, a smaller --multiple-of, or fewer --keep",
        )
