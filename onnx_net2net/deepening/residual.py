"""Blocks by the graph alone: the steps of a residual stream, whatever their parameters are called.

    x0 -> [x0 + f(x0)] -> x1 -> [x1 + g(x1)] -> x2        two steps, or one block of both

A step leads from one tensor to the next that a sum (and an activation or a norm behind it) makes of
it. Steps that come again in the same order are one block: attention and MLP of a transformer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from itertools import islice

from onnx_net2net.deepening.paths import between, norm_of, upstream
from onnx_net2net.deepening.segments import Block, assess, is_activation, is_layer, is_weightless
from onnx_net2net.widening.dimensions import Analysis

_TRIES = 8  # how many tensors are tried for the beginning of a step


def streamed_blocks(analysis: Analysis, taken: set[int]) -> list[Block]:
    """Return the exact blocks among the nodes that are not ``taken``, unnamed."""
    blocks: list[Block] = []
    for chain in _chains(_steps(analysis, taken)):
        for steps in _groups([_kind(analysis, step) for step in chain]):
            members = chain[steps]
            whole = assess(analysis, "", "", members[0].input, members[-1].output)
            blocks += [whole] if whole.exact else members
    return blocks


def _steps(analysis: Analysis, taken: set[int]) -> list[Block]:
    """Return the shortest exact segments that end in a sum, or in what makes the most of it."""
    candidates = [
        step
        for node in analysis.graph.main
        for output in node.outputs
        if node.position not in taken and (step := _step(analysis, output)) is not None
        if taken.isdisjoint(step.positions)
    ]
    entries = {step.input for step in candidates}
    by_entry: dict[str, list[Block]] = defaultdict(list)
    for step in candidates:
        source = analysis.graph.producer.get(step.input)
        normed = source is not None and norm_of(analysis, source) is not None
        if step.affine and step.output not in entries and not normed:
            continue  # a norm behind the last block is not part of it
        # x + f(x) + g(x) is one step, not two; so is x + f(x) with an activation behind it.
        others = by_entry[step.input]
        others[:] = [other for other in others if not other.positions < step.positions]
        others.append(step)
    return [step for steps in by_entry.values() for step in steps]


def _step(analysis: Analysis, output: str) -> Block | None:
    """Return the shortest segment that ends in ``output`` and holds a layer, if it is exact."""
    shapes, nodes = analysis.solution.shapes, analysis.graph.nodes
    if not is_activation(analysis, output):
        return None
    path = list(islice(upstream(analysis, output), _TRIES))
    for at, entry in enumerate(path):
        fits = is_activation(analysis, entry) and shapes.of(entry) == shapes.of(output) is not None
        inside = between(analysis, entry, output) if fits else set()
        if any(is_layer(analysis, nodes[position]) for position in inside):
            alone = all(_only_read(analysis, name, inside) for name in path[:at])
            block = assess(analysis, "", "", entry, output) if alone else None
            return block if block is not None and block.exact else None
    return None


def _only_read(analysis: Analysis, name: str, inside: set[int]) -> bool:
    """Return whether only nodes ``inside`` read a tensor, if it is one of theirs."""
    graph = analysis.graph
    node = graph.producer.get(name)
    readers = {reader.position for reader, _ in graph.consumers.get(name, [])}
    own = node is not None and node.position in inside
    return not own or (name not in graph.results and readers <= inside)


def _chains(steps: Sequence[Block]) -> Iterator[list[Block]]:
    """Yield steps of which each begins where the one before ends."""
    following: dict[str, Block] = {}
    for step in sorted(steps, key=lambda s: len(s.positions)):
        following[step.input] = step
    begun = {step.output for step in following.values()}
    alone = [step for step in steps if following[step.input] is not step]
    for first in [step for entry, step in following.items() if entry not in begun]:
        chain = [first]
        while (after := following.get(chain[-1].output)) is not None:
            chain.append(after)
        yield chain
    yield from ([step] for step in alone)


def _kind(analysis: Analysis, step: Block) -> tuple[str, ...]:
    """Return the operators of a step that have weights or contract: equal for equal steps."""
    solution = analysis.solution
    operators = []
    for at in sorted(step.positions):
        node, applied = solution.graph.nodes[at], solution.applied.get(at)
        contracts = applied is not None and bool(applied.pattern.contracted)
        weighs = contracts or not is_weightless(analysis, node)
        if weighs and is_activation(analysis, node.outputs[0]):
            operators.append(node.op)
    return tuple(operators)


def _groups(kinds: Sequence[Hashable]) -> Iterator[slice]:
    """Yield where blocks begin and end: what comes again is one, what does not is by itself.

    >>> list(_groups("xamamy"))
    [slice(0, 1, None), slice(1, 3, None), slice(3, 5, None), slice(5, 6, None)]
    """
    at = 0
    while at < len(kinds):
        equal = _repeats(kinds[at:])
        covered = [(n * (1 + equal[n] // n), -n) for n in range(1, len(equal)) if equal[n] >= n]
        whole, length = max(covered, default=(1, -1))
        yield from (slice(i, i - length) for i in range(at, at + whole, -length))
        at += whole


def _repeats(kinds: Sequence[Hashable]) -> list[int]:
    """Return for each place how many kinds from there on are those of the beginning.

    The Z algorithm, in linear time: what is known of the beginning holds where it comes again.
    """
    equal, start, end = [0] * len(kinds), 0, 0
    for at in range(1, len(kinds)):
        count = min(equal[at - start], end - at) if at < end else 0
        while at + count < len(kinds) and kinds[count] == kinds[at + count]:
            count += 1
        equal[at] = count
        if at + count > end:
            start, end = at, at + count
    return equal
