"""Two models, or a model and recorded outputs, taken to one report.

>>> sampling = Sampling(seeds=3)
>>> compare_pair("a.onnx", "b.onnx", CPU, Terms(), sampling, running).equivalent
True
>>> compare_recorded("a.onnx", "outputs.npz", CPU, Terms(), Sampling(inputs="inputs.npz"), running)

What is measured is the work of :mod:`onnx_net2net.verification.judgement`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnx_net2net.errors import InvalidModel
from onnx_net2net.model.model import AnyModel
from onnx_net2net.progress import Work
from onnx_net2net.verification.candidate import Candidate
from onnx_net2net.verification.comparison import distance, largest
from onnx_net2net.verification.contents import check_files
from onnx_net2net.verification.engine import VERSION
from onnx_net2net.verification.feeds import Range, UserInputs
from onnx_net2net.verification.interface import Matched, compare_outputs, matched
from onnx_net2net.verification.interior import Interior
from onnx_net2net.verification.judgement import RUNS, compare_models
from onnx_net2net.verification.optimizer import guilty_passes
from onnx_net2net.verification.precision import has_bfloat16, takes_bfloat16
from onnx_net2net.verification.recordings import planned_trials
from onnx_net2net.verification.report import Report
from onnx_net2net.verification.terms import Terms
from onnx_net2net.verification.trials import Outputs, Planned, Planner

__all__ = ["Sampling", "compare_pair", "compare_recorded"]


@dataclass(frozen=True)
class Sampling:
    """What inputs two models are compared on; the arguments of ``verify``."""

    seeds: int = 3
    inputs: UserInputs | Sequence[UserInputs] | None = None
    sizes: Mapping[str, int | Sequence[int]] | None = None
    ranges: Mapping[str, Range] | Range | None = None
    sample: bool = False

    @property
    def runs(self) -> int:
        """Of each model and trial."""
        return 2 if self.sample else RUNS


def compare_pair(
    a: AnyModel,
    b: AnyModel,
    provider: str,
    terms: Terms,
    sampling: Sampling,
    running: Work,
    *,
    by_position: bool = False,
    names: Mapping[str, str] | None = None,
) -> Report:
    """Compare two models on the same inputs."""
    report = Report(onnxruntime=VERSION, sample=sampling.sample)
    first = Candidate("first", a, provider, running.advance)
    second = Candidate("second", b, provider, running.advance, first.crossing)
    interface = matched(first.graph, second.graph, by_position=by_position, names=names)
    runnable = _fit(first, second, interface, report, terms)
    _open((first, second), report)
    if runnable:
        planner = _planner(first, second, interface, sampling)
        planned = planner.planned(
            sampling.inputs, sampling.seeds, sampling.sizes, sample=sampling.sample
        )
        report.warnings += planner.warnings
        running.total = sampling.runs * len(first.segments + second.segments) * len(planned)
        compare_models(first, second, planned, report, terms, first.compared)
        _keep(planned, report)
        _blame({"a": first, "b": second}, report)
    _say_how((first, second), report)
    check_files(a, first.model)
    check_files(b, second.model)
    return report


def compare_recorded(
    a: AnyModel,
    outputs: UserInputs,
    provider: str,
    terms: Terms,
    sampling: Sampling,
    running: Work,
) -> Report:
    """Compare a model with outputs that were recorded.

    The rounding noise of the model stands for that of the one that made them, too.
    """
    report = Report(onnxruntime=VERSION, sample=sampling.sample)
    model = Candidate("tested", a, provider, running.advance)
    model.fit(model.specs)
    _open((model,), report)
    specs = [spec.lowered() if model.lowered else spec for spec in model.specs]
    planned = planned_trials(model.graph, specs, sampling.inputs, outputs)
    running.total = sampling.runs * len(model.segments) * len(planned)
    compare_models(model, model, planned, report, terms, recorded=True)
    _keep(planned, report)
    _blame({"b": model}, report)
    _say_how((model,), report)
    check_files(a, model.model)
    return report


def _keep(planned: Planned, report: Report) -> None:
    """Let the report hold what the first model was fed, and what it computed."""
    report.feeds = [feeds for _, feeds, _ in planned]
    report.expected = [outputs for _, _, outputs in planned]


def _blame(models: Mapping[str, Candidate], report: Report) -> None:
    """Name the passes of the optimiser that change what a model computes."""
    for label in () if report.sample else {fault.model for fault in report.optimizer_faults}:
        model = models[label]
        plain = model.rerun(report.feeds)

        def difference(
            passes: Sequence[str], model: Candidate = model, plain: list[Outputs] | None = plain
        ) -> float | None:
            """Return how far the optimised session is from the plain one, without some passes."""
            optimised = model.run_without(report.feeds, passes)
            if optimised is None or plain is None:
                return None
            pairs = [(x[n], y.get(n)) for x, y in zip(plain, optimised, strict=True) for n in x]
            apart = [None if y is None else distance(x, y) for x, y in pairs]
            return largest([one for one in apart if one is not None])

        whole = difference(())
        passes = tuple(guilty_passes(difference, whole)) if whole else ()
        report.optimizer_faults = [
            replace(fault, passes=passes) if fault.model == label else fault
            for fault in report.optimizer_faults
        ]


def _fit(
    first: Candidate, second: Candidate, interface: Matched, report: Report, terms: Terms
) -> bool:
    """Let both models take what is to be fed; return whether there are inputs that suit both.

    Names and types of outputs are compared. Tensors of one name that cross between segments of both
    models are to be compared as well.
    """
    runnable = not interface.problems
    cast = bool(interface.casts)
    compare_outputs(first.graph, second.graph, interface, lambda name: cast or terms.casts(name))
    first.fit(interface.specs)
    second.fit(interface.specs, interface.inputs, interface.outputs)
    outputs = {value.name for value in (*first.graph.output, *second.graph.output)}
    first.compared = second.compared = (first.crossing & second.crossing) - outputs
    report.take(interface)
    return runnable


def _planner(
    first: Candidate, second: Candidate, interface: Matched, sampling: Sampling
) -> Planner:
    """Return what plans the trials: inputs that both models take."""
    specs = [spec.lowered() if first.lowered else spec for spec in interface.specs]
    graphs, interior = (first.graph, second.graph), Interior(first.model, specs)
    ranges, aliases = sampling.ranges, interface.inputs
    return Planner(first.run, specs, graphs, ranges, first.nbytes, aliases, interior)


def _open(models: Sequence[Candidate], report: Report) -> None:
    """Open the models, in float32 if onnxruntime cannot run the bfloat16 of one of them."""
    for candidate in models:
        try:
            if not takes_bfloat16(candidate.graph):
                candidate.open()
                continue
        except InvalidModel:
            if not has_bfloat16(candidate.model):
                raise
        for other in models:
            other.lowered = True
    if models[0].lowered:
        report.precision = "float32"
        report.warnings.append(
            f"computed in float32: {models[0].provider} cannot run these models in bfloat16"
        )
        for candidate in models:
            candidate.open()


def _say_how(models: Sequence[Candidate], report: Report) -> None:
    """Write into the report what ran."""
    report.provider = models[0].running_on
    for candidate in models:
        if candidate.optimised_only is not None:
            report.warnings.append(
                f"the {candidate.label} model loads only optimised: {candidate.optimised_only}"
            )
