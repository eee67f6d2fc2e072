"""What a history did to each weight: its names, its growths, and the new ones beside it.

lineage = Lineage(grown.history)
lineage.follow("h.1.mlp.weight")      # ("h.2.mlp.weight", [WeightGrowth(...)])
lineage.former("h.2.mlp.weight")      # "h.1.mlp.weight"
lineage.copied                        # {"h.1.mlp.weight": "h.0.mlp.weight"}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

from onnx_net2net.errors import InvalidModel, Refused
from onnx_net2net.widening.growth_record import WeightGrowth, unpack

__all__ = ["Lineage"]

UNCHANGED = ("absorb", "fold")  # what names no parameter anew


@dataclass
class _Stage:
    """One step: growths by name, renames, copies {new: old}, and inserted ones {new: layer}."""

    growths: Mapping[str, WeightGrowth] = field(default_factory=dict)
    renames: Sequence[Mapping[str, str]] = ()
    copied: Mapping[str, str] = field(default_factory=dict)
    inserted: Mapping[str, str] = field(default_factory=dict)

    def renamed(self, name: str) -> str:
        """Return what became of a name."""
        for names in self.renames:
            name = names.get(name, name)
        return name

    def moved(self, layer: str) -> str:
        """Return what became of the path of a layer, as of the weights in it."""
        for names in self.renames:
            inside = next((old for old in names if old.startswith(layer + ".")), None)
            if inside is not None:
                layer = names[inside].removesuffix(inside.removeprefix(layer))
        return layer

    @cached_property
    def former(self) -> Mapping[str, str | None]:
        """Map names after to those before, None for new ones; those that stayed are left out."""
        old: dict[str, None] = {}
        passed: set[str] = set()
        for names in self.renames:
            old |= dict.fromkeys(name for name in names if name not in passed)
            passed.update(names.values())
        new = dict.fromkeys((*self.copied, *self.inserted))
        return {self.renamed(name): name for name in old} | new


class Lineage:
    """The weights of the model before the first step, followed to the model behind the last.

    ``scaled`` are growths after all steps. Raises Refused for steps after which a parameter is
    another function's, InvalidModel for a history that does not tell.
    """

    def __init__(
        self,
        steps: Sequence[Mapping[str, Any]],
        scaled: Mapping[str, WeightGrowth] | None = None,
    ) -> None:
        self._stages = [*chain.from_iterable(map(_stages, steps)), _Stage(scaled or {})]
        self.copied: dict[str, str] = {}  # {new: old}, under the names in the end
        self.inserted: dict[str, str] = {}  # {new: the layer before it}
        for stage in self._stages:
            copied, inserted = self.copied, self.inserted
            self.copied = {stage.renamed(n): stage.renamed(o) for n, o in copied.items()}
            self.inserted = {stage.renamed(n): stage.moved(at) for n, at in inserted.items()}
            self.copied |= stage.copied
            self.inserted |= stage.inserted

    def follow(self, name: str) -> tuple[str, list[WeightGrowth]]:
        """Return the name of a weight in the end, and how it grew on the way."""
        growths = []
        for stage in self._stages:
            if name in stage.growths:
                growths.append(stage.growths[name])
            name = stage.renamed(name)
        return name, growths

    def former(self, name: str) -> str | None:
        """Return the name in the beginning of what is called ``name``; None for a new weight."""
        return self._former(name, len(self._stages))

    def _former(self, name: str, end: int) -> str | None:
        former: str | None = name
        for stage in reversed(self._stages[:end]):
            former = stage.former.get(former, former) if former is not None else None
        return former

    def origin(self, name: str) -> str:
        """Return the parameter of the smaller model that a copy began as, under its later name."""
        while name in self.copied:
            name = self.copied[name]
        return name

    def touched(self) -> Iterator[str]:
        """Yield the names in the beginning of all weights that grew or were renamed."""
        for at, stage in enumerate(self._stages):
            for name in (*stage.growths, *filter(None, stage.former.values())):
                former = self._former(name, at)
                if former is not None:
                    yield former


def _stages(step: Mapping[str, Any]) -> list[_Stage]:
    operation = step.get("operation")
    if operation == "widen":
        if step.get("copied"):
            raise Refused(
                None,
                f"'{min(step['copied'])}' became a parameter of its own, for which the optimizer "
                "has no state",
                "start the optimizer anew",
            )
        return [_Stage(unpack(step))]
    if operation == "deepen":
        return _deepened(step)
    if operation in UNCHANGED:
        return []
    raise Refused(
        None,
        f"the history has a step '{operation}', after which an optimizer has other parameters",
        "grow the state up to that step, and start the rest anew",
    )


def _deepened(step: Mapping[str, Any]) -> list[_Stage]:
    """Return one stage for all copies, behind those of weights that grew to read them."""
    renames: list[dict[str, str]] = []
    grown: list[Mapping[str, WeightGrowth]] = []
    copied: dict[str, str] = {}
    inserted: dict[str, str] = {}  # behind layers that are named as before blocks were copied
    try:
        for change in step["changes"]:
            if "block" in change:
                renames.append({str(old): str(new) for old, new in change["renames"].items()})
                grown.append(unpack(change["grown"]) if change.get("grown") else {})
                copied |= {str(new): str(old) for new, old in change["sources"].items()}
            elif change["init"] == "factor":
                raise Refused(
                    change["after"],
                    "its weights were rotated when it became two layers, which second moments "
                    "cannot follow",
                    "start the optimizer anew",
                )
            else:
                inserted |= {str(new): str(change["after"]) for new in change["parameters"]}
    except (KeyError, TypeError, AttributeError):
        raise InvalidModel(
            "the history does not tell which parameters are new",
            "deepen the model again with this version",
        ) from None
    stage = _Stage({}, renames, copied)
    stage.inserted = {new: stage.moved(layer) for new, layer in inserted.items()}
    stages = []
    for index, growths in enumerate(grown, 1):  # known by their names between two renames
        later = _Stage({}, renames[index:])
        last = {later.renamed(name): growth for name, growth in growths.items()}
        former = ((stage.former.get(name, name), growth) for name, growth in last.items())
        stages.append(_Stage({name: growth for name, growth in former if name is not None}))
    return [*stages, stage]
