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
            module = getattr(node, "module", None) or ""
            _require({(module, a.name) for a in node.names} <= _IMPORTS, node)
        elif ast.dump(node) not in ours:
            _require(node is tree.body[0] and _is_text(node), node)


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
    texts: set[str] = set()
    for file in tables:
        if file.name.endswith(".py"):
            for text in _texts(ast.parse(file.read_text(encoding="utf-8"))):
                texts.update(re.findall(rf"[A-Za-z_{_FILLED}][\w{_FILLED}]*", text))
    words = {word for word in texts if _FILLED not in word}
    words |= {word.lower() for word in words}
    made = {word for word in texts - words if re.search(r"[a-z]{2}", word)}
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
            _require(isinstance(node, _KINDS) and self.allows(node), node)

    def allows(self, node: ast.AST) -> bool:
        """Return whether a node says nothing that the tables would not."""
        ours = _NAMES | _FUNCTIONS
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                return name in self.bound | ours | kernels().keys()
            case ast.Name(id=name, ctx=ast.Store()):
                return name == "constants" or not (name.startswith("__") or name in ours)
            case ast.Name():
                return False
            case ast.Attribute(attr=name):
                return known(name) or (name in self.names and _within_self(node))
            case ast.keyword(arg=name):
                return name is None or not name.startswith("__")
            case ast.FunctionDef(name=name):
                plain = not node.decorator_list and not node.args.defaults and node.returns is None
                return plain and name in self.bound and name not in ours
            case ast.arg():
                return node.annotation is None
            case ast.Constant(value=str(text)):
                return text in self.texts or known(text)
            case ast.Constant(value=value):
                return value is None or value is ... or isinstance(value, bool | int | float)
            case ast.Call(func=ast.Name(id="getattr"), args=arguments):
                return len(arguments) == 2 and self.allows_name(arguments[1])
            case ast.Call(func=ast.Call(func=called)):
                return isinstance(called, ast.Name) and called.id == "getattr"
            case ast.Call(func=called):
                return isinstance(called, ast.Name | ast.Attribute | ast.Subscript)
        return True

    def allows_name(self, node: ast.expr) -> bool:
        """Return whether an expression is the name of a module, parameter or buffer."""
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
    names: set[str] = set()
    for node in (node for statement in statements for node in ast.walk(statement)):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.FunctionDef(name=name) | ast.arg(arg=name):
                names.add(name)
    return names
