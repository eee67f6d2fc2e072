"""The functions that a written file may hold, and the names that its code uses.

    kernels()["gather_nd"]          # its text, and the names in it
    "getattr" in reserved()         # True: no tensor is called so

The functions are those of :mod:`.kernels`, which are copied into the file.
"""

from __future__ import annotations

import ast
import builtins
import keyword
from functools import cache
from importlib.resources import files

# What a parameter is often called in PyTorch itself; no written code calls it.
_HARMLESS = frozenset({"input"})
_OWN = frozenset({
    "Any", "Callable", "F", "Model", "Path", "Sequence", "Tensor", "branch", "constants", "load",
    "load_file", "math", "network", "nn", "self", "stored_constants", "torch",
})  # fmt: skip


@cache
def kernels() -> dict[str, tuple[str, frozenset[str]]]:
    """Return every kernel: its text, and the names that it uses."""
    functions: dict[str, tuple[str, frozenset[str]]] = {}
    for file in sorted(files(f"{__package__}.kernels").iterdir(), key=lambda f: f.name):
        if not file.name.endswith(".py"):
            continue
        text = file.read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                start = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                lines = text.splitlines()[start - 1 : node.end_lineno]
                names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
                functions[node.name] = "\n".join(lines), frozenset(names)
    return functions


@cache
def reserved() -> frozenset[str]:
    """Return names that mean something in written code: no input or value is called so."""
    words = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins), *_OWN}
    return frozenset(words - _HARMLESS | kernels().keys())


def is_attribute(name: str) -> bool:
    """Return whether ``object.name`` means the attribute of just this name, in a class, too."""
    plain = name.isascii() and name.isidentifier() and not name.startswith("__")
    return plain and not keyword.iskeyword(name)
