"""The order of the house, held by tests: who may import whom, and who alone does what.

A new module needs a line in ``FLOORS``; the message of the failing test says where it could go.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from onnx_net2net.rules import FAMILIES, registry
from tests.console import ROOT, environment

PACKAGE = ROOT / "onnx_net2net"

# Packages and modules of the top, lower ones first, and for each package its own floors, lower ones
# first; "." is the package itself. A module imports from lower floors of its package and from the
# packages before it; modules on one floor are strangers.
FLOORS = {
    "errors": ["."],
    "algebra": ["cuts", "axes", ". expansion measures"],
    # One family of operators a file, and what families share below them.
    "rules": [
        "alignment notation",
        "assembly language",
        ".",
        "broadcast factors",
        "attention classical elementwise indexing linear movement normalisation pooling recurrent"
        " reduction selection shaping signal",
        "microsoft_attention quantization",
        "microsoft",
    ],
    # Weights that are not read yet, checks of what is read.
    "files": [
        ". arrays drafts history isolation reading schemas wire",
        "weights",
        "tensors",
        "attributes external inlining oddities placing sparse validation",
        "saving",
        "loading native",
    ],
    "model": ["."],
    "judge": [
        ". bounds comparison contents engine kernels recurrence sizes",
        "feeds interface interior precision",
        "report",
        "trials",
        "judgement sessions",
        "acceptance",
        "verify",
        "delivery",
    ],
    "analysis": [
        ". sequences subgraphs symbols values",
        "graph unique_names",
        "dependence folding inference signs untying",
        "editing",
        "evidence rule_shapes",
        "shapes",
        "solver",
    ],
    # What growing takes (shares, pads, sizes that the graph repeats), then dimensions with names.
    "width": [
        ". contraction growth tracing",
        "absorption padding runtime",
        "sizing",
        "patching rehearsal",
        "dimensions",
        "naming sharing",
        "request targets",
        "scaling widening",
    ],
    "depth": [
        ". masks",
        "places",
        "insertion routes",
        "norms vanishing",
        "segments",
        "cancelling joins series streams titles",
        "blocks cloning",
        "repetition",
        "deepening",
    ],
    # Imported only when asked for.
    "frameworks": [
        ".",
        "attributes paths quiet slots tables tensor_file",
        "roles weight_sets",
        "matching names",
        "exchange from_torch optimizer state",
        "program pytorch.kernels pytorch.layout pytorch.library pytorch.types"
        " pytorch.kernels.attention pytorch.kernels.control pytorch.kernels.indices"
        " pytorch.kernels.moves pytorch.kernels.norms pytorch.kernels.pools"
        " pytorch.kernels.recurrent pytorch.kernels.resampling pytorch.kernels.signal"
        " pytorch.kernels.reductions pytorch.kernels.rounding pytorch.kernels.sequences"
        " pytorch.kernels.unsigned",
        "pytorch.kernels.quantization",
        "expanding patterns",
        "idioms",
        "pytorch.hosted pytorch.statements pytorch.tree pytorch.unsigned",
        "pytorch.translator",
        "pytorch.operation",
        "pytorch.operators",
        "pytorch.operators.attention pytorch.operators.classical pytorch.operators.control"
        " pytorch.operators.elementwise pytorch.operators.linear pytorch.operators.movement"
        " pytorch.operators.random pytorch.operators.recurrent pytorch.operators.reduction"
        " pytorch.operators.resampling pytorch.operators.sequences pytorch.operators.signal",
        "pytorch.operators.indexing pytorch.operators.normalisation pytorch.operators.pooling"
        " pytorch.operators.quantization",
        "pytorch.operators.microsoft",
        "pytorch.translation pytorch.walker",
        "pytorch.source",
        "pytorch.module",
        "pytorch",
        "keras3.program keras3.scanning keras3.shapes_ahead keras3.values keras_layers",
        "keras3.types",
        "keras3.unsigned",
        "keras3.trace",
        "keras3.open_axes keras3.operators keras3.windows",
        "keras3.operators.classical keras3.operators.control keras3.operators.elementwise"
        " keras3.operators.movement keras3.operators.normalisation keras3.operators.pooling"
        " keras3.operators.reduction keras3.operators.resizing",
        "keras3.operators.convolution keras3.operators.indexing keras3.operators.linear"
        " keras3.operators.microsoft keras3.operators.rearranging keras3.operators.recurrent"
        " keras3.operators.sequences keras3.operators.signal keras3.operators.chance"
        " keras3.layer",
        "keras3.operators.attention keras3.operators.quantization keras3.operators.sampling"
        " keras3.operators.scattering keras3.imported",
        "keras3.operators.microsoft_attention from_keras keras3",
        "agreement",
        "packages",
    ],
    "planning": [
        ". flops lineage plans",
        "costs following invariant",
        "forecast",
        "budget",
        "growing",
    ],
    # What people see.
    "commands": [
        ". options terminal",
        "tables",
        "render",
        "render_growth steps",
        "deepen exchange grow lineage",
    ],
    "cli": ["."],
    "__main__": ["."],
}

MOST_LINES = 420
MOST_LINES_OF_A_FUNCTION = 55

# Who alone may import what.
OWNERS = {
    "click": {
        "cli", "commands.deepen", "commands.exchange", "commands.grow", "commands.lineage",
        "commands.steps", "commands.options",
    },
    "mmap": set(),  # a process dies of a mapped file that somebody truncates
    "onnxruntime": {"judge.engine", "judge.sessions"},
    "onnx_ir": {"frameworks.from_torch"},
    "onnxscript": {"frameworks.from_torch"},
    "rich": {"commands.render", "commands.tables"},
    "tempfile": {"judge.acceptance", "judge.verify"},
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
    "algebra.axes", "algebra.expansion", "analysis.solver", "width.contraction",
    "width.dimensions", "width.growth", "width.naming",
)  # fmt: skip
# The judge shares nothing with the accused: it knows of files and models, and of nothing else.
JUDGE_KNOWS = {"errors", "files", "judge", "model"}


@cache
def modules() -> dict[str, ast.Module]:
    """The parsed modules of the package, ``rules`` standing for its ``__init__``."""
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


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Full names of imported modules (and names in them), with their line; lazy ones, too."""
    for node in statements(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def siblings(name: str) -> set[str]:
    """The modules of the package that this one imports."""
    found = set()
    for full, _ in imports(modules()[name]):
        parts = full.split(".")
        if parts[0] == "onnx_net2net":
            inner = [".".join(parts[1:end]) for end in range(len(parts), 1, -1)]
            found.update([next((m for m in inner if m in modules()), "")])
    return found - {"", name}


def standing() -> Iterator[str]:
    """All modules, in the order in which they stand, floor for floor."""
    for package, floors in FLOORS.items():
        for line in floors:
            yield " ".join(f"{package}.{name}".rstrip(".") for name in line.split())


def floor_of() -> dict[str, int]:
    return {name: level for level, line in enumerate(standing()) for name in line.split()}


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


def test_every_module_has_a_floor() -> None:
    floors = floor_of()
    assert sum(len(line.split()) for line in standing()) == len(floors), "a module stands twice"
    for name in modules():
        if name not in floors:
            under = [other for other in siblings(name) if other in floors]
            highest = max(under, key=floors.__getitem__, default="nothing")
            pytest.fail(f"{name} has no floor: its package comes first, then {highest} below it")
    assert floors.keys() <= modules().keys(), "a floor for a module that is gone"


@pytest.mark.parametrize("name", modules())
def test_imports_go_down_only(name: str) -> None:
    floors = floor_of()
    for other in siblings(name):
        assert floors[other] < floors[name], f"{name} imports {other}, which is not below it"


def test_the_judge_shares_nothing_with_the_accused() -> None:
    known = reachable("judge.verify")
    assert {"model", "judge.comparison"} <= known, "or this test sees nothing"
    assert {name.partition(".")[0] for name in known} <= JUDGE_KNOWS


def test_rules_know_no_graph_and_no_model() -> None:
    for name in modules():
        if name.startswith("rules"):
            assert all(other.startswith("rules") for other in reachable(name)), name


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


# ---- who alone does what ------------------------------------------------------------------------


@pytest.mark.parametrize("package", OWNERS)
def test_single_owners(package: str) -> None:
    found = {
        name
        for name, tree in modules().items()
        if any(full.split(".")[0] == package for full, _ in imports(tree))
    }
    assert found == OWNERS[package]


def test_only_the_model_floor_reads_and_writes_models() -> None:
    """Not even that calls onnx.load and onnx.save: it reads and writes lazily, by itself."""
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "onnx":
                owners = FILE_CALLS.get(node.attr, {name})
                assert name in owners, f"{name}:{node.lineno} onnx.{node.attr}"
        for full, line in imports(tree):
            root, _, called = full.rpartition(".")
            assert root != "onnx" or called not in FILE_CALLS, f"{name}:{line} {full}"


def test_only_the_command_line_prints_and_exits() -> None:
    for name, tree in modules().items():
        if name in ("cli", "__main__"):
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
    for node in ast.walk(modules()[f"rules.{family}"]):
        if isinstance(node, ast.Dict) and len(node.keys) > 2:
            keys = [k.value for k in node.keys if isinstance(k, ast.Constant)]
            operators = [k for k in keys if isinstance(k, str) and k[:1].isupper()]
            if len(operators) == len(node.keys):
                assert operators == sorted(operators), f"{family}:{node.lineno}"


# ---- the house stands without its optional parts ------------------------------------------------


@pytest.mark.parametrize("name", [name for name in modules() if not name.startswith("frameworks.")])
def test_frameworks_are_imported_in_their_folder_only(name: str) -> None:
    assert not {full.partition(".")[0] for full, _ in imports(modules()[name])} & OPTIONAL


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
