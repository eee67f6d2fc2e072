"""A report in the languages of those who run tests: JUnit XML, Markdown, GitHub's annotations.

>>> Path("report.xml").writeprintable(report.junit())
>>> print(report.github())
::error title=logits differs::40 of 4000 elements differ by more than rounding noise, worst at ...

Names in a model are arbitrary: none of them ends a table's cell, a line or an element.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from onnx_net2net.verification.report import Report

__all__ = ["github", "junit", "markdown", "printable"]

_MEASURES = {"max": ".2g", "mean": ".2g", "p99": ".2g", "cosine": ".8g", "sqnr": ".1f"}


def junit(report: Report) -> str:
    """Return JUnit XML: a case for each output and trial, and one for the models as a whole."""
    name = f"onnx-net2net verify{' (a sample)' if report.sample else ''}"
    suite = ElementTree.Element("testsuite", name=name)
    failures = int(_case(suite, "model", "interface and runs", report.problems))
    cases = 1
    for output in report.outputs:
        problems = [difference.problem for difference in output.differences]
        per_trial = list(zip(problems, output.trials, strict=True))
        if not per_trial or (output.problem and not any(problems)):  # of all trials together
            per_trial.append((output.problem, "all trials"))
        for problem, trial in per_trial:
            failures += _case(suite, output.name, trial, [problem] if problem else [])
        cases += len(per_trial)
    suite.set("tests", str(cases))
    suite.set("failures", str(failures))
    suite.set("time", f"{report.seconds:.3f}")
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


def _case(suite: ElementTree.Element, classname: str, name: str, problems: Sequence[str]) -> bool:
    """Append one test case; return whether it failed."""
    case = ElementTree.SubElement(
        suite, "testcase", classname=printable(classname), name=printable(name)
    )
    if problems:
        failure = ElementTree.SubElement(case, "failure", message=printable(problems[0]))
        failure.text = printable("\n".join(problems))
    return bool(problems)


def printable(value: str) -> str:
    """Replace control characters: XML 1.0 has none, and terminals obey them."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in value)


def markdown(report: Report) -> str:
    """Return a summary: the verdict, a table of the outputs, what is wrong and what is doubtful."""
    sign = "\u2705" if report else "\u274c"
    lines = [f"### {sign} {_cell(report.verdict)}", ""]
    if report.outputs:
        titles = ("output", "verdict", *_MEASURES)
        lines += [_row(titles), _row(["---"] * len(titles))]
    for output in report.outputs:
        values = [getattr(output.statistics, measure, None) for measure in _MEASURES]
        shown = zip(values, _MEASURES.values(), strict=True)
        cells = ["-" if value is None else f"{value:{how}}" for value, how in shown]
        lines.append(_row([output.name, "equivalent" if output else "**differs**", *cells]))
    notes = [(kind, text) for kind, _, text in _remarks(report)]
    lines += ["", *(f"- {kind}: {_cell(text)}" for kind, text in notes)] if notes else []
    trials = f"{len(report.trials)} trials, {report.provider}, onnxruntime {report.onnxruntime}"
    return "\n".join([*lines, "", trials, ""])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    """Escape what would end a cell or begin markup, but for the marks of this module."""
    if text in ("---", "**differs**"):
        return text
    escaped = "".join(f"\\{c}" if c in "\\`*_{}[]<>|#" else c for c in printable(text))
    return " ".join(escaped.split())


def github(report: Report) -> str:
    """Return annotations, one a line, each line ended."""
    return "".join(
        f"::{kind} title={_escaped(title, ':,')}::{_escaped(text)}\n"
        for kind, title, text in _remarks(report)
    )


def _escaped(text: str, more: str = "") -> str:
    """Escape what ends a line of a workflow's command, or one of its properties."""
    return "".join(f"%{ord(c):02X}" if c in "%\r\n" + more else c for c in text)


def _remarks(report: Report) -> list[tuple[str, str, str]]:
    """Return what is to be said of a report: how bad it is, whose, and what."""
    remarks = [("error", "models differ", problem) for problem in report.problems]
    for output in report.outputs:
        if output.problem is not None:
            remarks.append(("error", f"{output.name} differs", output.problem))
        remarks += [("warning", output.name, warning) for warning in output.warnings]
    remarks += [("warning", "verify", warning) for warning in report.warnings]
    remarks += [
        ("warning", f"optimiser of model {fault.model}", f"{fault.output}: {fault.problem}")
        for fault in report.optimizer_faults
    ]
    if not report and not any(kind == "error" for kind, _, _ in remarks):
        remarks.append(("error", "models differ", report.verdict))
    return remarks
