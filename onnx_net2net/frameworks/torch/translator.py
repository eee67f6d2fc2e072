"""Where every tensor is found while a program's steps are translated in order.

    translator = TorchTranslator(program, write)
    translator.section(program.main)         # calls write(translator, step) for each step
    translator.tensor("hidden")              # the code of a tensor: a value, a weight, a buffer

Steps that compute sizes become Python numbers (see size_code.py); what has no translation is
collected.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from onnx_net2net.algebra.sizes import AnySize, Size
from onnx_net2net.errors import Refused
from onnx_net2net.frameworks.attributes import unread
from onnx_net2net.frameworks.codegen import CodeBlock, identifier, value
from onnx_net2net.frameworks.program import Program
from onnx_net2net.frameworks.roles import Role
from onnx_net2net.frameworks.step import ProgramStep, Section
from onnx_net2net.frameworks.torch import size_code
from onnx_net2net.frameworks.torch.module_tree import Leaf, Tree, taken_names
from onnx_net2net.frameworks.torch.size_code import evaluated, read, written
from onnx_net2net.frameworks.torch.types import Untranslated, literal, tensor_code, torch_dtype

Array = np.ndarray[Any, Any]
MOST_LITERALS = 16  # elements of a constant that is written out


@dataclass
class TensorList:
    """A Python list of tensors."""

    code: str


@dataclass
class _State:
    problems: list[str] = field(default_factory=list)
    kernels: dict[str, None] = field(default_factory=dict)
    stored: dict[str, Array] = field(default_factory=dict)


class TorchTranslator:
    """Holds where every tensor is found while the steps are translated in order."""

    def __init__(
        self, program: Program, write: Callable[[TorchTranslator, ProgramStep], None]
    ) -> None:
        self.program = program
        self.write = write
        leaves = {
            path: Leaf(
                program.model.weights[name].shape,
                program.model.weights[name].dtype,
                program.roles[name] is Role.PARAMETER,
            )
            for name, path in program.paths.items()
            if program.is_weight(name)
        }
        self.tree = Tree(leaves)
        self.block = CodeBlock()
        self.blocks = [self.block]
        self.values: dict[str, str | Array | TensorList] = {}
        self.state = _State()
        self._sizes: dict[tuple[int, str, int], str] = {}
        self._expressions: dict[tuple[int, str], str] = {}
        self._device: str | None = None
        self._buffers: dict[str, str] = {}
        dims = [d for name in program.main.inputs for d in program.dims(name) or ()]
        self._symbols = {d for d in dims if isinstance(d, str) and d.isidentifier()}

    # ---- where tensors are found ------------------------------------------------------------

    def tensor(self, name: str) -> str:
        """Return the code of a tensor, whatever it is."""
        known = self.values.get(name)
        if isinstance(known, str):
            return known
        if isinstance(known, TensorList):
            raise Untranslated(f"{name!r} is a sequence where a tensor is expected")
        if known is not None:
            return self.lifted(known, self.program.dtype(name))
        if self.program.is_weight(name):
            return self.tree.access(self.program.paths[name])
        if self.program.is_constant(name):
            return self.buffer(name)
        raise Untranslated(f"nothing here computes {name!r}")

    def value(self, name: str) -> str:
        """Return the code of a tensor, or of a sequence of them."""
        known = self.values.get(name)
        return known.code if isinstance(known, TensorList) else self.tensor(name)

    def lifted(self, items: Array, dtype: int | None) -> str:
        """Return sizes as a tensor."""
        dtype = dtype or TensorProto.INT64
        shaped = "" if items.ndim == 1 else f".reshape({items.shape})"
        if items.dtype != object:
            numbers = items.ravel().astype(helper.tensor_dtype_to_np_dtype(dtype))
            return f"{tensor_code(numbers)}{shaped}.to({self.device()})"
        options = f"dtype={torch_dtype(dtype)}, device={self.device()}"
        codes = map(self.code, items.ravel().tolist())
        parts = [f"torch.full((), {code}, {options})" for code in codes]
        if items.ndim == 0:
            return self.block.add(parts[0], "size")
        return self.block.add(f"torch.stack(({', '.join(parts)},)){shaped}", "sizes")

    def buffer(self, name: str) -> str:
        """Make a constant a buffer of the module, which moves with it."""
        if name not in self._buffers:
            array = self.program.constant(name)
            assert array is not None
            if array.dtype == object:
                raise Untranslated("it reads text")
            base = re.sub("_+", "_", identifier(name)).strip("_") or "constant"
            key = self._unused(base)
            if array.size <= MOST_LITERALS:
                self.tree.constants[key] = tensor_code(array)
            else:
                self.state.stored[key] = array
                self.tree.constants[key] = f"constants[{literal(key)}]"
            self._buffers[name] = f"self.{key}"
        return self._buffers[name]

    def inline_constant(self, name: str, code: str) -> str:
        """Make a constant that no tensor of the file holds a buffer."""
        key = self._unused(name)
        self.tree.constants[key] = code
        return f"self.{key}"

    def _unused(self, base: str) -> str:
        if keyword.iskeyword(base):
            base = f"{base}_"
        key, number = base, 2
        while key in self.tree.constants or key in self.tree.root.children or key in taken_names():
            key, number = f"{base}_{number}", number + 1
        return key

    def device(self) -> str:
        """Return where the inputs lie."""
        if self._device is None:
            types = {v.name: v.type for v in self.program.model.proto.graph.input}
            plain = (n for n in self.program.main.inputs if types[n].HasField("tensor_type"))
            weights = [p for n, p in self.program.paths.items() if self.program.is_weight(n)]
            first = next((self.values[n] for n in plain), None)
            if first is None and weights:
                first = self.tree.access(weights[0])
            code = 'torch.device("cpu")' if first is None else f"{first}.device"
            self._device = self.blocks[0].first(code, "device")
        return self._device

    def known_sizes(self, name: str) -> Array | None:
        """Return the elements of a tensor that are numbers and sizes, None for any other."""
        known = self.values.get(name)
        if isinstance(known, np.ndarray):
            return known
        shape = self.program.shapes.of(name)
        if not self.program.is_constant(name) or (shape and np.prod(shape) > size_code.MOST):
            return None
        constant = self.program.constant(name)
        if constant is None or constant.dtype.kind not in "iub" or constant.size > size_code.MOST:
            return None
        return constant

    def code(self, size: AnySize, hint: str = "size") -> str:
        """Return a size as code; what is computed is a value of its own, the same one once."""
        code = written(size)
        named = not isinstance(size, Size) or code in {one.operator for one in size.unknowns}
        return code if named else self.expression(code, hint)

    def sizes_of(self, name: str) -> list[AnySize]:
        """Return the shape of a tensor, as numbers and sizes."""
        rank = self.program.rank(name)
        if rank is None:
            raise Untranslated(f"the number of axes of {name!r} is not known")
        return [self.size_of(name, axis) for axis in range(rank)]

    def size_of(self, name: str, axis: int) -> AnySize:
        """Return one size: a number where it never changes."""
        known = self.program.size(name, axis)
        if known is not None:
            return known
        for block in reversed(self.blocks):
            code = self._sizes.get((id(block), name, axis))
            if code is not None:
                return read(code)
        symbol = self._symbol(name, axis)
        hint = symbol if symbol in self._symbols else "size"
        code = self.block.add(f"{self.tensor(name)}.shape[{axis}]", hint, kind="size", depth=0)
        self._sizes[id(self.block), name, axis] = code
        return read(code)

    def has_size(self, name: str, axis: int, size: AnySize) -> bool:
        """Return whether ``size`` is read off an axis, or off one of the same symbol."""
        if not isinstance(size, Size):
            return False
        symbol = self._symbol(name, axis)
        return self.size_of(name, axis) == size or any(
            symbol is not None and symbol == self._symbol(other, at) and read(code) == size
            for (_, other, at), code in self._sizes.items()
        )

    def _symbol(self, name: str, axis: int) -> str | None:
        """Return what an axis is called in the file, if it is."""
        dims = self.program.dims(name)
        symbol = dims[axis] if dims is not None else None
        return symbol if isinstance(symbol, str) else None

    def expression(self, code: str, hint: str) -> str:
        """Return a number computed from sizes; the same expression once."""
        for block in reversed(self.blocks):
            if (id(block), code) in self._expressions:
                return self._expressions[id(block), code]
        name = self.block.add(code, hint, kind="size", depth=0)
        self._expressions[id(self.block), code] = name
        return name

    # ---- the walk ---------------------------------------------------------------------------

    def section(self, section: Section) -> None:
        """Translate the steps of a graph in order; problems are collected."""
        for step in section.steps:
            try:
                if not self._write_sizes(step):
                    self.write(self, step)
            except Refused as problem:
                self.state.problems.append(f"{step.label}: {problem.reason}")
                for name in step.outputs:
                    self.values[name] = value(0)  # so that what follows is looked at, too

    def _write_sizes(self, step: ProgramStep) -> bool:
        """Translate a step of sizes; False where it computes tensors."""
        if step.domain or step.bodies:
            return False
        if set(step.attributes) - {"start", "end"} and step.facts.measures:
            raise Untranslated(unread(sorted(step.attributes)))
        if step.op == "Shape" and self.program.rank(step.inputs[0]) is None:
            part = f"{step.attributes.get('start', 0)}:{step.attributes.get('end', '')}"
            code = f"tuple({self.tensor(step.inputs[0])}.shape)[{part}]"
            code = f"torch.tensor({code}, dtype=torch.int64, device={self.device()})"
            self.values[step.output] = self.block.add(code, "shape", kind="integers")
            return True
        if step.op == "Shape":
            sizes = self.sizes_of(step.inputs[0])
            start, end = step.attributes.get("start", 0), step.attributes.get("end", len(sizes))
            self.values[step.output] = size_code.array(sizes[start:end])
            return True
        if step.op == "Size":
            code = f"{self.tensor(step.inputs[0])}.numel()"
            self.values[step.output] = size_code.array(read(self.expression(code, "size")))
            return True
        inputs = [self.known_sizes(name) if name else None for name in step.inputs]
        if any(i is None and name for i, name in zip(inputs, step.inputs, strict=True)):
            return False
        if all(self.program.is_constant(name) for name in step.inputs if name):
            return False
        if step.attributes.foreign(step.op, step.domain, step.opset):
            return False
        node = self.program.graph.producer.get(step.output)
        if node is not None and node.op == step.op:
            proto = node.proto
        else:  # what it was fused to
            proto = helper.make_node(step.op, step.inputs, step.outputs, **step.attributes)
        arrays = evaluated(proto, inputs, self.program.opset.get("", 1))
        if arrays is None:
            return False
        self.values.update(zip(step.outputs, arrays, strict=False))
        return True

    def enter(self, names: Sequence[str], lists: Collection[str] = ()) -> None:
        """Begin a function with these parameters; ``lists`` are sequences of tensors."""
        body = CodeBlock(self.blocks[0].numbers)
        self.blocks.append(body)
        self.block = body
        for name in names:
            code = body.input(name)
            self.values[name] = TensorList(code) if name in lists else code

    def leave(self) -> CodeBlock:
        """End the function that was begun last."""
        body = self.blocks.pop()
        self.block = self.blocks[-1]
        return body
