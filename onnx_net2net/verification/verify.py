"""Do two models compute the same? onnxruntime is the judge.

>>> report = verify("small.onnx", "wide.onnx")
>>> bool(report), report.verdict
(True, 'equivalent')

Nothing here knows how the second model was made. Both models are run unoptimised and optimised, on
the same inputs: several seeds, several sizes of each dynamic dimension, or the user's own. The
tolerance is counted in the rounding noise of the models themselves; the formula stands in
:mod:`onnx_net2net.verification.comparison`. ``ONNX_NET2NET_THREADS`` or ``OMP_NUM_THREADS`` set
the number of threads.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from onnx_net2net.errors import InvalidModel, UsageError
from onnx_net2net.model.model import AnyModel, load
from onnx_net2net.progress import work
from onnx_net2net.verification.candidate import Candidate
from onnx_net2net.verification.contents import check_files
from onnx_net2net.verification.engine import VERSION
from onnx_net2net.verification.feeds import Range, UserInputs
from onnx_net2net.verification.interface import Matched, compare_outputs, matched
from onnx_net2net.verification.interior import Interior
from onnx_net2net.verification.judgement import RUNS, Own, PerOutput, compare_models, own_of
from onnx_net2net.verification.precision import has_bfloat16, takes_bfloat16, with_outputs
from onnx_net2net.verification.report import Report
from onnx_net2net.verification.sessions import choose_provider
from onnx_net2net.verification.trials import Outputs, Planner

__all__ = ["VERSION", "Candidate", "candidate", "choose_provider", "run", "tensors", "verify"]


def verify(
    a: AnyModel,
    b: AnyModel,
    *,
    seeds: int = 3,
    inputs: UserInputs | Sequence[UserInputs] | None = None,
    provider: str | None = None,
    rtol: PerOutput = None,
    atol: PerOutput = None,
    sizes: Mapping[str, int | Sequence[int]] | None = None,
    ranges: Mapping[str, Range] | Range | None = None,
    by_position: bool = False,
    sample: bool = False,
) -> Report:
    """Compare two models on the same inputs.

    >>> verify("a.onnx", "b.onnx", sizes={"batch": [1, 3]}, ranges={"x": (0, 1)}).equivalent
    True

    ``inputs`` are the user's own in place of random ones: an ``.npz`` file, a mapping of arrays, an
    ONNX test folder, or several of these. ``provider`` is ``cpu``, ``cuda`` or a name of
    onnxruntime's; by default CUDA where it works. ``sizes`` gives sizes of dynamic dimensions by
    name. ``by_position`` matches inputs and outputs by their positions, whatever their names.
    Small models are run on more samples than ``seeds`` says: in a larger batch, or more seeds.
    ``sample`` takes a quick look: one random input, or the user's, its noise measured once.

    ``rtol`` and ``atol`` are a number or one by output name. One of them alone allows
    ``rtol * |expected|`` or ``atol`` where that is more than the measured rounding noise, so it
    never makes the comparison stricter. Both together replace the measured tolerance by
    ``atol + rtol * |expected|``, as in ``numpy.allclose``.

    Raises InvalidModel for a model that onnxruntime cannot load, UsageError for inputs, sizes or
    ranges that do not fit, or where the first model runs with no size that was tried.
    """
    started = time.monotonic()
    report, own = Report(onnxruntime=VERSION, sample=sample), (rtol, atol)
    with work("verifying") as running:
        name = choose_provider(provider)
        first = Candidate("first", a, name, running.advance)
        second = Candidate("second", b, name, running.advance, first.crossing)
        interface = matched(first.graph, second.graph, by_position=by_position)
        runnable = _fit(first, second, interface, report, own)
        _open(first, second, report)
        if runnable:
            planner = _planner(first, second, interface, ranges)
            planned = planner.planned(inputs, seeds, sizes, sample=sample)
            report.warnings += planner.warnings
            sessions = (2 if sample else RUNS) * len(first.segments + second.segments)
            running.total = sessions * len(planned)
            compare_models(first, second, planned, report, own, first.compared)
        _say_how((first, second), report)
        check_files(a, first.model)
        check_files(b, second.model)
    report.seconds = time.monotonic() - started
    return report


# The two models ------------------------------------------------------------------------------


def _fit(first: Candidate, second: Candidate, interface: Matched, report: Report, own: Own) -> bool:
    """Let both models take what is to be fed; return whether there are inputs that suit both.

    Names and types of outputs are compared. Tensors of one name that cross between segments of both
    models are to be compared as well.
    """
    runnable = not interface.problems
    cast = bool(interface.casts)
    compare_outputs(
        first.graph, second.graph, interface, lambda name: cast or own_of(own, name) is not None
    )
    first.fit(interface.specs)
    second.fit(interface.specs, interface.inputs, interface.outputs)
    outputs = {value.name for value in (*first.graph.output, *second.graph.output)}
    first.compared = second.compared = (first.crossing & second.crossing) - outputs
    report.take(interface)
    return runnable


def _planner(
    first: Candidate,
    second: Candidate,
    interface: Matched,
    ranges: Mapping[str, Range] | Range | None,
) -> Planner:
    """Return what plans the trials: inputs that both models take."""
    specs = [spec.lowered() if first.lowered else spec for spec in interface.specs]
    graphs, interior = (first.graph, second.graph), Interior(first.model, specs)
    return Planner(first.run, specs, graphs, ranges, first.nbytes, interface.inputs, interior)


def _open(first: Candidate, second: Candidate, report: Report) -> None:
    """Open both models, in float32 if onnxruntime cannot run the bfloat16 of one of them."""
    pair = (first, second)
    for candidate in pair:
        try:
            if not takes_bfloat16(candidate.graph):
                candidate.open()
                continue
        except InvalidModel:
            if not has_bfloat16(candidate.model):
                raise
        first.lowered = second.lowered = True
    if first.lowered:
        report.precision = "float32"
        report.warnings.append(
            f"computed in float32: {first.provider} cannot run these models in bfloat16"
        )
        for candidate in pair:
            candidate.open()


def _say_how(pair: Sequence[Candidate], report: Report) -> None:
    """Write into the report what ran."""
    report.provider = pair[0].running_on
    for candidate in pair:
        if candidate.optimised_only is not None:
            report.warnings.append(
                f"the {candidate.label} model loads only optimised: {candidate.optimised_only}"
            )


# Single runs ---------------------------------------------------------------------------------


def run(
    model: AnyModel,
    feeds: Mapping[str, np.ndarray],
    outputs: Sequence[str] | None = None,
    provider: str | None = None,
    *,
    optimised: bool = True,
) -> Outputs:
    """Return the outputs of a model by name, all of them or those asked for.

    >>> run("model.onnx", {"x": np.zeros((1, 3), np.float32)})["y"].shape
    (1, 10)
    """
    return candidate(model, provider).compute(dict(feeds), outputs, optimised=optimised)


def tensors(
    model: AnyModel,
    names: Iterable[str] | None,
    feeds: Mapping[str, np.ndarray],
    *,
    provider: str | None = None,
    optimised: bool = False,
) -> Outputs:
    """Return tensors of the main graph by name, in its order; None asks for all.

    >>> tensors("model.onnx", ["conv1_output"], feeds)["conv1_output"].shape
    (1, 64, 112, 112)

    Tensors that onnxruntime cannot hand out are left out. UsageError for a name no node writes.
    """
    source = load(model)
    written = [name for node in source.proto.graph.node for name in node.output if name]
    wanted = set(written if names is None else names)
    unknown = wanted.difference(written)
    if unknown:
        raise UsageError(f"no node of the main graph writes {', '.join(sorted(unknown))}")
    order = [name for name in written if name in wanted]

    def computed(names: Sequence[str]) -> Outputs:
        """Compute these tensors; what cannot be an output is cut out by halves."""
        try:
            return run(with_outputs(source, names), feeds, names, provider, optimised=optimised)
        except InvalidModel:
            if not names:
                raise
        middle = len(names) // 2
        return {} if not middle else computed(names[:middle]) | computed(names[middle:])

    values = computed(order)
    return {name: values[name] for name in order if name in values}


def candidate(model: AnyModel, provider: str | None) -> Candidate:
    """Put a model under test."""
    return Candidate("given", model, choose_provider(provider))
