"""Deepening: a new model that computes the same function with more layers.

deeper = deepen(model, after="conv5")
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from onnx_net2net.deepening.block_copies import clone, not_exact, with_room
from onnx_net2net.deepening.blocks import block_again, block_named, blocks
from onnx_net2net.deepening.dense_blocks import clone_beside
from onnx_net2net.deepening.insertion import (
    Layers,
    Statistics,
    activate,
    factor,
    groups,
    identity,
    norm,
    residual,
    windows,
)
from onnx_net2net.deepening.places import Place, place_at, places_of
from onnx_net2net.deepening.repeated_segments import matches, repetitions
from onnx_net2net.deepening.segments import Block
from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.model.editing import Editor
from onnx_net2net.model.graph import Node
from onnx_net2net.model.history import append
from onnx_net2net.model.model import AnyModel, Model, load
from onnx_net2net.model.unread import unread
from onnx_net2net.step import Deepen, Zero, listed
from onnx_net2net.verification.verify import tensors
from onnx_net2net.widening.dimensions import Analysis, analyse
from onnx_net2net.widening.epsilons import changed
from onnx_net2net.widening.growth_record import pack

Samples = Sequence[Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Insertion:
    """One inserted layer: behind what, which tensor, how it begins, and its new parameters.

    ``training`` tells whether it is the identity in training mode, too: a BatchNorm without
    measured statistics is it in inference only.
    """

    after: str
    tensor: str
    init: str
    parameters: list[str]
    training: bool

    def moved(self, renames: Mapping[str, str]) -> Insertion:
        """Return the same change, with its parameters under the names that they got since."""
        return replace(self, parameters=[renames.get(name, name) for name in self.parameters])


@dataclass(frozen=True)
class Copies:
    """Copies of a block behind it: how many, their new parameters, and renamed ones, {old: new}.

    ``sources`` are the block's parameters that the new ones began as: {new: old}. ``exact`` says
    what it takes of epsilons, if anything, for them to be the identity, and ``epsilons`` tell
    those that differ now, by the scale of their norm: (before, now). ``grown`` tells how weights of
    other layers grew that read the copies, under the names of then.
    """

    block: str
    copies: int
    exact: str
    parameters: list[str]
    renames: dict[str, str]
    sources: dict[str, str]
    epsilons: dict[str, tuple[float, float]]
    grown: dict[str, Any] = field(default_factory=dict)

    def moved(self, renames: Mapping[str, str]) -> Copies:
        """Return the same change, with its parameters under the names that they got since."""
        sources = {renames.get(n, n): renames.get(o, o) for n, o in self.sources.items()}
        parameters = [renames.get(name, name) for name in self.parameters]
        epsilons = {renames.get(name, name): pair for name, pair in self.epsilons.items()}
        return replace(self, parameters=parameters, sources=sources, epsilons=epsilons)


def deepen(
    model: AnyModel,
    after: str | Sequence[str] = (),
    block: str | Sequence[str] | Mapping[str, int] = (),
    *,
    copies: int = 1,
    every: int = 1,
    spread: bool = False,
    renumber: bool = True,
    zero: str = Zero.LAST,
    init: str = "auto",
    count: int = 1,
    kernel: int | Sequence[int] | None = None,
    norm: bool | None = None,
    calibration: Samples | None = None,
    seed: int = 0,
) -> Model:
    """Add layers to ``model`` behind places that ``after`` names, or copies of blocks.

    ``after`` names tensors, nodes, parameters or modules, or is a glob over the layers; behind a
    layer means behind its norm and activation. ``count`` layers are inserted: convolutions where
    the channels stand behind the batch (``kernel`` that of the neighbour, one size or one for
    each axis), else dense ones.

    ``init``: "identity" is exact behind an idempotent activation (ReLU, Clip); "residual" adds
    B(f(A x)) with B zero, exact anywhere; "factor" makes two linear layers of the one before;
    "auto" takes identity where it is exact, else residual. ``norm`` puts a BatchNormalization
    into identity layers (None: where the neighbour has one and ``calibration`` gives input batches
    to measure it on). One that was not measured is the identity in inference only.

    ``block`` names blocks (an end of a name or a glob will do), behind each of which ``copies`` are
    put whose last projections are zero (``zero`` "last"), or sum over units that "cancel"; or only
    behind ``every``-th of them; or, with ``spread``, that many in all; or it maps each to a number.
    They take the numbers behind its own, and later ones make room, or else ``<name>_copy1``.

    Returns a new model; its ``changes`` tell what is new. Raises UsageError; Refused if not exact.
    Sources: Net2DeeperNet, Chen, Goodfellow, Shlens, ICLR 2016; LLaMA-Pro, Wu et al., ACL 2024.
    """
    step = Deepen(
        after=listed(after), block=dict(block) if isinstance(block, Mapping) else listed(block),
        copies=copies, every=every, spread=spread, renumber=renumber, zero=zero, init=init,
        count=count, kernel=kernel, norm=norm, seed=seed,
    )  # fmt: skip
    return deepened(load(model), step, calibration)


def deepened(model: Model, step: Deepen, calibration: Samples | None = None) -> Model:
    """Do one step, with samples in place of ``step.calibrate``; see :func:`deepen`."""
    step = replace(step, kernel=step.window)
    changes: list[Insertion | Copies] = []
    deeper, layers = model, listed(step.after)
    if layers:
        deeper, layers, inserted = _with_layers(model, layers, step, calibration)
        changes += inserted
    if step.block:
        deeper, copied = _with_copies(deeper, step)
        for copies in copied:  # what was inserted before is renamed along
            changes = [change.moved(copies.renames) for change in changes]
        changes += copied
    # Names, globs and spread as what they meant here, so that they mean it again.
    counts = {c.block: c.copies for c in reversed(changes) if isinstance(c, Copies)}
    done = vars(replace(step, after=layers, block=counts, copies=1, every=1, spread=False))
    details = {"method": step.method, "after": layers, "calibrated": calibration is not None} | done
    del details["calibrate"]
    details["changes"] = [asdict(change) for change in changes]
    proto = deeper.editable()
    append(proto, "deepen", model.sha256(), details)
    return deeper.with_changes(proto, {}, changes)


def _with_layers(
    model: Model, names: list[str], step: Deepen, calibration: Samples | None
) -> tuple[Model, list[str], list[Insertion]]:
    """Return the deeper model, the names of the places without globs, and what was inserted."""
    analysis = analyse(model)
    places = places_of(analysis, names)
    statistics = {} if calibration is None else _statistics(model, places, calibration)
    editor = Editor(analysis.graph)
    changes: list[Insertion] = []
    for place in places:
        done = {change.tensor for change in changes}
        changes += _insert(analysis, editor, place, step, statistics.get(place.tensor), done)
    expanded = [place.name for place in places]
    try:
        again = [(p.name, p.tensor) for p in places_of(analysis, expanded)]
    except (Refused, UsageError):  # the name of a node that was asked for by its tensor
        again = []
    same = again == [(p.name, p.tensor) for p in places]
    return editor.finish(), expanded if same else names, changes


def _with_copies(model: Model, step: Deepen) -> tuple[Model, list[Copies]]:
    """Return the deeper model, and the copies of each block; those of later blocks come first."""
    chosen = repetitions(_candidates(model, listed(step.block)), step)
    chosen = [(block, copies) for block, copies in reversed(chosen) if copies]
    for block, _ in chosen:
        if not block.exact:
            raise not_exact(block)
    changes: list[Copies] = []
    for blocks_apart in _apart(chosen):
        model, copied = _copied(model, blocks_apart, step)
        changes = [change.moved(copied[0].renames) for change in changes] + copied
    return model, changes


def _apart(chosen: Sequence[tuple[Block, int]]) -> Iterator[list[tuple[Block, int]]]:
    """Yield the blocks in groups that can be copied at once, for they share no node or norm.

    Copies beside a block change what reads it, so that it stands alone.
    """
    group: list[tuple[Block, int]] = []
    taken: set[int | str] = set()
    for block, copies in chosen:
        own: set[int | str] = {*block.positions, *block.affine}
        if group and (block.beside or group[-1][0].beside or not taken.isdisjoint(own)):
            yield group
            group, taken = [], set()
        group.append((block, copies))
        taken |= own
    if group:
        yield group


def _copied(
    model: Model, chosen: Sequence[tuple[Block, int]], step: Deepen
) -> tuple[Model, list[Copies]]:
    """Copy blocks in one edit. The first change tells what all of them renamed."""
    now, renames = [block for block, _ in chosen], dict[str, str]()
    if step.renumber and any(block.series for block in now):
        model, now, renames = with_room(model, chosen)
    analysis = analyse(model)
    if now[0].beside:
        model, change = _beside(analysis, now[0], *chosen[0], step)
        return model, [replace(change, renames=renames)]
    editor, left = Editor(analysis.graph), unread(model)
    clones = []
    for (before, copies), renamed in zip(chosen, now, strict=True):
        block = block_again(analysis, renamed)
        numbered = step.renumber and bool(block.series)
        sources = clone(
            analysis, editor, block, before, copies,
            numbered=numbered, zero=step.zero, unread=left,
        )  # fmt: skip
        clones.append((block, sources))
    model = editor.finish()
    epsilons = _epsilons(analysis, model, clones)
    changes = [
        Copies(before.name, copies, block.reason or "", [*sources], {}, sources, differing)
        for (before, copies), (block, sources), differing in zip(
            chosen, clones, epsilons, strict=True
        )
    ]
    return model, [replace(changes[0], renames=renames), *changes[1:]]


def _beside(
    analysis: Analysis, block: Block, before: Block, copies: int, step: Deepen
) -> tuple[Model, Copies]:
    """Copy one block beside what it reads; ``before`` is the block before room was made."""
    block = block_again(analysis, block)
    numbered = step.renumber and bool(block.series)
    editor, sources, readers = clone_beside(
        analysis, block, before, copies,
        numbered=numbered, seed=step.seed, unread=unread(analysis.model),
    )  # fmt: skip
    known = analysis.model.weights
    new = [w.name for w in editor.weights.values() if w.name not in known and w.size > 1]
    grown = pack(readers, {name: known[name].shape for name in readers})
    change = Copies(before.name, copies, block.reason or "", new, {}, sources, {}, grown)
    return editor.finish(), change


def _epsilons(
    before: Analysis, model: Model, clones: Sequence[tuple[Block, Mapping[str, str]]]
) -> list[dict[str, tuple[float, float]]]:
    """Return for each block the epsilons that differ in the deeper model, by scales of norms."""
    if not any(block.affine for block, _ in clones):
        return [{} for _ in clones]
    sources = {new: old for _, names in clones for new, old in names.items()}
    epsilons = changed(before, analyse(model), sources)
    scales = ((*block.parameters, *names) for block, names in clones)
    return [{name: epsilons[name] for name in own if name in epsilons} for own in scales]


def _candidates(model: Model, names: Collection[str]) -> list[Block]:
    """Return the blocks, and parts of the network that are called by their whole names."""
    candidates = {block.name: block for block in blocks(model)}
    for name in names:
        block = candidates.get(name) or block_named(analyse(model), name)
        if block is not None:
            candidates[name] = block
    exact = {name: block for name, block in candidates.items() if block.exact}
    # A glob means those that can be copied, if there are any.
    enough = all(name in exact or any(matches(n, name) for n in exact) for name in names)
    known = (exact if enough else candidates).values()
    return sorted(known, key=lambda block: min(block.positions))


def _insert(
    analysis: Analysis,
    editor: Editor,
    place: Place,
    step: Deepen,
    statistics: Statistics | None,
    done: set[str],
) -> list[Insertion]:
    """Insert the layers of one place; everything behind it goes on reading the same name."""
    init = step.init
    if init == "auto":
        init = "identity" if place.idempotent else "residual"
    if init == "identity" and not place.idempotent:
        reason = f"'{place.tensor}' is not what an activation gives, so one more would change it"
        if place.activation is not None:
            reason = f"{place.activation.op} is not idempotent, so applying it twice is not exact"
        raise Refused(place.name, reason, "use --init residual, exact anywhere")
    if init == "factor":
        if place.writer is None:
            raise Refused(
                place.name, "there is no layer before it to factor", "use --init residual"
            )
        place = place_at(analysis, place.name, place.writer.outputs[0])
    at = place.tensor
    if at in done:  # two names of one layer, which is factored once
        return []
    producer = analysis.graph.producer[at]
    entry = editor.unique(f"{at}_before")
    proto = editor.node(producer)
    proto.output[list(proto.output).index(at)] = entry
    editor.describe(at, entry)
    layers = Layers(editor, place, "", entry)
    changes = []
    for index in range(step.count):
        before = editor.weights.keys() | editor.model.weights.keys()
        layers.name = _unused_module(editor, f"{place.name}_deeper")
        seed = [step.seed, zlib.crc32(at.encode()), index]
        exact = _build(layers, init, step, producer, statistics, seed)
        new = [name for name in editor.weights if name not in before]
        changes.append(Insertion(place.name, at, init, new, exact))
    layers.nodes[-1].output[0] = at
    for node in layers.nodes:
        editor.append(producer, node)
    return changes


def _build(
    layers: Layers,
    init: str,
    step: Deepen,
    writer: Node,
    statistics: Statistics | None,
    seed: list[int],
) -> bool:
    """Build one layer; return whether it is the identity in training mode as well."""
    place = layers.place
    if init == "factor":
        factor(layers, writer, seed)
        return True
    kernels, group = windows(place, step.window), groups(place)
    if init == "residual":
        residual(layers, kernels[0], group, seed)
        return True
    fitting = place.norm is not None and place.axis == 1 and statistics is not None
    normed = fitting if step.norm is None else step.norm
    identity(layers, kernels, group, bias=not normed)
    if normed:
        norm(layers, statistics)
    activate(layers)
    return not normed or statistics is not None


def _unused_module(editor: Editor, name: str) -> str:
    """Return ``name``, or ``name_2`` ... where parameters begin with that already."""
    taken = [entry.name for entry in editor.proto.graph.initializer]
    module, count = name, 1
    while any(other.startswith((module + ".", module + "_norm.")) for other in taken):
        count += 1
        module = f"{name}_{count}"
    return module


def _statistics(
    model: Model, places: Sequence[Place], calibration: Samples
) -> dict[str, Statistics]:
    """Measure mean and variance of each channel over the batches, in float64."""
    names = [place.tensor for place in places]
    sums = {place.tensor: np.zeros((3, place.channels)) for place in places}
    for feeds in calibration:
        for place, array in zip(places, map(tensors(model, names, feeds).get, names), strict=True):
            if array is None:
                raise Refused(place.name, f"onnxruntime does not give '{place.tensor}'")
            values = np.moveaxis(array.astype(np.float64), place.axis, -1)
            values = values.reshape(-1, place.channels)
            sums[place.tensor] += [
                np.full(place.channels, len(values)), values.sum(0), (values**2).sum(0)
            ]  # fmt: skip
    statistics = {}
    for name, (count, first, second) in sums.items():
        if not count.all():
            raise UsageError("the calibration data holds no samples", "give at least one batch")
        with np.errstate(invalid="ignore"):  # infinite statistics are refused where they matter
            mean = first / count
            statistics[name] = mean, np.maximum(second / count - mean**2, 0.0)
    return statistics
