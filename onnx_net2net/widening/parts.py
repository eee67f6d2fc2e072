"""What the parts of a merged axis are: heads and their size, groups and their channels.

    ((12 64) + (12 64) + (12 64))     heads, head_size, and v_head_size in the last

The rule of an operator says so of its own axes. Elsewhere it follows from what is computed: where
two activations are multiplied for each of several heads, what is summed over is the size of a
head; what is normalised for each of several groups are the channels of a group.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator

from onnx_net2net.algebra.axes import Atom, Axis, Product, atoms, canonical
from onnx_net2net.analysis.solver import Applied, Solution
from onnx_net2net.operators.notation import leaves

Term = tuple[Atom, ...]
Claim = tuple[Term, str]  # the atoms of an axis, and what it is
Terms = dict[Atom, list[Term]]

_PROJECTIONS = 3  # queries, keys and values, which an index tells apart


def part_names(solution: Solution, merged: Iterable[Axis]) -> dict[Atom, str]:
    """Return what the atoms of merged axes that weights write are called, as far as is known.

    Where what has a name is made of several, such as a head of which a half rotates, they are
    numbered.
    """
    terms: Terms = defaultdict(list)
    for term in dict.fromkeys(term for axis in merged for term in _terms(axis)):
        for free in term:
            terms[free].append(term)
    names: dict[Atom, str] = {}
    if not terms:
        return names
    known = [*_stated(solution), *_multiplied(solution, terms)]
    known.sort(key=lambda claim: len(claim[0]) > 1)
    for members, part in (*known, *_normalised(solution, terms)):
        if len(members) == 1:
            names.setdefault(members[0], part)
        elif names.keys().isdisjoint(members):
            numbered = enumerate(dict.fromkeys(members))
            names.update((free, f"{part}.{place}") for place, free in numbered)
    return names


def _terms(axis: Axis) -> Iterator[Term]:
    """Yield the atoms of each product that an axis is the concatenation of."""
    axis = canonical(axis)
    if isinstance(axis, Atom):
        yield (axis,)
    elif isinstance(axis, Product):
        for factors in itertools.product(*map(_terms, axis.factors)):
            yield tuple(itertools.chain(*factors))
    else:
        yield from itertools.chain.from_iterable(map(_terms, axis.segments))


def _stated(solution: Solution) -> Iterator[Claim]:
    """Yield what the rules of operators call their axes."""
    for applied in solution.applied.values():
        for name, part in applied.rule.parts.items():
            yield _members(applied, [name]), part


def _multiplied(solution: Solution, terms: Terms) -> Iterator[Claim]:
    """Yield the parts of attention: queries with keys, then what they weigh, the values."""
    values: list[Term] = []
    for applied in solution.applied.values():
        if not applied.rule.parts and not applied.pattern.contracted:
            continue
        each, summed, alone = _product(solution, applied)
        if sized := _beside(each, summed, terms):
            yield summed, "head_size"
            heads = [head for head in dict.fromkeys(each) if any(head in term for term in sized)]
            yield from _heads(heads, sized)
            for left in ([a for a in t if a not in {*heads, *summed}] for t in sized):
                if len(left) == 1 and left[0].pins and left[0].size == _PROJECTIONS:
                    yield (left[0],), "qkv"
        else:
            values += (members for members in alone if _beside(each, members, terms))
    yield from ((members, "v_head_size") for members in values)


def _product(solution: Solution, applied: Applied) -> tuple[Term, Term, list[Term]]:
    """Return the atoms that two activations are multiplied for each of, and those summed over;
    then those of each axis that only one of them has.
    """
    node, pattern, parts = applied.node, applied.pattern, applied.rule.parts
    each = [name for name, part in parts.items() if part == "heads"]
    summed = [name for name, part in parts.items() if part == "head_size"]
    alone: list[str] = []
    if not parts:
        operands = [
            spec
            for operand, spec in zip(node.inputs, pattern.inputs, strict=False)
            if spec and operand not in solution.graph.derived
        ]
        if len(operands) == 2:
            left, right = (
                dict.fromkeys(name.lstrip("~") for item in spec for name in leaves(item))
                for spec in operands
            )
            both = [name for name in left if name in right]
            each = [name for name in both if name not in pattern.contracted]
            summed = [name for name in both if name in pattern.contracted]
            alone = [name for name in (*left, *right) if name not in both]
    apart = [_members(applied, [name]) for name in alone]
    return _members(applied, each), _members(applied, summed), apart


def _members(applied: Applied, names: Iterable[str]) -> Term:
    """Return the atoms of the axes that names of a rule stand for, if for any."""
    return tuple(a for name in names if name in applied.env for a in atoms(applied.env[name]))


def _beside(each: Term, members: Term, terms: Terms) -> list[Term]:
    """Return the products of a number of heads and ``members``; of one head, of ``members``."""
    if heads := [free for free in each if free in terms]:
        near = dict.fromkeys(term for head in heads for term in terms[head])
        return [term for term in near if not set(members).isdisjoint(term)]
    near = dict.fromkeys(term for free in members if free in terms for term in terms[free])
    return [term for term in near if set(members).issuperset(term)]


def _heads(heads: list[Atom], sized: list[Term]) -> Iterator[Claim]:
    """Yield what numbers of heads are: those of queries that share keys are not among the keys'."""
    keys = tuple(head for head in heads if all(head in term for term in sized))
    rest = tuple(head for head in heads if head not in keys)
    yield (keys, "kv_heads") if keys and rest else (tuple(heads), "heads")
    if keys:
        yield rest, "heads_per_kv"


def _normalised(solution: Solution, terms: Terms) -> Iterator[Claim]:
    """Yield the groups that are normalised apart, and the channels of a group."""
    for applied in solution.applied.values():
        if names := applied.rule.normalised:
            over = _members(applied, names)
            others = {*_members(applied, applied.env.keys() - names)}.difference(over)
            for term in dict.fromkeys(t for free in over if free in terms for t in terms[free]):
                if groups := tuple(free for free in term if free in others):
                    yield groups, "groups"
                    yield tuple(free for free in term if free in over), "channels"
