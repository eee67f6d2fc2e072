"""A last look at written code, before it runs or is kept: does it say only what we would say?

    check(text, names, equations)        # raises Refused

The functions around the class must be ours, word for word. Inside the class every node of the
syntax tree must be of a known kind; every name one that the code binds or that PyTorch code uses;
every attribute and text one that stands in this package's own tables, or that names a module,
parameter or buffer of this network. So nothing of a model's file is ever code.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from functools import cache
from importlib.resources import files

from onnx_net2net.errors import Refused
from onnx_net2net.frameworks.torch.library import kernels
from onnx_net2net.model.schemas import choices

__all__ = ["check", "known", "vocabulary"]

_KINDS = (
    ast.Assign, ast.Expr, ast.Return, ast.FunctionDef, ast.arguments, ast.arg,
    ast.Attribute, ast.BinOp, ast.BoolOp, ast.Call, ast.Compare, ast.Constant, ast.Dict, ast.IfExp,
    ast.Lambda, ast.List, ast.ListComp, ast.Name, ast.Slice, ast.Starred, ast.Subscript, ast.Tuple,
    ast.UnaryOp, ast.boolop, ast.cmpop, ast.comprehension, ast.expr_context, ast.keyword,
    ast.operator, ast.unaryop,
)  # fmt: skip
_FUNCTIONS = frozenset({
    "bool", "branch", "float", "getattr", "int", "len", "list", "max", "min", "range",
    "stored_constants", "super", "tuple",
})  # fmt: skip
_NAMES = frozenset({"F", "constants", "math", "nn", "self", "torch"})
# What the tables' words happen to hold, and PyTorch knows as something else than mathematics.
_NEVER = frozenset({
    "compile", "eval", "exec", "from_file", "hub", "import_module", "jit", "load", "map_", "ops",
    "save", "serialization", "storage", "utils",
})  # fmt: skip
_IMPORTS = frozenset({
    ("", "math"), ("", "torch"), ("", "torch.nn.functional"), ("__future__", "annotations"),
    ("collections.abc", "Callable"), ("collections.abc", "Sequence"), ("pathlib", "Path"),
    ("safetensors.torch", "load_file"), ("torch", "Tensor"), ("torch", "nn"), ("typing", "Any"),
})  # fmt: skip
_FILLED = "\ue001"


def check(
    text: str, own: Collection[str], names: Collection[str], equations: Collection[str]
) -> None:
    """Raise Refused unless ``text`` is code that this package writes.

    ``own`` are the texts of functions that stand beside the class; ``names`` what modules,
    parameters and buffers are called; ``equations`` the texts that torch.einsum is given.
    """
    tree = ast.parse(text)
    ours = {ast.dump(node) for part in own for node in ast.parse(part).body}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            _Walk(frozenset(names), frozenset(equations)).model(node)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            _require({(_module(node), a.name) for a in node.names} <= _IMPORTS, node)
        elif ast.dump(node) not in ours:
            _require(node is tree.body[0] and _is_text(node), node)


def _module(node: ast.Import | ast.ImportFrom) -> str:
    return node.module or "" if isinstance(node, ast.ImportFrom) else ""


def _is_text(node: ast.AST) -> bool:
    """Return whether a statement is a docstring."""
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _require(holds: bool, node: ast.AST) -> None:
    if not holds:
        raise Refused(
            None,
            f"the written code would say {ast.unparse(node)[:80]!r}, which no translation means",
            "please report this model; nothing of it was run or written",
        )


@cache
def known(word: str) -> bool:
    """Return whether a word stands in the tables that code is written from, or is made by one.

    ``f"F.conv{rank}d"`` makes ``conv2d``.
    """
    return word in vocabulary()[0] or any(made.fullmatch(word) for made in vocabulary()[1])


@cache
def vocabulary() -> tuple[frozenset[str], tuple[re.Pattern[str], ...]]:
    """Return the words of all texts in the tables, and patterns of words with a part filled in."""
    here = files(__package__)
    tables = [*here.joinpath("operators").iterdir(), *here.iterdir()]
    found: set[str] = set()
    for file in tables:
        if file.name.endswith(".py") and file.name != "walker.py":
            for text in _texts(ast.parse(file.read_text(encoding="utf-8"))):
                found.update(re.findall(rf"[A-Za-z_{_FILLED}][\w{_FILLED}]*", text))
    words = {word for word in found if _FILLED not in word}
    words |= {word.lower() for word in words}
    made = {word for word in found - words if re.search(r"[a-z]{2}", word)}
    patterns = [re.compile(word.replace(_FILLED, "[a-z0-9]{0,4}")) for word in sorted(made)]
    plain = (word for word in words if not word.startswith("__"))
    return frozenset(plain) - _NEVER, tuple(patterns)


def _texts(tree: ast.Module) -> Iterator[str]:
    """Yield every text but docstrings; what an f-string fills in is ``_FILLED``."""
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped.update(map(id, node.values))
            parts = [p.value if isinstance(p, ast.Constant) else _FILLED for p in node.values]
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and id(node) not in skipped:
            yield node.value if isinstance(node.value, str) else ""


class _Walk:
    """One class, whose functions are walked with the names that they bind."""

    def __init__(self, names: frozenset[str], equations: frozenset[str]) -> None:
        self.names = names
        equations = frozenset(e for e in equations if re.fullmatch(r"[A-Za-z,.>-]*", e))
        texts = frozenset().union(*choices().values())
        self.texts = {*names, *equations, *texts, "-inf", "inf", "nan"}
        self.bound: set[str] = set()

    def model(self, node: ast.ClassDef) -> None:
        """Check the class itself: it has ``__init__`` and ``forward``, nothing else."""
        plain = not node.decorator_list and not node.keywords and len(node.bases) == 1
        _require(plain and ast.unparse(node.bases[0]) == "nn.Module", node)
        for part in node.body:
            if _is_text(part):
                continue
            _require(isinstance(part, ast.FunctionDef), part)
            assert isinstance(part, ast.FunctionDef)
            _require(part.name in ("__init__", "forward") and not part.decorator_list, part)
            expected = ast.arguments([], part.args.args, None, [], [], None, [])
            _require(ast.dump(part.args) == ast.dump(expected), part)
            for holder in part.args.args:
                _require(_says(holder.annotation, "torch.Tensor"), holder)
                holder.annotation = None
            _require(_says(part.returns, "None", "torch.Tensor", "tuple"), part)
            start = "super().__init__()"
            body = [s for s in part.body if ast.unparse(s) != start]
            self.bound = {a.arg for a in part.args.args} | _bound(body)
            for statement in body:
                self.walk(statement)

    def walk(self, top: ast.AST) -> None:
        """Check every node of a statement."""
        for node in ast.walk(top):
            _require(isinstance(node, _KINDS), node)
            check = getattr(self, f"_{type(node).__name__.lower()}", None)
            _require(check is None or check(node), node)

    def _name(self, node: ast.Name) -> bool:
        if isinstance(node.ctx, ast.Store) and not node.id.startswith("__"):
            return node.id == "constants" or node.id not in _NAMES | _FUNCTIONS
        known = node.id in self.bound | _NAMES | _FUNCTIONS | kernels().keys()
        return known and isinstance(node.ctx, ast.Load)

    def _attribute(self, node: ast.Attribute) -> bool:
        return known(node.attr) or (node.attr in self.names and _within_self(node))

    def _keyword(self, node: ast.keyword) -> bool:
        return node.arg is None or not node.arg.startswith("__")

    def _functiondef(self, node: ast.FunctionDef) -> bool:
        plain = not node.decorator_list and not node.args.defaults and node.returns is None
        return plain and node.name in self.bound and node.name not in _NAMES | _FUNCTIONS

    def _arg(self, node: ast.arg) -> bool:
        return node.annotation is None

    def _constant(self, node: ast.Constant) -> bool:
        if isinstance(node.value, str):
            return node.value in self.texts or known(node.value)
        return node.value is None or node.value is ... or isinstance(node.value, bool | int | float)

    def _call(self, node: ast.Call) -> bool:
        called = node.func
        if isinstance(called, ast.Name):
            reads = called.id == "getattr"
            return not reads or (len(node.args) == 2 and self._module(node.args[1]))
        if isinstance(called, ast.Call):
            return isinstance(called.func, ast.Name) and called.func.id == "getattr"
        return isinstance(called, ast.Attribute | ast.Subscript)

    def _module(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Constant) and node.value in self.names


def _says(node: ast.expr | None, *known: str) -> bool:
    return node is None or ast.unparse(node) in known


def _within_self(node: ast.expr) -> bool:
    """Return whether an expression goes down the tree of modules from ``self``."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":
            node = node.args[0]
        else:
            return False
    return node.id == "self"


def _bound(statements: list[ast.stmt]) -> set[str]:
    """Return every name that the statements bind."""
    found: set[str] = set()
    for statement in statements:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.FunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.arg):
                found.add(node.arg)
    return found
