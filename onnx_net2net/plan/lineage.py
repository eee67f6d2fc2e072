"""Where a model came from, done again; and what sets two models apart.

again = replay(load("small.onnx"), load("grown.onnx").history)     # the same, byte for byte
diff(load("small.onnx"), load("grown.onnx")).grown                 # {"conv1.weight": ...}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from onnx_net2net.analysis.folding import fold
from onnx_net2net.deepening.deepen import deepen
from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.model.model import AnyModel, Model, load
from onnx_net2net.widening.widen import widen

Step = Mapping[str, Any]
Shape = tuple[int, ...]

_WIDEN = ("seed", "split", "noise", "mapping")
_DEEPEN = (
    "init", "count", "kernel", "norm", "copies", "every", "spread", "renumber", "zero", "seed",
)  # fmt: skip


def replay(parent: AnyModel, steps: Sequence[Step]) -> Model:
    """``parent`` after those of ``steps`` that were done to it and to what came of it.

    Raises UsageError where the history knows no such parent, Refused for a step that cannot be
    done again: trained weights, statistics measured on data, another version of this program.
    """
    parent = load(parent)
    digest = parent.sha256()
    starts = [i for i, step in enumerate(steps) if step.get("parent") == digest]
    if not starts:
        raise UsageError(
            f"no step of the history was done to this model (sha256 {digest[:12]})",
            "give the file that was grown, or one in between; history lists their digests",
        )
    model = parent
    for step in steps[starts[0] :]:
        if step.get("parent") != model.sha256():
            reason = f"its parent was another model (sha256 {str(step.get('parent'))[:12]})"
            raise Refused(_name(step), reason, "replay from that model")
        model = _again(model, step)
    return model


def _again(model: Model, step: Step) -> Model:
    from onnx_net2net import __version__

    if step.get("version") != __version__:
        raise Refused(
            _name(step),
            f"it was done by version {step.get('version')}, and this is {__version__}",
            f"pip install onnx-net2net=={step.get('version')}",
        )
    if step["operation"] == "fold":
        return fold(model)
    if step["operation"] == "widen":
        widths = {change["dimension"]: change["new"] for change in step["changes"]}
        return widen(model, widths, **{name: step[name] for name in _WIDEN})
    if step["operation"] == "deepen" and not step.get("calibrated"):
        options = {name: step[name] for name in _DEEPEN}
        return deepen(model, step["after"], step["block"], **options)
    measured = step["operation"] == "deepen"
    what = "the data that it was measured on" if measured else "what it took in"
    remedy = "replay from the model behind this step"
    raise Refused(_name(step), f"{what} is not in the history", remedy)


def _name(step: Step) -> str:
    return f"step '{step.get('operation')}'"


@dataclass
class Diff:
    """What sets two models apart. Weights by name: ``grown`` ones with both their shapes."""

    operators: dict[str, int] = field(default_factory=dict)  # how many more the second has
    equal: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    grown: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    parameters: tuple[int, int] = (0, 0)

    @property
    def alike(self) -> bool:
        """Whether no operator and no weight differs."""
        return not (self.operators or self.changed or self.grown or self.added or self.removed)

    def as_dict(self) -> dict[str, Any]:
        """Plain values only."""
        return {"alike": self.alike, **asdict(self)}


def diff(a: AnyModel, b: AnyModel) -> Diff:
    """Compare structure and weights, by name; one weight at a time is read."""
    a, b = load(a), load(b)
    found = Diff(parameters=(a.parameters, b.parameters))
    nodes = Counter(node.op_type for node in b.proto.graph.node)
    nodes.subtract(node.op_type for node in a.proto.graph.node)
    found.operators = {op: count for op, count in sorted(nodes.items()) if count}
    found.removed = [name for name in a.weights if name not in b.weights]
    for name, weight in b.weights.items():
        old = a.weights.get(name)
        if old is None:
            found.added.append(name)
        elif (old.shape, old.dtype) != (weight.shape, weight.dtype):
            found.grown[name] = old.shape, weight.shape
        elif old.array().tobytes() == weight.array().tobytes():
            found.equal.append(name)
        else:
            found.changed.append(name)
    return found
