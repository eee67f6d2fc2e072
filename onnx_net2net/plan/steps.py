"""Steps, carried out: a plan followed, a history replayed.

    growth = follow(model, read(Path("plan.toml")))
    growth.model, text(growth.plan)
    again = replay(load("small.onnx"), load("grown.onnx").history)     # the same, byte for byte

Each step has an entry of its own in the history; nothing is written, and no weights are computed
but for the digests in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnx_net2net.analysis.folding import fold
from onnx_net2net.deepening.deepen import Samples, deepened
from onnx_net2net.errors import Net2NetError, Refused, UsageError
from onnx_net2net.model.model import AnyModel, Model, load
from onnx_net2net.plan.plans import Plan
from onnx_net2net.step import STEPS, Deepen, Step, Widen, listed, recorded
from onnx_net2net.verification.feeds import user_feeds
from onnx_net2net.verification.sizes import input_specs
from onnx_net2net.widening.widen import widened

__all__ = ["Followed", "follow", "replay", "run"]


@dataclass(frozen=True)
class Followed:
    """The grown model, and the plan that gives it again with names and numbers only."""

    model: Model
    plan: Plan


def run(model: Model, step: Step, folder: Path = Path()) -> Model:
    """Return a new model to which ``step`` was done; paths in it start from ``folder``."""
    if isinstance(step, Widen):
        return widened(model, step)
    if isinstance(step, Deepen):
        return deepened(model, step, _samples(model, step, folder))
    return fold(model)


def _samples(model: Model, step: Deepen, folder: Path) -> Samples | None:
    if not step.calibrate:
        return None
    paths = [folder / path for path in listed(step.calibrate)]
    return [feeds for _, feeds in user_feeds(paths, input_specs(model.proto.graph))]


def follow(model: Model, plan: Plan) -> Followed:
    """Do the steps of ``plan``, each once; the resolved plan has names and numbers only."""
    grown = fold(model) if plan.fold else model
    changes: list[Any] = []
    done: list[Step] = []
    for index, step in enumerate(plan.steps):
        try:
            after = run(grown, step, plan.folder)
        except Net2NetError as error:
            raise error.within(plan.place(index)) from None
        changes += after.changes if after is not grown else ()
        done += [resolved(step, entry) for entry in after.history[len(grown.history) :]]
        grown = after
    grown = grown.with_changes(grown.editable(), {}, changes)
    return Followed(grown, replace(plan, steps=tuple(done)))


def resolved(step: Step, entry: Mapping[str, Any]) -> Step:
    """Return the step as its entry in the history has it: nothing is left to globs and defaults."""
    done = recorded(entry)
    if isinstance(done, Deepen) and isinstance(step, Deepen):
        return replace(done, calibrate=step.calibrate)
    return done


def replay(parent: AnyModel, steps: Sequence[Mapping[str, Any]]) -> Model:
    """Return ``parent`` after those of ``steps`` that were done to it and to what came of it.

    ``steps`` is a history. Raises UsageError where it knows no such parent, Refused for a step
    that cannot be done again: trained weights, statistics measured on data, another version of
    this program.
    """
    parent = load(parent)
    digest = parent.sha256()
    starts = [i for i, entry in enumerate(steps) if entry.get("parent") == digest]
    if not starts:
        raise UsageError(
            f"no step of the history was done to this model (sha256 {digest[:12]})",
            "give the file that was grown, or one in between; history lists their digests",
        )
    model = parent
    for entry in steps[starts[0] :]:
        _check(entry, model)
        model = run(model, recorded(entry))
    return model


def _check(entry: Mapping[str, Any], model: Model) -> None:
    """Raise Refused for what cannot be done again to ``model``."""
    from onnx_net2net import __version__

    operation, version = entry.get("operation"), entry.get("version")
    remedy = "replay from the model behind this step"
    if entry.get("parent") != model.sha256():
        reason = f"its parent was another model (sha256 {str(entry.get('parent'))[:12]})"
        remedy = "replay from that model"
    elif version != __version__:
        reason = f"it was done by version {version}, and this is {__version__}"
        remedy = f"pip install onnx-net2net=={version}"
    elif operation not in STEPS:
        reason = "what it took in is not in the history"
    elif entry.get("calibrated"):
        reason = "the data that it was measured on is not in the history"
    else:
        return
    raise Refused(f"step '{operation}'", reason, remedy)
