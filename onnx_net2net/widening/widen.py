"""Widening: a new model that computes the same function with more units.

grown = widen(model, {"conv5": 512, "layer2.0.conv1": 200})
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction

import numpy as np
from onnx import helper

from onnx_net2net.algebra.axes import Axis, atoms
from onnx_net2net.algebra.expansion import (
    Index,
    fill_pads,
    gather_axes,
    random_pads,
    scale_axis,
    share_copies,
    shuffle_units,
)
from onnx_net2net.algebra.sizes import trial
from onnx_net2net.analysis.solver import Solution
from onnx_net2net.model.editing import Editor
from onnx_net2net.model.graph import Node
from onnx_net2net.model.history import append
from onnx_net2net.model.model import AnyModel, Computed, Model, Weight, load
from onnx_net2net.operators.language import Reduction
from onnx_net2net.step import Split, Widen, listed
from onnx_net2net.widening.dimensions import Analysis, analyse
from onnx_net2net.widening.epsilons import shrunk
from onnx_net2net.widening.growth import Fill, Growth
from onnx_net2net.widening.growth_record import Along, WeightGrowth, pack
from onnx_net2net.widening.padding import Padding
from onnx_net2net.widening.patching import apply
from onnx_net2net.widening.request import Change, check_finite, growth_of, requested
from onnx_net2net.widening.sharing import OperandScale, Sharing, share
from onnx_net2net.widening.sizing import Sizing
from onnx_net2net.widening.targets import scaled


def widen(
    model: AnyModel,
    widths: Mapping[str, int] | None = None,
    *,
    factor: Fraction | float | None = None,
    names: str | Sequence[str] = (),
    all: bool = False,  # noqa: A002 (as in a plan)
    seed: int = 0,
    split: str = Split.PROJECT,
    amplitude: float = 1.0,
    noise: float = 0.01,
    mapping: str = "random",
) -> Model:
    """Grow the named dimensions of ``model`` to the given ``widths``, in units.

    Names are those of :func:`inspect`, of nodes, tensors, parameters or modules; a pattern such as
    ``layer2.*`` means each dimension that it matches and that can grow. Or ``factor`` says how many
    times as wide these ``names`` become, or ``all`` that can grow: so wide, or the next width that
    they may have. ``split`` says how copies share what reads them: "project" (with random parts
    that add up exactly, of ``amplitude`` relative to the weights of a fresh layer), "even" (equal
    parts; copies then never differ) or "noise" (even with relative noise of standard deviation
    ``noise``; not exact, and by 0.01 copies part slowly, by 0.2 sooner). Or nothing is copied:
    with "fresh" new units have the weights of old ones in random order, and are read with zeros.
    ``mapping`` says which units are copied: "random" or "round-robin".

    Returns a new model whose ``changes`` lists what grew; ``model`` is untouched. Raises
    UsageError for names and widths that make no sense, Refused where growing would not provably
    keep the function, InvalidModel where weights hold NaN. Source: Net2WiderNet, Chen,
    Goodfellow, Shlens, ICLR 2016.
    """
    if isinstance(widths, Mapping):
        widths = {name: int(w) if isinstance(w, np.integer) else w for name, w in widths.items()}
    step = Widen(
        seed, split, amplitude, noise, mapping, widths, factor, names=listed(names), all=all
    )
    return widened(load(model), step)


def widened(model: Model, step: Widen) -> Model:
    """Do one step; see :func:`widen`. What grows nothing leaves no entry in the history."""
    analysis = analyse(model)
    widths = scaled(analysis, listed(step.names), step.factor) if step.factor else step.widths
    wanted = requested(analysis, widths or {})
    check_finite(analysis, [d for d, width in wanted.items() if width > d.width])
    growth, changes = growth_of(analysis, wanted, step)
    if not changes:
        return model.with_changes(model.editable(), {})
    return _grow(analysis, growth, step, changes)


def _grow(analysis: Analysis, growth: Growth, step: Widen, changes: list[Change]) -> Model:
    """Write what grows: sizes first, which may be refused, then weights, norms and shares."""
    solution = analysis.solution
    sizing = Sizing(solution, growth).find()
    sharing = share(analysis, growth, step)
    editor = Editor(solution.graph)
    grown = _weights(analysis, growth, step, sharing, editor)
    _shrink_epsilons(solution, growth, sharing.paddings, editor)
    inserted = [_insert(analysis, insertion, editor) for insertion in sharing.insertions]
    apply(sizing, editor)
    names = editor.join()
    touched = {n: axes for n, axes in solution.axes.items() if any(map(growth.touches, axes))}
    editor.resize(
        {
            # At the trial sizes, where the file states any.
            names.get(name, name): [
                int(trial(growth.size(axis))) if growth.touches(axis) else None for axis in axes
            ]
            for name, axes in touched.items()
        }
    )
    sizes = {name: solution.graph.model.weights[name].shape for name in grown}
    grown = {names.get(name, name): weight for name, weight in grown.items()}
    sizes = {names.get(name, name): shape for name, shape in sizes.items()}
    details = {"method": step.method} | step.settings()
    details |= {"changes": [asdict(change) for change in changes]}
    details |= pack(grown, sizes) | {"inserted": inserted}
    if inserted:
        details["unfactored"] = _unfactored(analysis, growth, sharing.insertions)
    if copied := {
        n: solution.graph.copies[n].original for n in grown if n in solution.graph.copies
    }:
        details["copied"] = copied
    if epsilons := shrunk(solution.graph, growth, sharing.paddings):
        details["epsilons"] = epsilons
    append(editor.proto, "widen", analysis.model.sha256(), details)
    return editor.finish(changes)


def _unfactored(
    analysis: Analysis, growth: Growth, insertions: Sequence[OperandScale]
) -> dict[str, list[int]]:
    """Return the nearest larger widths of dimensions at which no operator would be inserted.

    A mean needs none where all units are copied equally often; any other sum needs one always.
    """
    widths: dict[str, list[int]] = {}
    for contraction in (insertion.rescale.contraction for insertion in insertions):
        for atom in filter(growth.touches, dict.fromkeys(atoms(contraction.axis))):
            dimension, width = analysis.by_atom[atom], int(growth.size(atom))
            down = width // dimension.width * dimension.width
            near = [w for w in (down, down + dimension.width) if w > dimension.width]
            allowed = near if contraction.reduce == Reduction.MEAN else []
            widths[dimension.name] = [w for w in widths.get(dimension.name, near) if w in allowed]
    return widths


@dataclass(frozen=True)
class AxisGrowth:
    """What happens to one axis of a weight: gathered or split among copies, and how pads fill:
    with a number, and then with sums of old entries. ``drawn`` is the source with the models of
    fresh units, which the weight writes.
    """

    axis: int
    source: Index
    splits: bool
    scale: np.ndarray | None = None
    pads: float = 0.0
    fills: tuple[Fill, ...] = ()
    free: bool = False
    drawn: Index | None = None

    @property
    def kind(self) -> tuple[Hashable, ...]:
        """Return what is equal where the same is done."""
        scale = b"" if self.scale is None else self.scale.tobytes()
        fills = [array.tobytes() for fill in self.fills for array in fill]
        fills += [b"" if self.drawn is None else self.drawn.tobytes()]
        numbers = (self.axis, self.source.tobytes(), self.splits, self.pads, self.free)
        return (*numbers, scale, *fills)


def _weights(
    analysis: Analysis,
    growth: Growth,
    step: Widen,
    sharing: Sharing,
    editor: Editor,
) -> dict[str, WeightGrowth]:
    """Give every weight on a grown dimension new contents, computed when they are written."""
    solution, copies = analysis.solution, analysis.graph.copies
    grown: dict[str, WeightGrowth] = {}
    for name, weight in solution.graph.model.weights.items():
        axes = solution.axes.get(name)
        if axes is None or not any(map(growth.touches, axes)):
            continue
        along = [
            _axis_growth(name, index, axis, growth, sharing)
            for index, axis in enumerate(axes)
            if growth.touches(axis)
        ]
        padded = (p for p in sharing.paddings if name in p.gammas())
        eta = next((p.eta(growth.source(p.atom)) for p in padded), 1.0)
        own = copies[name].original if name in copies else name
        editor.weights[name] = Computed(
            name,
            weight.dtype,
            tuple(map(int, growth.shape(axes))),
            _grown(own, weight, along, eta, step),
        )
        editor.kinds[name] = (eta, *(axis.kind for axis in along))
        grown[name] = WeightGrowth([_record(name, axis, sharing) for axis in along], eta)
    return grown


def _record(name: str, axis: AxisGrowth, sharing: Sharing) -> Along:
    """Return one axis for the history, with the parts of the gradient where they are not equal."""
    along = Along(axis.axis, axis.source, "splits" if axis.splits else "writes")
    ratio = sharing.received.get((name, axis.axis))
    if axis.splits or ratio is None or np.allclose(ratio, 1):
        return along
    return replace(along, shares=along.parts() * ratio)


def _axis_growth(name: str, index: int, axis: Axis, growth: Growth, sharing: Sharing) -> AxisGrowth:
    """Return what happens to one axis of a weight."""
    site = name, index
    own = AxisGrowth(index, growth.source(axis), site in sharing.splits, sharing.scaled.get(site))
    if growth.models and not own.splits:
        own = replace(own, drawn=growth.drawn(axis))
    if any(name in padding.ones for padding in sharing.paddings):
        return replace(own, pads=1.0)
    filled = {p.atom: p.fills[site] for p in sharing.paddings if site in p.fills}
    if filled:
        weightings = {atom: vector for atom, vector in filled.items() if vector.any()}
        return replace(own, fills=() if own.splits else tuple(growth.fills(axis, weightings)))
    return replace(own, free=any(site in padding.free for padding in sharing.paddings))


def _grown(
    name: str, weight: Weight, along: list[AxisGrowth], eta: float, step: Widen
) -> Callable[[], np.ndarray]:
    """Return a function that computes the new contents of a weight."""
    noise = step.noise if step.split == Split.NOISE else 0.0

    def compute() -> np.ndarray:
        sources = {a.axis: a.source if a.drawn is None else a.drawn for a in along}
        array = gather_axes(weight.array(), sources)
        for growth in sorted(along, key=lambda a: a.splits):  # copies first, then shares
            axis, source = growth.axis, sources[growth.axis]
            fresh = np.flatnonzero(source != growth.source)
            seed = [step.seed, zlib.crc32(name.encode()), axis]
            fill_pads(array, axis, source, 0.0 if growth.splits else growth.pads)
            for places, weighting in growth.fills:
                fill_pads(array, axis, source, weighting, places)
            if growth.splits:
                share_copies(array, axis, source, amplitude=step.parts, noise=noise, seed=seed)
            shuffle_units(array, axis, fresh, seed)
            if growth.free:
                random_pads(array, axis, source, seed)
            if growth.scale is not None:
                scale_axis(array, axis, growth.scale)
        return array if eta == 1.0 else (array * eta).astype(array.dtype)

    return compute


def _shrink_epsilons(
    solution: Solution, growth: Growth, paddings: list[Padding], editor: Editor
) -> None:
    """Let epsilons follow padded vectors, which deviate less by eta, so that norms stay as were."""
    operands: dict[str, dict[tuple[Node, int], float]] = {}
    for padding in paddings:
        eta = padding.eta(growth.source(padding.atom))
        for norm in padding.norms:
            epsilon = eta * eta * norm.epsilon
            if norm.epsilon_input is None:
                editor.set_attribute(norm.node, "epsilon", epsilon)
            else:
                node, index = norm.epsilon_input
                operands.setdefault(node.inputs[index], {})[node, index] = epsilon
    for name, wanted in operands.items():
        _connect_epsilons(solution, name, wanted, editor)


def _connect_epsilons(
    solution: Solution, name: str, wanted: dict[tuple[Node, int], float], editor: Editor
) -> None:
    """Let the operands that read ``name`` hold other numbers; in place if all become the same."""
    graph, shapes = solution.graph, solution.shapes
    dtype = helper.tensor_dtype_to_np_dtype(shapes.dtype[name])
    arrays = {v: np.full(shapes.shape[name], v, dtype) for v in set(wanted.values())}
    alone = name in graph.model.weights and name not in graph.results
    if alone and len(arrays) == 1 and len(graph.consumers[name]) == len(wanted):
        return editor.set_weight(name, *arrays.values())
    names = {value: editor.add_weight(f"{name}_padded", array) for value, array in arrays.items()}
    for (node, index), value in wanted.items():
        editor.connect(node, index, names[value])
    return None


def _insert(analysis: Analysis, insertion: OperandScale, editor: Editor) -> str:
    """Put an operator by shares in front of the operand that takes them; return their name."""
    rescale, vector = insertion.rescale, insertion.vector
    node = rescale.contraction.applied.node
    tensor = node.inputs[rescale.index]
    rank = len(analysis.solution.axes[tensor])
    dtype = helper.tensor_dtype_to_np_dtype(analysis.solution.shapes.dtype.get(tensor, 1))
    shaped = vector.reshape(-1, *[1] * (rank - 1 - rescale.axis)).astype(dtype)
    factor = editor.add_weight(f"{node.name}_shares", shaped)
    output = editor.unique(f"{tensor}_shared")
    current = editor.node(node).input[rescale.index]
    proto = helper.make_node(insertion.op, [current, factor], [output], name=output)
    editor.insert(node, proto)
    editor.node(node).input[rescale.index] = output
    return factor
