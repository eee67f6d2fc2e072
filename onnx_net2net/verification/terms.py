"""What a user allows two models to differ by, and what must hold of their outputs.

>>> terms = Terms(rtol=1e-3, requirements=requirements(["cosine>=0.999", "logits=sqnr>=40"]))
>>> terms.tolerance("logits"), [str(one) for one in terms.required("logits")]
((0.001, None), ['cosine>=0.999', 'logits=sqnr>=40'])

Where nothing is stated, the measured rounding noise decides. A requirement holds besides that, so
it never makes a comparison milder; only ``alone`` lets the requirements decide in its place. Also
then, what no number can excuse is a problem: another type or shape, NaN or infinity in one model
only, and an output of nothing but NaN.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from onnx_net2net.errors import UsageError
from onnx_net2net.verification.statistics import LIKENESSES, Statistics

__all__ = ["PerOutput", "Requirement", "Terms", "Tolerance", "requirements", "stated"]

PerOutput = float | Mapping[str, float] | None
Precision = Literal["float16"]
Tolerance = tuple[float | None, float | None]  # rtol, atol; not both None

MEASURES = tuple(field.name for field in dataclasses.fields(Statistics))
_REQUIREMENT = re.compile(
    r"(?:(?P<output>.+)=)?\s*(?P<measure>\w+)\s*(?P<relation>[<>]=)\s*(?P<bound>[^<>=]+)"
)


@dataclass(frozen=True)
class Requirement:
    """A bound of a measure: from below for likenesses, from above for distances.

    It is for the output of this name, or for all where ``output`` is None.
    """

    measure: str
    bound: float
    output: str | None = None

    def __str__(self) -> str:
        bound = repr(self.bound).removesuffix(".0")
        whose = "" if self.output is None else f"{self.output}="
        return f"{whose}{self.measure}{'>=' if self.measure in LIKENESSES else '<='}{bound}"

    def problem(self, statistics: Statistics | None) -> str | None:
        """Return what is wrong with an output; None also where the measure has no value."""
        value = getattr(statistics, self.measure, None)
        if value is None:
            return None
        held = value >= self.bound if self.measure in LIKENESSES else value <= self.bound
        return None if held else f"its {self.measure} is {value:.9g}, and {self} is required"


def requirements(texts: str | Iterable[str]) -> list[Requirement]:
    """Read requirements such as ``cosine>=0.999`` or ``logits=max<=1e-3``.

    Raises UsageError for an unknown measure, and for a bound that everything unlike would keep.
    """
    return [_requirement(text) for text in ([texts] if isinstance(texts, str) else texts)]


def _requirement(text: str) -> Requirement:
    parts = _REQUIREMENT.fullmatch(text)
    try:
        bound = float(parts["bound"]) if parts else float("nan")
    except ValueError:
        bound = float("nan")
    if parts is None or bound != bound:
        raise UsageError(
            f"{text!r} is no requirement", "write it as cosine>=0.999 or logits=max<=1e-3"
        )
    measure, relation = parts["measure"], parts["relation"]
    if measure not in MEASURES:
        raise UsageError(f"{text!r}: there is no measure {measure!r}", ", ".join(MEASURES))
    if (relation == ">=") != (measure in LIKENESSES):
        kind, right = ("likeness", ">=") if relation == "<=" else ("distance", "<=")
        raise UsageError(
            f"{text!r}: {measure} is a {kind}", f"write {measure}{right}{parts['bound'].strip()}"
        )
    return Requirement(measure, bound, parts["output"])


@dataclass(frozen=True)
class Terms:
    """The user's tolerances and requirements.

    ``rtol`` and ``atol`` are a number or one by output name. ``alone`` lets the requirements of an
    output decide in place of rounding noise. ``precision`` is a coarser type that the second model
    may compute in: it may differ by what a copy of the first in that type does.
    """

    rtol: PerOutput = None
    atol: PerOutput = None
    requirements: Sequence[Requirement] = ()
    alone: bool = False
    precision: Precision | None = None

    def __post_init__(self) -> None:
        for value in (self.rtol, self.atol):
            for number in _named(value).values():
                if not number >= 0:  # not a number is not, either
                    raise UsageError(
                        f"a tolerance of {number} is no limit", "give a number from 0 up"
                    )
        if self.alone and not self.requirements:
            raise UsageError("nothing is required that could decide alone", "state what must hold")
        if self.alone and (self.rtol is not None or self.atol is not None):
            raise UsageError(
                "tolerances say nothing where requirements decide alone",
                "leave out either the tolerances or --require-only",
            )

    def check(self, names: Sequence[str]) -> None:
        """Raise UsageError where something is stated of an output that does not exist."""
        stated = [*_named(self.rtol), *_named(self.atol)]
        stated += [requirement.output or "" for requirement in self.requirements]
        for name in stated:
            if name and name not in names:
                raise UsageError(
                    f"something is stated of {name!r}, which is no output",
                    f"outputs: {', '.join(names)}",
                )

    def tolerance(self, name: str) -> Tolerance | None:
        """Return rtol and atol of an output; None where the measured noise decides."""
        rtol, atol = (
            value.get(name) if isinstance(value, Mapping) else value
            for value in (self.rtol, self.atol)
        )
        return None if rtol is None and atol is None else (rtol, atol)

    def required(self, name: str) -> list[Requirement]:
        """Return what must hold of an output."""
        return [one for one in self.requirements if one.output in (None, name)]

    def decide_alone(self, name: str) -> bool:
        """Return whether the requirements of an output decide in place of rounding noise."""
        return self.alone and bool(self.required(name))

    def casts(self, name: str) -> bool:
        """Return whether the second model may give an output in another precision."""
        stated = self.tolerance(name) is not None or self.decide_alone(name)
        return stated or self.precision is not None


def stated(
    rtol: PerOutput,
    atol: PerOutput,
    require: str | Iterable[str],
    alone: bool,
    precision: str | None,
) -> Terms:
    """Return what is stated in words. Raises UsageError for what cannot be meant."""
    if precision not in (None, "fp16", "float16"):
        raise UsageError(
            f"nothing measures what {precision!r} costs",
            "give fp16, or state what must hold, such as cosine>=0.999",
        )
    coarse: Precision | None = None if precision is None else "float16"
    return Terms(rtol, atol, requirements(require), alone, coarse)


def _named(value: PerOutput) -> Mapping[str, float]:
    """Return tolerances by output name; that of all outputs by an empty one."""
    return value if isinstance(value, Mapping) else {} if value is None else {"": value}
