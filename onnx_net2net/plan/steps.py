"""The steps of a plan, done in order.

    growth = follow(model, read(Path("plan.toml")))
    growth.model, text(growth.plan)

Each step is what :func:`widen` or :func:`deepen` would do by itself, with an entry of its own in
the history; nothing is written, and no weights are computed but for the digests in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from onnx import ModelProto

from onnx_net2net.analysis.folding import fold
from onnx_net2net.deepening.deepen import deepen
from onnx_net2net.errors import Net2NetError
from onnx_net2net.model.model import Model
from onnx_net2net.plan.plans import Plan, Step
from onnx_net2net.verification.feeds import user_feeds
from onnx_net2net.verification.sizes import input_specs
from onnx_net2net.widening.dimensions import analyse
from onnx_net2net.widening.targets import Wish, targets
from onnx_net2net.widening.widen import widen

__all__ = ["Followed", "follow"]


@dataclass(frozen=True)
class Followed:
    """The grown model, and the plan that gives it again with names and numbers only."""

    model: Model
    plan: Plan


def follow(model: Model, plan: Plan) -> Followed:
    """Do the steps of ``plan``, each once; the resolved plan has names and numbers only."""
    grown = fold(model) if plan.fold else model
    changes: list[Any] = []
    done: list[Step] = []
    for step in plan.steps:
        try:
            grown = _done(grown, step, plan.folder)
        except Net2NetError as error:
            raise error.within(step.place) from None
        changes += grown.changes
        done.append(_resolved(step, grown.history[-1]))
    proto = ModelProto()
    proto.CopyFrom(grown.proto)
    return Followed(
        grown.with_changes(proto, {}, changes), Plan(tuple(done), plan.fold, plan.folder)
    )


def _done(model: Model, step: Step, folder: Path) -> Model:
    arguments = dict(step.arguments)
    if step.operation == "deepen":
        found = arguments.pop("calibrate", None)
        if found is not None:
            paths = [folder / path for path in _listed(found)]
            specs = input_specs(model.proto.graph)
            arguments["calibration"] = [feeds for _, feeds in user_feeds(paths, specs)]
        return deepen(model, **arguments)
    if "noise" in arguments:
        arguments["noise"] = float(arguments["noise"])
    factor = arguments.pop("factor", None)
    names = _listed(arguments.pop("names", []))
    arguments.pop("all", None)  # which is that there are no names
    if factor is None:
        return widen(model, **arguments)
    factor = factor if isinstance(factor, Fraction) else Fraction(str(factor))
    wishes = [Wish("node", name) for name in names]
    return widen(model, targets(analyse(model), wishes, factor), **arguments)


def _listed(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


_WIDEN = ("seed", "split", "noise", "mapping")
_DEEPEN = ("init", "count", "renumber", "zero", "seed")


def _resolved(step: Step, entry: Mapping[str, Any]) -> Step:
    """The step as its entry in the history has it: nothing is left to globs and defaults."""
    if step.operation == "widen":
        arguments = {key: entry[key] for key in _WIDEN}
        arguments["widths"] = {c["dimension"]: c["new"] for c in entry["changes"]}
        return Step("widen", arguments, step.place)
    arguments = {key: entry[key] for key in _DEEPEN}
    arguments |= {k: entry[k] for k in ("kernel", "norm") if entry[k] is not None}
    arguments |= {k: step.arguments[k] for k in ("calibrate",) if k in step.arguments}
    arguments |= {k: entry[k] for k in ("after", "block") if entry[k]}
    return Step("deepen", arguments, step.place)
