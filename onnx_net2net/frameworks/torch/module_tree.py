"""The module tree: which module or parameter stands at which dotted path, and how to reach it.

    tree = Tree({"layer1.0.conv1.weight": Leaf("weight", (8, 6, 3, 3))})
    tree.access("layer1.0.conv1.weight")        # "self.layer1[0].conv1.weight"
    tree.fit("layer1.0.conv1", "nn.Conv2d(6, 8, 3)", {"weight": "layer1.0.conv1.weight"})
    tree.lines()                                # ["self.layer1 = nn.ModuleList(...)"]

Where a node's weights are exactly those of one of PyTorch's modules, the module stands there;
anywhere else a plain module holds the parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from onnx_net2net.frameworks.torch.library import is_attribute
from onnx_net2net.frameworks.torch.types import literal, torch_dtype

FEWEST_ALIKE = 2  # equal blocks that are written once


@dataclass(frozen=True)
class Leaf:
    """One weight: its shape, ONNX type, and whether it is trained."""

    shape: tuple[int, ...]
    dtype: int
    trained: bool = True

    def code(self) -> str:
        """Return the expression that creates it."""
        dtype = "" if self.dtype == 1 else f", dtype={torch_dtype(self.dtype)}"
        sizes = ", ".join(map(str, self.shape)) if self.shape else "()"
        empty = f"torch.empty({sizes}{dtype})"
        return f"nn.Parameter({empty})" if self.trained else empty


@dataclass
class Branch:
    """A place in the tree: its children, or the module that stands here."""

    children: dict[str, Branch] = field(default_factory=dict)
    leaf: Leaf | None = None
    module: str | None = None
    root: bool = False  # the written class itself, whatever its children are called

    def leaves(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all weights below."""
        for name, child in self.children.items():
            if child.leaf is not None:
                yield prefix + name
            yield from child.leaves(f"{prefix}{name}.")

    @property
    def kind(self) -> str:
        """What holds the children: a list, a dict, or a module with attributes."""
        names = list(self.children)
        inner = all(child.leaf is None for child in self.children.values())
        if self.root or not names or not inner or not all(name.isdigit() for name in names):
            return "module"
        return "list" if {*names} == {*map(str, range(len(names)))} else "dict"


@cache
def taken_names() -> frozenset[str]:
    """Return the attributes that every module has, which no child may hide."""
    from torch import nn

    return frozenset(dir(nn.ModuleDict())) | {"training"}


class Tree:
    """All parameters and statistics by path."""

    def __init__(self, leaves: Mapping[str, Leaf]) -> None:
        self.root = Branch(root=True)
        for path, leaf in leaves.items():
            at = self.root
            for part in path.split("."):
                at = at.children.setdefault(part, Branch())
            at.leaf = leaf
        self.constants: dict[str, str] = {}  # buffers of the root: name -> code

    def at(self, path: str) -> Branch | None:
        """Return the place at ``path``."""
        at: Branch | None = self.root
        for part in path.split("."):
            at = at.children.get(part) if at is not None else None
        return at

    def access(self, path: str) -> str:
        """Return the expression that reaches ``path`` from inside the class."""
        at, code = self.root, "self"
        for part in path.split("."):
            if at.kind == "list":
                code = f"{code}[{part}]"
            elif at.kind == "dict":
                code = f"{code}[{_quoted(part)}]"
            elif is_attribute(part) and part not in taken_names():
                code = f"{code}.{part}"
            else:
                code = f"getattr({code}, {_quoted(part)})"
            at = at.children[part]
        return code

    def fit(self, path: str, module: str, parts: Mapping[str, str]) -> bool:
        """Return whether ``module`` fits at ``path``: it has just ``parts``, attribute -> path."""
        place = self.at(path)
        if place is None or any(full != f"{path}.{name}" for name, full in parts.items()):
            return False
        if set(place.leaves()) != set(parts):
            return False
        if place.module is None:
            place.module = module
        return place.module == module

    def lines(self) -> list[str]:
        """Return the statements of ``__init__`` that build the tree."""
        lines = []
        for name, child in self.root.children.items():
            adding = "add_module"  # the method that gives a member any name
            if child.leaf is not None:
                adding = "register_parameter" if child.leaf.trained else "register_buffer"
            attribute = is_attribute(name) and name not in taken_names()
            if attribute and adding != "register_buffer":
                lines.append(f"self.{name} = {_code(child)}")
            else:
                lines.append(f"self.{adding}({_quoted(name)}, {_code(child)})")
        for name, code in self.constants.items():
            lines.append(f"self.register_buffer({_quoted(name)}, {code}, persistent=False)")
        return lines

    def uses_branches(self) -> bool:
        """Return whether :func:`branch` of the written file is needed."""
        return any("branch(" in line for line in self.lines())


def _quoted(name: str) -> str:
    """Quote a name; :func:`.paths.unique_paths` makes names of plain characters."""
    return literal(name).replace("'", '"') if is_attribute(f"_{name}") else literal(name)


def _code(place: Branch) -> str:
    """Return the expression that builds what stands at a place."""
    if place.leaf is not None:
        return place.leaf.code()
    if place.module is not None:
        return place.module
    kind = place.kind
    if kind == "list":
        parts = [_code(place.children[str(i)]) for i in range(len(place.children))]
        if len(parts) >= FEWEST_ALIKE and len(set(parts)) == 1:
            return f"nn.ModuleList([{parts[0]} for _ in range({len(parts)})])"
        return f"nn.ModuleList([{', '.join(parts)}])"
    members = {name: _code(child) for name, child in place.children.items()}
    if kind == "dict":
        return f"nn.ModuleDict({{{', '.join(f'{_quoted(k)}: {v}' for k, v in members.items())}}})"
    if all(map(is_attribute, members)):
        return f"branch({', '.join(f'{name}={code}' for name, code in members.items())})"
    return f"branch(**{{{', '.join(f'{_quoted(k)}: {v}' for k, v in members.items())}}})"
