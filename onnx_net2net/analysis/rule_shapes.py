"""Output shapes that follow from a rule alone, for operators of which onnx knows no shapes.

"b m k, k n -> b m n"  and  (2, 3, 5), (5, 7)   give   (2, 3, 7)
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx_net2net.analysis.onnx_inference import Array, Shape
from onnx_net2net.model.graph import Node
from onnx_net2net.operators import lookup
from onnx_net2net.operators.language import Op, Pattern, Rule, Unsupported, expand, ranks
from onnx_net2net.operators.notation import Group, Spec, Term, leaves, parse

Sizes = dict[str, int]


def shapes_by_rule(
    node: Node, opset: int, given: list[Shape | None], values: list[Array | None]
) -> list[Shape] | None:
    """Shapes of what ``node`` writes, or None where its rule does not tell them all."""
    op = Op(node.proto, opset, tuple(given), (None,) * len(node.outputs), tuple(values))
    try:
        rule = lookup(op)
        pattern = expand(rule.pattern, ranks(given), ())
    except Unsupported:
        return None
    sizes: Sizes = {"1": 1}
    for spec, shape in zip(pattern.inputs, given, strict=False):
        for term, size in zip(spec or (), shape or (), strict=False):
            if not _match(term, size, sizes, rule.sizes, pattern.broadcast):
                return None
    found: list[Shape] = []
    for spec in _outputs(rule, pattern):
        shape = tuple(_measure(term, sizes, rule.sizes) or 0 for term in spec)
        if 0 in shape:
            return None
        found.append(shape)
    return found


def _match(
    term: Term, size: int, sizes: Sizes, given: Mapping[str, int], broadcast: frozenset[str]
) -> bool:
    """Note the sizes that ``term`` being ``size`` long tells; False where it cannot be."""
    if isinstance(term, str):
        name = term.lstrip("~")
        if name in broadcast and 1 in (size, sizes.get(name)):
            size = max(size, sizes.get(name, 1))
            sizes[name] = size
        return sizes.setdefault(name, size) == size
    parts = [_measure(part, sizes, given) for part in term.terms]
    if parts.count(None) > 1:
        return False
    known = 1 if isinstance(term, Group) else 0
    for part in parts:
        if part is not None:
            known = known * part if isinstance(term, Group) else known + part
    if None not in parts:
        return known == size
    if isinstance(term, Group) and (known == 0 or size % known):
        return False
    rest = size // known if isinstance(term, Group) else size - known
    return _match(term.terms[parts.index(None)], rest, sizes, given, broadcast)


def _measure(term: Term, sizes: Sizes, given: Mapping[str, int]) -> int | None:
    """The size of ``term``, or None while a name in it is open."""
    if isinstance(term, str):
        name = term.lstrip("~")
        return sizes.get(name, given.get(name))
    result = 1 if isinstance(term, Group) else 0
    for part in term.terms:
        size = _measure(part, sizes, given)
        if size is None:
            return None
        result = result * size if isinstance(term, Group) else result + size
    return result


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
