"""Nodes that no layer of Keras computes, as the Python text of a layer that needs Keras alone.

    kind = written(program, [keras_tensor], "mask_nodes")     # a class of keras.layers.Layer
    source_of([kind], "grown.keras")                          # a file that defines it

The nodes are walked once, by tensors that note what is done with them (traced.py). The text is made
of these notes: names of functions of ``keras.ops``, numbers, and names that are plain letters.
Before it runs it is looked through once more, and whatever else it said would be refused. A class
is registered under a name that holds a digest of its text, so that no file loads with another's.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import keyword
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import keras

from onnx_net2net.errors import Refused
from onnx_net2net.frameworks.codegen import LONGEST, LONGEST_NAME, CodeBlock, formatted, identifier
from onnx_net2net.frameworks.keras.operators import translations
from onnx_net2net.frameworks.keras.program import KerasProgram
from onnx_net2net.frameworks.keras.traced import Recorder, Seed, recording
from onnx_net2net.frameworks.keras.translator import KerasTranslator, failures
from onnx_net2net.frameworks.keras.values import tensor

__all__ = ["source_of", "written"]

PACKAGE = "onnx_net2net"
LONGEST_TITLE = 26
OWN = {"Any", "Callable", "Sequence", "base64", "inputs", "keras", "np", "ops", "self", "training",
       "zlib"}  # fmt: skip

_TEXTS: dict[str, tuple[str, frozenset[str]]] = {}  # of classes, by their registered names


class _Writing(KerasTranslator):
    """A walk whose tensors get the names of the graph."""

    recorder: Recorder
    trains = False  # whether something asked for ``training``

    @property
    def training(self) -> bool:
        """Return whether batch statistics and Dropout are wanted."""
        self.trains = True
        return self._training

    @training.setter
    def training(self, value: bool) -> None:
        self._training = value

    def _attempt(self, op: Any, operands: list[Any]) -> Any:
        results = super()._attempt(op, operands)
        for name, value in zip(op.step.outputs, results, strict=False):
            self.recorder.call_it(value, name.removesuffix("_output_0"))
        return results


def written(
    program: KerasProgram, inputs: Sequence[keras.KerasTensor], name: str, *, draws: bool
) -> type[keras.layers.Layer] | None:
    """Return a layer that does what the program says; None where a text cannot say it.

    ``draws`` says whether it draws random numbers.
    """
    if keras.backend.backend() != "tensorflow":
        return None
    recorder = Recorder()
    title = "".join(part.capitalize() for part in identifier(name).split("_"))[:LONGEST_TITLE]
    try:
        plain, trains = _traced(program, inputs, recorder, training=False)
        training = _traced(program, inputs, recorder, training=True)[0] if trains else plain
        text = _class(title, plain, training, draws=draws)
        _check(text)
    except Refused:
        return None
    except failures():
        return None
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    text = f'@keras.saving.register_keras_serializable("{PACKAGE}", "{title}_{digest}")\n{text}'
    return _defined(title, text, frozenset(recorder.library))


def source_of(kinds: Iterable[type], title: str) -> str:
    """Return a file with all layers of these classes that were made here, "" where none was."""
    names = dict.fromkeys(map(keras.saving.get_registered_name, kinds))
    known = [_TEXTS[name] for name in names if name in _TEXTS]
    if not known:
        return ""
    plain = "".join(c if c.isprintable() and c not in '"\\' else "_" for c in title)
    used = frozenset().union(*(names for _, names in known))
    return _file(list(dict.fromkeys(text for text, _ in known)), used, plain)


# ---- the text ------------------------------------------------------------------------------------


def _traced(
    program: KerasProgram,
    inputs: Sequence[keras.KerasTensor],
    recorder: Recorder,
    *,
    training: bool,
) -> tuple[list[str], bool]:
    """Return the lines of the function that the program is, and whether training changes them."""
    import tensorflow as tf

    names, recorder.block = program.main.inputs, CodeBlock()
    seed = Seed(keras.random.SeedGenerator())
    walker = _Writing(program, translations(), training=training, seed=seed)
    walker.recorder = recorder

    def walk(*tensors: Any) -> list[Any]:
        pairs = zip(names, _parameters(names), tensors, strict=True)
        feeds = {name: recorder.input(value, own) for name, own, value in pairs}
        with recording(recorder):
            results = [tensor(value) for value in walker.run(program.main, feeds)]
            recorder.block.result = recorder.code(results)
        return [recorder.plain(value) for value in results]

    specs = [tf.TensorSpec(x.shape, x.dtype) for x in inputs]
    tf.function(walk, autograph=False).get_concrete_function(*specs)
    parameters = list(recorder.block.inputs.values())
    taken = [f"{', '.join(parameters) if parameters[1:] else f'({parameters[0]},)'} = inputs"]
    if len(taken[0]) > LONGEST:
        taken = [f"{name} = inputs[{place}]" for place, name in enumerate(parameters)]
    return [*taken, *recorder.block.lines(_reserved())], walker.trains


def _parameters(names: Sequence[str]) -> list[str]:
    """Return names of variables for the inputs."""
    chosen: list[str] = []
    for name in names:
        plain = identifier(name.removesuffix("_output_0")).lower()[-LONGEST_NAME:].strip("_") or "x"
        plain = f"x{plain}" if plain[0].isdigit() else plain
        while plain in chosen or plain in _reserved():
            plain += "_"
        chosen.append(plain)
    return chosen


@cache
def _reserved() -> frozenset[str]:
    """Return names that mean something in the text."""
    words = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins), *OWN, *_library()}
    return frozenset(words)


def _class(title: str, plain: list[str], training: list[str], *, draws: bool) -> str:
    """Return a layer of two functions, without training and with it."""
    if plain == training:
        body = formatted(plain, 8)
    else:
        body = f"        if training:\n{formatted(training, 12)}\n{formatted(plain, 8)}"
    start = [
        "    def __init__(self, **options):",
        "        super().__init__(**{**options, 'autocast': False})".replace("'", '"'),
        *(["        self.seed_generator = keras.random.SeedGenerator()"] if draws else []),
    ]
    return "\n".join(
        [
            f"class {title}(keras.layers.Layer):",
            '    """Nodes that no layer of Keras computes."""',
            "",
            *start,
            "",
            "    def call(self, inputs, training=None):",
            body,
        ]
    )


@cache
def _library() -> dict[str, tuple[str, frozenset[str]]]:
    """Return the text of each function, and of what they need, with the names in it."""
    known = {}
    for name in ("library.py", "scanning.py"):
        text = Path(__file__).with_name(name).read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef):
                name = node.name
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
            else:
                continue
            lines = text.splitlines()[node.lineno - 1 : node.end_lineno]
            names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            known[name] = "\n".join(lines), frozenset(names - {name})
    del known["__all__"]
    return known


def _file(classes: list[str], used: frozenset[str], title: str) -> str:
    """Return the whole text of a file."""
    needed: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in needed:
            for other in sorted(_library()[name][1] & _library().keys()):
                visit(other)
            needed[name] = None

    for name in sorted(used | ({"unpacked"} if any("unpacked(" in c for c in classes) else set())):
        visit(name)
    parts = [*(_library()[name][0] for name in needed), *classes]
    body = "\n\n\n".join(parts)
    names = {n.id for n in ast.walk(ast.parse(body)) if isinstance(n, ast.Name)}
    standard = [f"import {name}" for name in ("base64", "zlib") if name in names]
    standard += [
        f"from collections.abc import {name}" for name in ("Callable", "Sequence") if name in names
    ]
    standard += ["from typing import Any"] if "Any" in names else []
    head = [
        f'"""Layers of {title} that Keras does not have: import this file before it is loaded."""',
        "",
        "from __future__ import annotations",
        "",
        *standard,
        *([""] if standard else []),
        "import keras",
        *(["import numpy as np"] if "np" in names else []),
        *(["from keras import ops"] if "ops" in names else []),
    ]
    return "\n".join(head) + f"\n\n\n{body}\n"


def _defined(title: str, text: str, used: frozenset[str]) -> type[keras.layers.Layer]:
    """Return the class that a text defines, one for each text."""
    space: dict[str, Any] = {"__name__": f"{PACKAGE}_layers"}
    exec(compile(_file([text], used, "a network"), f"<{title}>", "exec"), space)
    kind: type[keras.layers.Layer] = space[title]
    _TEXTS[keras.saving.get_registered_name(kind)] = text, used
    return kind


# ---- a last look ---------------------------------------------------------------------------------

_KINDS = (
    ast.Assign, ast.BinOp, ast.Call, ast.Compare, ast.FunctionDef, ast.If, ast.List,
    ast.Name, ast.Return, ast.Slice, ast.Starred, ast.Subscript, ast.Tuple, ast.UnaryOp,
    ast.arg, ast.arguments, ast.cmpop, ast.expr_context, ast.keyword, ast.operator, ast.unaryop,
)  # fmt: skip
_TEXT = re.compile(r"[\w.,>+/= -]*", re.ASCII)  # an equation, a type, an array that is packed


def _check(text: str) -> None:
    """Raise Refused unless the class says nothing but what notes are made of."""
    (defined,) = ast.parse(text).body
    assert isinstance(defined, ast.ClassDef)
    *_, call = defined.body
    assert isinstance(call, ast.FunctionDef)
    stored = {
        *(n.id for n in ast.walk(call) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)),
        *(n.name for n in ast.walk(call) if isinstance(n, ast.FunctionDef)),
        *(n.arg for n in ast.walk(call) if isinstance(n, ast.arg)),
    }
    attributes: set[int] = set()
    for node in ast.walk(call):
        if isinstance(node, ast.Attribute):
            attributes.update(id(n) for n in ast.walk(node) if n is not node)
    for node in ast.walk(call):
        if id(node) in attributes:
            continue
        match node:
            case ast.Attribute():
                allowed = _is_function_of_keras(ast.unparse(node))
            case ast.Name(id=name, ctx=ast.Load()):
                allowed = name in stored or name in _library() or name == "float"
            case ast.Name(id=name):
                allowed = name not in _reserved()
            case ast.Constant(value=str(value)):
                allowed = _TEXT.fullmatch(value) is not None
            case ast.Constant(value=value):
                allowed = value is None or value is ... or isinstance(value, bool | int | float)
            case _:
                allowed = isinstance(node, _KINDS)
        if not allowed:
            said = ast.unparse(node)[:80]
            raise Refused(
                None,
                f"the written layer would say {said!r}, which no translation means",
                "please report this model; nothing of it was run or written",
            )


def _is_function_of_keras(path: str) -> bool:
    """Return whether a dotted path is a function that is noted, or the layer's own seed."""
    holder, _, name = path.rpartition(".")
    if holder == "ops":
        return not name.startswith("_") and callable(getattr(keras.ops, name, None))
    known = {
        "keras.random": vars(keras.random),
        "np": {"array", "full"},
        "self": {"seed_generator"},
    }
    return name in known.get(holder, ()) and not name.startswith("_")
