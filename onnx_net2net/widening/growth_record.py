"""What a growth did to each weight, small enough for a model's metadata.

    details = pack({"fc1.weight": WeightGrowth([Along(0, source, "writes")])})
    unpack(details)["fc1.weight"].axes[0].source

Optimizer state grows by this alone, without the models: see frameworks/optimizer.py. Source maps
are stored once each, as differences, compressed: most run through the old units in order.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal, get_args

import numpy as np

from onnx_net2net.algebra.expansion import PAD, multiplicity
from onnx_net2net.errors import InvalidModel

__all__ = ["Along", "Kind", "WeightGrowth", "pack", "unpack"]

# "writes": its entries are copied; "splits": the copies share each entry.
Kind = Literal["writes", "splits"]
LARGEST = 1 << 28  # entries of a source map


@dataclass(frozen=True)
class Along:
    """How one axis grew. ``shares`` are the parts of the old gradient that new entries get.

    None stands for equal parts among the copies of a written entry, and for all of it along an
    axis that splits: each copy there meets the old activation.
    """

    axis: int
    source: np.ndarray
    kind: Kind
    shares: np.ndarray | None = None
    old: int = 0  # the size before, where this was read back

    def parts(self) -> np.ndarray:
        """Return the part of the old gradient for every new entry, in float64; 0 for pads."""
        if self.shares is not None:
            parts = np.asarray(self.shares, np.float64)
        elif self.kind == "splits":
            parts = np.ones(len(self.source))
        else:
            parts = 1 / multiplicity(self.source)
        return np.where(self.source == PAD, 0.0, parts)


@dataclass(frozen=True)
class WeightGrowth:
    """How one weight grew; ``eta`` is the factor of a norm's scale where its vectors are padded."""

    axes: list[Along] = field(default_factory=list)
    eta: float = 1.0


def pack(grown: Mapping[str, WeightGrowth], sizes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Write the growth of these weights as JSON; ``sizes`` are their shapes before."""
    maps: dict[str, list[Any]] = {}
    alike: dict[tuple[Any, ...], list[str]] = {}
    for name, weight in grown.items():
        axes: list[tuple[Any, ...]] = []
        for along in weight.axes:
            entry = (along.axis, _keep(maps, along.source, sizes[name][along.axis]), along.kind)
            share = () if along.shares is None else (_keep(maps, along.shares.astype("<f4"), 0),)
            axes.append((*entry, *share))
        alike.setdefault((weight.eta, *axes), []).append(name)
    groups = [[names, eta, *axes] for (eta, *axes), names in alike.items()]
    return {"maps": maps, "weights": groups}


def _keep(maps: dict[str, list[Any]], values: np.ndarray, old: int) -> str:
    """Put ``values`` into the table once; return the key."""
    whole = values.astype("<i4") if values.dtype.kind == "i" else values
    contents = whole.tobytes()
    key = sha256(contents + old.to_bytes(8, "little")).hexdigest()[:12]
    if key not in maps:
        stored = np.diff(whole, prepend=whole.dtype.type(0)).tobytes() if old else contents
        maps[key] = [old, len(whole), base64.b64encode(zlib.compress(stored, 9)).decode()]
    return key


def unpack(details: Mapping[str, Any]) -> dict[str, WeightGrowth]:
    """Read what :func:`pack` wrote, by weight. Raises InvalidModel where it cannot be read."""
    try:
        maps = {key: _values(*entry) for key, entry in details["maps"].items()}
        growths = {
            name: WeightGrowth([_along(entry, maps) for entry in axes], float(eta))
            for names, eta, *axes in details["weights"]
            for name in names
        }
        if not all(isinstance(name, str) for name in growths):
            raise ValueError
        return growths
    except (KeyError, TypeError, ValueError, AttributeError, zlib.error, binascii.Error):
        raise InvalidModel(
            "the history does not tell how each weight grew",
            "grow the model again with this version",
        ) from None


def _values(old: int, length: int, text: str) -> tuple[int, np.ndarray]:
    """Read one entry of the table. Raises ValueError for what none can be."""
    if not 0 <= length <= LARGEST:
        raise ValueError
    unzip = zlib.decompressobj()
    contents = unzip.decompress(base64.b64decode(text, validate=True), 4 * length + 1)
    if len(contents) != 4 * length or not unzip.eof:
        raise ValueError
    if not old:
        return 0, np.frombuffer(contents, "<f4")
    source = np.cumsum(np.frombuffer(contents, "<i4"), dtype=np.int64)
    if source.size and not PAD <= source.min() <= source.max() < old:
        raise ValueError
    return old, source


def _along(entry: list[Any], maps: Mapping[str, tuple[int, np.ndarray]]) -> Along:
    axis, key, kind, *share = entry
    if kind not in get_args(Kind) or not isinstance(axis, int) or axis < 0:
        raise ValueError
    old, source = maps[key]
    return Along(axis, source, kind, maps[share[0]][1] if share else None, old)
