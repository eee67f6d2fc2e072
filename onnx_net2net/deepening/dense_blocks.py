"""Blocks that a Concat puts beside what they read, as DenseNet's are, and copies of them.

    Concat(x) -> [block] -> y      Concat(x, y) -> ...

becomes

    Concat(x) -> [block] -> y      Concat(x, y) -> [copy] -> z      Concat(x, y, z) -> ...

Whatever reads ``y`` among others reads ``z`` behind it, with zeros: the copy may compute what it
likes. It has the block's parameters, and random ones for the units of ``y`` that it reads as well.
Source: Huang et al., Densely Connected Convolutional Networks, CVPR 2017 (the blocks).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace

import numpy as np
from onnx import helper

from onnx_net2net.algebra.axes import Atom, Axis, atoms, canonical
from onnx_net2net.algebra.expansion import PAD, Index, fill_pads, gather_axes
from onnx_net2net.algebra.sizes import trial
from onnx_net2net.deepening.block_copies import Cloning
from onnx_net2net.deepening.segments import Block, crossings, is_join, is_layer
from onnx_net2net.errors import Refused
from onnx_net2net.model.editing import Editor
from onnx_net2net.model.graph import Node
from onnx_net2net.model.model import Computed, Weight
from onnx_net2net.step import Split, Widen
from onnx_net2net.widening.dimensions import Analysis, Dimension, Freedom
from onnx_net2net.widening.growth import Growth
from onnx_net2net.widening.growth_record import Along, WeightGrowth
from onnx_net2net.widening.patching import apply
from onnx_net2net.widening.request import check_finite
from onnx_net2net.widening.sharing import share
from onnx_net2net.widening.sizing import Sizing

_OTHERS = "copy another block of the series, or insert single layers (--after)"


def beside(analysis: Analysis, block: Block) -> Block:
    """Return a block, exact if a copy can be put beside what it reads and gives."""
    graph, nodes = analysis.graph, [analysis.graph.nodes[at] for at in block.positions]
    joins = [node for node, _ in graph.consumers.get(block.output, ())]
    dimension = _units(analysis, block)
    if block.output in graph.results or dimension is None or not joins:
        return block
    axis = _axis_of(analysis, block.output, dimension)
    join = _join(analysis, block, axis)
    behind = [*(join.inputs if join else [block.input]), block.output]
    others = [*_others(analysis, block, dimension)]
    dense = (
        all(_axis(analysis, node) == axis for node in joins)
        and any([*node.inputs[: len(behind)]] == behind for node in joins)
        and any(is_layer(analysis, node) for node in nodes)
        and not any(node.bodies or node.opaque for node in nodes)
        and not crossings(analysis, set(block.positions), block.input, block.output)
        and not any(_writes(analysis, node, dimension) for node in others)
        and not any(name in graph.copies for name in (*block.parameters, *dimension.uses))
    )
    if not dense or not _widens(analysis, block, axis):
        return block
    return replace(block, exact=True, reason=None, remedy=None, beside=True)


def _units(analysis: Analysis, block: Block) -> Dimension | None:
    """Return the dimension of what a block gives, if it can grow freely."""
    for axis in map(canonical, analysis.solution.axes.get(block.output, ())):
        dimension = analysis.by_atom.get(axis) if isinstance(axis, Atom) else None
        if dimension is not None and dimension.growth is Freedom.ANY:
            return None if dimension.atom in analysis.paddings else dimension
    return None


def _others(analysis: Analysis, block: Block, dimension: Dimension) -> Iterator[Node]:
    """Yield the nodes outside of a block that a dimension lies on."""
    names = set(dimension.nodes)
    for node in analysis.graph.nodes:
        if node.name in names and node.position not in block.positions:
            yield node


def _writes(analysis: Analysis, node: Node, dimension: Dimension) -> bool:
    """Return whether a node gives units of a dimension that it does not get."""
    axes, derived = analysis.solution.axes, analysis.graph.derived

    def carries(names: Iterable[str]) -> bool:
        computed = (name for name in names if name not in derived)
        return any(dimension.atom in atoms(a) for name in computed for a in axes.get(name, ()))

    return carries(node.outputs) and not carries(node.inputs)


def _axis_of(analysis: Analysis, tensor: str, dimension: Dimension) -> int:
    return [canonical(a) for a in analysis.solution.axes[tensor]].index(dimension.atom)


def _axis(analysis: Analysis, node: Node) -> int | None:
    """Return the axis along which a node puts its inputs side by side; None for any other node."""
    if not is_join(node):
        return None
    rank = len(analysis.solution.axes.get(node.outputs[0], ())) or 1
    return next((a.i % rank for a in node.proto.attribute if a.name == "axis"), None)


def _join(analysis: Analysis, block: Block, axis: int) -> Node | None:
    """Return the node that puts together what a block reads, if there is one."""
    node = analysis.graph.producer.get(block.input)
    return node if node is not None and _axis(analysis, node) == axis else None


def _widens(analysis: Analysis, block: Block, axis: int) -> bool:
    """Return whether a block may read more units: each weight meets all of them along one axis."""
    solution = analysis.solution
    entry = canonical(solution.axes[block.input][axis])
    read = set(atoms(entry))
    for at in block.positions:
        node, applied = analysis.graph.nodes[at], solution.applied.get(at)
        if applied is None:
            return False
        names = [name for name in (*node.inputs, *node.outputs) if name in solution.axes]
        axes = [[canonical(a) for a in solution.axes[name]] for name in names]
        met = [a for own in axes for a in own]
        if any(a != entry and not read.isdisjoint(atoms(a)) for a in met):
            return False
        if any(own.count(entry) > 1 for own in axes):
            return False
        if entry in met and applied.rule.size_refs:
            return False
    return True


class _Dense:
    """Copies of one block beside it, under construction."""

    def __init__(self, analysis: Analysis, block: Block, copies: int, seed: int) -> None:
        dimension = _units(analysis, block)
        assert dimension is not None, f"{block.name} is not dense"
        self.analysis, self.block, self.copies, self.seed = analysis, block, copies, seed
        self.dimension = dimension
        self.axis = _axis_of(analysis, block.output, dimension)
        units = np.arange(dimension.width)
        source = np.concatenate([units, np.full(copies * len(units), PAD)])
        models = np.resize(units, len(source))
        self.growth = Growth({dimension.atom: source}, {dimension.atom: models})
        self.editor = Editor(analysis.graph)

    def readers(self) -> dict[str, WeightGrowth]:
        """Let all that reads the block's output have room for more; return how weights grew."""
        solution, growth, block = self.analysis.solution, self.growth, self.block
        check_finite(self.analysis, [self.dimension])
        step = Widen(widths={self.dimension.name: len(growth.sources[self.dimension.atom])},
                     split=Split.FRESH, seed=self.seed)  # fmt: skip
        try:
            sharing = share(self.analysis, growth, step)
        except Refused as refusal:  # its remedy would be another split
            raise Refused(block.name, f"{refusal.node}: {refusal.reason}", _OTHERS) from None
        sizing = Sizing(solution, growth).find()
        resized = {patch.node.position for patch in sizing.patches}
        resized.update(attribute.node.position for attribute in sizing.attributes)
        resized.update(node.position for node, _ in sizing.drops)
        if sharing.insertions or sharing.scaled or block.positions & resized:
            raise Refused(block.name, "what reads it has no weights that could be zero", _OTHERS)
        apply(sizing, self.editor)
        grown: dict[str, WeightGrowth] = {}
        inside = set(block.parameters)
        for name, weight in solution.graph.model.weights.items():
            axes = solution.axes.get(name, [])
            if name in inside or not any(map(growth.touches, axes)):
                continue
            along = [
                Along(i, growth.source(a), "splits" if (name, i) in sharing.splits else "writes")
                for i, a in enumerate(axes)
                if growth.touches(a)
            ]
            drawn = {a.axis: growth.drawn(axes[a.axis]) for a in along if a.kind == "writes"}
            self._grow(weight, along, drawn)
            grown[name] = WeightGrowth(along)
        own = {name for at in block.positions for name in self.analysis.graph.nodes[at].outputs}
        self.editor.resize(
            {
                name: [int(trial(growth.size(a))) if growth.touches(a) else None for a in axes]
                for name, axes in solution.axes.items()
                if name not in own and any(map(growth.touches, axes))
            }
        )
        return grown

    def _grow(self, weight: Weight, along: list[Along], drawn: dict[int, Index]) -> None:
        """Give a weight outside of the block new entries: zeros where it sums over units."""
        sizes = dict(enumerate(weight.shape)) | {a.axis: len(a.source) for a in along}

        def compute() -> np.ndarray:
            array = gather_axes(weight.array(), {a.axis: a.source for a in along} | drawn)
            for a in along:
                if a.kind == "splits":
                    fill_pads(array, a.axis, a.source, 0.0)
            return array

        shape = tuple(sizes.values())
        self.editor.weights[weight.name] = Computed(weight.name, weight.dtype, shape, compute)

    def insert(self, cloning: Cloning) -> None:
        """Put the copies behind the block, each reading those before it as well."""
        graph, block, editor = self.analysis.graph, self.block, self.editor
        last, join = graph.producer[block.output], _join(self.analysis, block, self.axis)
        parts, outputs = [*(join.inputs if join else [block.input])], [block.output]
        base = join.name if join else f"{block.input}_joined"
        entry = canonical(self.analysis.solution.axes[block.input][self.axis])
        for number in range(1, self.copies + 1):
            name = cloning.unique(block.input, number)
            concat = helper.make_node(
                "Concat", [*parts, *outputs], [name], cloning.unique(base, number), axis=self.axis
            )
            for prop in join.proto.metadata_props if join else ():
                concat.metadata_props.add(key=prop.key, value=cloning.shift(prop.value, number))
            editor.append(last, concat)
            outputs.append(cloning.copy(number, name, last))
            self._lengthen(cloning, entry, number * self.dimension.width)
        for node, index in sorted(graph.consumers[block.output], key=lambda at: -at[1]):
            names = [*editor.node(node).input]
            editor.node(node).input[:] = [*names[: index + 1], *outputs[1:], *names[index + 1 :]]

    def _lengthen(self, cloning: Cloning, entry: Axis, more: int) -> None:
        """Let the last copy read ``more`` units than the block does."""
        axes, editor = self.analysis.solution.axes, self.editor
        for old, new in cloning.names.items():
            along = [i for i, a in enumerate(axes.get(old, ())) if canonical(a) == entry]
            if not along or old == self.block.input:
                continue
            size = int(trial(entry.size)) + more
            if new not in cloning.parameters:
                editor.resize({new: [size if i in along else None for i in range(len(axes[old]))]})
                continue
            weight, (axis,) = self.editor.model.weights[old], along
            shape = (*weight.shape[:axis], size, *weight.shape[axis + 1 :])
            seed = [self.seed, zlib.crc32(new.encode())]
            editor.weights[new] = Computed(
                new, weight.dtype, shape, _longer(weight, axis, more, seed)
            )


def _longer(weight: Weight, axis: int, more: int, seed: list[int]) -> Callable[[], np.ndarray]:
    """Return a function that gives a weight ``more`` entries: those of vectors repeat the last."""

    def compute() -> np.ndarray:
        array = weight.array()
        size = array.shape[axis]
        added = np.take(array, size - 1 - np.arange(more) % size, axis)
        if array.ndim > 1:
            rng = np.random.default_rng(seed)
            added = rng.normal(0, array.astype(np.float64).std(), added.shape).astype(array.dtype)
        return np.concatenate([array, added], axis)

    return compute


def clone_beside(
    analysis: Analysis,
    block: Block,
    before: Block,
    copies: int,
    *,
    numbered: bool,
    seed: int,
    unread: Collection[str] = (),
) -> tuple[Editor, dict[str, str], dict[str, WeightGrowth]]:
    """Return an editor with copies beside ``block``, their parameters, {new: old}, and how those of
    other layers grew. Raises Refused where something reads the block's output without weights.
    """
    dense = _Dense(analysis, block, copies, seed)
    grown = dense.readers()
    cloning = Cloning(analysis, dense.editor, block, before, numbered, unread=unread)
    dense.insert(cloning)
    return dense.editor, cloning.sources, grown
