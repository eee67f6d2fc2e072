"""``grow``: many steps as one, by a plan or by a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_net2net.cli.options import FOLD, OUTCOME, PATH
from onnx_net2net.cli.outcome import Outcome, load
from onnx_net2net.errors import Refused, UsageError

if TYPE_CHECKING:
    from onnx_net2net.model.model import Model
    from onnx_net2net.plan.grow import Grown, Wishes

_BUDGET = ("params", "flops", "prefer", "multiple_of", "keep", "seed")


@click.command()
@click.argument("model", type=PATH)
@click.option("--plan", metavar="PATH", type=PATH, help="The steps to take: a TOML file.")
@click.option(
    "--params",
    metavar="N|Nx",
    help="In place of a plan: how many parameters, such as 25M, or times the present.",
)
@click.option("--flops", metavar="N|Nx", help="The same for floating-point operations.")
@click.option(
    "--prefer",
    type=click.Choice(["balanced", "width", "depth"]),
    help="What a budget is spent on first.  [default: balanced]",
)
@click.option(
    "--multiple-of",
    metavar="N",
    type=click.IntRange(1),
    help="With a budget: round widths to multiples of N.",
)
@click.option(
    "--keep",
    metavar="NAME",
    multiple=True,
    help="With a budget: leave this dimension or block alone, or a glob; repeats.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=None,
    help="With a budget: seed of all that is random.  [default: 0]",
)
@click.option(
    "--emit-plan",
    metavar="PATH",
    type=PATH,
    help="Write what was done as a plan, which does it again.",
)
@FOLD
@OUTCOME
def grow(
    model: Path,
    plan: Path | None,
    emit_plan: Path | None,
    fold: bool,
    **options: Any,
) -> int:
    """Widen and deepen by a plan, or up to a budget of parameters or FLOPs, as one step.

    The result is written only after onnxruntime has confirmed that it computes what MODEL does.

    \b
    onnx-net2net grow model.onnx --params 2x --multiple-of 8
    onnx-net2net grow model.onnx --flops 1.5G --prefer depth --keep 'head*' --dry-run
    onnx-net2net grow model.onnx --params 25M --emit-plan plan.toml
    onnx-net2net grow model.onnx --plan plan.toml -o larger.onnx

    A budget is reached within 2 %: all widths grow by one factor, copies are spread evenly over
    the blocks. FLOPs are two for each multiply-add of convolutions, matrix products, attention and
    recurrent layers; nothing else is counted. Dynamic dimensions have the sizes that verify tries
    first (the batch is 1), or those of --size.
    """  # fmt: skip
    budget = {name: options.pop(name) for name in _BUDGET}
    wishes = _wishes(plan, fold, **budget)
    from onnx_net2net.cli import render_growth

    result = Outcome(model, read=filter(None, [plan]), **options)
    _check_plan(emit_plan, result)
    counted = {name: sizes[0] for name, sizes in (result.arguments["sizes"] or {}).items()}
    grown = _grown(result.source, plan, wishes, budget, counted)
    return result.deliver(
        grown.model,
        lambda: render_growth.growth_text(grown),
        lambda: render_growth.values(grown),
        exact=grown.plan.exact,
        count=lambda draft: _count(grown, draft),
        emit=lambda: _emit(grown, emit_plan, model, result.force),
        plan=emit_plan,
    )


def _check_plan(plan: Path | None, result: Outcome) -> None:
    """Raise unless the plan may be written, before any work is done."""
    from onnx_net2net.model.atomic_write import check_free

    if plan is None:
        return
    check_free(result.source, plan, force=result.force, read=result.read)
    if plan.resolve() == result.target.resolve():
        raise UsageError(f"{result.target}: cannot be both model and plan", "give two names")


def _wishes(plan: Path | None, fold: bool, **budget: Any) -> Wishes:
    """How to spend a budget; UsageError unless there is one, or a plan."""
    asked = [name for name in ("params", "flops") if budget[name] is not None]
    if len(asked) + (plan is not None) != 1:
        problem = "nothing to grow" if not asked else "a plan and a budget exclude each other"
        problem = "two budgets exclude each other" if len(asked) == 2 else problem
        raise UsageError(problem, "give one of --plan, --params and --flops, as in --params 2x")
    given = {name: budget[name] for name in ("prefer", "multiple_of", "keep", "seed")}
    given = {name: value for name, value in given.items() if value not in (None, ())}
    if plan is not None and given:
        option = "--" + min(given).replace("_", "-")
        raise UsageError(f"{option} goes with --params and --flops only", "the plan has it all")
    from onnx_net2net.plan.grow import Wishes

    return Wishes(**given, fold=fold)


def _grown(
    source: Model, plan: Path | None, wishes: Wishes, budget: Mapping[str, Any],
    sizes: Mapping[str, int],
) -> Grown:  # fmt: skip
    from onnx_net2net.plan.grow import by_budget, by_plan
    from onnx_net2net.plan.plans import read

    if plan is not None:
        steps = read(plan)
        return by_plan(source, replace(steps, fold=steps.fold or wishes.fold), sizes)
    measure = "flops" if budget["params"] is None else "parameters"
    asked = budget["flops"] if budget["params"] is None else budget["params"]
    return by_budget(source, measure, asked, wishes, sizes)


def _count(grown: Grown, draft: Path) -> None:
    """The numbers that are told are those of the file."""
    from onnx_net2net.plan.costs import costs

    found = costs(load(draft), grown.after.sizes)
    if found != grown.after:
        reason = f"the written file costs {found}, which is not {grown.after}"
        raise Refused(None, reason, "this is a defect: please report it with the model")


def _emit(grown: Grown, target: Path | None, source: Path, force: bool) -> None:
    from onnx_net2net import __version__
    from onnx_net2net.model.atomic_write import write_text
    from onnx_net2net.plan.plans import text

    if target is not None:
        comment = (
            f"How onnx-net2net {__version__} grew {source.name}:\n"
            f"onnx-net2net grow {source.name} --plan {target.name} does it again, byte for byte."
        )
        write_text(target, text(grown.plan.seen_from(target.parent), comment), force=force)
