"""The verdict of a comparison, as data: printed by the command line, read by programs.

>>> report = verify("a.onnx", "b.onnx")
>>> report.verdict
'equivalent'
>>> json.dumps(report.as_dict()); Path("report.xml").write_text(report.junit())
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from onnx_net2net.verification.comparison import Difference
from onnx_net2net.verification.interface import Matched


@dataclass(frozen=True)
class Trial:
    """One set of inputs that both models were run with.

    ``label`` is made for people: ``seed 0, batch=1``. ``seed`` is None for the user's own data.
    """

    label: str
    seed: int | None = None
    sizes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class OptimizerFault:
    """onnxruntime's optimised session of one model disagrees with its own unoptimised one.

    ``model`` is ``a`` or ``b``. That is no difference between the networks.
    """

    model: str
    output: str
    problem: str


@dataclass
class OutputReport(Difference):
    """One output over all trials: the largest of their differences.

    ``noise`` is the model's own rounding noise, ``signal`` how much the output changes with the
    input.
    """

    name: str
    dtype: str = ""
    shape: tuple[int, ...] = ()
    noise: float = 0.0
    signal: float = 0.0
    trials: list[str] = field(default_factory=list)  # the labels of those that gave it
    differences: list[Difference] = field(default_factory=list)  # one per trial

    @property
    def equivalent(self) -> bool:
        """No problem was found."""
        return self.problem is None

    def __bool__(self) -> bool:
        return self.equivalent

    def add(self, difference: Difference, trial: Trial) -> None:
        """Take one trial's difference into account."""
        self.trials.append(trial.label)
        self.differences.append(difference)
        if difference.max_abs >= self.max_abs and self.problem is None:
            self.tolerance, self.rule = difference.tolerance, difference.rule
        self.max_abs = max(self.max_abs, difference.max_abs)
        self.max_rel = max(self.max_rel, difference.max_rel)
        self.used = max(self.used, difference.used)
        scores = [d.top1 for d in self.differences if d.top1 is not None]
        self.top1 = sum(scores) / len(scores) if scores else None
        if difference.problem is not None and self.problem is None:
            self.problem = f"{difference.problem} ({trial.label})"
            self.tolerance, self.rule = difference.tolerance, difference.rule
        for warning in difference.warnings:
            if warning not in self.warnings:
                self.warnings.append(warning)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values only."""
        plain = _plain(dataclasses.asdict(self))
        return {"name": self.name, "equivalent": self.equivalent, **plain}


@dataclass
class Report:
    """What :func:`verify` found. Truthy where the models are equivalent.

    ``problems`` are those of the models as a whole (inputs, names and order of outputs, a run that
    failed); those of one output stand with it. ``provider`` is what really ran, as onnxruntime
    calls it; ``precision`` is set where both models had to be computed in another type.
    ``casts`` and ``by_position`` say what was compared though its type or its name differs.
    ``noise_sources`` says which re-runs measured the rounding noise; a ``sample`` measures it once.
    ``inside`` are tensors of one name in both models, where these were run in segments: they show
    where the models part, and decide nothing.
    """

    outputs: list[OutputReport] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    casts: list[str] = field(default_factory=list)
    by_position: list[str] = field(default_factory=list)
    optimizer_faults: list[OptimizerFault] = field(default_factory=list)
    provider: str = ""
    precision: str | None = None
    noise_sources: list[str] = field(default_factory=list)
    inside: list[OutputReport] = field(default_factory=list)
    sample: bool = False
    onnxruntime: str = ""
    seconds: float = 0.0

    @property
    def equivalent(self) -> bool:
        """Both models compute the same, as far as these trials can tell."""
        compared = bool(self.trials) and bool(self.outputs)
        return compared and not self.problems and all(self.outputs)

    def __bool__(self) -> bool:
        return self.equivalent

    @property
    def verdict(self) -> str:
        """One line: equivalent or not, and why."""
        if not self.equivalent:
            bad = [f"{output.name}: {output.problem}" for output in self.outputs if not output]
            first = (self.problems or bad or ["nothing was compared"])[0]
            seen = " in a sample, with noise that was measured once" if self.sample else ""
            return f"not equivalent{seen}: {first}"
        if self.optimizer_faults:
            models = " and ".join(sorted({fault.model for fault in self.optimizer_faults}))
            return f"equivalent, but onnxruntime's optimiser changes what {models} computes"
        how = ["by position"] * bool(self.by_position) + ["after a cast"] * bool(self.casts)
        verdict = f"equivalent, compared {' and '.join(how)}" if how else "equivalent"
        return f"{verdict}, as far as a sample shows" if self.sample else verdict

    def take(self, interface: Matched) -> None:
        """Take over what is to be said of the interfaces of the models."""
        self.problems, self.warnings = list(interface.problems), list(interface.warnings)
        self.casts, self.by_position = list(interface.casts), list(interface.by_position)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON-serialisable values; infinity and NaN become strings."""
        plain = _plain(dataclasses.asdict(self))
        plain["outputs"] = [output.as_dict() for output in self.outputs]
        plain["inside"] = [tensor.as_dict() for tensor in self.inside]
        return {"equivalent": self.equivalent, "verdict": self.verdict, **plain}

    def junit(self) -> str:
        """Return JUnit XML: a case for each output and trial, and one for the models as a whole."""
        name = f"onnx-net2net verify{' (a sample)' if self.sample else ''}"
        suite = ElementTree.Element("testsuite", name=name)
        failures = int(_case(suite, "model", "interface and runs", self.problems))
        cases = 1
        for output in self.outputs:
            problems = [difference.problem for difference in output.differences]
            per_trial = list(zip(problems, output.trials, strict=True))
            for problem, trial in per_trial or [(output.problem, "not compared")]:
                failures += _case(suite, output.name, trial, [problem] if problem else [])
            cases += max(1, len(per_trial))
        suite.set("tests", str(cases))
        suite.set("failures", str(failures))
        suite.set("time", f"{self.seconds:.3f}")
        ElementTree.indent(suite)
        return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


def _case(suite: ElementTree.Element, classname: str, name: str, problems: Sequence[str]) -> bool:
    """Append one test case; return whether it failed."""
    case = ElementTree.SubElement(suite, "testcase", classname=_text(classname), name=_text(name))
    if problems:
        failure = ElementTree.SubElement(case, "failure", message=_text(problems[0]))
        failure.text = _text("\n".join(problems))
    return bool(problems)


def _text(value: str) -> str:
    """Replace control characters: XML 1.0 has none, and names in a model are arbitrary."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
