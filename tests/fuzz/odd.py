"""Values that nobody expects, and text that means something to somebody."""

from __future__ import annotations

import json
import random
from typing import Any

INTEGERS = (
    0, 1, 2, 3, 5, 7, 255, 4096, 65536, 10**9, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1,
    -1, -2, -3, -7, -(2**31), -(2**40), -(2**63),
)  # fmt: skip
FLOATS = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    3.0,
    1e30,
    1e-30,
    -1e30,
    float("nan"),
    float("inf"),
    -float("inf"),
)
TEXTS = (
    b"",
    b"none",
    b"constant",
    b"SAME_UPPER",
    b"linear",
    b"\xff\xfe",
    b"x" * 3000,
    b"[link=a]b[/bold]",
    b"\x1b[31m",
    b"../../etc/passwd",
    b"a\0b",
    b"\n",
    b"{",
    b"class",
    b"__import__",
    "ﬁ".encode(),
    "\u202e".encode(),
    b"'''",
    b'"',
    b"\\",
    b"%s",
    b"{0}",
    b"9",
    b"?",
    b"a/b",
    b"N:0",
    b"p2o.Dim.0",
)
NAMES = tuple(text.decode() for text in TEXTS if text != b"\xff\xfe")


def integer(rng: random.Random, near: int = 0) -> int:
    """An odd number, or one beside ``near``."""
    if rng.random() < 0.4:
        return rng.choice(INTEGERS)
    if rng.random() < 0.5:
        return max(-(2**63), min(2**63 - 1, near + rng.choice((-1, 1, 2, -2))))
    return rng.randrange(-4, 20)


def value(rng: random.Random, depth: int = 0) -> Any:
    """Any value that JSON or TOML can hold."""
    kind = rng.randrange(9 if depth < 4 else 6)
    if kind == 0:
        return rng.choice(INTEGERS)
    if kind == 1:
        return rng.choice(FLOATS)
    if kind == 2:
        return rng.choice(NAMES)
    if kind == 3:
        return rng.choice((True, False, None))
    if kind in (4, 5):
        return rng.choice(("", 10**400, -(10**30), "widen", [], {}))
    if kind == 6:
        return {rng.choice(NAMES): value(rng, depth + 1) for _ in range(rng.randrange(3))}
    return [value(rng, depth + 1) for _ in range(rng.randrange(3))]


def altered(rng: random.Random, given: Any) -> Any:
    """``given``, something made of dicts and lists, with one value in it replaced or left out."""
    if isinstance(given, dict) and given and rng.random() < 0.8:
        key = rng.choice(list(given))
        changed = dict(given)
        if rng.random() < 0.2:
            del changed[key]
        elif rng.random() < 0.1:
            changed[rng.choice(NAMES)] = value(rng)
        else:
            changed[key] = altered(rng, given[key])
        return changed
    if isinstance(given, list) and given and rng.random() < 0.8:
        place = rng.randrange(len(given))
        return [*given[:place], altered(rng, given[place]), *given[place + rng.randrange(2) :]]
    return value(rng)


def text_of(rng: random.Random, given: Any) -> str:
    """JSON, now and then cut off, or nested beyond all bounds."""
    kind = rng.random()
    if kind < 0.05:
        return "[" * 100_000
    if kind < 0.1:
        return '{"a":' * 5_000 + "1" + "}" * 5_000
    text = json.dumps(given)
    return text[: rng.randrange(len(text) + 1)] if kind < 0.2 else text
