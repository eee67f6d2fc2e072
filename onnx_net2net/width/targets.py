"""What the command line asks to grow, as widths by name.

--node conv5 --width 512 --dim 'fc:1' --width 40        each name is followed by its width
--factor 1.5 --all                                      every dimension that can grow
--factor 1.5 --node 'layer2.*'                          those whose name matches
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from math import ceil

from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.width.dimensions import Analysis, Dimension, growable

_EXAMPLE = "for example: --node conv5 --width 512 --node conv6 --width 640"


@dataclass(frozen=True)
class Wish:
    """One ``--node`` or ``--dim``, and the ``--width`` behind it if there was one."""

    option: str
    name: str
    width: int | None = None


def wishes(order: Iterable[tuple[str, str | int]]) -> list[Wish]:
    """Options in the order of the command line, each name with the width behind it.

    >>> wishes([("node", "a"), ("width", 5), ("dim", "b"), ("width", 7)])
    [Wish(option='node', name='a', width=5), Wish(option='dim', name='b', width=7)]
    """
    found: list[Wish] = []
    for option, value in order:
        if option != "width":
            found.append(Wish(option, str(value)))
        elif not found:
            raise UsageError(f"--width {value} stands before any --node or --dim", _EXAMPLE)
        elif found[-1].width is not None:
            last = found[-1]
            raise UsageError(f"--{last.option} {last.name} has more than one --width", _EXAMPLE)
        else:
            found[-1] = Wish(found[-1].option, found[-1].name, int(value))
    return found


def check_wishes(asked: Sequence[Wish], factor: Fraction | None, everything: bool) -> None:
    """UsageError unless names, widths, ``--factor`` and ``--all`` go together."""
    if factor is None:
        if everything:
            raise UsageError("--all needs --factor", "for example: --all --factor 1.5")
        if not asked:
            raise UsageError("nothing to grow", _EXAMPLE)
        for wish in asked:
            if wish.width is None:
                raise UsageError(f"--{wish.option} {wish.name} has no --width", _EXAMPLE)
        return
    if factor <= 1:
        raise UsageError(f"--factor {float(factor):g} is not above 1", "growing only adds units")
    if any(wish.width is not None for wish in asked):
        raise UsageError("--width and --factor exclude each other", "leave one of them away")
    if everything == bool(asked):
        raise UsageError(
            "--factor needs either --all or the names of what shall grow",
            "for example: --factor 1.5 --node 'layer2.*'",
        )


def targets(analysis: Analysis, asked: Sequence[Wish], factor: Fraction | None) -> dict[str, int]:
    """The widths to give to :func:`onnx_net2net.widen`, by the name it was asked by."""
    if factor is None:
        return _explicit(analysis, asked)
    chosen: dict[Dimension, None] = {}
    for wish in asked:
        chosen.update(dict.fromkeys(_matching(analysis, wish.name)))
    if not asked:
        chosen.update(dict.fromkeys(growable(analysis.dimensions)))
    if not chosen:
        raise Refused(None, "no dimension of this model can grow", "inspect it with --all")
    return {dimension.name: admissible(dimension, factor) for dimension in chosen}


def _explicit(analysis: Analysis, asked: Sequence[Wish]) -> dict[str, int]:
    widths: dict[str, int] = {}
    for wish in asked:
        if wish.option == "dim" and wish.name not in analysis.by_name:
            raise UsageError(
                f"there is no dimension '{wish.name}'", _near(wish.name, analysis.by_name)
            )
        assert wish.width is not None  # check_wishes
        if widths.setdefault(wish.name, wish.width) != wish.width:
            raise UsageError(
                f"'{wish.name}' shall become both {widths[wish.name]} and {wish.width} wide",
                "give one width",
            )
    return widths


def admissible(dimension: Dimension, factor: Fraction) -> int:
    """The smallest width that the dimension may have, ``factor`` times the present one or above."""
    step = dimension.width if dimension.growth == "multiple" else 1
    return step * ceil(dimension.width * factor / step)


def _matching(analysis: Analysis, pattern: str) -> list[Dimension]:
    """The dimension of that name, else those whose name (or a node that writes them) matches."""
    if pattern in analysis.by_name:
        found = [analysis.by_name[pattern]]
    else:
        known = analysis.dimensions
        found = [d for d in known if fnmatchcase(d.name, pattern)]
        found = found or [d for d in known if any(fnmatchcase(w, pattern) for w in d.writers)]
    if not found:
        raise UsageError(f"no dimension matches '{pattern}'", _near(pattern, analysis.by_name))
    chosen = growable(found)
    if not chosen:
        first = found[0]
        raise Refused(pattern, f"it cannot grow: {first.reason}", first.remedy)
    return chosen


def _near(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
    return "'onnx-net2net inspect MODEL' lists the dimensions"
