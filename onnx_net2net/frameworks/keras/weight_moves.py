"""Which steps do nothing to weights but move them, and how often each weight is read."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from onnx_net2net.frameworks.keras.moved import Moved
from onnx_net2net.frameworks.program import Program
from onnx_net2net.frameworks.step import ProgramStep
from onnx_net2net.operators.language import Kind

__all__ = ["blank", "carried", "moves", "readers"]


def moves(step: ProgramStep) -> bool:
    """Return whether a step moves elements, and does nothing else."""
    facts = step.facts
    return facts.kind is Kind.MOVE and not facts.computes and not facts.random and not step.bodies


def carried(step: ProgramStep, operands: list[Any]) -> bool:
    """Return whether all that comes out is weights, and they are of one type."""
    places = step.facts.carries or range(len(operands))
    carried = [x for place, x in enumerate(operands) if place in places and x is not None]
    return all(isinstance(x, Moved) for x in carried) and len({x.dtype for x in carried}) == 1


def blank(value: Any) -> Any:
    """Return zeros that take no memory for weights, else what is given."""
    return np.broadcast_to(np.int8(0), value.shape) if isinstance(value, Moved) else value


def readers(program: Program) -> Counter[str]:
    """Return how often each weight is read, by steps that do more than move it."""
    sources: dict[str, set[str]] = {n: {n} for n in program.roles if program.is_weight(n)}
    counts: Counter[str] = Counter(n for o in program.main.outputs for n in sources.get(o, ()))
    for step in program.steps:
        own = [sources[name] for name in step.inputs if name in sources]
        if own and moves(step):
            for name in step.outputs:
                sources[name] = set().union(*own)
        else:
            counts.update(name for names in own for name in names)
        for body in step.bodies.values():
            for inner in body.every_step():
                counts.update(n for name in inner.inputs for n in sources.get(name, ()))
    outputs = program.main.outputs
    counts.update(n for o in outputs if o not in program.roles for n in sources.get(o, ()))
    return counts
