"""Several steps of growth as one: by a plan, by a budget, or into the shape of another model.

grown = grow(model, params="2x")
grown = grow(model, plan="plan.toml")
grown = grow(model, like="larger.onnx")
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnx_net2net.analysis.folding import fold as folded
from onnx_net2net.deepening.blocks import blocks
from onnx_net2net.deepening.repeated_segments import matches
from onnx_net2net.deepening.segments import Block
from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.model.model import AnyModel, Model, load, load_shape
from onnx_net2net.plan import plans
from onnx_net2net.plan.budget import PREFERENCES, Choice, Goal, Missed, Search, goal
from onnx_net2net.plan.costs import Costs, costs
from onnx_net2net.plan.forecast import Forecast
from onnx_net2net.plan.like import ShapeDifference, check_like, compare
from onnx_net2net.plan.plans import Plan
from onnx_net2net.plan.steps import follow
from onnx_net2net.step import Deepen, Step, Widen
from onnx_net2net.widening.dimensions import Analysis, Dimension, analyse, growable
from onnx_net2net.widening.naming import matching, within
from onnx_net2net.widening.request import MOST as WIDEST
from onnx_net2net.widening.scaling import Scaling, scaling_of
from onnx_net2net.widening.widen import widen

_ROUNDS = 8
AnyPlan = Plan | str | os.PathLike[str] | Mapping[str, Any] | Sequence[Mapping[str, Any]]


def grow(
    model: AnyModel,
    *,
    plan: AnyPlan | None = None,
    like: AnyModel | None = None,
    params: str | int | None = None,
    flops: str | int | None = None,
    prefer: str = "balanced",
    multiple_of: int | None = None,
    keep: str | Sequence[str] = (),
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Model:
    """``model`` grown by a ``plan``, into the shape of ``like``, or up to a budget of parameters or
    floating-point operations.

    ``plan`` is a TOML file, its contents, or a list of steps: {"operation": "widen", "widths":
    {"conv1": 96}}, see :mod:`onnx_net2net.plan.plans`. Its steps are done in order, and the
    history has an entry for each, as if they were done one by one.

    ``like`` is a larger network of the same kind: every dimension gets the width, and every
    numbered series of blocks the length, that it has there, and every parameter its name. Only
    names and shapes of it are read; its weights may be missing.

    ``params`` or ``flops`` is a factor such as "2x", or a number such as "25M" or 25_000_000,
    which is reached within 2 %: widths grow by one factor, rounded to multiples of
    ``multiple_of`` (by default of 8, those that are 64 or wider), and copies are spread evenly over
    the blocks. What one argument of a constructor says stays one number where the budget allows it:
    widths of equal blocks, and heads with the hidden width that they make up. ``prefer`` "width"
    copies blocks only where widths alone do not reach it, "depth" widens only to fill the rest, and
    "balanced" does both by one factor. ``keep`` names dimensions and blocks that stay, or globs.
    ``sizes`` of dynamic dimensions are those to count operations at, see :func:`costs`.

    Returns a new model whose ``changes`` lists what all steps did; ``model`` is untouched. Raises
    UsageError for what makes no sense, naming step and key, and Refused where a step would not be
    exact or no widths and depths are near enough to the budget.
    """
    if sum(given is not None for given in (plan, like, params, flops)) != 1:
        raise UsageError("give one of plan, like, params and flops", 'for example: params="2x"')
    model = load(model)
    if like is not None:
        return by_shape(model, load_shape(like), sizes or {}, seed=seed).model
    if plan is not None:
        return follow(model, as_plan(plan)).model
    measure, asked = ("flops", flops) if params is None else ("parameters", params)
    assert asked is not None
    wishes = Wishes(prefer, multiple_of, (keep,) if isinstance(keep, str) else tuple(keep), seed)
    return by_budget(model, measure, asked, wishes, sizes or {}).model


@dataclass(frozen=True)
class Wishes:
    """How to spend a budget; see :func:`grow`."""

    prefer: str = "balanced"
    multiple_of: int | None = None
    keep: tuple[str, ...] = ()
    seed: int = 0
    fold: bool = False


@dataclass(frozen=True)
class Spending:
    """How a budget was spent: what was asked for, what was chosen, and what was left alone."""

    goal: Goal
    choice: Choice
    scaling: Scaling
    blocks: int
    wishes: Wishes
    kept: list[str]
    lost: list[str]  # blocks that are lost once widened


@dataclass(frozen=True)
class Grown:
    """The grown model, the plan that gives it again, and what both models cost."""

    model: Model
    plan: Plan
    before: Costs
    after: Costs
    spending: Spending | None = None
    difference: ShapeDifference | None = None


def as_plan(plan: AnyPlan) -> Plan:
    """Return a plan from what :func:`grow` takes for one."""
    if isinstance(plan, Plan):
        return plan
    if isinstance(plan, str | os.PathLike):
        return plans.read(Path(plan))
    return plans.parse(plan)


def by_plan(model: Model, plan: Plan, sizes: Mapping[str, int]) -> Grown:
    """Follow ``plan``; see :func:`grow`."""
    before = costs(folded(model) if plan.fold else model, sizes)
    followed = follow(model, plan)
    return Grown(followed.model, followed.plan, before, costs(followed.model, before.sizes))


def by_shape(
    model: Model, large: Model, sizes: Mapping[str, int], *, seed: int = 0, fold: bool = False
) -> Grown:
    """Grow ``model`` into the shape of ``large``; see :func:`grow`."""
    differing = compare(folded(model), folded(large)) if fold else compare(model, large)
    plan = replace(differing.plan(seed), fold=fold)
    if not plan.steps:
        raise UsageError("both networks have the same shape: there is nothing to grow")
    grown = by_plan(model, plan, sizes)
    check_like(grown.model, large)
    return replace(grown, difference=differing)


def by_budget(
    model: Model, measure: str, asked: str | int, wishes: Wishes, sizes: Mapping[str, int]
) -> Grown:
    """Grow ``model`` up to a budget of ``measure``, "parameters" or "flops"; see :func:`grow`."""
    _check(wishes)
    source = folded(model) if wishes.fold else model
    analysis = analyse(source)
    forecast = Forecast(analysis, sizes)
    wanted = goal(measure, asked, getattr(forecast.costs, measure))
    dimensions, names = _kept(analysis, forecast.blocks, wishes.keep)
    series = _series(block for block in forecast.blocks if block.name not in names)
    multiple = wishes.multiple_of
    coarse = [(multiple, True), (multiple, False), *([(1, False)] if multiple is None else [])]
    scalings = [scaling_of(analysis, unit, dimensions, tie=tie) for unit, tie in coarse]
    if not scalings[0].steps and not series:
        reason = "no dimension of this model can grow, and no block can be copied"
        raise Refused(None, reason, "see inspect --all, and what --keep leaves")
    kept = [d.name for d in growable(analysis.dimensions) if d in dimensions] + sorted(names)
    for scaling in scalings:
        try:
            return _spent(source, Search(forecast, wanted, scaling, series), wishes, kept)
        except Missed as error:  # finer steps may come nearer
            nearest = error
    raise nearest


def _spent(source: Model, search: Search, wishes: Wishes, kept: list[str]) -> Grown:
    """Grow ``source`` by the best choice whose costs, once counted, meet the goal."""
    wanted, before = search.goal, search.forecast.costs
    lost: set[str] = set()
    reached = getattr(before, wanted.measure)
    for _ in range(_ROUNDS):
        choice = search.best(wishes.prefer)
        if now := _lost(source, choice):  # what widening inserts may part a block from its like
            lost |= now
            search = replace(search, series=_without(search.series, lost))
            continue
        followed = follow(source, _plan(choice, wishes))
        after = costs(followed.model, before.sizes)
        reached = getattr(after, wanted.measure)
        if wanted.met(reached) or (choice.nearest and reached == choice.cost):
            scaling = search.scaling
            spent = Spending(wanted, choice, scaling, search.blocks, wishes, kept, sorted(lost))
            return Grown(followed.model, followed.plan, before, after, spent)
        # What growing adds besides, such as vectors of shares, was not in the forecast.
        aim = search.goal.target + wanted.target - reached
        search = replace(search, goal=replace(wanted, target=aim))
    raise Missed(wanted, reached)


def _lost(source: Model, choice: Choice) -> set[str]:
    """Return the blocks to be copied that the widened network does not have any more."""
    if not choice.widths or not choice.copies:
        return set()
    wide = widen(source, {d.name: width for d, width in choice.widths.items()})
    return choice.copies.keys() - {block.name for block in blocks(wide) if block.exact}


def _without(series: list[list[str]], lost: set[str]) -> list[list[str]]:
    left = [[name for name in names if name not in lost] for names in series]
    return [names for names in left if names]


def _check(wishes: Wishes) -> None:
    if wishes.prefer not in PREFERENCES:
        problem = f"there is no preference '{wishes.prefer}'"
        raise UsageError(problem, f"one of {', '.join(PREFERENCES)}")
    number = wishes.multiple_of
    whole = isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= WIDEST
    if number is not None and not whole:
        problem = f"multiple_of {number!r} is not a whole number from 1 up"
        raise UsageError(problem, "use --multiple-of 8")


def _kept(
    analysis: Analysis, blocks: Iterable[Block], patterns: Iterable[str]
) -> tuple[list[Dimension], set[str]]:
    """Return the dimensions and the names of blocks that shall stay as they are."""
    dimensions: list[Dimension] = []
    names: set[str] = set()
    for pattern in patterns:
        copied = {b.name for b in blocks if matches(b.name, pattern) or within(b.name, pattern)}
        own = [d for d in analysis.dimensions if matches(d.name, pattern)]
        own = own or _named(analysis, pattern)
        if not own and not copied:
            problem = f"--keep '{pattern}' matches no dimension and no block"
            raise UsageError(problem, "'onnx-net2net inspect MODEL' lists them, also with --blocks")
        dimensions += own
        names |= copied
    return dimensions, names


def _named(analysis: Analysis, pattern: str) -> list[Dimension]:
    """Return the dimensions that a name or a pattern means: none where it means nothing here."""
    try:
        return matching(analysis, pattern)
    except (UsageError, Refused):
        return []


def _series(blocks: Iterable[Block]) -> list[list[str]]:
    """Names of blocks, by what their numbers count."""
    series: dict[str, list[str]] = {}
    for block in blocks:
        series.setdefault(block.series, []).append(block.name)
    return list(series.values())


def _plan(choice: Choice, wishes: Wishes) -> Plan:
    """Widths first: the names of dimensions and blocks are then those of the source."""
    steps: list[Step] = []
    if choice.widths:
        widths = {dimension.name: width for dimension, width in choice.widths.items()}
        steps.append(Widen(widths=widths, seed=wishes.seed))
    if choice.copies:
        steps.append(Deepen(block=choice.copies, seed=wishes.seed))
    return Plan(tuple(steps), wishes.fold)
