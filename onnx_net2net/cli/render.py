"""Results as text for people and as plain values for programs. Nothing here prints.

print(dimension_text(dimensions, model))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from onnx_net2net.cli.tables import empty_table, text
from onnx_net2net.cli.terminal import one_line
from onnx_net2net.model.model import Model
from onnx_net2net.plan.costs import elements, parameters
from onnx_net2net.widening.dimensions import Dimension, growable
from onnx_net2net.widening.request import Change

if TYPE_CHECKING:
    from onnx_net2net.deepening.segments import Block
    from onnx_net2net.plan.diff import Diff

_SHOWN = 5  # reasons; the rest follows


# Dimensions ----------------------------------------------------------------------------------


def shown(dimensions: Iterable[Dimension]) -> list[Dimension]:
    """Leave out what nobody writes and what cannot grow: kernel windows, tables of shapes."""
    return [d for d in dimensions if d.writers or d.grows]


def dimension_text(dimensions: Sequence[Dimension], model: Model) -> str:
    """List width, growth, share of the weights and, if there is room, who writes and reads."""
    return text(
        _dimension_table(dimensions, model, nodes=True),
        _dimension_table(dimensions, model, nodes=False),
    )


def _dimension_table(dimensions: Sequence[Dimension], model: Model, *, nodes: bool) -> Table:
    reasons = any(d.reason for d in dimensions)
    table = empty_table(
        ("dimension", "left"),
        ("width", "right"),
        ("grows", "left"),
        ("weights", "right"),
        *([("written by", "left"), ("read by", "left")] if nodes else []),
        *([("why", "fold")] if reasons else []),
    )
    total = parameters(model)
    for d in dimensions:
        why = "; ".join(filter(None, (d.reason, d.remedy)))
        table.add_row(
            d.name,
            str(d.width),
            Text(
                f"multiples of {d.width}" if d.step > 1 else d.growth,
                style="dim" if not d.grows else "",
            ),
            f"{_share(d, model, total):.1%}",
            *([_short(d.writers), _short(d.readers)] if nodes else []),
            *([why] if reasons else []),
        )
    return table


def _short(names: Sequence[str]) -> str:
    if len(names) <= 1:
        return "".join(names) or "-"
    return f"{names[0]} +{len(names) - 1}"


def _share(dimension: Dimension, model: Model, total: int) -> float:
    return elements({name for name, _ in dimension.sites}, model) / max(1, total)


def growable_share(dimensions: Iterable[Dimension], model: Model) -> float:
    """Return the share of weight elements on at least one dimension that can grow."""
    reached = {name for d in dimensions if d.grows for name, _ in d.sites}
    return elements(reached, model) / max(1, parameters(model))


def obstacles(dimensions: Sequence[Dimension]) -> list[dict[str, Any]]:
    """Return why nothing can grow, the commonest reason first; empty where something can."""
    if growable(dimensions):
        return []
    reasons: dict[tuple[str, str | None], list[Dimension]] = {}
    for d in [d for d in dimensions if d.writers] or dimensions:
        reasons.setdefault((d.atom.pins[0].reason, d.remedy), []).append(d)
    return [
        {
            "reason": reason,
            "remedy": remedy,
            "node": stopped[0].atom.pins[0].node,
            "dimensions": len(stopped),
        }
        for (reason, remedy), stopped in sorted(reasons.items(), key=lambda item: -len(item[1]))
    ]


def summary(dimensions: Sequence[Dimension], model: Model, hidden: int) -> str:
    """Return the last lines under the table of dimensions."""
    share, total = growable_share(dimensions, model), parameters(model)
    lines = [f"{share:.1%} of {total:,} weight elements lie on dimensions that can grow"]
    if not dimensions:
        lines.append("nothing can grow: no weights lie on an axis of a tensor")
    for why in obstacles(dimensions)[:_SHOWN]:
        at = f" ({why['node']})" if why["node"] else ""
        remedy = f"; {why['remedy']}" if why["remedy"] else ""
        lines.append(f"nothing can grow: {why['dimensions']} x {why['reason']}{at}{remedy}")
    if hidden:
        plural = "" if hidden == 1 else "s"
        lines.append(f"{hidden} fixed dimension{plural} that no node writes: shown with --all")
    return "\n".join(lines)


def dimension_values(dimension: Dimension, model: Model) -> dict[str, Any]:
    """Return a dimension as plain values."""
    names = ("name", "width", "growth", "reason", "remedy", "nodes", "writers", "readers")
    return {
        **{name: getattr(dimension, name) for name in names},
        "sites": [list(site) for site in dimension.sites],
        "elements": dimension.elements,
        "share": round(_share(dimension, model, parameters(model)), 6),
    }


# Growth --------------------------------------------------------------------------------------


def change_table(
    changes: Sequence[Change], dimensions: Sequence[Dimension], before: Model, after: Model
) -> Table:
    """Tabulate what grows, and the weight elements that lie on it."""
    table = empty_table(
        ("dimension", "left"),
        ("width", "right"),
        ("becomes", "right"),
        ("weights", "right"),
        ("become", "right"),
    )
    uses = {d.name: d.uses for d in dimensions}
    for change in changes:
        on = uses.get(change.dimension, {})
        table.add_row(
            change.dimension,
            str(change.old),
            str(change.new),
            f"{elements(set(on.values()), before):,}",
            f"{elements(_grown(on, before, after), after):,}",
        )
    table.add_row(
        "whole model", "", "", f"{parameters(before):,}", f"{parameters(after):,}", style="bold"
    )
    return table


def _grown(uses: Mapping[str, str], before: Model, after: Model) -> set[str]:
    """Return what a dimension's weights became: uses got copies, or the initializer grew."""
    old, new = before.weights, after.weights
    copies = uses.keys() & new.keys()
    apart = {uses[use] for use in copies}
    rest = {uses[use] for use in uses.keys() - copies} & new.keys()
    return copies | {n for n in rest if n not in apart or new[n].shape != old[n].shape}


def change_values(changes: Sequence[Change], before: Model, after: Model) -> dict[str, Any]:
    """Return what grew, as plain values."""
    return {
        "changes": [asdict(change) for change in changes],
        "parameters": {"before": parameters(before), "after": parameters(after)},
    }


# Other results -----------------------------------------------------------------------------


def written(paths: Sequence[Path]) -> str:
    """Name files, or a folder of files, and what they weigh together.

    >>> written([Path("model.onnx"), Path("model.onnx.0123456789abcdef.data")])
    'model.onnx and model.onnx.0123456789abcdef.data (54 kB)'
    """
    files = [
        file
        for path in paths
        for file in ([path] if path.is_file() else filter(Path.is_file, path.iterdir()))
    ]
    count = float(sum(file.stat().st_size for file in files))
    unit = "bytes"
    for larger in ("kB", "MB", "GB"):
        if count < 1000:
            break
        count, unit = count / 1000, larger
    digits = 1 if count < 10 and unit != "bytes" else 0
    names = [*map(str, paths)]
    if len(names) > 3:  # a model, and its data in shards
        names[1:] = [f"{names[1]} to {paths[-1].name}"]
    return f"{' and '.join(names)} ({count:.{digits}f} {unit})"


def insertion_text(changes: Sequence[Any], source: Model, deeper: Model) -> str:
    """Show what deepening inserted, and how many parameters there were and are."""
    table = empty_table(("behind", "left"), ("inserted", "fold"), ("new parameters", "right"))
    for change in changes:
        count = sum(deeper.weights[name].size for name in change.parameters)
        table.add_row(*described(asdict(change)), f"{count:,}")
    total = f"{source.parameters:,} -> {deeper.parameters:,} parameters"
    return f"{text(table)}\n{total}"


def described(change: Mapping[str, Any]) -> tuple[str, str]:
    """Say where a change was made, or behind what, and what it is."""
    if "dimension" in change:
        return change["dimension"], f"{change['old']} -> {change['new']}"
    if "block" in change:
        where, what, note = change["block"], f"{change['copies']} x the block", change["exact"]
    else:
        where, what, note = change["after"], change["init"], ""
        if not change["training"]:
            note = "the identity in inference only: no calibration data"
    return where, f"{what}{note and f' ({note})'}"


def block_values(block: Block, model: Model) -> dict[str, Any]:
    """Return a block as plain values."""
    return {
        "name": block.name,
        "series": block.series,
        "exact": block.exact,
        "reason": block.reason,
        "input": block.input,
        "output": block.output,
        "nodes": block.nodes,
        "parameters": sum(model.weights[name].size for name in block.parameters),
    }


def block_text(blocks: Sequence[Block], model: Model) -> str:
    """Tabulate the blocks."""
    if not blocks:
        return "no blocks: nothing is repeated, and no sum leads past layers (see deepen --after)"
    table = empty_table(
        ("block", "left"), ("nodes", "right"), ("parameters", "right"), ("a copy is", "fold")
    )
    for block in blocks:
        count = sum(model.weights[name].size for name in block.parameters)
        copy = "exact" if block.exact else f"not exact: {block.reason}"
        if block.exact and block.reason:
            copy = block.reason
        table.add_row(block.name, str(len(block.nodes)), f"{count:,}", copy)
    return text(table)


def history_text(model: Model) -> str:
    """Tabulate the steps that led to a model, oldest first; name its own digest."""
    if not model.history:
        return "no step is recorded: this program has not grown the model"
    table = empty_table(
        ("step", "left"), ("of sha256", "left"), ("version", "left"), ("what", "fold")
    )
    for step in model.history:
        words = [_change(change) for change in step.get("changes", ())]
        what = ", ".join(words) or f"{step.get('weights', '')} weights"
        cells = (str(step.get("parent"))[:12], str(step.get("version")), what)
        table.add_row(str(step.get("operation")), *cells)
    return f"{text(table)}\nthis model: sha256 {model.sha256()}"


def _change(change: dict[str, Any]) -> str:
    if "dimension" in change:
        return f"{change['dimension']} {change['old']} -> {change['new']}"
    if "block" in change:
        return f"{change['copies']} x {change['block']}"
    return f"{change.get('init')} behind {change.get('after')}"


def diff_text(diff: Diff) -> str:
    """List what sets two models apart, one line for each weight that does."""
    before, after = diff.parameters
    lines = [f"{count:+d} {operator}" for operator, count in diff.operators.items()]
    lines += [f"grown    {n}  {_shape(a)} -> {_shape(b)}" for n, (a, b) in diff.grown.items()]
    lines += [f"changed  {name}" for name in diff.changed]
    lines += [f"added    {name}" for name in diff.added]
    lines += [f"removed  {name}" for name in diff.removed]
    lines.append(f"{len(diff.equal)} weights are equal; {before:,} -> {after:,} parameters")
    return "\n".join(map(one_line, lines))


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
