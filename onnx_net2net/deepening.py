"""Deepening: a new model that computes the same function with more layers.

    deeper = deepen(model, after="conv5")
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from onnx import ValueInfoProto

from onnx_net2net.dimensions import Analysis, analyse
from onnx_net2net.editing import Editor
from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.graph import Node
from onnx_net2net.insertion import (
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
from onnx_net2net.model import Model
from onnx_net2net.places import Place, places_of
from onnx_net2net.verify import tensors
from onnx_net2net.widening import HISTORY

INITS = ("auto", "identity", "residual", "factor")
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


@dataclass(frozen=True)
class Options:
    """How to insert; see :func:`deepen`."""

    init: str = "auto"
    count: int = 1
    kernel: tuple[int, ...] | None = None
    norm: bool | None = None
    seed: int = 0


def deepen(
    model: Model,
    after: str | Sequence[str],
    *,
    init: str = "auto",
    count: int = 1,
    kernel: int | Sequence[int] | None = None,
    norm: bool | None = None,
    calibration: Samples | None = None,
    seed: int = 0,
) -> Model:
    """``model`` with ``count`` layers more behind each place that ``after`` names.

    ``after`` names tensors, nodes, parameters or modules, or is a glob over the layers; behind a
    layer means behind its norm and activation. The new layer is a convolution where the channels
    stand behind the batch (its ``kernel`` that of its neighbour, one size or one for each axis),
    else dense.

    ``init``: "identity" is exact behind an idempotent activation (ReLU, Clip); "residual" adds
    B(f(A x)) with B zero, exact anywhere; "factor" makes two linear layers of the one before;
    "auto" takes identity where it is exact, else residual. ``norm`` puts a BatchNormalization
    into identity layers (None: where the neighbour has one). It is the identity in training mode
    as well if ``calibration`` gives input batches to measure it on, else in inference only.

    Returns a new model whose ``changes`` lists the insertions; ``model`` is untouched. Raises
    UsageError for names and options that make no sense, Refused where a layer cannot be inserted
    exactly. Source: Net2DeeperNet, Chen, Goodfellow, Shlens, ICLR 2016.
    """
    options = _options(init, count, kernel, norm, seed)
    analysis = analyse(model)
    places = places_of(analysis, [after] if isinstance(after, str) else list(after))
    if not places:
        raise UsageError("nothing to deepen", "name a layer, such as --after conv5")
    measured = _measured(model, places, calibration)
    editor = Editor(analysis.solution.graph)
    changes: list[Insertion] = []
    for place in places:
        done = {change.tensor for change in changes}
        changes += _insert(analysis, editor, place, options, measured.get(place.tensor), done)
    _record(editor, model, options, changes)
    return editor.finish(changes)


def _options(
    init: str, count: int, kernel: int | Sequence[int] | None, norm: bool | None, seed: int
) -> Options:
    if init not in INITS:
        raise UsageError(f"there is no init '{init}'", f"one of {', '.join(INITS)}")
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 1000:
        raise UsageError(f"count {count!r} is not a number of layers", "use --count 1")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UsageError(f"seed {seed!r} is not a non-negative integer", "use --seed 0")
    sizes = (kernel,) if isinstance(kernel, int) else None if kernel is None else tuple(kernel)
    if sizes is not None and (not sizes or any(size < 1 for size in sizes)):
        raise UsageError(f"kernel {kernel!r} is no window", "use --kernel 3")
    return Options(init, count, sizes, norm, seed)


def _insert(
    analysis: Analysis,
    editor: Editor,
    place: Place,
    options: Options,
    found: Statistics | None,
    done: set[str],
) -> list[Insertion]:
    """Insert the layers of one place; everything behind it goes on reading the same name."""
    init = options.init
    if init == "auto":
        init = "identity" if place.idempotent else "residual"
    if init == "identity" and not place.idempotent:
        raise Refused(place.name, _not_idempotent(place), "use --init residual, exact anywhere")
    at = place.tensor if init != "factor" else _linear_output(place)
    if at in done:  # two names of one layer, which is factored once
        return []
    producer = analysis.solution.graph.producer[at]
    entry = editor.unique(f"{at}_before")
    proto = editor.node(producer)
    proto.output[list(proto.output).index(at)] = entry
    _describe(editor, at, entry)
    layers = Layers(editor, place, "", entry)
    changes = []
    for index in range(options.count):
        held = set(editor.weights)
        layers.name = _fresh(editor, f"{place.name}_deeper")
        seed = [options.seed, zlib.crc32(at.encode()), index]
        exact = _build(layers, init, options, producer, found, seed)
        new = [name for name in editor.weights if name not in held]
        changes.append(Insertion(place.name, at, init, new, exact))
    layers.nodes[-1].output[0] = at
    for node in layers.nodes:
        editor.append(producer, node)
    return changes


def _build(
    layers: Layers,
    init: str,
    options: Options,
    writer: Node,
    found: Statistics | None,
    seed: list[int],
) -> bool:
    """One layer; whether it is the identity in training mode as well."""
    place = layers.place
    if init == "factor":
        factor(layers, writer, seed)
        return True
    kernels, group = windows(place, options.kernel), groups(place)
    if init == "residual":
        residual(layers, kernels[0], group, seed)
        return True
    normed = options.norm if options.norm is not None else place.norm is not None
    identity(layers, kernels, group, bias=not normed)
    if normed:
        norm(layers, found)
    activate(layers)
    return not normed or found is not None


def _not_idempotent(place: Place) -> str:
    if place.activation is None:
        return f"'{place.tensor}' is not what an activation gives, so one more would change it"
    return f"{place.activation.op} is not idempotent, so applying it twice is not exact"


def _linear_output(place: Place) -> str:
    if place.writer is None:
        raise Refused(place.name, "there is no layer before it to factor", "use --init residual")
    return place.writer.outputs[0]


def _describe(editor: Editor, old: str, new: str) -> None:
    """What the file says of a tensor's shape also holds for the one before the layer."""
    graph = editor.proto.graph
    known = [v for v in (*graph.value_info, *graph.output) if v.name == old]
    for value in known[:1]:
        copy = ValueInfoProto()
        copy.CopyFrom(value)
        copy.name = new
        graph.value_info.append(copy)


def _fresh(editor: Editor, name: str) -> str:
    """A module name that no parameter of the model begins with."""
    taken = [entry.name for entry in editor.proto.graph.initializer]
    found, count = name, 1
    while any(other.startswith((found + ".", found + "_norm.")) for other in taken):
        count += 1
        found = f"{name}_{count}"
    return found


def _measured(
    model: Model, places: Sequence[Place], calibration: Samples | None
) -> dict[str, Statistics]:
    """Mean and variance of each channel over the batches, in float64."""
    if calibration is None:
        return {}
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
    found = {}
    for name, (count, first, second) in sums.items():
        if not count.all():
            raise UsageError("the calibration data holds no samples", "give at least one batch")
        mean = first / count
        found[name] = mean, np.maximum(second / count - mean**2, 0.0)
    return found


def _record(editor: Editor, parent: Model, options: Options, changes: list[Insertion]) -> None:
    """Append this step to the history in the model's own metadata."""
    from onnx_net2net import __version__

    entries = editor.proto.metadata_props
    past = next((e for e in entries if e.key == HISTORY), None)
    history = json.loads(past.value) if past is not None else []
    if past is None:
        past = entries.add(key=HISTORY)
    step = {"operation": "deepen", "parent": parent.sha256(), "version": __version__}
    step |= asdict(options) | {"changes": [asdict(change) for change in changes]}
    past.value = json.dumps([*history, step], separators=(",", ":"))
