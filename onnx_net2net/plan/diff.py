"""What sets two models apart.

diff(load("small.onnx"), load("grown.onnx")).grown     # {"conv1.weight": ((6, 3), (9, 3))}
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from onnx_net2net.model.model import AnyModel, load

Shape = tuple[int, ...]


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
    result = Diff(parameters=(a.parameters, b.parameters))
    nodes = Counter(node.op_type for node in b.proto.graph.node)
    nodes.subtract(node.op_type for node in a.proto.graph.node)
    result.operators = {op: count for op, count in sorted(nodes.items()) if count}
    result.removed = [name for name in a.weights if name not in b.weights]
    for name, weight in b.weights.items():
        old = a.weights.get(name)
        if old is None:
            result.added.append(name)
        elif (old.shape, old.dtype) != (weight.shape, weight.dtype):
            result.grown[name] = old.shape, weight.shape
        elif old.array().tobytes() == weight.array().tobytes():
            result.equal.append(name)
        else:
            result.changed.append(name)
    return result
