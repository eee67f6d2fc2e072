"""Output shapes that follow from a rule alone, of symbols and of numbers alike.

"b m k, k n -> b m n"  and  (batch, 3, 5), (5, 7)   give   (batch, 3, 7)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from onnx_net2net.algebra.sizes import AnySize, exact, trial
from onnx_net2net.operators import lookup
from onnx_net2net.operators.broadcast import repeated
from onnx_net2net.operators.language import Op, Pattern, Rule, Unsupported, expand, ranks
from onnx_net2net.operators.notation import Group, Spec, Term, leaves, parse

Sizes = tuple[AnySize, ...]


@dataclass
class Followed:
    """What the rule of one node says of the sizes of its outputs."""

    rule: Rule
    pattern: Pattern
    outputs: list[tuple[AnySize | None, ...]] = field(default_factory=list)  # None: not told

    def forget(self, output: int, axis: int) -> None:
        """Leave a size open that is not what was inferred."""
        names = leaves(self.pattern.outputs[output][axis])  # type: ignore[index]
        kept = {name: size for name, size in self.rule.sizes.items() if name not in names}
        self.rule = replace(self.rule, sizes=kept)


def follow(op: Op, outputs: Sequence[int | None] | None = None) -> Followed:
    """Sizes by the rule of a node, whose outputs have the ranks in ``outputs`` if these are known.

    Raises Unsupported where there is no rule, or the shapes do not fit it.
    """
    rule = lookup(op)
    pattern = expand(rule.pattern, ranks(op.shapes), tuple(outputs or ()))
    found = Followed(rule, pattern)
    sizes: dict[str, AnySize] = {"1": 1}
    for spec, shape in zip(pattern.inputs, op.shapes, strict=False):
        for term, size in zip(spec or (), shape or (), strict=False):
            if not _match(term, size, sizes, found):
                raise Unsupported(f"an axis of size {size} does not fit (rule: {rule.pattern})")
    for spec in pattern.outputs if outputs is not None else _outputs(rule, pattern):
        measured = (_measure(term, sizes, rule.sizes) for term in spec or ())
        found.outputs.append(tuple(measured))
    return found


def _match(term: Term, size: AnySize, sizes: dict[str, AnySize], found: Followed) -> bool:
    """Note the sizes that ``term`` being ``size`` long tells; False where it cannot be."""
    if isinstance(term, str):
        name = term.lstrip("~")
        known = sizes.setdefault(name, size)
        if known == size:
            return True
        if name in found.pattern.broadcast and 1 in (trial(known), trial(size)):
            sizes[name] = repeated(known, size)
            return True
        if trial(known) != trial(size):
            return False
        if name in found.pattern.broadcast:
            sizes[name] = repeated(known, size)
            return True
        sizes[name] = size if isinstance(size, int) else known  # the node fails where they differ
        return True
    given = found.rule.sizes
    parts = [_measure(part, sizes, given) for part in term.terms]
    if parts.count(None) > 1:
        return all(isinstance(part, str) for part in term.terms)
    told: Any = 1 if isinstance(term, Group) else 0
    for part in parts:
        if part is not None:
            told = told * part if isinstance(term, Group) else told + part
    if None not in parts:
        return bool(trial(told) == trial(size))
    rest = exact(size, told) if isinstance(term, Group) else size - told
    return rest is not None and _match(term.terms[parts.index(None)], rest, sizes, found)


def _measure(
    term: Term, sizes: Mapping[str, AnySize], given: Mapping[str, AnySize]
) -> AnySize | None:
    """The size of ``term``, or None while a name in it is open."""
    if isinstance(term, str):
        name = term.lstrip("~")
        return sizes.get(name, given.get(name))
    result: Any = 1 if isinstance(term, Group) else 0
    for part in term.terms:
        size = _measure(part, sizes, given)
        if size is None:
            return None
        result = result * size if isinstance(term, Group) else result + size
    return result  # type: ignore[no-any-return]


def _outputs(rule: Rule, pattern: Pattern) -> list[Spec]:
    """Output specs, variadic names as long as in the inputs."""
    found: list[Spec] = []
    open_names = [n for s in pattern.inputs if s for t in s for n in leaves(t)]
    for spec in parse(rule.pattern)[1]:
        result: list[Term] = []
        for item in spec or ():
            if isinstance(item, str) and item == "...":
                result.extend(sorted(pattern.broadcast, key=lambda n: -int(str(n)[3:])))
            elif isinstance(item, str) and item.startswith("*"):
                result.extend(dict.fromkeys(n for n in open_names if n.startswith(item[1:] + ".")))
            else:
                result.append(item)
        found.append(tuple(result))
    return found
