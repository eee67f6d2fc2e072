"""What a transfer into a larger module did, and what must be set beside weights.

report = transfer(small, large, inputs)
print(report)
for name, parameter in large.named_parameters():
    parameter.requires_grad = name in report.new      # train new blocks only
report.mask("h.0.mlp.weight")                         # True where an entry is new
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, ClassVar

import numpy as np

from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.frameworks.lineage import Lineage
from onnx_net2net.model.model import Model
from onnx_net2net.verification.judgement import Runs, judge
from onnx_net2net.verification.report import OutputReport, Trial
from onnx_net2net.widening.growth_record import Along, WeightGrowth

__all__ = [
    "GrownState", "Setting", "Transferred", "few", "holding", "note_agreement", "output_reports",
    "require_equal", "require_fit",
]  # fmt: skip

SHOWN = 6
ADVICE = (
    "Adam's rate divided by the factor of the widths ({factor:.3g}) disturbs no more than before"
)
FRESH = "give both optimizers, or begin slowly: first steps without the old moments disturb most"


@dataclass(frozen=True)
class GrownState:
    """The larger network with grown weights: how these grew, and what its norms need.

    ``epsilons`` are (path of the norm, old, new); ``notes`` say what else was made up for.
    """

    model: Model
    lineage: Lineage
    epsilons: Sequence[tuple[str, float, float]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Setting:
    """A number that was set on a module, or its configuration, because a norm needs it there."""

    path: str
    attribute: str
    old: float
    new: float

    reminder: ClassVar[str] = "no checkpoint holds these: apply_settings(module) sets them again"

    def holder(self, module: Any) -> Any:
        """Return the part of ``module`` whose attribute it is."""
        return attrgetter(self.path)(module) if self.path else module


def settings_text(settings: Sequence[Setting]) -> Iterator[str]:
    """Yield a line for each change that modules have in common, and the modules."""
    alike: dict[tuple[str, str], list[str]] = {}
    for setting in settings:
        change = f"{setting.old:.6g} -> {setting.new:.6g}"
        alike.setdefault((setting.attribute, change), []).append(setting.path)
    for (attribute, change), paths in alike.items():
        yield f"{attribute} {change} of {few(paths)}"


def few(names: Sequence[str]) -> str:
    """Return the first names, and how many there are besides."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


@dataclass
class Transferred:
    """The larger module as it is now.

    ``widths`` and ``copies`` are what grew, ``settings`` numbers that changed on modules, ``new``
    parameters that only the larger module has, ``untouched`` what its network does not read and
    the smaller one does not have. ``difference`` is the largest one between both modules' outputs
    on the examples, ``tolerance`` what rounding allowed there; ``training`` says what was seen in
    training mode, ``optimizer`` whether an optimizer's state went along.
    """

    widths: list[tuple[str, int, int]] = field(default_factory=list)
    copies: list[tuple[str, int]] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    untouched: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    difference: float = 0.0
    tolerance: float = 0.0
    training: str = ""
    optimizer: bool = False
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False)
    growths: Mapping[str, Sequence[WeightGrowth]] = field(default_factory=dict, repr=False)

    @property
    def advice(self) -> str:
        """How fast to train on."""
        factor = max((new / old for _, old, new in self.widths), default=1.0)
        rate = ADVICE.format(factor=factor) if factor > 1 else "rates may stay as they are"
        return rate if self.optimizer else f"{rate}\n{FRESH}"

    def mask(self, name: str) -> np.ndarray:
        """Return, in the shape of a parameter, where it is new: inserted, copied or padded.

        An array of booleans, True everywhere for a parameter of ``new``. Raises UsageError for a
        name that the larger module does not have.
        """
        if name not in self.shapes:
            raise UsageError(f"the larger module has no parameter '{name}'", "see its state_dict()")
        mask = np.full(self.shapes[name], name in self.new)
        for growth in self.growths.get(name, ()):
            mask = _through(mask, growth.axes)
        return mask.reshape(self.shapes[name])

    def apply_settings(self, module: Any) -> None:
        """Set ``settings`` on another instance of the larger class, into which its state goes.

        A state dict does not hold them, nor does a checkpoint.
        """
        for setting in self.settings:
            setattr(setting.holder(module), setting.attribute, setting.new)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        rows = [(name, f"{old} -> {new}") for name, old, new in self.widths]
        rows += [(name, f"{count} x the block") for name, count in self.copies]
        column = max((len(name) for name, _ in rows), default=0)
        yield from (f"{name:{column}}  {what}" for name, what in rows)
        yield from settings_text(self.settings)
        if self.settings and all(setting.path != "config" for setting in self.settings):
            yield self.settings[0].reminder
        for names, what in ((self.new, "new"), (self.untouched, "left as they were")):
            if names:
                yield f"{len(names)} {what}: {few(names)}"
        yield from self.notes
        noise = f"{self.tolerance:.1e} is rounding noise"
        yield f"both modules agree: outputs differ by {self.difference:.1e} at most, {noise}"
        yield from filter(None, [self.training])
        yield self.advice


def _through(mask: np.ndarray, axes: Sequence[Along]) -> np.ndarray:
    """Return a mask of a weight before one growth as that of the weight after it."""
    for along in axes:
        first = np.zeros(len(along.source), bool)
        units, places = np.unique(along.source, return_index=True)
        first[places[units >= 0]] = True
        shape = [-1 if axis == along.axis else 1 for axis in range(mask.ndim)]
        mask = np.take(mask, np.maximum(along.source, 0), along.axis) | ~first.reshape(shape)
    return mask


def holding(part: Any, number: float) -> list[str]:
    """Return the attributes of a module or a configuration that are this number."""
    return [
        attribute
        for attribute, value in vars(part).items()
        if isinstance(value, float) and np.isclose(value, number, 1e-5, 0)
    ]


def require_fit(problems: Sequence[str]) -> None:
    """Raise Refused with everything that does not fit, if anything does not."""
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise Refused(
            None,
            f"the grown network does not fit the larger module:{lines}",
            "nothing was written; build the larger module so that these agree",
        )


def output_reports(a: Runs, b: Runs, trials: Sequence[Trial]) -> list[OutputReport]:
    """Judge each output of the smaller module's runs and of the larger one's."""
    names = a.base[0].keys() | b.base[0].keys()
    alone = names - (a.base[0].keys() & b.base[0].keys())
    return [
        judge(name, a, b, trials, None, cast=True)[0]
        if name not in alone
        else OutputReport(
            name,
            problem=f"the {'larger' if name in a.base[0] else 'smaller'} module does not give it",
        )
        for name in names
    ]


def note_agreement(
    report: Transferred,
    outputs: Sequence[OutputReport],
    training: Callable[[], Sequence[OutputReport] | str],
) -> None:
    """Note in ``report`` how far both modules agree; Refused where they do not.

    ``outputs`` are those in inference mode; ``training`` compares them in training mode, or says
    why that cannot be done.
    """
    require_equal(outputs)
    report.difference = max((output.max_abs for output in outputs), default=0.0)
    report.tolerance = max((output.tolerance for output in outputs), default=0.0)
    again = training()
    if isinstance(again, str):
        report.training = f"not compared in training mode: {again}"
    elif report.untouched and not all(again):
        report.training = "in training mode they differ: it uses what was left as it was"
    else:
        require_equal(again, " in training mode")
        report.training = "so they do in training mode, Dropout layers off"


def require_equal(outputs: Sequence[OutputReport], when: str = "") -> None:
    """Raise Refused where outputs differ, or where there are none."""
    problems = [f"{output.name or 'the output'}: {output.problem}" for output in outputs]
    problems = [p for p, output in zip(problems, outputs, strict=True) if not output]
    if problems or not outputs:
        told = "; ".join(problems) or "neither gives a tensor"
        raise Refused(
            None,
            f"the modules do not compute the same{when}, so the larger one is as it was: {told}",
            "a number that the class derives from a size may differ: compare both configurations",
        )
