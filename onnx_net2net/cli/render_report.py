"""The verdict on two models as text: a table of the outputs, what else is to be known, one line.

print(report_text(verify(a, b)))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from onnx_net2net.cli.tables import empty_table, text
from onnx_net2net.cli.terminal import one_line
from onnx_net2net.verification.judgement import REQUIRED
from onnx_net2net.verification.report import Report

if TYPE_CHECKING:
    from onnx_net2net.plan.invariant import LayersReport

_SHOWN = 5  # tensors behind the first at which two models part; the rest follows


def report_table(report: Report, *, narrow: bool = False) -> Table:
    """Tabulate the outputs, one row for each; what is ``narrow`` has every verdict, too."""
    details = [("relative", "right"), ("top-1", "right")]
    table = empty_table(
        ("output", "name"),
        *([] if narrow else [("type", "fold")]),
        ("largest difference", "right"),
        ("allowed", "right"),
        *([] if narrow else details),
        ("verdict", "left"),
    )
    for output in report.outputs:
        top1 = "" if output.top1 is None else f"{output.top1:.1%}"
        limit = f"{output.tolerance:.2g} ({output.rule.removeprefix('rounding ')})"
        table.add_row(
            output.name,
            *([] if narrow else [f"{output.dtype} ({', '.join(map(str, output.shape))})"]),
            f"{output.max_abs:.2g}",
            "as required" if output.rule == REQUIRED else limit,
            *([] if narrow else [f"{output.max_rel:.2g}", top1]),
            Text("equivalent" if output else "differs", style="green" if output else "bold red"),
        )
    return table


def statistics_table(report: Report, *, narrow: bool = False) -> Table:
    """Tabulate how large the differences are, the worst trial of each output."""
    columns = {
        "mean": ("mean", ".2g"),
        "median": ("median", ".2g"),
        "p90": ("90 %", ".2g"),
        "p99": ("99 %", ".2g"),
        "cosine": ("cosine", ".8g"),
        "sqnr": ("SQNR", ".1f"),
        "psnr": ("PSNR", ".1f"),
    }
    for measure in ("median", "psnr") if narrow else ():
        del columns[measure]
    table = empty_table(("output", "name"), *((title, "right") for title, _ in columns.values()))
    for output in report.outputs:
        values = [getattr(output.statistics, measure, None) for measure in columns]
        formats = [how for _, how in columns.values()]
        cells = ["-" if v is None else f"{v:{how}}" for v, how in zip(values, formats, strict=True)]
        table.add_row(output.name, *cells)
    return table


def report_text(report: Report, place: str | None = None) -> str:
    """Show the table, what else is to be known, and the verdict in the last line.

    ``place`` says where the models part, if it was looked for.
    """
    problems = report.problems + [f"{o.name}: {o.problem}" for o in report.outputs if o.problem]
    lines = [f"also: {problem}" for problem in problems[1:]]  # the first is in the verdict
    lines += [f"note: {note}" for note in (*report.by_position, *report.mapped, *report.casts)]
    lines += [f"warning: {warning}" for warning in report.warnings]
    lines += [f"warning: {o.name}: {w}" for o in report.outputs for w in o.warnings]
    lines += [
        f"onnxruntime's optimiser: model {fault.model}, {fault.output}: {fault.problem}"
        + (f"; not without {', '.join(fault.passes)}" if fault.passes else "")
        for fault in report.optimizer_faults
    ]
    lines += [] if place is None else [place]
    lines.append(f"{ran(report)}, {report.seconds:.1f} s")
    tables = []
    if report.outputs:
        tables += [text(report_table(report), report_table(report, narrow=True)), ""]
    if any(output.statistics for output in report.outputs):
        tables += [text(statistics_table(report), statistics_table(report, narrow=True)), ""]
    return "\n".join([*tables, *map(one_line, (*lines, report.verdict))])


def ran(report: Report) -> str:
    """Say how the models were run."""
    count = len(report.trials)
    where = report.provider.removesuffix("ExecutionProvider") or "no provider"
    trials = f"{count} trial{'' if count == 1 else 's'}"
    precision = f" in {report.precision}" if report.precision else ""
    trials += ", a sample only," if report.sample else ""
    return f"{trials} on {where}{precision}, onnxruntime {report.onnxruntime}"


def layers_text(report: LayersReport) -> str:
    """Say where a grown model parts from its parent, or that it does nowhere."""
    count, grown = len(report.layers), sum(layer.grows for layer in report.layers)
    if report.first is None:
        if not count:
            return "no tensor of the two models could be compared"
        new = len(report.inserted)
        skipped = f"; {new} inserted ones have no original" if new else ""
        if report.unjudged:
            skipped += f"; {len(report.unjudged)} have sizes that were not analysed: not judged"
        if report.vacuous:
            return f"no tensor that grew could be compared: {', '.join(report.vacuous)}{skipped}"
        compared = f"{count} tensors ({grown} of them grown)"
        return f"every unit holds what it is a copy of, in {compared}{skipped}"
    bad = [layer for layer in report.layers if layer.problem]
    table = empty_table(
        ("node", "left"),
        ("tensor", "left"),
        ("largest difference", "right"),
        ("allowed", "right"),
        ("problem", "fold"),
    )
    for layer in bad[:_SHOWN]:
        values = (f"{layer.max_abs:.2g}", f"{layer.tolerance:.2g}", layer.problem or "")
        table.add_row(layer.node, layer.tensor, *values)
    first = f"the models part at node '{report.first.node}', tensor '{report.first.tensor}'"
    more = f"\nand {len(bad) - _SHOWN} tensors behind these" if len(bad) > _SHOWN else ""
    return f"{text(table)}{more}\n\n{one_line(first)} ({len(bad)} of {count} tensors differ)"


def verified(report: Report) -> str:
    """Say the verdict on a grown model in one line."""
    worst = max(report.outputs, key=lambda output: output.used)
    return one_line(
        f"verified: equivalent; {worst.name} differs by {worst.max_abs:.2g} at most, "
        f"{worst.tolerance:.2g} is rounding noise ({ran(report)})"
    )


def perturbed(report: Report) -> str:
    """Say how far a model grown with noise is from the original, in one line."""
    worst = max(report.outputs, key=lambda output: output.max_rel)
    return one_line(
        f"not exact, as asked by --split noise: {worst.name} differs by {worst.max_abs:.2g}, "
        f"{worst.max_rel:.2%} of its largest element ({ran(report)})"
    )
