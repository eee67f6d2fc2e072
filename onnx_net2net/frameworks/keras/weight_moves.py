"""Which steps do nothing to weights but move them, and how often each weight is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from onnx import NodeProto

from onnx_net2net.frameworks.keras.moved import Array, Get, Moved
from onnx_net2net.frameworks.program import Program, computed
from onnx_net2net.frameworks.step import ProgramStep
from onnx_net2net.operators.language import Kind

__all__ = ["blank", "carried", "moved_together", "moves", "readers"]


def moves(step: ProgramStep) -> bool:
    """Return whether a step moves elements, and does nothing else."""
    facts = step.facts
    return facts.kind is Kind.MOVE and not facts.computes and not facts.random and not step.bodies


def carried(step: ProgramStep, operands: list[Any]) -> list[int]:
    """Return the places of what comes out, if it is weights and zeros of one type; else none."""
    places = step.facts.carries or range(len(operands))
    own = {place: x for place, x in enumerate(operands) if place in places and x is not None}
    kinds = {x.dtype if isinstance(x, Moved) else x.dtype.name for x in own.values()}
    fits = len(kinds) == 1 and all(isinstance(x, Moved) or not np.any(x) for x in own.values())
    return list(own) if fits else []


def moved_together(
    node: NodeProto, operands: list[Any], own: Collection[int], opset: Mapping[str, int]
) -> Callable[[int], Callable[[Get], Array]]:
    """Return how each output is read, where the operands at the places ``own`` come out."""

    def reads(place: int) -> Callable[[Get], Array]:
        def read(get: Get) -> Array:
            arrays = [x.read(get) if isinstance(x, Moved) else x for x in operands]
            kind = next(arrays[at].dtype for at in own if isinstance(operands[at], Moved))
            same = [x.astype(kind) if at in own else x for at, x in enumerate(arrays)]
            results = computed(node, same, opset)
            assert results is not None
            return results[place]

        return read

    return reads


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
