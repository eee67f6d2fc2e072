"""From runs of two models to findings about each output.

>>> first = Runs(base=[{"y": a}], noise=[{"y": np.abs(double - a)}])
>>> second = Runs(base=[{"y": b}])
>>> judge("y", first, second, [Trial("seed 0")], None)[0].equivalent
True
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import ml_dtypes
import numpy as np
import onnx

from onnx_net2net.errors import UsageError
from onnx_net2net.model.tensors import nodes
from onnx_net2net.operators import facts
from onnx_net2net.verification.comparison import (
    FACTOR,
    Difference,
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
from onnx_net2net.verification.statistics import statistics, worst
from onnx_net2net.verification.terms import Terms
from onnx_net2net.verification.trials import Outputs, Planned, RunError

How = Literal["again", "optimised", "up", "down", "double", "float16"]

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

# What decides where requirements replace tolerances.
REQUIRED = "required"

UNMEASURABLE = (
    "{requirement} is required, and its {measure} has no value in any trial: it is zero, empty, or"
    " not of that kind; require this of other outputs, by their names"
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
    terms: Terms | None = None,
    cast: bool = False,
) -> tuple[OutputReport, list[OptimizerFault]]:
    """Compare one output over all trials; ``terms`` are the user's, if there are any.

    ``cast`` permits that the second model gives it in another precision.
    """
    terms = terms or Terms()
    expected, actual = a.outputs(name), b.outputs(name)
    report = OutputReport(name, str(expected[0].dtype), expected[0].shape)
    if expected[0].dtype.kind in "OUS":
        for trial, x, y in zip(trials, expected, actual, strict=True):
            report.add(compare(x, y, np.zeros(())), trial)
        _settle(report, terms)
        return report, []
    unit = max(epsilon(y.dtype) for y in (*expected, *actual))
    if terms.precision is not None and is_float(expected[0].dtype):
        unit = max(unit, float(ml_dtypes.finfo(terms.precision).eps))
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
        report.add(_assessed(x, y, limit, name, terms, cast), trial)
    _settle(report, terms)
    report.signal = signal(expected)
    finite = [np.isfinite(wide(y)).any() for y in expected if y.size]
    if report.problem is None and finite and not any(finite):
        report.problem = NOTHING_FINITE.format(size=sum(y.size for y in expected))
    report.warnings += _blindness(report, expected)
    return report, faults


def _assessed(
    x: np.ndarray, y: np.ndarray, limit: np.ndarray, name: str, terms: Terms, cast: bool
) -> Difference:
    """Judge one trial by tolerances and by what is required."""
    alone = terms.decide_alone(name)
    own = (None, np.inf) if alone else terms.tolerance(name) or ()
    difference = compare(x, y, limit, *own, cast=cast)
    if alone:
        difference.rule = REQUIRED
    difference.statistics = statistics(x, y)
    problems = [requirement.problem(difference.statistics) for requirement in terms.required(name)]
    difference.problem = "; ".join(filter(None, [difference.problem, *problems])) or None
    return difference


def _settle(report: OutputReport, terms: Terms) -> None:
    """Sum up the statistics of all trials. What is required has to have a value in one of them."""
    report.statistics = worst([difference.statistics for difference in report.differences])
    for requirement in terms.required(report.name):
        if report.problem is None and getattr(report.statistics, requirement.measure, None) is None:
            report.problem = UNMEASURABLE.format(requirement=requirement, **vars(requirement))


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
    elif (
        is_float(expected[0].dtype)
        and report.rule != REQUIRED
        and report.signal < BLIND * report.tolerance
    ):
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
        ``up`` or ``down`` and functions as inexact as their kernels, or in ``double`` precision or
        in ``float16``.
        """


def compare_models(
    first: Subject,
    second: Subject,
    planned: Planned,
    report: Report,
    terms: Terms,
    inside: Collection[str] = (),
    *,
    recorded: bool = False,
) -> None:
    """Run the second model and all re-runs; write what shows into the report.

    ``inside`` are tensors that both models may give beside their outputs. Where the outputs in
    ``planned`` are ``recorded``, nothing made them that could be run again: the noise of the second
    model stands for theirs.
    """
    report.trials = [trial for trial, _, _ in planned]
    feeds = [inputs for _, inputs, _ in planned]
    a, b = Runs([outputs for _, _, outputs in planned]), Runs([])
    names = [name for name in _names(a) if name not in inside]
    terms.check(names)
    drawing = (n.op_type for n in nodes(first.graph) if facts(n.op_type, n.domain).random)
    operator = next(drawing, None)
    if operator and any(_differ(outputs, first.run(inputs)) for _, inputs, outputs in planned):
        report.problems.append(
            f"the {first.label} model draws random numbers ({operator}): no two runs of it agree"
        )
    with contextlib.suppress(RunError):  # on which trial, single runs tell
        b.base = second.rerun(feeds) or []
    for trial, inputs, _ in () if b.base else planned:
        try:
            b.base.append(second.run(inputs))
        except RunError as error:
            report.problems.append(
                f"the {second.label} model fails on {trial.label}: {error.problem}"
            )
            return
    for subject, runs in ((first, a), (second, b))[recorded:]:
        _measure(subject, runs, feeds, report)
    if recorded:
        a.noise = b.noise
    if terms.precision is not None:
        coarse = first.rerun(feeds, terms.precision)
        if coarse is None:
            raise UsageError(
                f"the first model cannot be computed in {terms.precision} here, so nothing says "
                "what another may differ by",
                "state tolerances, or what is required, instead",
            )
        _absorb(a, coarse, terms.precision, report)
    for name in (name for name in _names(a) if name in inside):
        _compare_inside(name, a, b, report)
    _judge_outputs(names, a, b, report, terms, second.label)
    report.warnings += _parting(report)


def _judge_outputs(
    names: Sequence[str], a: Runs, b: Runs, report: Report, terms: Terms, label: str
) -> None:
    """Judge the outputs; ``label`` is what the second model is called."""
    for name in names:
        given = [i for i, outputs in enumerate(a.base) if name in outputs]
        if any(name not in b.base[i] for i in given):
            problem = f"the {label} model does not give it"
            report.outputs.append(OutputReport(name, problem=problem))
            continue
        trials = [report.trials[i] for i in given]
        cast = bool(report.casts) or terms.casts(name)
        output, faults = judge(name, a.of(given), b.of(given), trials, terms, cast)
        report.outputs.append(output)
        report.optimizer_faults += faults
    if terms.alone:
        report.required = [*map(str, terms.requirements)]
    if report.outputs and not any(y[name].size for y in a.base for name in names if name in y):
        report.problems.append(NOTHING_THERE)


def _compare_inside(name: str, a: Runs, b: Runs, report: Report) -> None:
    """Judge a tensor inside both models, if it has one name, type and shape in both."""
    pairs = [(x.get(name), y.get(name)) for x, y in zip(a.base, b.base, strict=True)]
    if all(
        x is not None and y is not None and (x.dtype, x.shape) == (y.dtype, y.shape)
        for x, y in pairs
    ):
        report.inside.append(judge(name, a, b, report.trials)[0])


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
