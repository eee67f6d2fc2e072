"""What is asked of a growth: names and widths, checked, and the source maps they mean."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from onnx_net2net.algebra.axes import Atom
from onnx_net2net.algebra.expansion import PAD, Index, draw
from onnx_net2net.errors import InvalidModel, Refused, UsageError
from onnx_net2net.step import Split, Widen, shown
from onnx_net2net.widening.dimensions import Analysis, Dimension
from onnx_net2net.widening.growth import Growth
from onnx_net2net.widening.naming import growing, is_pattern, resolve

MOST = 2**24  # units; a wider dimension is a mistyped one
TIMES = 2**16  # as many units as there were; each round of copies is drawn by itself


@dataclass(frozen=True)
class Change:
    """One dimension that grew. ``source`` is a digest of the map from new units to old ones."""

    dimension: str
    old: int
    new: int
    source: str


def check_finite(analysis: Analysis, wanted: Iterable[Dimension]) -> None:
    """Raise for weights of which no copies can be made.

    InvalidModel where one holds NaN: all that the network computes is then NaN, too, and any two
    such networks look alike. Refused where one along a ``wanted`` dimension is infinite: shares of
    infinity, or its products with shares of both signs, add up to NaN.
    """
    analysis.model.sha256()  # the history needs it; it reads all weights, and this none again
    weights = analysis.graph.model.weights
    names = {name for dimension in analysis.dimensions for name, _ in dimension.sites}
    suspects = {name for name in names if not weights[name].is_finite()}
    for name in sorted(suspects):
        with np.errstate(invalid="ignore"):  # signalling NaN
            count = int(np.isnan(weights[name].array()).sum())
        if count:
            raise InvalidModel(
                f"weight '{name}' holds NaN ({count} of {weights[name].size} elements)",
                "export a checkpoint from before the training diverged",
            )
    for dimension in wanted:
        for name in sorted(suspects.intersection(name for name, _ in dimension.sites)):
            reason = f"weight '{name}' holds infinity, of which copies cannot have shares"
            raise Refused(dimension.name, reason, "replace it by the largest number")


def requested(analysis: Analysis, widths: Mapping[str, int]) -> dict[Dimension, int]:
    """Return the dimensions meant by names and the widths they grow to, checked."""
    wanted: dict[Dimension, int] = {}
    for name, given in widths.items():
        if is_pattern(analysis, name):  # it means what it can widen
            matched = growing(analysis, name)
            narrower = [dimension for dimension in matched if dimension.width < given]
            meant = [(d.name, d, given) for d in narrower or matched]
        else:
            meant = [(name, *resolve(analysis, name, given))]
        for called, dimension, width in meant:
            _check(called, dimension, width)
            if wanted.setdefault(dimension, width) != width:
                raise UsageError(
                    f"'{name}' is dimension '{dimension.name}', which shall also become "
                    f"{wanted[dimension]} wide",
                    "both names mean the same units; give one width",
                )
    return wanted


def _check(name: str, dimension: Dimension, width: int) -> None:
    """Raise for a width that the dimension called ``name`` cannot have."""
    if width < dimension.width:
        raise UsageError(
            f"'{name}' is {dimension.width} wide already, {width} is less",
            "give a larger width: growing only adds units",
        )
    most = max(dimension.width, min(MOST, TIMES * dimension.width))
    if width > most:
        raise UsageError(f"'{name}': width {shown(width)} is absurd", f"at most {most}")
    if width == dimension.width:
        return
    if not dimension.grows:
        raise Refused(name, f"it cannot grow: {dimension.reason}", dimension.remedy)
    if width % dimension.step:
        down = width // dimension.width * dimension.width
        near = [w for w in (down, down + dimension.width) if w > dimension.width]
        raise Refused(
            name,
            f"width {width} is no multiple of {dimension.width}: {dimension.reason}",
            f"use {' or '.join(map(str, near))}",
        )


def growth_of(
    analysis: Analysis, wanted: Mapping[Dimension, int], step: Widen
) -> tuple[Growth, list[Change]]:
    """Draw source maps for these widths by seed and name, with a line of history for each."""
    sources: dict[Atom, Index] = {}
    models: dict[Atom, Index] = {}
    changes = []
    for dimension, width in wanted.items():
        if width > dimension.width:
            seed = [step.seed, zlib.crc32(dimension.name.encode())]
            padded, fresh = dimension.atom in analysis.paddings, step.split == Split.FRESH
            if fresh and dimension.step > 1:
                reason = f"fresh units would change statistics over all units: {dimension.reason}"
                raise Refused(dimension.name, reason, "use --split project")
            pads = width % dimension.width if padded else 0
            pads = width - dimension.width if fresh else pads
            copies = draw(dimension.width, width - pads, seed=seed, mapping=step.mapping)
            source = np.concatenate([copies, np.full(pads, PAD)])
            digest = sha256(source.astype("<i8").tobytes()).hexdigest()[:16]
            changes.append(Change(dimension.name, dimension.width, width, digest))
            sources[dimension.atom] = source
            if fresh and not padded:
                models[dimension.atom] = draw(
                    dimension.width, width, seed=seed, mapping=step.mapping
                )
    return Growth(sources, models), changes
