"""Where two models part: a tensor that differs although all that it is computed from agrees.

>>> place = locate("a.onnx", "b.onnx", report)       # of a report that is not equivalent
>>> str(place)
"the models part at node 'conv2' (Conv), tensor 'conv2_output'; all that it reads agrees"
>>> place.save("parted")                             # a.onnx, b.onnx and inputs.npz

Tensors of both models belong together by name, by value, or by their order among those of one
operator and shape. From an output that differs the way goes back to tensors that agree; the nodes
between these and the first tensor that differs become two models of their own. They are told of
only if they, too, differ on the same inputs: so a wrong pair misleads nobody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from onnx_net2net.errors import UsageError
from onnx_net2net.model.atomic_write import place
from onnx_net2net.model.model import AnyModel, Model, load
from onnx_net2net.model.subgraphs import captured
from onnx_net2net.verification.comparison import is_float, wide
from onnx_net2net.verification.feeds import Feeds
from onnx_net2net.verification.interface import matched
from onnx_net2net.verification.judgement import Runs, judge
from onnx_net2net.verification.precision import nudged
from onnx_net2net.verification.report import Report, Trial
from onnx_net2net.verification.sizes import input_specs
from onnx_net2net.verification.trial_files import save_trials
from onnx_net2net.verification.verify import tensors, verify

__all__ = ["Divergence", "locate"]

MOST = 2 << 30  # bytes of weights: beyond that, all tensors of a model at once are too many


@dataclass(frozen=True)
class Divergence:
    """The smallest parts found of two models that differ on the same inputs.

    ``node``, ``operator`` and ``tensor`` are of the first model. ``feeds`` are what it computed of
    the tensors that both parts read.
    """

    node: str
    operator: str
    tensor: str
    problem: str
    a: Model
    b: Model
    feeds: Feeds

    def __str__(self) -> str:
        return (
            f"the models part at node {self.node!r} ({self.operator}), tensor {self.tensor!r}; "
            "all that it reads agrees"
        )

    def save(self, folder: str | Path, *, force: bool = False) -> None:
        """Write ``a.onnx``, ``b.onnx`` and ``inputs.npz`` into a folder; OutputError if not."""

        def write(draft: Path) -> None:
            draft.mkdir()
            self.a.save(draft / "a.onnx")
            self.b.save(draft / "b.onnx")
            save_trials(draft / "inputs.npz", [self.feeds])

        place(Path(folder), write=write, force=force)


def locate(
    a: AnyModel,
    b: AnyModel,
    report: Report,
    *,
    provider: str | None = None,
    by_position: bool = False,
    names: Mapping[str, str] | None = None,
) -> Divergence | None:
    """Return where the models part, by the report of :func:`verify` and with its arguments.

    None where nothing smaller than the models is found to differ. Raises UsageError for models
    that are too large to hold all their tensors.
    """
    first, second = load(a), load(b)
    bad = [output for output in report.outputs if not output]
    if not bad or not report.feeds:
        return None
    if any(sum(w.nbytes for w in model.weights.values()) > MOST for model in (first, second)):
        raise UsageError("the models are too large to compare all tensors inside", "cut them first")
    at = next((i for i, one in enumerate(bad[0].differences) if one.problem), 0)
    interface = matched(first.proto.graph, second.proto.graph, by_position=by_position, names=names)
    inputs = {name: interface.inputs.get(name, name) for name in report.feeds[at]}
    own = {inputs[name]: value for name, value in report.feeds[at].items()}
    back = {name: other for other, name in interface.outputs.items()}
    pairs = _Pairs(
        _Side(first, report.feeds[at], provider),
        _Side(second, own, provider),
        {output.name: back.get(output.name, output.name) for output in bad},
    )
    for tensor in pairs.suspects([output.name for output in bad]):
        divergence = _confirmed(pairs, tensor, inputs, provider)
        if divergence is not None:
            return divergence
    return None


class _Side:
    """A model, and all tensors of its main graph for one set of inputs, run in three ways."""

    def __init__(self, model: Model, feeds: Feeds, provider: str | None) -> None:
        graph = model.proto.graph
        types = {spec.name: spec.dtype for spec in input_specs(graph)}
        feeds = {name: value.astype(types[name], copy=False) for name, value in feeds.items()}
        self.model, self.feeds = model, feeds
        self.nodes = list(graph.node)
        self.writer = {n: at for at, node in enumerate(self.nodes) for n in node.output if n}
        self.values = tensors(model, None, feeds, provider=provider)
        self.runs = Runs([self.values])
        for sign in (1, -1):
            self.runs.absorb([tensors(nudged(model, sign=sign), None, feeds, provider=provider)])
        self.fed: set[str] = {*feeds}  # and what is computed from inputs, not from weights alone
        for node in self.nodes:
            if any(name in self.fed for name in _read(node)):
                self.fed.update(filter(None, node.output))

    def back(self, tensor: str, ends: Collection[str]) -> tuple[set[int], set[str]]:
        """Return the nodes that lead from ``ends`` and inputs to a tensor, and which of these."""
        nodes: set[int] = set()
        reached: set[str] = set()
        todo = [tensor]
        while todo:
            name = todo.pop()
            if name in self.feeds or (name in ends and name != tensor):
                reached.add(name)
            elif name in self.writer and self.writer[name] not in nodes:
                nodes.add(self.writer[name])
                todo += _read(self.nodes[self.writer[name]])
        return nodes, reached

    def kind(self, name: str) -> tuple[object, ...]:
        """Return operator, kind of numbers and shape of a tensor."""
        value = self.values[name]
        place = self.nodes[self.writer[name]]
        return place.domain, place.op_type, is_float(value.dtype), value.shape


def _read(node: onnx.NodeProto) -> list[str]:
    return [*filter(None, node.input), *captured(node)]


class _Pairs:
    """Which tensors of two models belong together, and which of these agree."""

    def __init__(self, a: _Side, b: _Side, outputs: Mapping[str, str]) -> None:
        self.a, self.b = a, b
        self.of = dict(outputs)
        self.problems: dict[str, str | None] = {}
        names = [n for n in a.values if n in a.fed and n not in self.of]
        taken = set(self.of.values())
        for name in names:
            if name in b.fed and name in b.values and name not in taken and self._alike(name, name):
                self.of[name] = name
        self._pair(names)
        for name, other in self.of.items():
            self.problems[name] = self._problem(name, other)
        self.agreeing = {name for name, problem in self.problems.items() if problem is None}

    def _alike(self, name: str, other: str) -> bool:
        return self.a.kind(name)[2:] == self.b.kind(other)[2:]

    def _pair(self, names: list[str]) -> None:
        """Pair the rest by value, then by order where one operator has as many in both models."""
        taken = set(self.of.values())
        rest: dict[tuple[object, ...], list[str]] = defaultdict(list)
        for other in self.b.values:
            if other in self.b.fed and other not in taken:
                rest[self.b.kind(other)[2:]].append(other)
        orders: dict[tuple[object, ...], list[str]] = defaultdict(list)
        for name in (name for name in names if name not in self.of):
            others = rest[self.a.kind(name)[2:]]
            same = (o for o in others if self._near(name, o) and self._problem(name, o) is None)
            equal = next(same, None)
            if equal is None:
                orders[self.a.kind(name)].append(name)
            else:
                self.of[name] = equal
                others.remove(equal)
        for kind, mine in orders.items():
            theirs = [other for other in rest[kind[2:]] if self.b.kind(other) == kind]
            if len(mine) == len(theirs):
                self.of.update(zip(mine, theirs, strict=True))

    def _near(self, name: str, other: str) -> bool:
        """Return whether two tensors might agree, by their first elements."""
        x, y = (wide(v.reshape(-1)[:16]) for v in (self.a.values[name], self.b.values[other]))
        if x.dtype.kind in "OUSMmc":
            return False
        scale = float(np.nanmax(np.abs(wide(self.a.values[name])), initial=0.0))
        return bool(np.allclose(x, y, rtol=0, atol=0.05 * scale, equal_nan=True))

    def _problem(self, name: str, other: str) -> str | None:
        """Return how a tensor of the first model differs from one of the second."""
        if name not in self.a.values or other not in self.b.values:
            return "it cannot be handed out"
        noise = {name: self.b.runs.noise[0][other]} if other in self.b.runs.noise[0] else {}
        theirs = Runs([{name: self.b.values[other]}], None, [noise])
        return judge(name, self.a.runs, theirs, [Trial("seen")], cast=True)[0].problem

    def suspects(self, outputs: Collection[str]) -> Iterator[str]:
        """Yield tensors that differ behind agreeing ones, on the way to an output, in order."""
        ends = self.agreeing, {self.of[name] for name in self.agreeing}
        on_the_way: set[str] = set()
        for name in outputs:
            mine, _ = self.a.back(name, ends[0])
            theirs, _ = self.b.back(self.of[name], ends[1])
            on_the_way |= {
                tensor
                for tensor, other in self.of.items()
                if self.problems[tensor] is not None
                and self.a.writer.get(tensor) in mine
                and self.b.writer.get(other) in theirs
            }
        yield from sorted(on_the_way, key=self.a.writer.__getitem__)


def _confirmed(
    pairs: _Pairs, tensor: str, inputs: Mapping[str, str], provider: str | None
) -> Divergence | None:
    """Cut out what leads to a tensor, and return it if it differs on equal inputs."""
    a, b, of = pairs.a, pairs.b, {**inputs, **pairs.of}
    mine, reads = a.back(tensor, pairs.agreeing)
    theirs, others = b.back(of[tensor], {of[name] for name in pairs.agreeing})
    shared = [name for name in of if name in reads or of[name] in others]
    given = {name: _free(name, of[name], a, b) for name in shared}
    feeds = {given[name]: a.feeds[name] if name in a.feeds else a.values[name] for name in shared}
    parts = (
        _part(a, mine, given, tensor, tensor),
        _part(b, theirs, {of[name]: given[name] for name in shared}, of[tensor], tensor),
    )
    report = verify(*parts, inputs=feeds, provider=provider, sample=True)
    if report:
        return None
    node = a.nodes[a.writer[tensor]]
    problem = report.problems[0] if report.problems else str(report.outputs[0].problem)
    return Divergence(node.name or tensor, node.op_type, tensor, problem, *parts, feeds)


def _free(name: str, other: str, a: _Side, b: _Side) -> str:
    """Return what an input of both parts is called: a name that means nothing else in either."""
    used = b.writer.keys() | b.feeds.keys() | b.model.weights.keys()
    return name if name == other or name not in used else f"{name} of the first model"


def _part(
    side: _Side, nodes: Collection[int], given: Mapping[str, str], tensor: str, called: str
) -> Model:
    """Return a model of some nodes. ``given`` are the names of its inputs by the tensors they are.

    Its output is ``tensor``, by the name of ``called``.
    """
    source = side.model.proto
    proto = onnx.ModelProto(ir_version=source.ir_version, opset_import=source.opset_import)
    graph, held = proto.graph, [side.nodes[at] for at in sorted(nodes)]
    proto.functions.extend(source.functions)
    graph.name = "part"
    for name, other in given.items():
        value = side.feeds[name] if name in side.feeds else side.values[name]
        elem_type = helper.np_dtype_to_tensor_dtype(value.dtype)
        graph.input.append(helper.make_tensor_value_info(other, elem_type, value.shape))
        if name != other:
            graph.node.append(helper.make_node("Identity", [other], [name]))
    graph.node.extend(held)
    if tensor != called:
        graph.node.append(helper.make_node("Identity", [tensor], [called]))
    value = side.values[tensor]
    elem_type = helper.np_dtype_to_tensor_dtype(value.dtype)
    graph.output.append(helper.make_tensor_value_info(called, elem_type, value.shape))
    read = {name for node in held for name in _read(node)}
    graph.initializer.extend(t for t in source.graph.initializer if t.name in read - given.keys())
    return side.model.with_changes(proto, {})
