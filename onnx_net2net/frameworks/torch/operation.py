"""One step as the operator tables see it: operands as code, attributes, sizes.

    def gelu(op: TorchOperation) -> str:
        return f"F.gelu({op.tensor(0)})"

An entry is such a function, or a template: ``"torch.abs({0})"``, ``"{0} + {1}"``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from onnx_net2net.algebra.sizes import AnySize
from onnx_net2net.frameworks.codegen import BARE, VALUE
from onnx_net2net.frameworks.operation import Operation
from onnx_net2net.frameworks.roles import Role
from onnx_net2net.frameworks.step import ProgramStep
from onnx_net2net.frameworks.torch.size_code import read
from onnx_net2net.frameworks.torch.translator import TensorList, TorchTranslator
from onnx_net2net.frameworks.torch.types import literal, torch_dtype
from onnx_net2net.frameworks.torch.unsigned import is_widened, narrowed, widened
from onnx_net2net.operators.types import FLOATS

Array = np.ndarray[Any, Any]
MOST_SHOWN = 8  # elements of a constant vector of indices


@dataclass(frozen=True)
class Listed:
    """An expression that gives a Python list: a sequence of tensors."""

    code: str


Result = str | Sequence[str | Listed] | Listed | None
Entry = str | Callable[["TorchOperation"], Result]


class TorchOperation(Operation):
    """A step and where its operands are found."""

    def __init__(self, step: ProgramStep, translator: TorchTranslator) -> None:
        super().__init__(step)
        self.translator = translator
        self.program = translator.program
        self.hint = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", step.op).lower()
        self.fresh = False  # a layer's result has a name of its own
        self.read: set[int] = set()  # operands that were looked at

    # ---- operands ---------------------------------------------------------------------------

    def has(self, index: int) -> bool:
        """Return whether an operand is given."""
        return index < len(self.step.inputs) and bool(self.step.inputs[index])

    def name(self, index: int) -> str:
        """Return the ONNX name of an operand."""
        if not self.has(index):
            self.refuse(f"its operand {index} is missing")
        self.read.add(index)
        return self.step.inputs[index]

    def unread(self) -> list[str]:
        """Return the indices of given operands that the translation did not look at."""
        seen = self.read | self.step.facts.implied.keys()
        return [str(i) for i in range(len(self.step.inputs)) if self.has(i) and i not in seen]

    def tensor(self, index: int) -> str:
        """Return an operand as a tensor, in a type that PyTorch computes with."""
        name = self.name(index)
        return widened(self.translator.tensor(name), self.program.dtype(name), self.step)

    def optional(self, index: int) -> str:
        """Return an operand as a tensor, or ``None``."""
        return self.tensor(index) if self.has(index) else "None"

    def constant(self, index: int) -> Array | None:
        """Return the contents of a constant operand."""
        return self.program.constant(self.name(index)) if self.has(index) else None

    def number(self, index: int) -> str | None:
        """Return a single number as Python code, or None."""
        name = self.name(index)
        dtype = self.program.dtype(name)
        if dtype == TensorProto.UINT64 and is_widened(dtype, self.step):
            return None  # its bits count, not its value
        sizes = self.translator.known_sizes(name)
        if sizes is not None:
            return self.code(sizes.item()) if sizes.size == 1 else None
        shape = self.program.shapes.of(name)
        if not self.program.is_constant(name) or shape is None or np.prod(shape) != 1:
            return None
        constant = self.program.constant(name)
        if constant is None or constant.dtype == object:
            return None
        return literal(constant.reshape(())[()])

    def scalar(self, index: int) -> str:
        """Return a single number as Python code where it is known, else a tensor."""
        return self.number(index) or self.tensor(index)

    def integer(self, index: int) -> str:
        """Return a single integer as Python code."""
        return self.number(index) or f"int({self.tensor(index)})"

    def tensors(self) -> list[str]:
        """Return all operands as tensors."""
        return [self.tensor(i) for i in range(len(self.step.inputs))]

    def operands(self) -> list[str]:
        """Return all operands, single numbers as such where that changes neither shape nor type."""
        indices = [i for i in range(len(self.step.inputs)) if self.has(i)]
        ranks = {i: self.rank(i) for i in indices}
        numbers = {i: self.number(i) for i in indices}
        tensors = [i for i in indices if numbers[i] is None]
        widest = max((r for i in tensors if (r := ranks[i]) is not None), default=None)
        operands = []
        for i in indices:
            number, rank = numbers[i], ranks[i]
            narrow = rank == 0 or (None not in (rank, widest) and rank <= widest)  # type: ignore[operator]
            operands.append(number if number and narrow and tensors else self.tensor(i))
        return operands

    def sequence(self, index: int) -> str:
        """Return an operand that is a sequence of tensors."""
        value = self.translator.values.get(self.name(index))
        if not isinstance(value, TensorList):
            self.refuse(f"its operand {index} is no sequence")
        return value.code

    def value(self, index: int) -> str | Listed:
        """Return an operand, be it a tensor or a sequence of them."""
        value = self.translator.values.get(self.name(index))
        return Listed(value.code) if isinstance(value, TensorList) else self.tensor(index)

    # ---- sizes ------------------------------------------------------------------------------

    def rank(self, index: int) -> int | None:
        """Return the number of axes of an operand."""
        return self.program.rank(self.name(index))

    def axes_of(self, index: int) -> int:
        """Return the number of axes of an operand, which must be known."""
        rank = self.rank(index)
        if rank is None:
            self.refuse(f"the number of axes of {self.name(index)!r} is not known")
        return rank

    def size(self, index: int, axis: int) -> AnySize:
        """Return one size of an operand."""
        return self.translator.size_of(self.name(index), axis % self.axes_of(index))

    def has_size(self, index: int, axis: int, size: AnySize) -> bool:
        """Return whether ``size`` is read off an axis, or off one of the same name."""
        return self.translator.has_size(self.name(index), axis, size)

    def fixed(self, index: int, axis: int) -> int:
        """Return one size of an operand, which must always be the same."""
        size = self._fixed_size(index, axis)
        if size is None:
            self.refuse(f"size {axis} of {self.name(index)!r} changes")
        return size

    def _fixed_size(self, index: int, axis: int) -> int | None:
        """Return a size that is the same whatever the dynamic sizes, or None."""
        name = self.name(index)
        size: AnySize | None = self.program.size(name, axis)
        if size is None:
            sizes = self.program.shapes.sizes_of(name)
            size = sizes[axis] if sizes is not None else None
        return size if isinstance(size, int) else None

    def shape(self, index: int) -> tuple[int, ...] | None:
        """Return the shape of an operand where no size changes."""
        dims = self.program.dims(self.name(index))
        if dims is None or any(not isinstance(d, int) for d in dims):
            return None
        return tuple(d for d in dims if isinstance(d, int))

    def sizes(self, index: int) -> list[AnySize]:
        """Return the elements of an operand that holds sizes."""
        known = self.translator.known_sizes(self.name(index))
        if known is not None:
            return known.ravel().tolist()
        length = self.length(index)
        if length is None:
            self.refuse(f"the length of {self.name(index)!r} is not known")
        listed = self.translator.block.add(
            f"{self.tensor(index)}.reshape(-1).tolist()", "sizes", kind="list", inline=False
        )
        return [read(f"{listed}[{i}]", natural=False) for i in range(length)]

    def code(self, size: AnySize, hint: str = "size") -> str:
        """Return a size as code."""
        return self.translator.code(size, hint)

    def listed(self, sizes: Iterable[AnySize]) -> str:
        """Return sizes as arguments."""
        return ", ".join(map(self.code, sizes))

    def length(self, index: int) -> int | None:
        """Return how many elements a vector has, or a single number, where that never changes."""
        rank = self.rank(index)
        return 1 if rank == 0 else self._fixed_size(index, 0) if rank == 1 else None

    def has_sizes(self, index: int) -> bool:
        """Return whether it is known how many sizes an operand holds."""
        return (
            self.translator.known_sizes(self.name(index)) is not None
            or self.length(index) is not None
        )

    def listed_constant(self, index: int) -> list[int] | None:
        """Return the integers of a short constant operand, which code may show."""
        array = self.constant(index)
        if array is None or array.size > MOST_SHOWN:
            return None
        return [int(i) for i in array.ravel()]

    # ---- types and outputs ---------------------------------------------------------------

    def dtype(self, index: int = 0) -> int:
        """Return the element type of an operand."""
        dtype = self.program.dtype(self.name(index))
        if dtype is None:
            self.refuse(f"the type of {self.name(index)!r} is not known")
        return dtype

    def output_dtype(self, output: int = 0) -> str:
        """Return PyTorch's type of an output, while it is computed."""
        dtype = self.program.dtype(self.step.outputs[output])
        return "torch.int64" if is_widened(dtype, self.step) else torch_dtype(dtype)

    def typed(self, code: str) -> str:
        """Return what PyTorch may compute of integers in another type in the output's own."""
        return code if self.dtype() in FLOATS else f"({code}).to({self.output_dtype()})"

    def wants(self, output: int) -> bool:
        """Return whether an output is named and read."""
        if not super().wants(output):
            return False
        name, graph = self.step.outputs[output], self.program.graph
        return bool(graph.consumers.get(name)) or name in graph.results

    # ---- what it writes ---------------------------------------------------------------------

    def add(self, code: str, hint: str | None = None, **options: Any) -> str:
        """Add a statement, and return the value that it computes."""
        return self.translator.block.add(code, hint or self.hint, **options)

    def unpack(self, code: str, hints: Sequence[str] = ()) -> list[str]:
        """Add a statement whose expression yields a tuple, by default of all outputs."""
        return self.translator.block.unpack(code, hints or [self.hint] * len(self.step.outputs))

    def kernel(self, name: str, *arguments: Any) -> str:
        """Call one of the functions that are written beside the class."""
        self.translator.state.kernels[name] = None
        return f"{name}({', '.join(map(str, arguments))})"

    def device(self) -> str:
        """Return where the inputs lie."""
        return self.translator.device()

    def path(self, index: int) -> str | None:
        """Return the path of an operand that is a weight."""
        name = self.name(index)
        return self.program.paths[name] if self.program.is_weight(name) else None

    def layer(self, module: str, **parts: int) -> str | None:
        """Return the module whose weights are just these operands (attribute=index), or None."""
        paths = {name: self.path(index) for name, index in parts.items()}
        known = {name: path for name, path in paths.items() if path is not None}
        if len(known) < len(paths) or "weight" not in known:
            return None
        for attribute, index in parts.items():
            statistic = attribute.startswith("running_")
            wanted = Role.STATISTIC if statistic else Role.PARAMETER
            if self.program.roles[self.name(index)] is not wanted:
                return None
        path, _, last = known["weight"].rpartition(".")
        self.named(known["weight"])
        if not path or last != "weight" or not self.translator.tree.fit(path, module, known):
            return None
        return self.translator.tree.access(path)

    def named(self, path: str | None) -> None:
        """Name the result after the module at a weight's path."""
        self.fresh = True
        parts = [p for p in (path or "").split(".")[:-1] if not p.isdigit()]
        if parts:
            self.hint = parts[-1]

    def write(self, entry: Entry) -> None:
        """Translate the step. Raises Refused."""
        self.store(self.filled(entry) if isinstance(entry, str) else entry(self))

    def filled(self, template: str) -> str:
        """Fill a template with the operands: ``{0}`` may be a number, ``{t0}`` is a tensor."""
        before = set(self.read)
        plain = self.operands() if re.search(r"\{\d\}", template) else []
        self.read = before.union(map(int, re.findall(r"\{t?(\d)\}", template)))

        def operand(match: re.Match[str]) -> str:
            index = int(match[2])
            code = self.tensor(index) if match[1] else plain[index]
            bare = re.fullmatch(BARE, code)
            return code if bare else f"({code})"

        return re.sub(r"\{(t?)(\d)\}", operand, template)

    def store(self, result: Result) -> None:
        """Give the outputs their values."""
        values, block = self.translator.values, self.translator.block
        if isinstance(result, Listed):
            self.store([result])
        elif result is not None:
            codes = [result] if isinstance(result, str) else result
            for name, code in zip(self.step.outputs, codes, strict=False):
                if not name:
                    continue
                if isinstance(code, Listed):
                    values[name] = TensorList(block.add(code.code, self.hint, kind="list"))
                    continue
                dtype = self.program.dtype(name)
                code = narrowed(code, dtype, self.step)
                if VALUE.fullmatch(code) is None:
                    kind = "tensor" if dtype is None or dtype in FLOATS else "integers"
                    code = block.add(code, self.hint, kind=kind, fresh=self.fresh)
                values[name] = code
