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
    """Both sides of a rule, variadic names not yet expanded."""
    left, arrow, right = text.partition("->")
    if not arrow:
        raise ValueError(f"rule without '->': {text!r}")
    return _side(left), _side(right)


def term(text: str) -> Term:
    """One axis term, such as ``(g i)``."""
    spec = _spec(text)
    if spec is None or len(spec) != 1:
        raise ValueError(f"not one axis: {text!r}")
    return spec[0]


def _side(text: str) -> tuple[Spec | None, ...]:
    return tuple(_spec(part) for part in text.split(","))


def _spec(text: str) -> Spec | None:
    tokens = TOKEN.findall(text)
    if "".join(tokens) != "".join(text.split()):
        raise ValueError(f"cannot read axis names: {text!r}")
    if tokens == ["_"]:
        return None
    terms, rest = _terms(tokens)
    if rest:
        raise ValueError(f"unbalanced parenthesis: {text!r}")
    return terms


def _terms(tokens: list[str]) -> tuple[Spec, list[str]]:
    found: list[Term] = []
    while tokens and tokens[0] != ")":
        if tokens[0] == "(":
            inner, tokens = _bracket(tokens[1:])
            found.append(inner)
        else:
            found.append(tokens[0])
            tokens = tokens[1:]
    return tuple(found), tokens


def _bracket(tokens: list[str]) -> tuple[Term, list[str]]:
    parts: list[Term] = []
    current: list[Term] = []
    while tokens and tokens[0] != ")":
        if tokens[0] == "+":
            parts.append(_merge(current))
            current, tokens = [], tokens[1:]
        elif tokens[0] == "(":
            inner, tokens = _bracket(tokens[1:])
            current.append(inner)
        else:
            current.append(tokens[0])
            tokens = tokens[1:]
    parts.append(_merge(current))
    return (parts[0] if len(parts) == 1 else Plus(tuple(parts))), tokens[1:]


def _merge(terms: list[Term]) -> Term:
    return terms[0] if len(terms) == 1 else Group(tuple(terms))


def leaves(item: Term) -> list[str]:
    """The names in a term, in order."""
    if isinstance(item, str):
        return [item]
    return [name for part in item.terms for name in leaves(part)]
