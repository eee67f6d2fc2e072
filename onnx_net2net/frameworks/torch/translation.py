"""From a program to the statements of a ``forward``, by the tables in :mod:`.operators`.

translated = translate(Program(model))
translated.forward, translated.tree, translated.kernels
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TypeProto

from onnx_net2net.errors import Refused
from onnx_net2net.frameworks.attributes import unread
from onnx_net2net.frameworks.codegen import CodeBlock, identifier
from onnx_net2net.frameworks.program import Program
from onnx_net2net.frameworks.step import ProgramStep
from onnx_net2net.frameworks.torch.library import reserved
from onnx_net2net.frameworks.torch.module_tree import Tree
from onnx_net2net.frameworks.torch.operation import TorchOperation
from onnx_net2net.frameworks.torch.operators import translations
from onnx_net2net.frameworks.torch.translator import TensorList, TorchTranslator
from onnx_net2net.frameworks.torch.types import torch_dtype

REMEDY = "export the model again without it, or train it in the framework that it came from"

DEFECT = "its translation fails, which is a defect of onnx-net2net: please report it"


@dataclass
class Translation:
    """What is written: the steps of ``forward``, the module tree, and what they need."""

    program: Program
    forward: CodeBlock
    tree: Tree
    kernels: list[str]
    stored: dict[str, np.ndarray[Any, Any]]  # constants too long to be written out, by buffer
    title: str = "network"


def _write(translator: TorchTranslator, step: ProgramStep) -> None:
    operation = TorchOperation(step, translator)
    entry = translations().get((step.domain, step.op))
    if entry is None:
        operation.refuse(f"operator {step.operator} is not known")
    step.attributes.begin()
    try:
        operation.write(entry)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # Nothing has been written yet: a user is told what cannot be had, the tests count a crash.
        reason = f"{DEFECT} ({type(error).__name__}: {error})"
        raise Refused(step.label, reason) from error
    for kind, names in (
        ("attribute", step.ignored()),
        ("operand", operation.unread()),
    ):
        if names:
            operation.refuse(unread(names, kind))


def parameters(names: Sequence[str]) -> list[str]:
    """Return names of inputs as those of a function's parameters.

    >>> parameters(["x:0", "x_0", "class"])
    ['x_0', 'x_0_2', 'class_']
    """
    unique: list[str] = []
    for name in names:
        base = identifier(name)
        base = base if base.strip("_") and not base.startswith("__") else f"x{base}"
        base = f"{base}_" if base in reserved() else base
        parameter, count = base, 2
        while parameter in unique or parameter in reserved():
            parameter, count = f"{base}_{count}", count + 1
        unique.append(parameter)
    return unique


def _lists(kind: TypeProto) -> bool:
    """Return whether an input is a sequence. Raises Refused where PyTorch has no such tensors."""
    if kind.HasField("optional_type"):
        return _lists(kind.optional_type.elem_type)
    if kind.HasField("sequence_type"):
        _lists(kind.sequence_type.elem_type)
        return True
    torch_dtype(kind.tensor_type.elem_type)
    return False


def translate(program: Program) -> Translation:
    """Translate all steps. Raises Refused with everything that has no translation."""
    translator = TorchTranslator(program, _write)
    given = zip(program.main.inputs, parameters(program.main.inputs), strict=True)
    types = {value.name: value.type for value in program.model.proto.graph.input}
    for name, parameter in given:
        code = translator.block.input(parameter)
        try:
            translator.values[name] = TensorList(code) if _lists(types[name]) else code
        except Refused as problem:
            translator.state.problems.append(f"input {name!r}: {problem.reason}")
    translator.section(program.main)
    results = []
    for name in program.main.outputs:
        try:
            results.append(translator.value(name))
        except Refused as problem:
            translator.state.problems.append(f"output {name!r}: {problem.reason}")
    if translator.state.problems:
        raise Refused(
            None, f"no PyTorch translation of {'; '.join(translator.state.problems)}", REMEDY
        )
    translator.block.result = results[0] if len(results) == 1 else f"({', '.join(results)})"
    return Translation(
        program,
        translator.block,
        translator.tree,
        list(translator.state.kernels),
        translator.state.stored,
    )
