"""What several steps of growth did, and what the model costs before and after, as text.

print(growth_text(grown))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from onnx_net2net.cli.render import described
from onnx_net2net.cli.tables import empty_table, text
from onnx_net2net.cli.terminal import one_line
from onnx_net2net.plan.costs import Costs
from onnx_net2net.plan.grow import Grown, Spending
from onnx_net2net.plan.like import ShapeDifference
from onnx_net2net.widening.request import Change
from onnx_net2net.widening.scaling import EIGHT, WIDE, Scaling

_SHOWN = 4  # names in a sentence


def growth_text(grown: Grown) -> str:
    """Say what grew, what it costs, and of a budget how it was spent."""
    lines = [_changes(grown)] if grown.difference is None else [*_difference(grown.difference)]
    lines += ["", cost_text(grown.before, grown.after)]
    if grown.spending is not None:
        lines += ["", *_reasons(grown.spending, grown)]
    return "\n".join(lines)


def _difference(difference: ShapeDifference) -> Iterator[str]:
    """Yield a table of widths and one of lengths, as far as they differ."""
    if widths := [width for width in difference.widths if width.grows]:
        table = empty_table(("dimension", "left"), ("width", "right"), ("becomes", "right"))
        for width in widths:
            table.add_row(width.dimension.name, f"{width.dimension.width}", f"{width.new}")
        yield text(table)
    if difference.lengths:
        columns = ("series", "left"), ("length", "right"), ("becomes", "right"), ("copies", "fold")
        table = empty_table(*columns)
        for length in difference.lengths:
            copies = ", ".join(f"{count} x {name}" for name, count in length.copies.items())
            table.add_row(length.series, f"{length.old}", f"{length.new}", copies)
        yield ("\n" if widths else "") + text(table)


def _changes(grown: Grown) -> str:
    table = empty_table(("step", "left"), ("where", "left"), ("what", "fold"))
    for change in grown.model.changes:
        operation = "widen" if isinstance(change, Change) else "deepen"
        table.add_row(operation, *described(asdict(change)))
    return text(table)


def cost_text(before: Costs, after: Costs) -> str:
    """Return the table of costs, and what they are of."""
    table = empty_table(
        ("costs", "left"), ("before", "right"), ("after", "right"), ("factor", "right")
    )
    for name, unit in (("parameters", ""), ("flops", "FLOPs"), ("activations", "")):
        old, new = getattr(before, name), getattr(after, name)
        factor = f"{new / old:.2f}" if old else ""
        table.add_row(unit or name, f"{old:,}", f"{new:,}", factor)
    old, new = before.bytes, after.bytes
    factor = f"{new / old:.2f}" if old else ""
    table.add_row("their bytes", f"{old:,}", f"{new:,}", factor)
    lines = [text(table), ", ".join(_circumstances(after))]
    if after.uncounted:
        known = ", ".join(f"{count} {operator}" for operator, count in after.uncounted.items())
        lines.append(f"not counted, for they or their shapes are not known: {known}")
    return "\n".join(lines)


def _circumstances(costs: Costs) -> Iterator[str]:
    yield "FLOPs are two for each multiply-add"
    if costs.sizes:
        sizes = ", ".join(f"{name}={size}" for name, size in costs.sizes.items())
        yield one_line(f"counted at {sizes}")


def _reasons(spent: Spending, grown: Grown) -> Iterator[str]:
    """Yield what was asked for, what was chosen, what stands still and why."""
    goal, choice = spent.goal, spent.choice
    what = "FLOPs" if goal.measure == "flops" else goal.measure
    reached = getattr(grown.after, goal.measure)
    yield (
        f"asked for {goal.asked}, {goal.target:,} {what}: {reached:,} are {goal.off(reached):+.2%}"
    )
    if choice.widths:
        of = f"{len(choice.widths)} of {len(spent.scaling.dimensions)} widths"
        yield f"{of} grow by one factor, {choice.factor:.3f}{_rounded(spent.scaling)}"
        if spent.scaling.tied:
            yield "tied, as one number of their class: blocks of a series, and heads with their sum"
    if choice.copies:
        count = sum(choice.copies.values())
        copies = "1 copy" if count == 1 else f"{count} copies"
        yield f"{copies}, spread over {spent.blocks} blocks"
    if not spent.scaling.steps:
        yield "no width can grow"
    if not spent.blocks:
        yield "no block can be copied" + (" besides those kept" if spent.kept else "")
    still = [d.name for d in spent.scaling.dimensions if d not in choice.widths and choice.widths]
    if still:
        yield f"no whole step at this factor: {_named(still)}"
    if spent.scaling.held and choice.widths:
        names = _named([dimension.name for dimension in spent.scaling.held])
        yield f"not grown, for each is merged with another that is: {names}"
    if spent.lost:
        yield f"not copied, for widening leaves them without their like: {_named(spent.lost)}"
    if spent.kept:
        yield f"kept: {_named(spent.kept)}"


def _rounded(scaling: Scaling) -> str:
    """Say what widths are multiples of, where it was not asked for as well."""
    if scaling.multiple_of is not None:
        return f", to multiples of {scaling.multiple_of}" if scaling.multiple_of > 1 else ""
    wide = any(dimension.width >= WIDE for dimension in scaling.dimensions)
    return f", to multiples of {EIGHT} from {WIDE} on" if wide else ""


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def values(grown: Grown) -> dict[str, Any]:
    """Return the same as plain values."""
    plain: dict[str, Any] = {
        "changes": [asdict(change) for change in grown.model.changes],
        "costs": {"before": asdict(grown.before), "after": asdict(grown.after)},
    }
    if grown.difference is not None:
        plain["widths"] = {
            width.dimension.name: [width.dimension.width, width.new]
            for width in grown.difference.widths
        }
        plain["lengths"] = {
            length.series: [length.old, length.new] for length in grown.difference.lengths
        }
    if grown.spending is not None:
        spent = grown.spending
        plain["budget"] = {
            **asdict(spent.goal),
            "reached": getattr(grown.after, spent.goal.measure),
            "factor": spent.choice.factor,
            "copies": dict(spent.choice.copies),
            "held": [dimension.name for dimension in spent.scaling.held],
            "kept": spent.kept,
        }
    return plain
