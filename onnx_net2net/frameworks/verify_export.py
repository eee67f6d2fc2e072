"""Does a network in a framework compute what onnxruntime says the file does?

    report = agreement(model, call)      # call: {input: array} -> {output: array}

The judge is that of :func:`onnx_net2net.verify`, and so are inputs and tolerances: what differs by
more than the model's own rounding noise is another network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from onnx_net2net.model.model import Model
from onnx_net2net.verification.feeds import Feeds
from onnx_net2net.verification.interior import Interior
from onnx_net2net.verification.judgement import How, compare_models
from onnx_net2net.verification.report import Report, Trial
from onnx_net2net.verification.terms import Terms
from onnx_net2net.verification.trials import Outputs, Planned, Planner
from onnx_net2net.verification.verify import VERSION, Candidate, candidate

__all__ = ["agreement", "random_feeds"]

Call = Callable[[Feeds], Outputs]


class _Imported:
    """The network in the framework, as the judge wants its subjects."""

    label = "exported"
    both = False  # there is nothing to compare an optimised session of it with

    def __init__(self, model: Model, call: Call) -> None:
        self.graph = model.proto.graph
        self.run = call

    def rerun(self, feeds: Sequence[Feeds], how: How = "again") -> list[Outputs] | None:
        """Run with the inputs moved: nothing else shows the noise of the framework's kernels."""
        return [self.run(inputs) for inputs in feeds] if how == "again" else None


def random_feeds(model: Model, seeds: int) -> list[tuple[Trial, Feeds]]:
    """Return inputs that ``model`` takes, as its verification makes them."""
    first = candidate(model, "cpu")
    first.open()
    return [(trial, feeds) for trial, feeds, _ in _planned(first, model, seeds)]


def agreement(model: Model, call: Call, *, seeds: int = 3) -> Report:
    """Compare ``call`` with ``model`` on random inputs, on the CPU."""
    started = time.monotonic()
    first = candidate(model, "cpu")
    first.open()
    report = Report(onnxruntime=VERSION, provider=first.running_on)
    planned = _planned(first, model, seeds)
    compare_models(first, _Imported(model, call), planned, report, Terms())
    report.seconds = time.monotonic() - started
    return report


def _planned(first: Candidate, model: Model, seeds: int) -> Planned:
    """Run a candidate on inputs made from seeds."""
    interior = Interior(model, first.specs)
    graphs = (first.graph,)
    planner = Planner(first.run, first.specs, graphs, nbytes=first.nbytes, interior=interior)
    return planner.seeded(seeds, None)
