"""Blocks by the graph alone: the steps of a residual stream, whatever their parameters are called.

    x0 -> [x0 + f(x0)] -> x1 -> [x1 + g(x1)] -> x2        two steps, or one block of both

A step leads from one tensor to the next that a sum (and an activation or a norm behind it) makes of
it. Steps that come again in the same order are one block: attention and MLP of a transformer.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from onnx_net2net.dimensions import Analysis, module_path
from onnx_net2net.graph import Node
from onnx_net2net.segments import Block, carries, is_layer, judged, plain
from onnx_net2net.vanishing import between, norm_of, trained_behind, upstream

# Generated names count in this series; the names of parameters do not.
_SERIES = "block"
_TRIES = 8  # how many tensors are tried for the beginning of a step
_MOST = 3 / 4  # of the layers of a block must bear its name, which widening keeps


def streamed_blocks(analysis: Analysis, taken: set[int]) -> list[Block]:
    """The exact blocks among the nodes that are not ``taken``, in graph order."""
    found: list[Block] = []
    for chain in _chains(_steps(analysis, taken)):
        for steps in _groups([_kind(analysis, step) for step in chain]):
            members = chain[steps]
            whole = judged(analysis, "", "", members[0].input, members[-1].output)
            found += [whole] if whole.exact else members
    found.sort(key=lambda block: min(block.positions))
    return _named(analysis, found)


def _steps(analysis: Analysis, taken: set[int]) -> list[Block]:
    """The shortest exact segments that end in a sum, or in what makes the most of it."""
    candidates = [
        step
        for node in analysis.solution.graph.main
        for output in node.outputs
        if node.position not in taken and (step := _step(analysis, output)) is not None
        if taken.isdisjoint(step.positions)
    ]
    entries = {step.input for step in candidates}
    found: dict[str, list[Block]] = defaultdict(list)
    for step in candidates:
        if step.affine and step.output not in entries and not _normed(analysis, step.input):
            continue  # a norm behind the last block is not part of it
        # x + f(x) + g(x) is one step, not two; so is x + f(x) with an activation behind it.
        others = found[step.input]
        others[:] = [other for other in others if not other.positions < step.positions]
        others.append(step)
    return [step for steps in found.values() for step in steps]


def _step(analysis: Analysis, output: str) -> Block | None:
    shapes, nodes = analysis.solution.shapes, analysis.solution.graph.nodes
    if not carries(analysis, output):
        return None
    path = upstream(analysis, output)[:_TRIES]
    for at, entry in enumerate(path):
        fits = carries(analysis, entry) and shapes.of(entry) == shapes.of(output) is not None
        inside = between(analysis, entry, output) if fits else set()
        if any(is_layer(analysis, nodes[position]) for position in inside):
            alone = all(_only_read(analysis, name, inside) for name in path[:at])
            block = judged(analysis, "", "", entry, output) if alone else None
            return block if block is not None and block.exact else None
    return None


def _only_read(analysis: Analysis, name: str, inside: set[int]) -> bool:
    """Whether only nodes ``inside`` read a tensor, if it is one of theirs."""
    graph = analysis.solution.graph
    node = graph.producer.get(name)
    readers = {reader.position for reader, _ in graph.consumers.get(name, [])}
    own = node is not None and node.position in inside
    return not own or (name not in graph.results and readers <= inside)


def _normed(analysis: Analysis, name: str) -> bool:
    node = analysis.solution.graph.producer.get(name)
    return node is not None and norm_of(analysis, node) is not None


def _chains(steps: Sequence[Block]) -> Iterator[list[Block]]:
    """Steps of which each reads what the one before gives."""
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
    """Equal for steps of one structure: their operators with weights, and those that contract."""
    solution = analysis.solution
    found = []
    for at in sorted(step.positions):
        node, applied = solution.graph.nodes[at], solution.applied.get(at)
        contracts = applied is not None and bool(applied.pattern.contracted)
        if carries(analysis, node.outputs[0]) and (contracts or not plain(analysis, node)):
            found.append(node.op)
    return tuple(found)


def _groups(kinds: Sequence[tuple]) -> Iterator[slice]:
    """Where blocks begin and end: what comes again is one, and what does not is by itself.

    >>> list(_groups("xamamy"))
    [slice(0, 1, None), slice(1, 3, None), slice(3, 5, None), slice(5, 6, None)]
    """
    at = 0
    while at < len(kinds):
        length, times = max(
            ((n, _times(kinds, at, n)) for n in range(1, (len(kinds) - at) // 2 + 1)),
            key=lambda found: (found[0] * found[1] if found[1] > 1 else 0, -found[0]),
            default=(1, 1),
        )
        length = length if times > 1 else 1
        for _ in range(times):
            yield slice(at, at + length)
            at += length


def _times(kinds: Sequence[tuple], at: int, length: int) -> int:
    """How often the ``length`` kinds from ``at`` on follow each other."""
    first, times = kinds[at : at + length], 1
    while kinds[at + times * length : at + (times + 1) * length] == first:
        times += 1
    return times


def _named(analysis: Analysis, blocks: list[Block]) -> list[Block]:
    """The blocks under what the names in them begin with, or else under numbers."""
    nodes = [node for node in analysis.solution.graph.main if not plain(analysis, node)]
    layers = {node.position for node in nodes if is_layer(analysis, node)}
    begun: dict[str, set[int]] = defaultdict(set)
    for node in nodes:
        for prefix in {p for name in _names(analysis, node) for p in _prefixes(name)}:
            begun[prefix].add(node.position)
    called = set().union(*begun.values())
    series = _SERIES
    while any(prefix.startswith(series + ".") for prefix in begun):
        series += "_"
    named: list[Block] = []
    for number, block in enumerate(blocks):
        inside = called & block.positions
        inside = inside & layers or inside  # widening adds no layers, and names shall stay
        name = _common(begun, block.positions, inside)
        if name in analysis.model.weights:  # its only parameter with a name
            name = name.rpartition(".")[0] or name
        name = name.strip("/").rpartition("/")[2]
        if not name or any(name == other.name for other in named):
            named.append(replace(block, name=f"{series}.{number}"))
        else:
            counted = re.fullmatch(r"(.+)\.\d+", name)
            named.append(replace(block, name=name, series=counted[1] if counted else ""))
    return named


def _common(begun: dict[str, set[int]], positions: frozenset[int], inside: set[int]) -> str:
    """What the most names of the nodes ``inside`` begin with, and none of other nodes."""
    shares = {p: len(at & inside) for p, at in begun.items() if at <= positions}
    fitting = [p for p, share in shares.items() if inside and share >= _MOST * len(inside)]
    return max(fitting, key=lambda prefix: (shares[prefix], *_speaking(prefix)), default="")


def _names(analysis: Analysis, node: Node) -> list[str]:
    path = module_path(node)
    names = [*trained_behind(analysis, node.inputs), path or node.proto.name]
    return [name for name in names if not _anonymous(name, node)]


def _anonymous(name: str, node: Node) -> bool:
    """Whether an exporter made a name up: ``node_linear_3``, ``onnx::Conv_12``, ``val_3``."""
    parts = re.split(r"[/._:]+", name)
    made_up = parts[0] == "node" or all(p in ("", "onnx", "val", node.op) for p in parts[:-1])
    return made_up and (parts[-1].isdigit() or parts[0] == "node" or parts[-1] == node.op)


def _speaking(prefix: str) -> tuple[bool, int, int]:
    """What is greatest for the best of several names: a number in a series, the outermost part."""
    numbered = prefix.rpartition(".")[2].isdigit()
    return numbered, -len(re.findall("[./]", prefix)), len(prefix)


def _prefixes(name: str) -> Iterator[str]:
    """``block1/conv_2`` begins with ``block1``, ``block1/conv`` and itself."""
    for separator in re.finditer(r"(?!_copy\d)[/._:]|$", name):
        if separator.start():
            yield name[: separator.start()]
