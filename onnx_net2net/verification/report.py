"""The verdict of a comparison, as data: printed by the command line, read by programs.

>>> report = verify("a.onnx", "b.onnx")
>>> report.verdict
'equivalent'
>>> json.dumps(report.as_dict()); Path("report.xml").write_text(report.junit())
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnx_net2net.verification import formats
from onnx_net2net.verification.comparison import Difference
from onnx_net2net.verification.interface import Matched
from onnx_net2net.verification.trial_files import save_trials


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

    ``model`` is ``a`` or ``b``. That is no difference between the networks. ``passes`` are those of
    the optimiser without which most of it is gone, where that is known.
    """

    model: str
    output: str
    problem: str
    passes: tuple[str, ...] = ()


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
    ``casts``, ``mapped`` and ``by_position`` say what was compared though type or name differ.
    ``noise_sources`` says which re-runs measured the rounding noise; a ``sample`` measures it once.
    ``inside`` are tensors of one name in both models, where these were run in segments: they show
    where the models part, and decide nothing. ``required`` are the requirements that decided in
    place of rounding noise. ``feeds`` and ``expected`` are the inputs of each trial and what the
    first model, or the file that stands for it, gave; they are not part of :meth:`as_dict`.
    """

    outputs: list[OutputReport] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    casts: list[str] = field(default_factory=list)
    by_position: list[str] = field(default_factory=list)
    mapped: list[str] = field(default_factory=list)
    optimizer_faults: list[OptimizerFault] = field(default_factory=list)
    provider: str = ""
    precision: str | None = None
    noise_sources: list[str] = field(default_factory=list)
    inside: list[OutputReport] = field(default_factory=list)
    sample: bool = False
    required: list[str] = field(default_factory=list)
    onnxruntime: str = ""
    seconds: float = 0.0
    feeds: list[dict[str, np.ndarray]] = field(default_factory=list, repr=False)
    expected: list[dict[str, np.ndarray]] = field(default_factory=list, repr=False)

    @property
    def equivalent(self) -> bool:
        """Both models compute the same, as far as these trials can tell."""
        compared = bool(self.trials) and bool(self.outputs)
        return compared and not self.problems and all(self.outputs)

    def __bool__(self) -> bool:
        return self.equivalent

    def __getitem__(self, output: str) -> OutputReport:
        """Return what is known of one output. Raises KeyError for a name that none has."""
        return {one.name: one for one in self.outputs}[output]

    @property
    def verdict(self) -> str:
        """One line: equivalent or not, and why."""
        if not self.equivalent:
            bad = [f"{output.name}: {output.problem}" for output in self.outputs if not output]
            first = (self.problems or bad or ["nothing was compared"])[0]
            seen = " in a sample, with noise that was measured once" if self.sample else ""
            return f"not equivalent{seen}: {first}"
        how = ["by position"] * bool(self.by_position) + ["as mapped"] * bool(self.mapped)
        how += ["after a cast"] * bool(self.casts)
        verdict = f"equivalent, compared {' and '.join(how)}" if how else "equivalent"
        if self.required:
            verdict = f"equivalent as far as is required: {', '.join(self.required)}"
        if self.optimizer_faults:
            models = " and ".join(sorted({fault.model for fault in self.optimizer_faults}))
            passes = sorted({name for fault in self.optimizer_faults for name in fault.passes})
            why = f" ({', '.join(passes)})" if passes else ""
            return f"{verdict}, but onnxruntime's optimiser{why} changes what {models} computes"
        return f"{verdict}, as far as a sample shows" if self.sample else verdict

    def take(self, interface: Matched) -> None:
        """Take over what is to be said of the interfaces of the models."""
        self.problems, self.warnings = list(interface.problems), list(interface.warnings)
        self.casts, self.mapped = list(interface.casts), list(interface.mapped)
        self.by_position = list(interface.by_position)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON-serialisable values; infinity and NaN become strings."""
        arrays = ("feeds", "expected")
        names = [one.name for one in dataclasses.fields(self) if one.name not in arrays]
        plain: dict[str, Any] = {name: _plain(getattr(self, name)) for name in names}
        plain["outputs"] = [output.as_dict() for output in self.outputs]
        plain["inside"] = [tensor.as_dict() for tensor in self.inside]
        return {"equivalent": self.equivalent, "verdict": self.verdict, **plain}

    def save_inputs(self, path: str | Path, *, force: bool = False) -> None:
        """Write the inputs of all trials to an ``.npz`` file, to be given as ``inputs`` again."""
        save_trials(path, self.feeds, force=force)

    def save_outputs(self, path: str | Path, *, force: bool = False) -> None:
        """Write what the first model computed to an ``.npz`` file, to be compared ``against``."""
        save_trials(path, self.expected, force=force)

    def junit(self) -> str:
        """Return JUnit XML: a case for each output and trial, and one for the models as a whole."""
        return formats.junit(self)

    def markdown(self) -> str:
        """Return a summary in Markdown: a table of the outputs, and what is wrong."""
        return formats.markdown(self)

    def github(self) -> str:
        """Return annotations for a workflow on GitHub, a line for each problem and warning."""
        return formats.github(self)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
