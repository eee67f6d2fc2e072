"""``grow``: many steps as one, by a plan, by a budget, or into the shape of another model."""

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
    "--like",
    metavar="PATH",
    type=PATH,
    help="In place of a plan: a larger model, whose names and shapes to grow into.",
)
@click.option(
    "--params",
    metavar="N|Nx",
    help="In place of a plan: how many parameters, such as 25M, or times the present.",
)
@click.option("--flops", metavar="N|Nx", help="The same for floating-point operations.")
@click.option(
    "--set",
    "settings",
    metavar="NAME=VALUE",
    multiple=True,
    help="Of a checkpoint folder: a setting of the larger network's configuration; repeats.",
)
@click.option(
    "--prefer",
    type=click.Choice(["balanced", "width", "depth"]),
    help="What a budget is spent on first.  [default: balanced]",
)
@click.option(
    "--multiple-of",
    metavar="N",
    type=click.IntRange(1),
    help="With a budget: round widths to multiples of N.  [default: 8 from width 64 on]",
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
def grow(model: Path, settings: tuple[str, ...], **options: Any) -> int:
    """Widen and deepen by a plan, into the shape of a larger model, or up to a budget, as one step.

    The result is written only after onnxruntime has confirmed that it computes what MODEL does.

    \b
    onnx-net2net grow model.onnx --params 2x --multiple-of 8
    onnx-net2net grow model.onnx --flops 1.5G --prefer depth --keep 'head*' --dry-run
    onnx-net2net grow model.onnx --params 25M --emit-plan plan.toml
    onnx-net2net grow model.onnx --plan plan.toml -o larger.onnx
    onnx-net2net grow model.onnx --like larger.onnx -o grown.onnx
    onnx-net2net grow gpt2/ --set n_embd=1024 --set n_head=16 --set n_layer=24 -o larger/
    onnx-net2net grow llama/ --params 2x -o larger/

    Of the model that --like names, names and shapes are read, and its weights may be missing: each
    dimension gets its width there, each numbered series of blocks its length, or it is refused.

    MODEL may be a folder that transformers' save_pretrained wrote; so is the result then, which
    from_pretrained loads and which computes the same. --set names settings of its config.json; with
    --params they are chosen.

    A budget is reached within 2 %: all widths grow by one factor, copies are spread evenly over
    the blocks. FLOPs are two for each multiply-add of convolutions, matrix products, attention and
    recurrent layers; nothing else is counted. Dynamic dimensions have the sizes that verify tries
    first (the batch is 1), or those of --size.
    """  # fmt: skip
    if (model / "config.json").is_file():
        from onnx_net2net.cli.grow_checkpoint import grow_folder

        return grow_folder(model, settings, options)
    if settings:
        raise UsageError("--set is for a checkpoint folder", "give a folder with a config.json")
    return _grow_file(model, **options)


def _grow_file(
    model: Path,
    plan: Path | None,
    like: Path | None,
    emit_plan: Path | None,
    fold: bool,
    **options: Any,
) -> int:
    """Grow an ONNX file, and return the exit code."""
    budget = {name: options.pop(name) for name in _BUDGET}
    way = _way(plan=plan, like=like, params=budget.pop("params"), flops=budget.pop("flops"))
    wishes = _wishes(way[0], fold, budget)
    from onnx_net2net.cli import render_growth

    result = Outcome(model, read=filter(None, [plan, like]), **options)
    _check_plan(emit_plan, result)
    counted = {name: sizes[0] for name, sizes in (result.arguments["sizes"] or {}).items()}
    grown = _grown(result.source, way, wishes, counted)
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


def _way(**ways: Any) -> tuple[str, Any]:
    """Return the one of the options that is given, and its value; UsageError unless one is."""
    given = [name for name, value in ways.items() if value is not None]
    if len(given) == 1:
        return given[0], ways[given[0]]
    problem = "nothing to grow"
    if given:
        said = {"plan": "a plan", "like": "a larger model"}
        first, second = (said.get(name, "a budget") for name in given[:2])
        same = "two budgets" if first == second else f"{first} and {second}"
        problem = f"{same} exclude each other"
    raise UsageError(problem, "give one of --plan, --like, --params and --flops, as in --params 2x")


def _wishes(way: str, fold: bool, options: Mapping[str, Any]) -> Wishes:
    """Return how to spend a budget; UsageError for an option that does not go with ``way``."""
    given = {name: value for name, value in options.items() if value not in (None, ())}
    known = {"plan": (), "like": ("seed",)}.get(way, _BUDGET)
    for name in sorted(given.keys() - set(known)):
        option = "--" + name.replace("_", "-")
        remedy = "the plan has it all" if way == "plan" else "the larger model has it all"
        raise UsageError(f"{option} goes with --params and --flops only", remedy)
    from onnx_net2net.plan.grow import Wishes

    return Wishes(**given, fold=fold)


def _grown(source: Model, way: tuple[str, Any], wishes: Wishes, sizes: Mapping[str, int]) -> Grown:
    from onnx_net2net.model.model import load_shape
    from onnx_net2net.plan.grow import by_budget, by_plan, by_shape
    from onnx_net2net.plan.plans import read

    name, value = way
    if name == "plan":
        steps = read(value)
        return by_plan(source, replace(steps, fold=steps.fold or wishes.fold), sizes)
    if name == "like":
        return by_shape(source, load_shape(value), sizes, seed=wishes.seed, fold=wishes.fold)
    return by_budget(source, "flops" if name == "flops" else "parameters", value, wishes, sizes)


def _count(grown: Grown, draft: Path) -> None:
    """Raise Refused unless the numbers that are told are those of the file."""
    from onnx_net2net.plan.costs import costs

    counted = costs(load(draft), grown.after.sizes)
    if counted != grown.after:
        reason = f"the written file costs {counted}, which is not {grown.after}"
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
