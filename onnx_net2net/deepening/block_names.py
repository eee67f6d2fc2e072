"""Names for blocks that no number of a series names: what the names of their nodes begin with.

named(analysis, found, "block")     # conv2_block3, inception4b, or else block.0, block.1, ...
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from onnx_net2net.deepening.paths import trained_behind
from onnx_net2net.deepening.segments import Block, is_layer, is_weightless
from onnx_net2net.model.graph import Node
from onnx_net2net.model.numbers import between_dots, is_member, split, title
from onnx_net2net.widening.dimensions import Analysis, module_path

_MOST = 3 / 4  # of the layers of a block must bear its name, which widening keeps


def named(analysis: Analysis, blocks: Sequence[Block], series: str) -> list[Block]:
    """Name blocks after what the names in them begin with, or else by numbers in ``series``."""
    nodes = [node for node in analysis.graph.main if not is_weightless(analysis, node)]
    layers = {node.position for node in nodes if is_layer(analysis, node)}
    begun: dict[str, set[int]] = defaultdict(set)
    modules: set[str] = set()
    for node in nodes:
        names = (*trained_behind(analysis, node.inputs), module_path(node) or node.proto.name)
        for name in (name for name in names if not _is_made_up(name, node)):
            # block1/conv_2 begins with block1, block1/conv and itself
            for separator in re.finditer(r"(?!_copy\d)[/._:]|$", name):
                if separator.start():
                    begun[name[: separator.start()]].add(node.position)
                if separator[0] == ".":
                    modules.add(name[: separator.start()])
    called = set().union(*begun.values())
    prefixes: dict[int, list[str]] = defaultdict(list)
    for prefix, places in begun.items():
        for at in places:
            prefixes[at].append(prefix)
    while any(prefix.startswith(series + ".") for prefix in begun):
        series += "_"
    renamed: list[Block] = []
    taken: set[str] = set()
    for number, block in enumerate(sorted(blocks, key=lambda block: min(block.positions))):
        inside = called & block.positions
        inside = inside & layers or inside  # widening adds no layers, and names shall stay
        near = dict.fromkeys(p for at in sorted(inside) for p in prefixes[at])
        name = _common({p: begun[p] for p in near}, block.positions, inside)
        if name in analysis.model.weights:  # its only parameter with a name
            name = name.rpartition(".")[0] or name
        name = name.strip("/").rpartition("/")[2]
        if not name or name in taken:
            renamed.append(replace(block, name=f"{series}.{number}"))
        else:
            prefix = split(name)[0] if is_member(name) else ""
            counts = between_dots(prefix) or name in modules
            renamed.append(replace(block, name=name, series=title(prefix) if counts else ""))
        taken.add(renamed[-1].name)
    return renamed


def _common(begun: dict[str, set[int]], positions: frozenset[int], inside: set[int]) -> str:
    """Return what most names of the nodes ``inside`` begin with, and none of other nodes.

    Of several, a number in a series is best, and then the outermost part.
    """
    shares = {p: len(at & inside) for p, at in begun.items() if at <= positions}
    fitting = [p for p, share in shares.items() if inside and share >= _MOST * len(inside)]

    def rank(prefix: str) -> tuple[int, bool, int, int]:
        numbered = prefix.rpartition(".")[2].isdigit()
        return shares[prefix], numbered, -len(re.findall("[./]", prefix)), len(prefix)

    return max(fitting, key=rank, default="")


def _is_made_up(name: str, node: Node) -> bool:
    """Return whether an exporter made a name up: ``node_linear_3``, ``onnx::Conv_12``."""
    parts = re.split(r"[/._:]+", name)
    made_up = parts[0] == "node" or all(p in ("", "onnx", "val", node.op) for p in parts[:-1])
    return made_up and (parts[-1].isdigit() or parts[0] == "node" or parts[-1] == node.op)
