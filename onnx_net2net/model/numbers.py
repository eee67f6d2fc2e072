"""Numbers in names, by which authors count what they repeat.

    h.3.attn.weight      encoder_layer_12.ln_1.weight      block4-2.proj.weight

A number ends a part of a name. What stands before it, with its separator, is the prefix that all
members of a series share: ``h.``, ``encoder_layer_``, ``block4-``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

__all__ = ["between_dots", "is_member", "members_in", "renumbered", "split", "title"]

# Digits of other scripts count nothing, nor does what is longer than any count.
_NUMBER = r"(?<![0-9])[0-9]{1,9}(?![0-9])"


def members_in(name: str) -> Iterator[str]:
    """Yield ``a.0``, ``a.0.b2`` for ``a.0.b2.weight``; nothing for ``/a/a.0/Conv_output``, which
    names no parameter but the output of a node that was folded.
    """
    for match in re.finditer(rf"{_NUMBER}(?=\.)", name) if "/" not in name else ():
        if match.start():
            yield name[: match.end()]


def is_member(name: str) -> bool:
    """Return whether a name ends in a number, and is more than that."""
    return re.search(rf"(?s:.){_NUMBER}\Z", name) is not None


def split(member: str) -> tuple[str, int]:
    """Return the prefix and the number of a name for which :func:`is_member` holds.

    >>> split("features.denselayer12")
    ('features.denselayer', 12)
    """
    prefix = member.rstrip("0123456789")
    return prefix, int(member[len(prefix) :])


def between_dots(prefix: str) -> bool:
    """Return whether the numbers behind ``prefix`` are whole parts of names."""
    return prefix.endswith(".")


def title(prefix: str) -> str:
    """Return what people call a series: ``h`` for ``h.``."""
    return prefix.removesuffix(".")


def renumbered(text: str, prefix: str, number: Callable[[int], int]) -> str:
    """Renumber the members of a series in a text, as PyTorch's exporters write paths.

    >>> renumbered("encoder.layer.3.weight", "encoder.layer.", lambda n: n + 1)
    'encoder.layer.4.weight'
    >>> renumbered("/encoder/layer.3/layer.3.0/Add", "encoder.layer.", lambda n: n + 1)
    '/encoder/layer.4/layer.4.0/Add'
    """

    def renumber(digits: str) -> str:
        return str(number(int(digits))).zfill(len(digits))

    pattern = rf"{re.escape(prefix)}({_NUMBER})(?![\w-])"
    if not text.startswith("/"):
        return re.sub(rf"(?<![\w.]){pattern}", lambda m: prefix + renumber(m[1]), text)
    # In TorchScript's form a part may repeat the last one: /layer1/layer1.0/conv1.
    parts, written, path = text.split("/"), "", ""
    for index, part in enumerate(parts[1:-1], 1):
        # ``path`` is where this part stands, ``written`` how the part before was written.
        nested = bool(written) and part.startswith(written + ".")
        path = path[: len(path) - len(written)] + part if nested else f"{path}.{part}".lstrip(".")
        written = part
        match = re.match(pattern, path)
        if match is not None:
            end = len(part) - (len(path) - match.end(1))
            start = end - len(match[1])
            if start >= 0:  # else it stood in an earlier part
                parts[index] = part[:start] + renumber(match[1]) + part[end:]
    return "/".join(parts)
