"""From runs of two models to findings about each output.

>>> first = Runs(base=[{"y": a}], noise=[{"y": np.abs(double - a)}])
>>> second = Runs(base=[{"y": b}])
>>> judge("y", first, second, [Trial("seed 0")], None)[0].equivalent
True
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import onnx

from onnx_net2net.errors import UsageError
from onnx_net2net.model.tensors import nodes
from onnx_net2net.operators import facts
from onnx_net2net.verification.comparison import (
    FACTOR,
    compare,
    distance,
    epsilon,
    is_float,
    larger,
    largest,
    magnitude,
    signal,
    tolerances,
    wide,
)
from onnx_net2net.verification.feeds import Feeds
from onnx_net2net.verification.precision import nudged_feeds
from onnx_net2net.verification.report import OptimizerFault, OutputReport, Report, Trial
from onnx_net2net.verification.trials import Outputs, Planned, RunError

How = Literal["again", "optimised", "up", "down", "double"]
PerOutput = float | Mapping[str, float] | None
Own = tuple[PerOutput, PerOutput]  # the user's rtol and atol, as given
Tolerance = tuple[float | None, float | None]  # rtol, atol; not both None

# The second model may be noisier than the first (a wider one sums more terms), but not without
# limit: a difference must not hide behind noise that it made itself.
NOISIER = 32.0
# Noise in units of eps times the output's size, for a model that cannot be run in other ways.
UNMEASURED = 16.0
# An optimised session this many tolerances away from the unoptimised one computes something else.
OPTIMISER = 10.0
# Tensors this near, in parts of their largest element, are meant to be the same.
ALIKE = 0.1
# Below this many tolerances of change between inputs, a comparison shows little.
BLIND = 10.0

# Of each model: as it is, moved by an ulp up and down, in float64, and optimised.
RUNS = 5

# Both ways, so that a ReLU or a rounding step that hides one of them shows the other.
_MOVES: tuple[How, ...] = ("up", "down")

NOTHING_FINITE = (
    "all {size} elements are NaN or infinite in both models, whatever the input: nothing could be"
    " compared; try other inputs, or look for NaN in the weights"
)

NOTHING_THERE = (
    "all outputs are empty in all trials: nothing could be compared; give --inputs that the network"
    " finds something in"
)


@dataclass
class Runs:
    """What one model gave, a dict of outputs per trial.

    ``base`` is the unoptimised session; ``optimised`` is None if only one session ran. ``noise``
    holds how far re-runs of the same model lie from ``base``, element by element.
    """

    base: list[Outputs]
    optimised: list[Outputs] | None = None
    noise: list[Outputs] = field(default_factory=list)

    def absorb(self, other: Sequence[Outputs]) -> None:
        """Count the distance between ``base`` and a re-run as noise."""
        self.noise = self.noise or [{} for _ in self.base]
        for noise, base, again in zip(self.noise, self.base, other, strict=True):
            for name in base.keys() & again.keys():
                apart = distance(base[name], again[name])
                if apart is not None:
                    noise[name] = larger(noise.get(name, np.zeros(base[name].shape)), apart)

    def of(self, trials: Sequence[int]) -> Runs:
        """Return the runs of some of the trials only."""
        base, optimised, noise = (
            [outputs[i] for i in trials] if outputs else outputs
            for outputs in (self.base, self.optimised, self.noise)
        )
        return Runs(base or [], optimised, noise or [])

    def outputs(self, name: str) -> list[np.ndarray]:
        """Return one output over all trials."""
        return [outputs[name] for outputs in self.base]

    def noise_of(self, name: str, like: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the noise of one output over all trials; zero where it cannot be compared."""
        zeros = [np.zeros(array.shape) for array in like]
        if not self.noise:
            return zeros
        return [larger(z, n.get(name)) for z, n in zip(zeros, self.noise, strict=True)]


def judge(
    name: str,
    a: Runs,
    b: Runs,
    trials: Sequence[Trial],
    own: Tolerance | None,
    cast: bool = False,
) -> tuple[OutputReport, list[OptimizerFault]]:
    """Compare one output over all trials; ``own`` is the user's tolerance, if there is one.

    ``cast`` permits that the second model gives it in another precision.
    """
    expected, actual = a.outputs(name), b.outputs(name)
    report = OutputReport(name, str(expected[0].dtype), expected[0].shape)
    if expected[0].dtype.kind in "OUS":
        for trial, x, y in zip(trials, expected, actual, strict=True):
            report.add(compare(x, y, np.zeros(())), trial)
        return report, []
    unit = max(epsilon(y.dtype) for y in (*expected, *actual))
    noise = _joint_noise(name, a, b, unit)
    faults = []
    for label, runs in (("a", a), ("b", b)):
        problem = _optimiser_problem(name, runs, noise)
        if problem is not None:
            faults.append(OptimizerFault(label, name, problem))
        elif runs.optimised is not None:
            again = (outputs[name] for outputs in runs.optimised)
            apart = map(distance, runs.outputs(name), again)
            noise = [larger(n, more) for n, more in zip(noise, apart, strict=True)]
    limits = tolerances(expected, noise, unit=unit)
    report.noise = largest(noise)
    for trial, x, y, limit in zip(trials, expected, actual, limits, strict=True):
        report.add(compare(x, y, limit, *(own or ()), cast=cast), trial)
    report.signal = signal(expected)
    finite = [np.isfinite(wide(y)).any() for y in expected if y.size]
    if report.problem is None and finite and not any(finite):
        report.problem = NOTHING_FINITE.format(size=sum(y.size for y in expected))
    report.warnings += _blindness(report, expected)
    return report, faults


def _joint_noise(name: str, a: Runs, b: Runs, unit: float) -> list[np.ndarray]:
    """Return the noise of both models, that of the second limited by that of the first."""
    expected = a.outputs(name)
    noise = a.noise_of(name, expected)
    sizes = [magnitude(y) for y in expected]
    scale = largest(sizes)
    if not a.noise and not b.noise:
        noise = [UNMEASURED * unit * size for size in sizes]
    limit = NOISIER * (largest(noise) + unit * scale)
    if not is_float(expected[0].dtype):
        return noise
    return [
        np.maximum(n, np.minimum(m, limit))
        for n, m in zip(noise, b.noise_of(name, expected), strict=True)
    ]


def _optimiser_problem(name: str, runs: Runs, noise: Sequence[np.ndarray]) -> str | None:
    """Return what is wrong with a model's optimised session, judged by its unoptimised one."""
    if runs.optimised is None:
        return None
    base = runs.outputs(name)
    fitting = [larger(np.zeros(y.shape), n) for y, n in zip(base, noise, strict=True)]
    limits = tolerances(base, fitting, OPTIMISER * FACTOR)
    for y, outputs, limit in zip(base, runs.optimised, limits, strict=True):
        if name not in outputs:
            return "it is missing"
        if not is_float(y.dtype):
            limit = np.maximum(limit, 0.01)  # near ties of an argmax over many places
        problem = compare(y, outputs[name], limit).problem
        if problem is not None:
            return problem
    return None


def _blindness(report: OutputReport, expected: Sequence[np.ndarray]) -> Iterator[str]:
    """Yield why an agreement may mean little."""
    top = largest([magnitude(y) for y in expected])
    if all(y.size == 0 for y in expected):
        yield "it is empty in all trials: nothing was compared"
    elif top == 0:
        yield "it is zero for all inputs tried: agreement shows nothing"
    elif report.signal == 0:
        yield "it is the same for all inputs tried: agreement shows little"
    elif is_float(expected[0].dtype) and report.signal < BLIND * report.tolerance:
        yield (
            f"differences up to {report.tolerance:.2g} count as rounding noise, and it changes by "
            f"no more than {report.signal:.2g} between inputs: agreement shows little"
        )


# The whole comparison ------------------------------------------------------------------------


class Subject(Protocol):
    """A model that can be run, and run again in other ways."""

    label: str
    graph: onnx.GraphProto

    @property
    def both(self) -> bool:
        """Whether it loads unoptimised too, which :meth:`run` then uses."""

    def run(self, feeds: Feeds) -> Outputs:
        """Run it once; RunError if it stops."""

    def rerun(self, feeds: Sequence[Feeds], how: How = "again") -> list[Outputs] | None:
        """Run it another way; return None where that is impossible.

        That is ``again`` in the same session, ``optimised``, with the weights moved by one ulp
        ``up`` or ``down`` and functions as inexact as their kernels, or in ``double`` precision.
        """


def compare_models(
    first: Subject,
    second: Subject,
    planned: Planned,
    report: Report,
    own: Own,
    inside: Collection[str] = (),
) -> None:
    """Run the second model and all re-runs; write what shows into the report.

    ``inside`` are tensors that both models may give beside their outputs.
    """
    report.trials = [trial for trial, _, _ in planned]
    feeds = [inputs for _, inputs, _ in planned]
    a, b = Runs([outputs for _, _, outputs in planned]), Runs([])
    names = [name for name in _names(a) if name not in inside]
    _check_own(own, names)
    drawing = (n.op_type for n in nodes(first.graph) if facts(n.op_type, n.domain).random)
    operator = next(drawing, None)
    if operator and any(_differ(outputs, first.run(inputs)) for _, inputs, outputs in planned):
        report.problems.append(
            f"the first model draws random numbers ({operator}): no two runs of it agree"
        )
    with contextlib.suppress(RunError):  # on which trial, single runs tell
        b.base = second.rerun(feeds) or []
    for trial, inputs, _ in () if b.base else planned:
        try:
            b.base.append(second.run(inputs))
        except RunError as error:
            report.problems.append(f"the second model fails on {trial.label}: {error.problem}")
            return
    for subject, runs in ((first, a), (second, b)):
        _measure(subject, runs, feeds, report)
    for name in (name for name in _names(a) if name in inside):
        _compare_inside(name, a, b, report)
    for name in names:
        given = [i for i, outputs in enumerate(a.base) if name in outputs]
        if any(name not in b.base[i] for i in given):
            report.outputs.append(OutputReport(name, problem="the second model does not give it"))
            continue
        trials = [report.trials[i] for i in given]
        stated = own_of(own, name)
        cast = bool(report.casts) or stated is not None
        output, faults = judge(name, a.of(given), b.of(given), trials, stated, cast)
        report.outputs.append(output)
        report.optimizer_faults += faults
    if report.outputs and not any(y[name].size for y in a.base for name in names if name in y):
        report.problems.append(NOTHING_THERE)
    report.warnings += _parting(report)


def _compare_inside(name: str, a: Runs, b: Runs, report: Report) -> None:
    """Judge a tensor inside both models, if it has one name, type and shape in both."""
    pairs = [(x.get(name), y.get(name)) for x, y in zip(a.base, b.base, strict=True)]
    if all(
        x is not None and y is not None and (x.dtype, x.shape) == (y.dtype, y.shape)
        for x, y in pairs
    ):
        report.inside.append(judge(name, a, b, report.trials, None)[0])


def _parting(report: Report) -> Iterator[str]:
    """Say which tensor inside is the first that differs.

    Models of two exporters may call different tensors by one name. So it is no problem; and where
    the outputs agree, it is only told of a tensor that is nearly the same in both.
    """
    differ = [tensor for tensor in report.inside if not tensor]
    agree = [tensor.name for tensor in report.inside if tensor]
    if report.equivalent:
        for tensor in [tensor for tensor in differ if tensor.max_rel < ALIKE][:1]:
            yield (
                f"tensor {tensor.name!r} inside differs by more than rounding noise, which no "
                f"output shows: {tensor.problem}"
            )
    elif differ:
        yield (
            f"of {len(report.inside)} tensors inside that have the same name and shape in both "
            f"models, {differ[0].name!r} is the first that differs; "
            f"{', '.join(map(repr, agree[-1:])) or 'none'} agrees"
        )


def _measure(subject: Subject, runs: Runs, feeds: Sequence[Feeds], report: Report) -> None:
    """Run everything that shows the rounding noise of this model, then the optimised session.

    A sample has to do with one such run.
    """
    for turn, how in enumerate(_MOVES[:1] if report.sample else _MOVES):
        # Inputs are drawn anew each time: two independent samples say more than one twice.
        moved = [nudged_feeds(inputs, [turn, index]) for index, inputs in enumerate(feeds)]
        outputs = subject.rerun(moved, how)
        if outputs is not None:
            _absorb(runs, outputs, "inputs and weights moved by one ulp", report)
        elif any(is_float(value.dtype) for inputs in feeds for value in inputs.values()):
            _absorb(runs, subject.rerun(moved), "inputs moved by one ulp", report)
    if report.sample:
        return
    _absorb(runs, subject.rerun(feeds, how="double"), "float64", report)
    if subject.both:
        runs.optimised = subject.rerun(feeds, how="optimised")
        if runs.optimised is None:
            report.warnings.append(
                f"onnxruntime's optimised session of the {subject.label} model fails"
            )


def _absorb(runs: Runs, outputs: list[Outputs] | None, source: str, report: Report) -> None:
    if outputs is not None:
        runs.absorb(outputs)
        if source not in report.noise_sources:
            report.noise_sources.append(source)


def _names(runs: Runs) -> list[str]:
    """Return all outputs, in order; those of a sequence may not be in every trial."""
    return list(dict.fromkeys(name for outputs in runs.base for name in outputs))


def _differ(a: Outputs, b: Outputs) -> bool:
    apart = [distance(a[name], b[name]) for name in a.keys() & b.keys()]
    return any(one is None or one.any() for one in apart)


def _check_own(own: Own, names: Sequence[str]) -> None:
    for value in own:
        named = value if isinstance(value, Mapping) else {} if value is None else {"": value}
        for name, number in named.items():
            if not number >= 0:  # not a number is not, either
                raise UsageError(f"a tolerance of {number} is no limit", "give a number from 0 up")
            if name and name not in names:
                raise UsageError(
                    f"a tolerance is given for {name!r}, which is no output",
                    f"outputs: {', '.join(names)}",
                )


def own_of(own: Own, name: str) -> Tolerance | None:
    """Return the user's (rtol, atol) for one output; None where the measured noise decides."""
    rtol, atol = (value.get(name) if isinstance(value, Mapping) else value for value in own)
    return None if rtol is None and atol is None else (rtol, atol)
