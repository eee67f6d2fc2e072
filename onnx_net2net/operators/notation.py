"""The notation of rules: text that names axes, as terms.

    parse("b (g i) *s -> b g")      # inputs and outputs, a tuple of terms for each tensor

A space separates axes, a comma tensors. ``(a b)`` is a row-major merge, ``(a + b)`` a
concatenation, ``1`` an axis of size 1, ``...`` leading axes that broadcast, ``*s`` several
axes that do not, ``_`` a tensor whose axes nothing may grow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Union

__all__ = ["Group", "Plus", "Spec", "Term", "leaves", "parse", "term"]

Term = Union[str, "Group", "Plus"]
TOKEN = re.compile(r"\s*(\.\.\.|->|[*~]?[A-Za-z_]\w*|[(),+]|\d+)")


@dataclass(frozen=True, slots=True)
class Group:
    """Row-major merge of terms."""

    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Plus:
    """Concatenation of terms."""

    terms: tuple[Term, ...]


Spec = tuple[Term, ...]


@lru_cache(maxsize=4096)
def parse(text: str) -> tuple[tuple[Spec | None, ...], tuple[Spec | None, ...]]:
    """Return both sides of a rule, variadic names not yet expanded."""
    left, arrow, right = text.partition("->")
    if not arrow:
        raise ValueError(f"rule without '->': {text!r}")
    before, after = (tuple(map(_spec, side.split(","))) for side in (left, right))
    return before, after


def term(text: str) -> Term:
    """Return one axis term, such as ``(g i)``."""
    spec = _spec(text)
    if spec is None or len(spec) != 1:
        raise ValueError(f"not one axis: {text!r}")
    return spec[0]


def _spec(text: str) -> Spec | None:
    tokens = TOKEN.findall(text)
    if "".join(tokens) != "".join(text.split()):
        raise ValueError(f"cannot read axis names: {text!r}")
    if tokens == ["_"]:
        return None
    summands, rest = _summands(tokens)
    if rest or len(summands) > 1:
        raise ValueError(f"unbalanced parenthesis: {text!r}")
    return summands[0]


def _summands(tokens: list[str]) -> tuple[list[Spec], list[str]]:
    """Read terms up to a closing parenthesis, apart at each plus; return the rest, too."""
    summands: list[list[Term]] = [[]]
    while tokens and tokens[0] != ")":
        mark, tokens = tokens[0], tokens[1:]
        if mark == "+":
            summands.append([])
        elif mark == "(":
            inside, tokens = _summands(tokens)
            tokens = tokens[1:]
            merged = [s[0] if len(s) == 1 else Group(s) for s in inside]
            summands[-1].append(merged[0] if len(merged) == 1 else Plus(tuple(merged)))
        else:
            summands[-1].append(mark)
    return [tuple(terms) for terms in summands], tokens


def leaves(item: Term) -> list[str]:
    """Return the names in a term, in order."""
    if isinstance(item, str):
        return [item]
    return [name for part in item.terms for name in leaves(part)]
