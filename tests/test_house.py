"""The order of the house, held by tests: who may import whom, and who alone does what."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from onnx_net2net.frameworks import FAMILIES as FAMILIES_TRANSLATED
from onnx_net2net.operators import FAMILIES, registry
from tests.console import ROOT, environment

PACKAGE = ROOT / "onnx_net2net"

# Packages and modules of the top, lower ones first: each imports from those before it only. Within
# a package, modules import one another in any order, without a circle.
ROOMS = (
    "_version",
    "errors",
    "progress",
    "step",
    "algebra",
    "operators",
    "model",
    "verification",
    "analysis",
    "widening",
    "deepening",
    "frameworks",
    "plan",
    "pytest_plugin",
    "cli",
    "__main__",
)

MOST_LINES = 420
MOST_LINES_OF_A_FUNCTION = 55

# Who alone may import what.
OWNERS = {
    "click": {
        "cli.deepen", "cli.export", "cli.grow", "cli.grow_checkpoint", "cli.history", "cli.inspect",
        "cli.main", "cli.options", "cli.outcome", "cli.verify", "cli.widen",
    },
    "mmap": set(),  # a process dies of a mapped file that somebody truncates
    "onnxruntime": {"verification.engine", "verification.sessions"},
    "onnx_ir": {"frameworks.torch.exporter", "model.interchange"},
    "onnxscript": {"frameworks.torch.exporter"},
    "rich": {"cli.bar", "cli.render", "cli.render_report", "cli.tables"},
    "tempfile": {"verification.acceptance"},
}  # fmt: skip
# What comes with an extra only.
OPTIONAL = {
    "jax", "keras", "onnx_ir", "onnxscript", "safetensors", "tensorflow", "tf2onnx", "torch",
    "transformers",
}  # fmt: skip
# What only the owners of files may call.
FILE_CALLS = {
    "load": set(),
    "load_model": set(),
    "save": set(),
    "save_model": set(),
    "load_external_data_for_model": set(),
}
PRINTING = {"breakpoint", "exit", "os._exit", "print", "quit", "sys.exit"}
PRINTING |= {f"sys.{stream}.write" for stream in ("stdout", "stderr", "__stdout__")}
# These find the dimensions of any graph, so they may know no operator by name.
KNOW_NO_OPERATOR = (
    "algebra.axes", "algebra.expansion", "analysis.norms", "analysis.solver",
    "widening.contraction", "widening.dimensions", "widening.growth", "widening.naming",
    "widening.parts",
)  # fmt: skip
# The judge shares nothing with the accused: it knows of files and models, and what operators are.
# That one draws random numbers, or indexes a table, is a fact; how to grow is not among them.
JUDGE_KNOWS = {
    "_version", "algebra", "errors", "model", "operators", "progress", "verification",
}  # fmt: skip


@cache
def modules() -> dict[str, ast.Module]:
    """The parsed modules; a package stands for its ``__init__``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts if parts[-1] != "__init__" else parts[:-1])
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    del found[""]  # the public surface: it imports lazily, by name
    return found


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Everything that runs: without what only the type checker sees."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING":
            continue
        yield child
        yield from statements(child)


@cache
def imports(name: str) -> list[tuple[str, int]]:
    """Full names of what a module imports (modules and names in them), with their line."""
    found: list[tuple[str, int]] = []
    for node in statements(modules()[name]):
        if isinstance(node, ast.Import):
            found += ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            found += ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
    return found


@cache
def siblings(name: str) -> set[str]:
    """The modules of the package that this one imports."""
    found = set()
    for full, _ in imports(name):
        parts = full.split(".")
        if parts[0] == "onnx_net2net":
            inner = [".".join(parts[1:end]) for end in range(len(parts), 1, -1)]
            found.update([next((m for m in inner if m in modules()), "")])
    return found - {"", name}


@cache
def reachable(name: str) -> set[str]:
    """All modules that come along when this one is imported."""
    found: set[str] = set()
    pending = [name]
    while pending:
        for other in siblings(pending.pop()) - found:
            found.add(other)
            pending.append(other)
    return found


# ---- who imports whom ---------------------------------------------------------------------------


def room_of(name: str) -> str:
    return name.partition(".")[0]


def test_every_room_has_its_place() -> None:
    assert {room_of(name) for name in modules()} == set(ROOMS)


@pytest.mark.parametrize("name", modules())
def test_imports_go_down_only(name: str) -> None:
    for other in siblings(name):
        below = ROOMS.index(room_of(other)) <= ROOMS.index(room_of(name))
        assert below, f"{name} imports {other}, whose package is not below"
        assert name not in reachable(other), f"{name} and {other} import one another"


def test_the_judge_shares_nothing_with_the_accused() -> None:
    known = reachable("verification.verify")
    assert {"model.model", "verification.comparison"} <= known, "or this test sees nothing"
    assert {room_of(name) for name in known} <= JUDGE_KNOWS


def test_rules_know_no_graph_and_no_model() -> None:
    for name in modules():
        if name.startswith("operators"):
            assert {room_of(other) for other in reachable(name)} <= {"algebra", "operators"}, name


@pytest.mark.parametrize("name", KNOW_NO_OPERATOR)
def test_the_solver_knows_no_operator(name: str) -> None:
    operators = {operator for _, operator in registry()}
    assert "Conv" in operators
    used = {
        node.value
        for node in ast.walk(modules()[name])
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not used & operators, "what depends on an operator belongs into its rule"


# What these list is no property of operators: functions for them, nodes that they build, or what
# one framework has no kernel for.
MAY_LIST = {
    "analysis.fusion_patterns": "what patterns are made of",
    "analysis.fusions": "what patterns are made of",
    "deepening.insertion": "layers that are built",
    "frameworks.keras.kept_layers": "Keras' own layers",
    "frameworks.keras.layers.elementwise": "Keras' own layers",
    "frameworks.keras.layers.linear": "Keras' own layers",
    "frameworks.keras.layers.movement": "Keras' own layers",
    "frameworks.keras.layers.normalisation": "Keras' own layers",
    "frameworks.keras.layers.pooling": "Keras' own layers",
    "frameworks.keras.layers.recurrent": "Keras' own layers",
    "frameworks.keras.layers.shaping": "Keras' own layers",
    "frameworks.keras.run_time_sizes": "functions on sizes",
    "frameworks.keras.unsigned": "kernels that TensorFlow lacks",
    "frameworks.torch.size_code": "expressions of Python",
    "frameworks.torch.unsigned": "kernels that PyTorch lacks",
    "frameworks.weight_matching": "the order of PyTorch's gates",
    "model.subgraphs": "attributes that hold bodies",
    "verification.recurrence": "layers written out as Scan",
}


def lists_of_operators(tree: ast.Module) -> list[int]:
    """Lines of collections that name three or more operators."""
    operators = {operator for _, operator in registry()}
    found = []
    for node in ast.walk(tree):
        items = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", [])
        last = [
            item.elts[-1] if isinstance(item, ast.Tuple) and item.elts else item for item in items
        ]
        if sum(isinstance(i, ast.Constant) and i.value in operators for i in last) >= 3:
            found.append(node.lineno)
    return found


def test_operators_are_listed_by_property_in_their_records_only() -> None:
    """A fact about an operator has one home, so a new operator changes no other list."""
    listing = {
        name
        for name, tree in modules().items()
        if "operators" not in name.split(".") and lists_of_operators(tree)
    }
    assert listing == MAY_LIST.keys(), "make it a fact of the record, or say why not"
    planted = ast.parse('MOVES = {"Reshape", "Transpose", "Concat"}')
    assert lists_of_operators(planted) == [1]


# ---- who alone does what ------------------------------------------------------------------------


@pytest.mark.parametrize("package", OWNERS)
def test_single_owners(package: str) -> None:
    found = {
        name
        for name in modules()
        if any(full.split(".")[0] == package for full, _ in imports(name))
    }
    assert found == OWNERS[package]


def test_only_the_model_floor_reads_and_writes_models() -> None:
    """Not even that calls onnx.load and onnx.save: it reads and writes lazily, by itself."""
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "onnx":
                owners = FILE_CALLS.get(node.attr, {name})
                assert name in owners, f"{name}:{node.lineno} onnx.{node.attr}"
        for full, line in imports(name):
            root, _, called = full.rpartition(".")
            assert root != "onnx" or called not in FILE_CALLS, f"{name}:{line} {full}"


def test_only_the_command_line_prints_and_exits() -> None:
    for name, tree in modules().items():
        if name in ("cli.main", "__main__"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in PRINTING, f"{name}:{node.lineno}"


def test_no_error_is_swallowed_unseen() -> None:
    """Only the program's outermost frame may catch everything; others must raise it again."""
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = {"bare"} if node.type is None else {ast.unparse(node.type)}
            if caught & {"bare", "Exception", "BaseException"} and name != "__main__":
                last = node.body[-1]
                again = isinstance(last, ast.Raise) and last.exc is None
                assert again, f"{name}:{node.lineno} catches everything"


# ---- size and shape -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_files_and_functions_are_short(path: Path) -> None:
    assert path.stem not in ("utils", "helpers", "misc", "common")
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= MOST_LINES_OF_A_FUNCTION, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("name", modules())
def test_what_is_public_is_documented(name: str) -> None:
    tree = modules()[name]
    assert ast.get_docstring(tree), f"{name} does not say what it is for"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name}.{node.name} has no docstring"


@pytest.mark.parametrize("family", FAMILIES)
def test_rule_tables_are_sorted(family: str) -> None:
    """Each table written out in a family's file, so that an operator is found and merged easily."""
    for node in ast.walk(modules()[f"operators.{family}"]):
        if isinstance(node, ast.Dict) and len(node.keys) > 2:
            keys = [k.value for k in node.keys if isinstance(k, ast.Constant)]
            operators = [k for k in keys if isinstance(k, str) and k[:1].isupper()]
            if len(operators) == len(node.keys):
                assert operators == sorted(operators), f"{family}:{node.lineno}"


# ---- both wings have one shape ------------------------------------------------------------------

FRAMEWORKS = ("torch", "keras")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_framework_has_the_files_of_the_other(framework: str) -> None:
    files = {name.removeprefix(f"frameworks.{framework}.") for name in modules()}
    wanted = {"importer", "exporter", "operation", "translator", "types", "unsigned"}
    assert files >= wanted | {f"operators.{family}" for family in FAMILIES_TRANSLATED}


def written(framework: str) -> dict[str, tuple[str, int]]:
    """Operators that are written out in tables of translations, each with its family and line."""
    found = {}
    for family in FAMILIES_TRANSLATED:
        tree = modules()[f"frameworks.{framework}.operators.{family}"]
        tables = [n for n in tree.body if isinstance(n, ast.AnnAssign) and n.value is not None]
        for node in (node for table in tables for node in ast.walk(table)):
            if isinstance(node, ast.Dict):
                keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
                operators = [key for key in keys if isinstance(key, str) and key[:1].isupper()]
                assert operators == sorted(operators), f"{framework}, {family}:{node.lineno}"
                found |= dict.fromkeys(operators, (family, node.lineno))
    return found


def test_an_operator_has_its_place_in_both_frameworks() -> None:
    torch, keras = map(written, FRAMEWORKS)
    both = torch.keys() & keras.keys()
    assert len(both) > 100
    assert {op: (torch[op][0], keras[op][0]) for op in both if torch[op][0] != keras[op][0]} == {}


# ---- the house stands without its optional parts ------------------------------------------------


@pytest.mark.parametrize("name", [name for name in modules() if not name.startswith("frameworks.")])
def test_frameworks_are_imported_in_their_folder_only(name: str) -> None:
    owned = {package for package, owners in OWNERS.items() if name in owners}
    assert not {full.partition(".")[0] for full, _ in imports(name)} & OPTIONAL - owned


def test_every_module_imports_by_itself_without_frameworks() -> None:
    """Each in an order of its own: no module relies on another having been imported before."""
    names = [name for name in modules() if not name.startswith("frameworks.")]
    code = f"""
import importlib, sys
for name in {sorted(OPTIONAL)!r}: sys.modules[name] = None
for name in {sorted(names, reverse=True)!r}:
    if name != "__main__": importlib.import_module("onnx_net2net." + name)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
