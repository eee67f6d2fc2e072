"""A copy of a block behind the block, which begins as the identity.

    x -> [block] -> y          becomes          x -> [block] -> y -> [copy] -> y

The copy has fresh parameters with the block's values, but for the last projection of each
residual branch, which is zero. Source: LLaMA-Pro, Wu et al., ACL 2024 (zero output projections).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper

from onnx_net2net.analysis.norms import Normalization
from onnx_net2net.deepening.norms import Row, in_a_row
from onnx_net2net.deepening.paired_init import Cancelling, cancelling
from onnx_net2net.deepening.paths import norm_of, trained_behind
from onnx_net2net.deepening.segments import AFTER, Block
from onnx_net2net.errors import Refused
from onnx_net2net.model.editing import Editor, set_attribute
from onnx_net2net.model.graph import Node
from onnx_net2net.model.history import TIES
from onnx_net2net.model.model import Computed, Model, Weight
from onnx_net2net.model.numbers import renumbered
from onnx_net2net.model.tensors import subgraphs
from onnx_net2net.step import Zero
from onnx_net2net.widening.dimensions import Analysis


@dataclass
class Cloning:
    """Copies of ``block`` under construction in ``editor``.

    ``before`` is the block before room was made: tensors are called as they were then. ``unread``
    are weights that no node reads; numbered copies get those of the block, as its class has them.
    """

    analysis: Analysis
    editor: Editor
    block: Block
    before: Block
    numbered: bool
    cancel: Cancelling | None = None
    unread: Collection[str] = ()
    names: dict[str, str] = field(default_factory=dict)  # in the last copy: {old: new}
    parameters: dict[str, str] = field(default_factory=dict)  # of the last copy: {new: old}
    sources: dict[str, str] = field(default_factory=dict)  # of all copies: {new: old}
    row: Row = field(init=False)
    epsilons: dict[tuple[str, float], str] = field(default_factory=dict)  # operands that hold one

    def __post_init__(self) -> None:
        block = self.block
        ones = {name for name, value in block.values if value}.union(block.affine[:1])
        self.row = in_a_row(self.analysis, block.positions if block.affine else (), ones)

    def shift(self, text: str, number: int, *, tensor: bool = False) -> str:
        """Return a name or path of the block as in its copy of that number."""
        block = self.before if tensor else self.block
        if self.numbered:
            at, more = block.index, number * block.stride
            return renumbered(text, block.prefix, lambda n: n + more if n == at else n)
        name = block.name.rpartition("/")[2]
        return re.sub(rf"(?<![\w.]){re.escape(name)}(?![A-Za-z0-9])", f"{name}_copy{number}", text)

    def unique(self, name: str, number: int, *, tensor: bool = False) -> str:
        """Return the name in the copy of that number of what is ``name`` in the block."""
        shifted = self.shift(name, number, tensor=tensor)
        if shifted == name and name and not self.numbered:
            base, colon, port = name.rpartition(":")  # TensorFlow's: kernel:0
            numbered = bool(colon) and port.isdigit()
            shifted = f"{base}_copy{number}:{port}" if numbered else f"{name}_copy{number}"
        return self.editor.unique(shifted)

    def insert(self, copies: int) -> None:
        """Put ``copies`` behind the block."""
        block, editor = self.block, self.editor
        graph = self.analysis.graph
        last = graph.producer[block.output]
        if any(graph.nodes[at].bodies for at in block.positions):
            raise Refused(block.name, "it has nodes with bodies (If, Loop, Scan)", AFTER)
        current = editor.unique(f"{block.output}_before")
        proto = editor.node(last)
        proto.output[list(proto.output).index(block.output)] = current
        editor.describe(block.output, current)
        originals = {name: self._weight(name) for name in block.affine}
        norm = norm_of(self.analysis, last)
        if norm is not None and block.affine:
            for name in block.affine:
                self._release(norm, name)
            if self.row.steady is not None:
                self._set_epsilon(norm, self.row.steady.first[0])
        for number in range(1, copies + 1):
            final = number == copies
            current = self.copy(number, current, last, block.output if final else None)
            for new, old in self.parameters.items():
                if old in block.affine and final:
                    editor.weights[new] = originals[old].renamed(new)

    def _weight(self, name: str) -> Weight:
        return self.editor.weights.get(name) or self.editor.model.weights[name]

    def _neutral(self, name: str, role: str, *, first: bool = False) -> None:
        """Make ``name`` a scale that changes nothing or a bias of zero, as ``role`` is one or the
        other; ``first`` if it is that of the block's own norm.
        """
        self._fill(name, self._scale(first) if role == self.block.affine[0] else 0.0)

    def _scale(self, first: bool = False) -> float:
        """Return the scale of a norm that is followed by another."""
        steady = self.row.steady
        return 1.0 if steady is None else (steady.first if first else steady.middle)[1]

    def _release(self, norm: Normalization, name: str) -> None:
        """Take scale or bias from the block's own last norm: the copy has it now."""
        graph = self.analysis.graph
        if len(graph.consumers[name]) == 1 and name not in graph.results:
            return self._neutral(name, name, first=True)
        new = self._parameter(name, 0)
        self._neutral(new, name, first=True)
        readers = (place for place in graph.consumers[name] if place[0].position in norm.nodes)
        return self.editor.connect(*next(readers), new)

    def _set_epsilon(
        self, norm: Normalization, epsilon: float, copy: NodeProto | None = None
    ) -> None:
        """Give a norm of the block another epsilon, or the copy of the node that holds it."""
        if norm.epsilon_input is None:
            return set_attribute(copy or self.editor.node(norm.node), "epsilon", epsilon)
        node, index = norm.epsilon_input
        name, shapes = node.inputs[index], self.analysis.solution.shapes
        if (name, epsilon) not in self.epsilons:
            dtype = helper.tensor_dtype_to_np_dtype(shapes.dtype[name])
            array = np.full(shapes.shape[name], epsilon, dtype)
            self.epsilons[name, epsilon] = self.editor.add_weight(f"{name}_epsilon", array)
        if copy is None:
            return self.editor.connect(node, index, self.epsilons[name, epsilon])
        copy.input[index] = self.epsilons[name, epsilon]
        return None

    def _fill(self, name: str, value: float) -> None:
        weight = self._weight(name)
        dtype = helper.tensor_dtype_to_np_dtype(weight.dtype)
        shape = weight.shape
        self.editor.weights[name] = Computed(
            name, weight.dtype, shape, lambda: np.full(shape, value, dtype)
        )

    def _arrange(self, new: str, old: str, cancel: Cancelling) -> None:
        weight = self._weight(old)
        self.editor.weights[new] = Computed(
            new, weight.dtype, weight.shape, lambda: cancel.array(old, weight.array())
        )

    def copy(self, number: int, entry: str, behind: Node, output: str | None = None) -> str:
        """Add one copy that reads ``entry``; return the tensor that it gives."""
        graph, block = self.analysis.graph, self.block
        self.names = names = {block.input: entry}
        self.parameters = {}
        values = dict(block.values)
        result = ""
        for at in sorted(block.positions):
            node = graph.nodes[at]
            result = self._copy_node(node, number, names, behind, output)
        for new, old in self.parameters.items():
            if self.cancel is not None and (old in self.cancel.projections or old not in values):
                self._arrange(new, old, self.cancel)
            elif old in values:
                self._fill(new, self._scale() if old in self.row.scales else values[old])
            if old in block.affine:
                self._neutral(new, old)
        for name in sorted(self.unread) if self.numbered else ():
            if name.startswith(f"{block.name}."):
                self._parameter(name, number)
        return names.get(block.output, result)

    def _copy_node(
        self, node: Node, number: int, names: dict[str, str], behind: Node, output: str | None
    ) -> str:
        """Add a copy of one node; return its first output. ``names`` are those in this copy."""
        for name in node.inputs:
            if name and name not in names:
                names[name] = self._operand(name, number, names, behind)
        copy = NodeProto()
        copy.CopyFrom(node.proto)
        for entry in copy.metadata_props:
            entry.value = self.shift(entry.value, number)
        copy.name = self.unique(node.name, number)
        copy.input[:] = [names.get(name, name) for name in node.inputs]
        norm = self.row.norms.get(node.position)
        if self.row.steady is not None and norm is not None:
            last = output is not None and self.block.output in norm.node.outputs
            epsilon = self.row.steady.last if last else self.row.steady.middle[0]
            self._set_epsilon(norm, epsilon, copy)
        for index, name in enumerate(node.outputs):
            if not name:
                continue
            ends = name == self.block.output and output is not None
            names[name] = output if ends and output else self.unique(name, number, tensor=True)
            if names[name] != output:
                self.editor.describe(name, names[name])
            copy.output[index] = names[name]
        self.editor.append(behind, copy)
        return str(copy.output[0])

    def _operand(self, name: str, number: int, names: dict[str, str], behind: Node) -> str:
        """Return what a copy reads in place of ``name``: its own parameter, or the same tensor."""
        graph = self.analysis.graph
        if name not in graph.derived or not any(trained_behind(self.analysis, [name])):
            return name
        if name in graph.model.weights:
            return self._parameter(name, number)
        self._copy_node(graph.producer[name], number, names, behind, None)
        return names[name]

    def _parameter(self, name: str, number: int) -> str:
        """Add a parameter of a copy with the contents of ``name``; return its name."""
        weight = self.editor.model.weights[name]
        new = self.unique(name, number, tensor=not _is_numbered(name))
        self.editor.proto.graph.initializer.append(
            TensorProto(name=new, data_type=weight.dtype, dims=weight.shape)
        )
        self.editor.weights[new] = weight.renamed(new)
        self.editor.describe(name, new)
        self.parameters[new] = self.sources[new] = name
        return new


def not_exact(block: Block) -> Refused:
    """Return the error for a block that cannot be copied."""
    return Refused(block.name, f"it cannot be copied exactly: {block.reason}", block.remedy)


def clone(
    analysis: Analysis,
    editor: Editor,
    block: Block,
    before: Block,
    copies: int,
    *,
    numbered: bool,
    zero: str = Zero.LAST,
    unread: Collection[str] = (),
) -> dict[str, str]:
    """Put ``copies`` behind ``block`` and return their parameters: {new: old}.

    ``numbered`` copies take the numbers behind the block's, which must be free; ``before`` is the
    block before they were. ``zero`` is "last" (zeros) or "cancel" (units that cancel in pairs),
    ``unread`` are weights that no node reads. Raises Refused where the copy would not be the
    identity.
    """
    if not block.exact:
        raise not_exact(block)
    cancel = cancelling(analysis, block) if zero == Zero.CANCEL else None
    cloning = Cloning(analysis, editor, block, before, numbered, cancel, unread)
    cloning.insert(copies)
    return cloning.sources


def with_room(
    model: Model, chosen: Sequence[tuple[Block, int]]
) -> tuple[Model, list[Block], dict[str, str]]:
    """Give higher numbers to the members behind ``chosen`` blocks in their series, for as many
    copies as stand beside each.

    Returns the new model, the blocks under their new names, and what became of the names of
    weights: {old: new}. Constants that bear the name of an output, as TorchScript's do
    (/a/a.0/Constant_output_0), keep it. Raises Refused where a name is not free.
    """
    shift = _shift(chosen)
    proto = model.editable()
    numbered = (e.name for e in proto.graph.initializer if _is_numbered(e.name))
    renames = {old: new for old in numbered if (new := shift(old)) != old}
    _check_free(proto.graph, renames, chosen[-1][0])
    for graph in (proto.graph, *subgraphs(proto.graph)):
        for entry in (*graph.initializer, *graph.input, *graph.value_info):
            entry.name = renames.get(entry.name, entry.name)
        for annotation in graph.quantization_annotation:
            annotation.tensor_name = renames.get(annotation.tensor_name, annotation.tensor_name)
            for pair in annotation.quant_parameter_tensor_names:
                pair.value = renames.get(pair.value, pair.value)
        for node in graph.node:
            node.name = shift(node.name)
            node.input[:] = [renames.get(name, name) for name in node.input]
            for prop in node.metadata_props:
                prop.value = shift(prop.value)
    for entry in proto.metadata_props:
        if entry.key == TIES:
            entry.value = shift(entry.value)
    weights = {new: model.weights[old].renamed(new) for old, new in renames.items()}
    moved = [replace(b, name=shift(b.name), series=shift(b.series)) for b, _ in chosen]
    return model.with_changes(proto, weights), moved, renames


def _is_numbered(weight: str) -> bool:
    """Return whether a weight moves with its series: it is not named as the output of a node."""
    return not weight.startswith("/")


def _shift(chosen: Sequence[tuple[Block, int]]) -> Callable[[str], str]:
    """Return what makes room in names for copies of the chosen blocks."""
    copies: dict[str, dict[int, int]] = defaultdict(dict)
    for block, count in chosen:
        if block.index is not None:
            copies[block.prefix][block.index] = count * block.stride

    def moved(counts: Mapping[int, int]) -> Callable[[int], int]:
        numbers = sorted(counts)
        added = [0, *accumulate(counts[number] for number in numbers)]
        return lambda n: n + added[bisect_left(numbers, n)]

    inner_first = sorted(copies, key=len, reverse=True)  # outer numbers stand in inner names
    numbers = [(prefix, moved(copies[prefix])) for prefix in inner_first]

    def shift(text: str) -> str:
        for prefix, number in numbers:
            text = renumbered(text, prefix, number)
        return text

    return shift


def _check_free(graph: GraphProto, renames: Mapping[str, str], block: Block) -> None:
    """Raise Refused where a new name is another's, or an old one is known outside of the file."""
    taken = Counter(renames.values())
    for inner in (graph, *subgraphs(graph)):
        defined = {entry.name for entry in (*inner.initializer, *inner.input)}
        defined.update(name for node in inner.node for name in node.output)
        taken.update(defined - (renames.keys() if inner is graph else set()))
    outputs = {value.name for value in graph.output}
    for old, new in renames.items():
        if taken[new] > 1 or old in outputs:
            why = "which is taken" if taken[new] > 1 else "but is an output of the network"
            problem = f"its series cannot be renumbered: '{old}' would be '{new}', {why}"
            raise Refused(block.name, problem, "leave all names as they are (--no-renumber)")
