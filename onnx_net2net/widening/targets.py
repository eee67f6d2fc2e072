"""What the command line asks to grow, as widths by name.

--node conv5 --width 512 --dim 'fc:1' --width 40        each name is followed by its width
--factor 1.5 --all                                      every dimension that can grow
--factor 1.5 --node 'layer2.*'                          those whose name matches
--node 'layer2.*' --width 96                            the same: each, where it is narrower
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.widening.dimensions import Analysis, Dimension, growable
from onnx_net2net.widening.naming import growing, is_pattern, near

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
    asked: list[Wish] = []
    for option, value in order:
        if option != "width":
            asked.append(Wish(option, str(value)))
        elif not asked:
            raise UsageError(f"--width {value} stands before any --node or --dim", _EXAMPLE)
        elif asked[-1].width is not None:
            last = asked[-1]
            raise UsageError(f"--{last.option} {last.name} has more than one --width", _EXAMPLE)
        else:
            asked[-1] = Wish(asked[-1].option, asked[-1].name, int(value))
    return asked


def check_wishes(asked: Sequence[Wish], factor: Fraction | None, everything: bool) -> None:
    """Raise UsageError unless names, widths, ``--factor`` and ``--all`` go together."""
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


def explicit(analysis: Analysis, asked: Sequence[Wish]) -> dict[str, int]:
    """Return the widths that were asked for, by name."""
    widths: dict[str, int] = {}
    for wish in asked:
        assert wish.width is not None  # check_wishes
        known = wish.name in analysis.by_name or is_pattern(analysis, wish.name)
        if wish.option == "dim" and not known:
            names = [d.name for d in growable(analysis.dimensions)]
            raise UsageError(f"there is no dimension '{wish.name}'", near(wish.name, names))
        if widths.setdefault(wish.name, wish.width) != wish.width:
            raise UsageError(
                f"'{wish.name}' shall become both {widths[wish.name]} and {wish.width} wide",
                "give one width",
            )
    return widths


def scaled(analysis: Analysis, names: Sequence[str], factor: Fraction | float) -> dict[str, int]:
    """Return ``factor`` times the width of each named dimension, or of all that can grow."""
    chosen: dict[Dimension, None] = {}
    for name in names:
        chosen.update(dict.fromkeys(growing(analysis, name)))
    if not names:
        chosen.update(dict.fromkeys(growable(analysis.dimensions)))
    if not chosen:
        raise Refused(None, "no dimension of this model can grow", "inspect it with --all")
    return {d.name: admissible(d, Fraction(str(factor))) for d in chosen}


def admissible(dimension: Dimension, factor: Fraction) -> int:
    """Return the smallest width that the dimension may have from ``factor`` times its own up."""
    step = dimension.step
    return step * ceil(dimension.width * factor / step)
