"""Weights in several files of limited size: how large, which tensor where, under which names.

>>> file_size("5GB")
5000000000
>>> shard_name("model.safetensors", 1, 3)
'model-00001-of-00003.safetensors'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from onnx_net2net.errors import UsageError

if TYPE_CHECKING:
    from onnx_net2net.model.weights import Weight

__all__ = ["MOST_SHARDS", "Offsets", "divided", "file_size", "shard_name"]

K = TypeVar("K")
Offsets = dict[K, int]  # where each tensor starts in its file

MOST_SHARDS = 99_999  # that names have digits for
_LARGEST = 10**18
_SIZE = re.compile(r"(\d{1,19}(?:\.\d{1,9})?) *([kmgt]?)(i?)b", re.IGNORECASE | re.ASCII)


def file_size(asked: str | int) -> int:
    """Return the bytes that ``5GB``, ``500MB``, ``2GiB`` or a number means. Raise UsageError."""
    size = asked if isinstance(asked, int) and not isinstance(asked, bool) else 0
    match = _SIZE.fullmatch(asked.strip()) if isinstance(asked, str) else None
    if match and (match[2] or not match[3]):
        base = 1024 if match[3] else 1000
        whole, _, part = match[1].partition(".")
        unit = base ** " kmgt".index(match[2].lower() or " ")
        size = int(whole + part) * unit // 10 ** len(part)
    if not 0 < size <= _LARGEST:
        named = repr(asked[:40]) if isinstance(asked, str) else "of this many bytes"
        raise UsageError(f"shards {named} is not a size", "for example 5GB or 500MB")
    return size


def divided(
    weights: Mapping[K, Weight], limit: int | None, alignment: Callable[[Weight], int]
) -> list[Offsets[K]]:
    """Return for each file what is in it, in order, and where that starts.

    No file is larger than ``limit``, but where one tensor is. A tensor starts at a multiple of its
    ``alignment``. Raises UsageError for more files than names can tell apart.
    """
    files: list[Offsets[K]] = [{}]
    end = 0
    for key, weight in weights.items():
        unit = alignment(weight)
        start = -(-end // unit) * unit
        if files[-1] and limit is not None and start + weight.nbytes > limit:
            files.append({})
            start = 0
        files[-1][key] = start
        end = start + weight.nbytes
    if len(files) > MOST_SHARDS:
        problem = f"shards of {limit:,} bytes would be {len(files):,} files"
        raise UsageError(problem, f"at most {MOST_SHARDS:,}: give a larger size")
    return files


def shard_name(name: str, number: int, count: int) -> str:
    """Return the name of one of ``count`` files, numbered from 1; a single one keeps its own."""
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}-{number:05}-of-{count:05}{dot}{suffix}" if count > 1 else name
