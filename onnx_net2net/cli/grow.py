"""``grow``: many steps as one, by a plan or by a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_net2net.cli.options import FOLD, FORCE, JSON, PATH, RUNNING, verify_arguments
from onnx_net2net.cli.steps import (
    DONE,
    UNEQUAL,
    deliver_to,
    load,
    opened,
    print_json,
    show_end,
)
from onnx_net2net.errors import Refused, UsageError

if TYPE_CHECKING:
    from onnx_net2net.model.model import Model
    from onnx_net2net.plan.grow import Grown, Wishes
    from onnx_net2net.verification.draft import Judge


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
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    type=PATH,
    help="The file to write.  [default: MODEL-grown.onnx beside it]",
)
@FORCE
@click.option("--dry-run", is_flag=True, help="Say what would change; write no model.")
@click.option("--no-verify", is_flag=True, help="Write without asking onnxruntime.")
@FOLD
@RUNNING
@JSON
def grow(
    model: Path,
    output: Path | None,
    force: bool,
    dry_run: bool,
    no_verify: bool,
    fold: bool,
    as_json: bool,
    emit_plan: Path | None,
    plan: Path | None,
    seeds: int,
    ranges: Any,
    sizes: Any,
    inputs: Any,
    provider: str | None,
    **budget: Any,
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
    arguments = verify_arguments(seeds, ranges, sizes, inputs, provider)
    wishes = _wishes(plan, fold, **budget)
    from onnx_net2net.verification.draft import Judge

    read = [*inputs, *filter(None, [plan])]
    source, target = opened(model, output, force=force, dry_run=dry_run, read=read)
    _check_plan(emit_plan, source, target, force, read)
    counted = {name: sizes[0] for name, sizes in (arguments["sizes"] or {}).items()}
    grown = _grown(source, plan, wishes, budget, counted)
    if dry_run:
        _emit(grown, emit_plan, model, force)
        return _show(grown, None, None, emit_plan, as_json)
    judge = None if no_verify else Judge(source, exact=grown.plan.exact, arguments=arguments)

    def agree(draft: Path) -> bool:
        _count(grown, draft)
        if agreed := judge is None or judge(draft):
            _emit(grown, emit_plan, model, force)  # if it fails, no model is left behind either
        return agreed

    written = deliver_to(target, grown.model, agree, force)
    return _show(grown, written, judge, emit_plan, as_json)


def _check_plan(
    plan: Path | None, source: Model, target: Path, force: bool, read: Sequence[Path]
) -> None:
    """Raise unless the plan may be written, before any work is done."""
    from onnx_net2net.model.atomic_write import check_free

    if plan is None:
        return
    check_free(source, plan, force=force, read=read)
    if plan.resolve() == target.resolve():
        raise UsageError(f"{target}: cannot be both model and plan", "give two names")


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


def _show(
    grown: Grown, target: Path | None, judge: Judge | None, plan: Path | None, as_json: bool
) -> int:
    """Say what changed, what both models cost, and where the result is; the exit code."""
    from onnx_net2net.cli import render_growth

    if as_json:
        report = judge.report if judge is not None else None
        verification = None if report is None else report.as_dict()
        values = render_growth.values(grown)
        files = {"output": target and str(target), "plan": plan and str(plan)}
        print_json({**values, "verification": verification, **files})
        return UNEQUAL if judge is not None and target is None else DONE
    click.echo(render_growth.growth_text(grown))
    code = show_end(target, judge)
    if plan is not None and code == DONE:
        click.echo(f"wrote {plan}")
    return code
