"""A graph as Keras walks it: the steps that PyTorch's code is written from, and when to let go.

program = KerasProgram(proto, {"fc.weight": Role.PARAMETER})
for step in program.steps:
    step.op, step.inputs, step.attributes, step.bodies, step.done
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from onnx import ModelProto

from onnx_net2net.algebra.sizes import AnySize, Size
from onnx_net2net.algebra.unknowns import Unknown
from onnx_net2net.frameworks.program import Program
from onnx_net2net.frameworks.roles import Role
from onnx_net2net.frameworks.step import Section
from onnx_net2net.model.model import Model

__all__ = ["KerasProgram", "is_derived", "proven_sizes", "symbols"]


class KerasProgram(Program):
    """The steps of a graph whose weights are constants, fused to operators of ``known``.

    ``constants`` are the contents by name of all that a step or a result needs, and ``fixed`` the
    sizes of tensors of which others vary.
    """

    def __init__(self, proto: ModelProto, known: Collection[tuple[str, str]]) -> None:
        model = Model(proto, {})
        super().__init__(model, dict.fromkeys(model.weights, Role.CONSTANT))
        self.fuse(known)
        for section in self.main.sections():
            _release(section)
        names = {name for section in self.main.sections() for name in _read(section)}
        self.constants = {name: self.constant(name) for name in names if self.is_constant(name)}
        self.fixed = self._fixed_sizes()

    def _fixed_sizes(self) -> dict[str, tuple[int | None, ...]]:
        """Return sizes that are always the same, of tensors of which others vary.

        A Reshape to (batch, length, -1, 64) gives a number of heads that no framework can tell
        while batch and length are open; layers behind it may need it.
        """
        fixed = {}
        for name in (name for step in self.steps for name in step.outputs):
            sizes = proven_sizes(self, name) or ()
            plain = tuple(size if isinstance(size, int) else None for size in sizes)
            if any(size is not None for size in plain):
                fixed[name] = plain
        return fixed


def proven_sizes(program: Program, name: str) -> tuple[AnySize, ...] | None:
    """Return the sizes of a tensor, formulas of those of the inputs where they vary, else None.

    Beside a size that depends on data the others may be those of one trial only.
    """
    sizes = program.shapes.sizes.get(name)
    if sizes is None:
        dims = program.dims(name) or ()
        fixed = tuple(size for size in dims if isinstance(size, int))
        return fixed if program.dims(name) is not None and len(fixed) == len(dims) else None
    known = program.shapes.binding.keys()
    return sizes if all(is_derived(size, known) for size in sizes) else None


def is_derived(size: Any, known: Collection[str]) -> bool:
    """Return whether a size is made of those of the inputs, ``known`` by name."""
    return not isinstance(size, Size) or all(
        all(is_derived(operand, known) for operand in one.operands)
        if one.operands
        else one.operator in known
        for one in size.unknowns
    )


def symbols(size: AnySize) -> set[Unknown]:
    """Return all unknowns that a size is made of, those within others too."""
    if not isinstance(size, Size):
        return set()
    inner = (symbols(operand) for one in size.unknowns for operand in one.operands)
    return size.unknowns.union(*inner)


def _read(section: Section) -> set[str]:
    """Return what the steps of a section and of its bodies read, and what they result in."""
    names = {name for step in section.steps for name in step.inputs if name}
    bodies = (body for step in section.steps for body in step.bodies.values())
    return names.union(section.outputs, *map(_read, bodies))


def _release(section: Section) -> None:
    """Note for each step the tensors that nothing reads after it."""
    needed = set(section.outputs)
    for step in reversed(section.steps):
        names = {name for name in step.inputs if name}.union(*map(_read, step.bodies.values()))
        step.done = tuple(sorted(names - needed))
        needed |= names
