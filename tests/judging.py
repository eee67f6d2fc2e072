"""Growing a model and judging the result, with the source model run only once.

subject = Subject(load("fixtures/resnet.ts17.onnx"))
grown = widen(subject.model, {"conv1": 19})
assert subject.judge(grown), subject.judge(grown).verdict
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from onnx_net2net.model.model import Model, load
from onnx_net2net.verification.feeds import Feeds
from onnx_net2net.verification.interface import matched
from onnx_net2net.verification.judgement import How, compare_models
from onnx_net2net.verification.report import Report
from onnx_net2net.verification.terms import Terms
from onnx_net2net.verification.trials import Outputs, Planner
from onnx_net2net.verification.verify import Candidate, choose_provider, verify
from onnx_net2net.widening.dimensions import Dimension, inspect
from tests.console import FIXTURES

CPU = choose_provider("cpu")


class _Once:
    """The source model, every way of running it remembered."""

    def __init__(self, candidate: Candidate) -> None:
        self._candidate = candidate
        self._known: dict[How, list[Outputs] | None] = {}
        self.label = candidate.label
        self.graph = candidate.graph
        self.both = candidate.both

    def run(self, feeds: Feeds) -> Outputs:
        return self._candidate.run(feeds)

    def rerun(self, feeds: Sequence[Feeds], how: How = "again") -> list[Outputs] | None:
        if how == "again":  # the only way that is asked for with other inputs
            return self._candidate.rerun(feeds)
        if how not in self._known:
            self._known[how] = self._candidate.rerun(feeds, how)
        return self._known[how]


class _Plain(Candidate):
    """A model that is run once: the noise of the source alone has to explain what is different."""

    both = False

    def rerun(self, feeds: Sequence[Feeds], how: How = "again") -> list[Outputs] | None:
        return None


class Subject:
    """A model, its dimensions, and a judge of what is grown from it (one seed, CPU)."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.dimensions = inspect(model)
        self.growable = [d for d in self.dimensions if d.growth != "fixed"]
        self._once: _Once | None = None

    def judge(self, grown: Model) -> Report:
        """As ``verify(model, grown, seeds=1)``."""
        if any(w.dtype == 16 for w in self.model.weights.values()):
            return verify(self.model, grown, seeds=1, provider="cpu")  # may be computed in float32
        return self._compared(Candidate("second", grown, CPU))

    def agrees(self, grown: Model) -> Report:
        """As :meth:`judge`, and quicker where the stricter comparison already shows it."""
        if any(w.dtype == 16 for w in self.model.weights.values()):
            return self.judge(grown)
        return self._compared(_Plain("second", grown, CPU)) or self.judge(grown)

    def _compared(self, second: Candidate) -> Report:
        if self._once is None:
            self._prepare()
        second.open()
        report = Report(provider=second.running_on)
        assert self._once is not None
        report.take(matched(self._once.graph, second.graph, by_position=False))
        compare_models(self._once, second, self._planned, report, Terms())
        return report

    def _prepare(self) -> None:
        first = Candidate("first", self.model, CPU)
        first.open()
        planner = Planner(first.run, first.specs, (first.graph,), None, first.nbytes)
        self._planned = planner.seeded(1, None)
        self._once = _Once(first)


@cache
def subject(name: str) -> Subject:
    """Return a fixture, by the name of its file, that all tests of this process share."""
    return Subject(load(FIXTURES / name))


def wider(dimension: Dimension, turn: int = 0) -> int:
    """A width that ``dimension`` promises: an odd number of units more, or a multiple.

    Turns 0 and 1 copy some units once, turn 2 copies every unit and some of them twice.
    """
    width = dimension.width
    if dimension.growth == "multiple":
        return width * (3 if turn % 3 == 2 else 2)
    return width + (1, 3, width | 1)[turn % 3]


def everything(dimensions: Sequence[Dimension], turn: int = 1) -> dict[str, int]:
    """Widths that grow all of them at once."""
    return {d.name: wider(d, turn) for d in dimensions if d.growth != "fixed"}
