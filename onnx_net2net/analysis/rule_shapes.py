"""Output sizes that follow from a rule alone, of symbols and of numbers alike.

"b m k, k n -> b m n"  and  (batch, 3, 5), (5, 7)   give   (batch, 3, 7)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from onnx_net2net.algebra.sizes import AnySize, exact, trial
from onnx_net2net.operators import lookup
from onnx_net2net.operators.broadcast import repeated
from onnx_net2net.operators.language import Op, Pattern, Rule, Unsupported, expand, ranks
from onnx_net2net.operators.notation import Group, Plus, Spec, Term, leaves, parse

Sizes = tuple[AnySize, ...]
SizeOf = Callable[[str], AnySize | None]  # of a name, None while it is open


@dataclass
class RuleSizes:
    """What the rule of one node says of the sizes of its outputs."""

    rule: Rule
    pattern: Pattern
    outputs: list[tuple[AnySize | None, ...]] = field(default_factory=list)  # None: open

    def forget(self, output: int, axis: int) -> None:
        """Leave a size open that is not what was inferred."""
        names = leaves(self.pattern.outputs[output][axis])  # type: ignore[index]
        kept = {name: size for name, size in self.rule.sizes.items() if name not in names}
        self.rule = replace(self.rule, sizes=kept)


def joined(term: Group | Plus, sizes: Iterable[AnySize | None]) -> AnySize:
    """Return the size of a term whose parts have these sizes; open ones are left out."""
    known = [size for size in sizes if size is not None]
    return prod(known) if isinstance(term, Group) else sum(known)


def remaining(term: Group | Plus, size: AnySize, sizes: Iterable[AnySize | None]) -> AnySize | None:
    """Return the size of the one open part of a term that is ``size`` long, None where none is."""
    rest = joined(term, sizes)
    return exact(size, rest) if isinstance(term, Group) else size - rest


def measure(term: Term, size_of: SizeOf) -> AnySize | None:
    """Return the size of ``term``, or None while a name in it is open."""
    if isinstance(term, str):
        return size_of(term.lstrip("~"))
    sizes = [measure(part, size_of) for part in term.terms]
    return None if None in sizes else joined(term, sizes)


def sizes_by_rule(op: Op, outputs: Sequence[int | None] | None = None) -> RuleSizes:
    """Return what the rule of a node says of its outputs, whose ranks are ``outputs`` if known.

    Raise Unsupported where there is no rule, or the shapes do not fit it.
    """
    rule = lookup(op)
    pattern = expand(rule.pattern, ranks(op.shapes), tuple(outputs or ()))
    sizes: dict[str, AnySize] = {"1": 1}

    def size_of(name: str) -> AnySize | None:
        return sizes.get(name, rule.sizes.get(name))

    def note(term: Term, size: AnySize) -> bool:
        """Note what ``term`` being ``size`` long says of its names; False where it cannot be."""
        if isinstance(term, str):
            name = term.lstrip("~")
            known = sizes.setdefault(name, size)
            if known == size:
                return True
            numbers, repeats = (trial(known), trial(size)), name in pattern.broadcast
            if numbers[0] != numbers[1] and not (repeats and 1 in numbers):
                return False
            if repeats:
                sizes[name] = repeated(known, size)
            elif isinstance(size, int):
                sizes[name] = size  # the node fails where they differ
            return True
        parts = [measure(part, size_of) for part in term.terms]
        if parts.count(None) > 1:
            return all(isinstance(part, str) for part in term.terms)
        if None not in parts:
            return bool(trial(joined(term, parts)) == trial(size))
        rest = remaining(term, size, parts)
        return rest is not None and note(term.terms[parts.index(None)], rest)

    for spec, shape in zip(pattern.inputs, op.shapes, strict=False):
        for term, size in zip(spec or (), shape or (), strict=False):
            if not note(term, size):
                raise Unsupported(f"an axis of size {size} does not fit (rule: {rule.pattern})")
    specs = pattern.outputs if outputs is not None else _outputs(rule, pattern)
    by_rule = [tuple([measure(term, size_of) for term in spec or ()]) for spec in specs]
    return RuleSizes(rule, pattern, by_rule)


def _outputs(rule: Rule, pattern: Pattern) -> list[Spec]:
    """Return the output specs, variadic names as long as in the inputs."""
    specs: list[Spec] = []
    names = [n for s in pattern.inputs if s for t in s for n in leaves(t)]
    for spec in parse(rule.pattern)[1]:
        terms: list[Term] = []
        for item in spec or ():
            if isinstance(item, str) and item == "...":
                terms.extend(sorted(pattern.broadcast, key=lambda n: -int(str(n)[3:])))
            elif isinstance(item, str) and item.startswith("*"):
                terms.extend(dict.fromkeys(n for n in names if n.startswith(item[1:] + ".")))
            else:
                terms.append(item)
        specs.append(tuple(terms))
    return specs
