"""The sharper check of a grown model: the invariant, tensor by tensor.

    T'[..., j, ...] = T[..., source[j], ...]

for every tensor between input and output. The source maps are drawn again from the history that
a grown model carries; the first node at which the invariant fails is where the fault is. A
deepened model has all tensors of its parent and new ones between them, which have no original:
what was inserted is judged by the first tensor behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from onnx_net2net.algebra.axes import Axis
from onnx_net2net.algebra.expansion import PAD
from onnx_net2net.errors import UsageError
from onnx_net2net.model.model import AnyModel, Model, load
from onnx_net2net.plan.steps import replay
from onnx_net2net.step import Widen, recorded
from onnx_net2net.verification.comparison import compare, distance, larger, tolerances
from onnx_net2net.verification.feeds import Feeds
from onnx_net2net.verification.interface import merged_specs
from onnx_net2net.verification.precision import nudged
from onnx_net2net.verification.sizes import free_dimensions, input_specs
from onnx_net2net.verification.trials import Planner
from onnx_net2net.verification.verify import run, tensors
from onnx_net2net.widening.dimensions import Analysis, analyse
from onnx_net2net.widening.growth import Growth
from onnx_net2net.widening.request import growth_of, requested
from onnx_net2net.widening.sharing import Sharing, share
from onnx_net2net.widening.widen import widened

Array = np.ndarray
NUDGES = 2  # runs of each model with weights moved, to measure its rounding noise


@dataclass(frozen=True)
class Layer:
    """One tensor: how far the grown one is from its gathered original, and what is wrong."""

    tensor: str
    node: str
    grows: bool
    max_abs: float
    tolerance: float
    problem: str | None


@dataclass
class LayersReport:
    """The invariant at every tensor, in graph order. True if it holds everywhere."""

    layers: list[Layer] = field(default_factory=list)
    inserted: list[str] = field(default_factory=list)  # tensors that the parent does not have
    unjudged: list[str] = field(default_factory=list)  # tensors with other sizes than analysed
    vacuous: list[str] = field(default_factory=list)  # steps that nothing was compared for

    @property
    def first(self) -> Layer | None:
        """The first tensor at which the invariant fails."""
        return next((layer for layer in self.layers if layer.problem), None)

    def __bool__(self) -> bool:
        return bool(self.layers) and self.first is None and not self.vacuous

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        layers = [asdict(layer) for layer in self.layers]
        rest = {"unjudged": self.unjudged, "vacuous": self.vacuous}
        return {"holds": bool(self), "layers": layers, "inserted": self.inserted, **rest}


def verify_layers(
    parent: AnyModel, grown: AnyModel, *, provider: str | None = None
) -> LayersReport:
    """Compare every intermediate tensor of ``grown`` with its gathered original in ``parent``.

    Several steps of growth are checked one by one, the ones between drawn again from the history.
    Raises UsageError if ``grown`` does not come from ``parent``, and Refused where a step between
    cannot be done again.
    """
    parent, grown = load(parent), load(grown)
    steps = _steps(parent, grown)
    report = LayersReport()
    for position, step in enumerate(steps):
        last = position == len(steps) - 1
        after = grown if last else _replay(parent, step)
        tensors_seen = list(_compare(parent, after, step, provider))
        layers = [layer for layer in tensors_seen if isinstance(layer, Layer)]
        report.layers += layers
        report.unjudged += [name for name in tensors_seen if isinstance(name, str)]
        widens = step["operation"] == "widen"
        if not any(layer.grows or not widens for layer in layers):
            report.vacuous.append(f"step {position + 1}, {step['operation']}")
        if step["operation"] == "deepen":
            report.inserted += _inserted(parent, after)
        parent = after
    return report


def _steps(parent: Model, grown: Model) -> list[dict[str, Any]]:
    past, steps = parent.history, grown.history
    if len(steps) <= len(past) or steps[: len(past)] != past:
        raise UsageError(
            "the second model does not carry a history that begins with the first",
            "give the model that it was grown from, and the grown model",
        )
    if steps[len(past)]["parent"] != parent.sha256():
        raise UsageError("the second model was grown from another file", "give its own parent")
    for step in steps[len(past) :]:
        if step["operation"] not in ("deepen", "fold", "widen"):
            raise UsageError(
                f"a step between the two models is '{step['operation']}', which a history "
                "cannot repeat",
                "compare each grown model with the one directly before it",
            )
    return steps[len(past) :]


def _replay(parent: Model, step: Mapping[str, Any]) -> Model:
    done = recorded(step)
    return widened(parent, done) if isinstance(done, Widen) else replay(parent, [step])


def _growth(analysis: Analysis, step: Mapping[str, Any]) -> Growth:
    """Return the source maps of a step that widens, drawn again and held against their digests."""
    done = recorded(step)
    if not isinstance(done, Widen):
        return Growth({})
    growth, changes = growth_of(analysis, requested(analysis, done.widths or {}), done)
    if [asdict(change) for change in changes] != step["changes"]:
        raise UsageError(
            f"the history was written by version {step['version']}, which drew other units",
            "check it with that version",
        )
    return growth


def _compare(
    parent: Model, grown: Model, step: Mapping[str, Any], provider: str | None
) -> Iterator[Layer | str]:
    """Yield what is seen of each tensor; the names of those that are not judged."""
    analysis = analyse(parent)
    growth = _growth(analysis, step)
    done = recorded(step)
    sharing = share(analysis, growth, done) if isinstance(done, Widen) else Sharing(set(), [])
    names = _shared(analysis, grown, sharing)
    nodes = _writers(grown)
    feeds = _feeds(parent, grown, analysis.solution.shapes.binding, provider)
    before = tensors(parent, names, feeds, provider=provider)
    after = tensors(grown, names, feeds, provider=provider)
    noise = [
        tensors(nudged(model, seed), names, feeds, provider=provider)
        for seed in range(NUDGES)
        for model in (parent, grown)
    ]
    for name in before:
        axes = analysis.solution.axes[name]
        fits = _fits(growth, axes, before[name].shape)
        if fits and name in after and all(name in run for run in noise):
            runs = [t[name] for t in (before, *noise[::2])]
            expected = [_gathered(growth, sharing, name, axes, run) for run in runs]
            actual = [_units(growth, axes, t[name]) for t in (after, *noise[1::2])]
            yield _layer(analysis, growth, (name, nodes[name]), expected, actual)
        else:
            yield name


def _fits(growth: Growth, axes: Sequence[Axis], shape: Sequence[int]) -> bool:
    """Whether axes that grow have the sizes that they were solved for; others may be dynamic."""
    return len(axes) == len(shape) and all(
        axis.size == size for axis, size in zip(axes, shape, strict=True) if growth.touches(axis)
    )


def _shared(analysis: Analysis, grown: Model, sharing: Sharing) -> list[str]:
    """Tensors that both models compute from what they are fed, but for sizes, which may grow.

    What is made of weights alone is read on the side where copies share, so it is no copy. What
    several nodes compute on the way to a padded norm is smaller, as its epsilon is.
    """
    solution = analysis.solution
    norms = [norm for padding in sharing.paddings for norm in padding.norms]
    inside = {at for norm in norms for at in norm.nodes if at != norm.node.position}
    written = {o for node in grown.proto.graph.node for o in node.output if o}
    return [
        name
        for node in solution.graph.nodes
        if node.position not in solution.shapes.computed and node.position not in inside
        for name in node.outputs
        if name in written and name in solution.axes and name not in solution.graph.derived
    ]


def _writers(grown: Model) -> dict[str, str]:
    """Return the node that gives each tensor; of a deepened model maybe an inserted one."""
    nodes = grown.proto.graph.node
    return {name: node.name or name for node in nodes for name in node.output}


def _inserted(parent: Model, deeper: Model) -> list[str]:
    known = {name for node in parent.proto.graph.node for name in node.output}
    return [o for node in deeper.proto.graph.node for o in node.output if o and o not in known]


def _feeds(parent: Model, grown: Model, binding: Mapping[str, int], provider: str | None) -> Feeds:
    graphs = (parent.proto.graph, grown.proto.graph)
    specs, _, _ = merged_specs(input_specs(graphs[0]), input_specs(graphs[1]))
    planner = Planner(lambda feeds: run(parent, feeds, provider=provider), specs, graphs)
    known = {name: binding[name] for name in free_dimensions(specs) if name in binding}
    try:
        return planner.seeded(1, known)[0][1]
    except UsageError:  # sizes that suit the analysis but not the network
        return planner.seeded(1, None)[0][1]


def _layer(
    analysis: Analysis,
    growth: Growth,
    place: tuple[str, str],
    expected: list[Array],
    actual: list[Array],
) -> Layer:
    """Judge one tensor; behind each run stand the same with weights moved by one ulp."""
    noise = np.zeros(expected[0].shape)
    for own, *moved in (expected, actual):
        for other in moved:
            noise = larger(noise, distance(own, other))
    limit = tolerances(expected[:1], [noise])[0]
    result = compare(expected[0], actual[0], limit)
    grows = any(map(growth.touches, analysis.solution.axes[place[0]]))
    return Layer(*place, grows, result.max_abs, result.tolerance, result.problem)


def _gathered(growth: Growth, sharing: Sharing, name: str, axes: list[Axis], array: Array) -> Array:
    """Return what the invariant says that the grown tensor is, without padded entries."""
    for place, axis in enumerate(axes):
        if not growth.touches(axis):
            continue
        source = growth.source(axis)
        array = np.take(array, source[source != PAD], axis=place)
        scale = sharing.scaled.get((name, place))
        if scale is not None:  # shares that a later contraction asked for
            line = scale[source != PAD].reshape(-1, *[1] * (array.ndim - 1 - place))
            array = (array * line).astype(array.dtype)
    return array


def _units(growth: Growth, axes: list[Axis], array: Array) -> Array:
    """Return a grown tensor without its padded entries."""
    for place, axis in enumerate(axes):
        if growth.touches(axis) and place < array.ndim:
            source = growth.source(axis)
            if array.shape[place] == len(source):
                array = np.compress(source != PAD, array, axis=place)
    return array
