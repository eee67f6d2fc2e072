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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from onnx_net2net.deepening.repeated_segments import evenly
from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.plan.forecast import Copies, Forecast
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
    """The budget that ``2x``, ``25M`` or a number means for a model that has ``present`` now."""
    option = OPTIONS[measure]
    if isinstance(asked, int) and asked > _LARGEST:
        raise UsageError(f"{option}: a number of {asked.bit_length()} bits is absurd", _MOST)
    text = str(asked).strip()
    found = _AMOUNT.fullmatch(text)
    if found is None:
        problem = f"{option} {text!r} is not an amount"
        raise UsageError(problem, f"a factor such as {option} 2x, or a number such as 25M")
    number, unit = Fraction(found[1].replace("_", "")), found[2].upper()
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

    def cost(self, widths: dict[Dimension, int], copies: Copies) -> int:
        """What the goal measures."""
        measured: int = getattr(self.forecast, self.goal.measure)(widths, copies)
        return measured

    def copies(self, total: int) -> dict[str, int]:
        """``total`` copies, to each series its part, spread evenly over its blocks."""
        found: dict[str, int] = {}
        done, before = 0, 0
        for names in self.series:
            before += len(names)
            until = (2 * total * before + self.blocks) // (2 * self.blocks)
            counts = evenly(len(names), until - done) if until > done else []
            found.update({n: c for n, c in zip(names, counts, strict=False) if c})
            done = until
        return found

    def most_copies(self) -> int:
        """The smallest number of copies that the budget has no room for, by themselves."""
        most = self.blocks * MOST
        target = self.goal.target
        return min(most, 1 + _last(lambda n: self.cost({}, self.copies(n)) < target, most))

    def fitted(self, copies: dict[str, int]) -> Choice:
        """The widths that come nearest to the goal with these copies."""
        low, high = 1.0, 1.0
        scale = self.scaling.widths
        while self.cost(scale(high), copies) < self.goal.target:
            if not self.scaling.steps or high > WIDEST:
                return self._choice(scale(high), copies, high)
            low, high = high, high * 2
        while high - low > 1e-7 * low:
            middle = (low + high) / 2
            if self.cost(scale(middle), copies) < self.goal.target:
                low = middle
            else:
                high = middle
        ends = [self._choice(scale(factor), copies, factor) for factor in (low, high)]
        nearest = min(ends, key=self._distance)
        if self.goal.met(nearest.cost) and nearest.widths:
            return nearest
        # One step of all widths is too coarse: some take it and others do not.
        return self._refined(min((nearest, *self._between(*ends)), key=self._distance))

    def _between(self, low: Choice, high: Choice) -> Iterator[Choice]:
        widths = dict(low.widths)
        for dimension, width in high.widths.items():
            if widths.get(dimension) != width:
                widths[dimension] = width
                yield self._choice(dict(widths), low.copies, high.factor)

    def _refined(self, choice: Choice) -> Choice:
        """A few dimensions by one step more or less, each time the one that helps most."""
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
        """What grows nothing is the last to be taken."""
        return not (choice.widths or choice.copies), abs(choice.cost - self.goal.target)

    def best(self, prefer: str) -> Choice:
        """The first choice in the order of preference that meets the goal. Raises Refused."""
        tried: list[Choice] = []
        for number in self._order(prefer):
            found = self.fitted(self.copies(number))
            if self.goal.met(found.cost) and (found.widths or found.copies):
                return found
            tried.append(found)
        nearest = min(tried, key=self._distance)
        if self._is_exhausted(nearest):
            return replace(nearest, nearest=True)
        raise Missed(self.goal, nearest.cost)

    def _is_exhausted(self, choice: Choice) -> bool:
        """Whether what is missing is less than half a unit of any dimension: nothing is nearer."""
        if set(self.scaling.steps.values()) != {1}:
            return False  # a smaller step could be asked for
        missing = abs(choice.cost - self.goal.target)
        costs = [step.cost for step in self._steps(choice)]
        return bool(costs) and all(abs(cost - choice.cost) >= 2 * missing for cost in costs)

    def _order(self, prefer: str) -> list[int]:
        """Numbers of copies to try."""
        most = self.most_copies() if self.series else 0
        if prefer == "depth":
            return list(range(most, -1, -1))[:_TRIES]
        if prefer == "width" or not most:
            return list(range(most + 1))[:_TRIES]

        def shallow(number: int) -> bool:
            return 1 + number / self.blocks < self.fitted(self.copies(number)).factor

        if not self.scaling.steps:
            return list(range(most, -1, -1))[:_TRIES]
        last = _last(shallow, most)
        start = min((n for n in (last, last + 1) if n <= most), key=self._imbalance)
        return sorted(range(most + 1), key=lambda n: (abs(n - start), n))[:_TRIES]

    def _imbalance(self, number: int) -> float:
        """How far the factors of depth and width are apart with so many copies."""
        return abs(1 + number / self.blocks - self.fitted(self.copies(number)).factor)


def _last(holds: Callable[[int], bool], most: int) -> int:
    """The last number up to ``most`` for which ``holds``, which does so from 0 on."""
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
