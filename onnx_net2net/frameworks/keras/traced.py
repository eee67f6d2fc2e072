"""Tensors that note what is done with them, so that it can be written down as Python.

    recorder = Recorder()
    x = recorder.input(tensor, "tokens")           # stands for a tensor of TensorFlow
    with recording(recorder):
        y = ops.cast(x[:, 1:], "float32") * 2      # computed, and noted
    recorder.block.result = recorder.code([y])     # see written_layers.py, which makes a text of it

Every function of ``keras.ops`` and ``keras.random`` notes its name and operands, and so do
operators and a few functions of this program, whose text can stand beside (:func:`noted`). A
function that is handed over, as the body of a loop, is noted as a block of its own. What cannot be
said in these words raises TypeError: nothing is ever left out.
"""

from __future__ import annotations

import base64
import operator
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import keras
import numpy as np

from onnx_net2net.frameworks.codegen import CodeBlock
from onnx_net2net.frameworks.codegen import value as number_value

__all__ = ["Recorder", "Seed", "Traced", "noted", "ops", "random", "recording"]

SMALL = 64  # elements of an array that is written out
LARGEST = 1 << 16  # elements of an array that a text may hold
# Sizes may be tensors or, with other backends, numbers: operators take both.
OF_SIZES = {"add": "+", "floor_divide": "//", "multiply": "*", "subtract": "-"}
SYMBOLS = {
    "add": "+", "and_": "&", "floordiv": "//", "ge": ">=", "gt": ">", "le": "<=", "lt": "<",
    "matmul": "@", "mod": "%", "mul": "*", "or_": "|", "pow": "**", "sub": "-", "truediv": "/",
    "xor": "^",
}  # fmt: skip


class Traced:
    """A tensor of TensorFlow, and the number of the statement that makes it."""

    __array_ufunc__ = None  # or NumPy would take it apart

    def __init__(self, recorder: Recorder, value: Any, name: str, *, size: bool) -> None:
        self.recorder = recorder
        self.value = value
        self.name = name  # in code
        self.is_size = size

    @property
    def shape(self) -> Any:
        """Return the shape as far as it is known."""
        return self.value.shape

    @property
    def dtype(self) -> Any:
        """Return the type of its elements."""
        return self.value.dtype

    def __getitem__(self, index: Any) -> Any:
        code = f"{self.name}[{self.recorder.index(index)}]"
        return self.recorder.note(code, self.value[self.recorder.plain(index)])

    def __neg__(self) -> Any:
        return self.recorder.note(f"-({self.name})", -self.value)

    def __invert__(self) -> Any:
        return self.recorder.note(f"~({self.name})", ~self.value)

    def _refused(self, *_: Any) -> Any:
        raise TypeError("a number that only a run tells")

    __array__ = __bool__ = __float__ = __index__ = __int__ = __iter__ = __len__ = _refused

    def __eq__(self, other: object) -> Any:
        return ops.equal(self, other)

    def __ne__(self, other: object) -> Any:
        return ops.not_equal(self, other)

    __hash__ = object.__hash__


def _binary(name: str, *, turned: bool) -> Callable[[Traced, Any], Any]:
    function, symbol = getattr(operator, name), SYMBOLS[name]

    def method(self: Traced, other: Any) -> Any:
        pair = (other, self) if turned else (self, other)
        plain = [self.recorder.plain(x) for x in pair]
        code = f" {symbol} ".join(f"({self.recorder.code(x)})" for x in pair)
        sizes = all(isinstance(x, int) or getattr(x, "is_size", False) for x in pair)
        return self.recorder.note(code, function(*plain), size=sizes)

    return method


for _name in SYMBOLS:
    setattr(Traced, f"__{_name.rstrip('_')}__", _binary(_name, turned=False))
    if _name not in ("ge", "gt", "le", "lt"):
        setattr(Traced, f"__r{_name.rstrip('_')}__", _binary(_name, turned=True))


class Recorder:
    """What was noted so far."""

    def __init__(self) -> None:
        self.block = CodeBlock()
        self.library: set[str] = set()  # functions of this program that the text calls
        self.rests = False  # while a function is run whose inside is nobody's concern

    def input(self, value: Any, hint: str) -> Traced:
        """Return a parameter of the block."""
        return Traced(self, value, self.block.input(hint), size=False)

    def note(self, code: str, value: Any, *, size: bool = False, stays: bool = False) -> Any:
        """Return a result with its code; of several, each.

        ``stays`` says that its place among others matters.
        """
        if value is None or isinstance(value, bool | int | float | str):
            return value
        bare = code.endswith("]")
        name = self.block.add(
            code,
            "size" if size else "x",
            kind="size" if size else "tensor",
            inline=not stays,
            depth=int(not bare),
        )
        if isinstance(value, list | tuple):
            return type(value)(
                self.note(f"{name}[{place}]", item, size=size) for place, item in enumerate(value)
            )
        if not is_tensor(value):
            raise TypeError(f"a {type(value).__name__} cannot be written")
        return Traced(self, value, name, size=size)

    def call_it(self, value: Any, name: str) -> None:
        """Have a result called so where it gets a name."""
        for statement in self.block.statements[::-1]:
            if isinstance(value, Traced) and number_value(statement.targets[0]) == value.name:
                statement.hints = (name,)

    # ---- operands --------------------------------------------------------------------------------

    def plain(self, value: Any) -> Any:
        """Return an operand as the function takes it that is noted."""
        if isinstance(value, Traced):
            return value.value
        if isinstance(value, list | tuple):
            return type(value)(map(self.plain, value))
        if isinstance(value, slice):
            return slice(*map(self.plain, (value.start, value.stop, value.step)))
        return value

    def index(self, value: Any) -> str:
        """Return the code of what stands in brackets."""
        if isinstance(value, tuple):
            return ", ".join(map(self.index, value)) + ("," if len(value) == 1 else "")
        if isinstance(value, slice):
            start, stop, step = (
                "" if part is None else self.code(part)
                for part in (value.start, value.stop, value.step)
            )
            return f"{start}:{stop}" + (f":{step}" if step else "")
        return "..." if value is ... else self.code(value)

    def code(self, value: Any) -> str:
        """Return the code of an operand. Raise TypeError for what has none."""
        if isinstance(value, Traced):
            return value.name
        if isinstance(value, Seed):
            return "self.seed_generator"
        if isinstance(value, list | tuple):
            inner = ", ".join(map(self.code, value))
            if isinstance(value, list):
                return f"[{inner}]"
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        if isinstance(value, np.ndarray | np.generic):
            return array_code(np.asarray(value))
        if value is None or isinstance(value, bool | int | float | str):
            return number_code(value)
        if isinstance(value, CodeBlock):
            return self.block.function(value, "step")
        if is_tensor(value):
            array = static_value(value)
            if array is not None:
                kind = keras.backend.standardize_dtype(value.dtype)
                return f"ops.convert_to_tensor({array_code(array)}, {kind!r})"
        if hasattr(value, "as_numpy_dtype"):
            return repr(keras.backend.standardize_dtype(value))
        raise TypeError(f"a {type(value).__name__} cannot be written")

    # ---- functions -------------------------------------------------------------------------------

    def call(self, path: str, function: Callable[..., Any], args: Any, options: Any) -> Any:
        """Call a function and note it."""
        bodies: list[_Body] = []
        given = [self._given(x, bodies) for x in args]
        named = {key: self._given(x, bodies) for key, x in options.items()}
        self.rests, before = True, self.rests
        try:
            value = function(*given, **named)
        finally:
            self.rests = before
        for operand, own in zip(args, given, strict=True):
            if own is value:  # it did nothing, as a cast to the type that something has
                return operand
        blocks = iter([body.block for body in bodies])
        name = path.rpartition(".")[2]
        sizes = not options and all(isinstance(x, int) or _is_size(x) for x in args)
        if sizes and name in OF_SIZES:
            code = f" {OF_SIZES[name]} ".join(f"({self.code(x)})" for x in args)
            return self.note(code, value, size=True)
        if name == path:
            self.library.add(path)
        if path == "ops.convert_to_tensor" and isinstance(args[0], np.ndarray) and not args[0].ndim:
            args = (args[0].item(), *args[1:])
        parts = [self.code(_coded(x, blocks)) for x in args]
        parts += [f"{key}={self.code(_coded(x, blocks))}" for key, x in options.items()]
        code = f"{path}({', '.join(parts)})"
        return self.note(code, value, size=name == "shape", stays=path.startswith("keras.random."))

    def _given(self, value: Any, bodies: list[_Body]) -> Any:
        """Return an operand as the function takes it; a function among them is noted, too."""
        if _is_function(value):
            bodies.append(_Body(self, value))
            return bodies[-1]
        if isinstance(value, list | tuple):
            return type(value)(self._given(x, bodies) for x in value)
        return value.generator if isinstance(value, Seed) else self.plain(value)


def _coded(value: Any, blocks: Iterator[CodeBlock]) -> Any:
    """Return an operand whose functions are blocks."""
    if _is_function(value):
        return next(blocks)
    return (
        type(value)(_coded(x, blocks) for x in value) if isinstance(value, list | tuple) else value
    )


class Seed:
    """The random numbers of a layer."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator


class _Body:
    """A function that a loop or a branch calls; what its last call did is its block."""

    def __init__(self, recorder: Recorder, function: Callable[..., Any]) -> None:
        self.recorder = recorder
        self.function = function
        self.block = CodeBlock()

    def __call__(self, *given: Any) -> Any:
        recorder = self.recorder
        outer, rests = recorder.block, recorder.rests
        self.block = recorder.block = CodeBlock(outer.numbers)
        recorder.rests = False
        try:
            results = self.function(*map(self._parameter, given))
            self.block.result = recorder.code(results)
            return recorder.plain(results)
        finally:
            recorder.block, recorder.rests = outer, rests

    def _parameter(self, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return self.recorder.input(value, "x")
        name = self.block.input("values")
        return [self.recorder.note(f"{name}[{i}]", item) for i, item in enumerate(value)]


def _is_function(value: Any) -> bool:
    return callable(value) and not isinstance(value, type) and not hasattr(value, "shape")


def _is_size(value: Any) -> bool:
    return isinstance(value, Traced) and value.is_size


is_tensor = keras.ops.is_tensor


def static_value(value: Any) -> np.ndarray | None:
    """Return what a tensor of TensorFlow holds, where its graph tells."""
    import tensorflow as tf

    static: np.ndarray | None = tf.get_static_value(value)
    return static


# ---- literals ------------------------------------------------------------------------------------


def number_code(value: Any) -> str:
    """Return a number, a text or None as Python has it."""
    if isinstance(value, float) and not np.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def array_code(array: np.ndarray) -> str:
    """Return an array as Python has it: numbers in a list, many of them packed."""
    kind = array.dtype.name
    if array.dtype.kind not in "biuf":
        raise TypeError(f"an array of {kind} cannot be written")
    if array.size > 1 and (array.reshape(-1)[0] == array).all():
        return f"np.full({array.shape}, {number_code(array.reshape(-1)[0].item())}, {kind!r})"
    if array.size <= SMALL:
        return f"np.array({_nested(array.tolist())}, {kind!r})"
    if array.size > LARGEST:
        raise TypeError(f"an array of {array.size} elements is too large to be written")
    packed = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes())).decode()
    return f"unpacked({packed!r}, {kind!r}, {array.shape})"


def _nested(value: Any) -> str:
    return f"[{', '.join(map(_nested, value))}]" if isinstance(value, list) else number_code(value)


# ---- while it is noted ---------------------------------------------------------------------------


_recorders: list[Recorder] = []


def noted(function: Callable[..., Any], path: str | None = None) -> Callable[..., Any]:
    """Return a function that notes its calls while something is recorded, under its own name."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if not _recorders or _recorders[-1].rests:
            return function(*args, **options)
        return _recorders[-1].call(path or function.__name__, function, args, options)

    return call


class _Noted:
    """The functions of a module of Keras, noted."""

    def __init__(self, module: Any, path: str) -> None:
        self._module = module
        self._path = path

    def __getattr__(self, name: str) -> Any:
        function = SPECIAL.get((self._path, name))
        if function is None:
            function = noted(getattr(self._module, name), f"{self._path}.{name}")
        setattr(self, name, function)
        return function


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Traced) or bool(is_tensor(value))


def _reshape(value: Any, newshape: Any) -> Any:
    if isinstance(value, Traced) and value.is_size and value.shape == newshape == ():
        return value
    return _noted_reshape(value, newshape)


_noted_reshape = noted(keras.ops.reshape, "ops.reshape")
SPECIAL = {("ops", "is_tensor"): _is_tensor, ("ops", "reshape"): _reshape}
ops: Any = _Noted(keras.ops, "ops")
random: Any = _Noted(keras.random, "keras.random")


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Have functions note what they are called with."""
    _recorders.append(recorder)
    try:
        yield
    finally:
        _recorders.pop()
