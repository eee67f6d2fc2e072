"""The statements of a ``forward``, written with numbered values and given names at the end.

    block = CodeBlock()
    x = block.input("x")                                  # value(0)
    y = block.add(f"self.conv1({x})", "conv1")            # value(1)
    block.result = f"F.relu({y})"
    block.lines(reserved())                               # ["return F.relu(self.conv1(x))"]

Values are numbers until the whole function is known: then those that nobody reads are dropped,
those read once move into their reader where the line stays short, and names are given and taken
over like a programmer would, so that a tensor is freed once it is no longer needed.

In code a value is its number behind MARK, a character that no written code can hold: names are
plain ASCII, and literals escape it in texts.
"""

from __future__ import annotations

import ast
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count

from onnx_net2net.frameworks.layout import STEP, wrapped

MARK = "\ue000"
VALUE = re.compile(rf"{MARK}(\d+)")
BARE = rf"[\w.{MARK}]+"  # a name, or attributes of one
LONGEST = 76  # characters of a line up to which what is read once is written into its reader
LONGEST_NAME = 28
DEEPEST = 3  # calls inside calls
NEAREST = 6  # statements between the two


@dataclass(eq=False)
class Statement:
    """``targets = code``, or ``def`` of a function, with numbered values in ``code``."""

    targets: tuple[int, ...]
    code: str
    hints: tuple[str, ...]  # for the names of its targets
    kind: str = "tensor"  # names go over only to values of one kind
    fresh: bool = False  # never takes over a name: it is called after its layer
    inline: bool = True
    depth: int = 1
    body: CodeBlock | None = None

    def uses(self) -> Iterator[int]:
        """Yield the values that it reads, once for each time."""
        yield from _values(self.code)
        if self.body is not None:
            for statement in self.body.statements:
                yield from statement.uses()
            yield from _values(self.body.result)


def identifier(text: str) -> str:
    """Return ``text`` as an identifier of plain ASCII letters, empty where nothing of it remains.

    Python takes some characters for others (NFKC), so that two names could be one variable:
    they become the same identifier here, before anybody makes identifiers unique.
    """
    plain = re.sub(r"\W", "_", unicodedata.normalize("NFKC", text), flags=re.ASCII)
    return f"x{plain}" if plain[:1].isdigit() else plain


def value(number: int) -> str:
    """Return the code of a numbered value."""
    return f"{MARK}{number}"


def computed(code: str) -> bool:
    """Return whether an expression reads a value, and so is known as the network runs only."""
    return MARK in code


def _values(code: str) -> list[int]:
    return [int(number) for number in VALUE.findall(code)]


@dataclass
class CodeBlock:
    """The statements of one function, and the expression that it returns."""

    numbers: Iterator[int] = field(default_factory=count)
    statements: list[Statement] = field(default_factory=list)
    result: str = ""
    inputs: dict[int, str] = field(default_factory=dict)

    def input(self, name: str) -> str:
        """Add a parameter to the function."""
        number = next(self.numbers)
        self.inputs[number] = name
        return value(number)

    def add(
        self,
        code: str,
        hint: str,
        *,
        kind: str = "tensor",
        fresh: bool = False,
        inline: bool = True,
        depth: int = 1,
    ) -> str:
        """Add a statement, and return the value that it computes."""
        number = next(self.numbers)
        self.statements.append(
            Statement((number,), code, (hint,), kind, fresh, inline=inline, depth=depth)
        )
        return value(number)

    def first(self, code: str, hint: str) -> str:
        """Add a value that is computed before all others."""
        number = next(self.numbers)
        self.statements.insert(0, Statement((number,), code, (hint,), "size", depth=0))
        return value(number)

    def unpack(self, code: str, hints: Iterable[str], kind: str = "tensor") -> list[str]:
        """Add a statement whose expression yields a tuple, and return the tuple's values."""
        names = list(hints)
        if len(names) == 1:
            return [self.add(f"({code})[0]", names[0], kind=kind, fresh=True, inline=False)]
        numbers = tuple(next(self.numbers) for _ in names)
        self.statements.append(
            Statement(numbers, code, tuple(names), kind, fresh=True, inline=False)
        )
        return [value(number) for number in numbers]

    def function(self, body: CodeBlock, hint: str) -> str:
        """Define a function inside, which may read the values around it."""
        number = next(self.numbers)
        self.statements.append(
            Statement((number,), "", (hint,), "function", inline=False, body=body)
        )
        return value(number)

    def lines(self, reserved: Iterable[str]) -> list[str]:
        """Return the function's lines, without indentation; no value gets a ``reserved`` name."""
        _clean(self)
        return _Naming(dict(self.inputs), reserved).lines(self)


def _clean(block: CodeBlock) -> None:
    """Drop what nobody reads, and inline what is read once."""
    used = set(_values(block.result))
    kept = []
    for statement in reversed(block.statements):
        if not used.isdisjoint(statement.targets):
            used.update(statement.uses())
            kept.append(statement)
    block.statements = kept[::-1]
    for statement in block.statements:
        if statement.body is not None:
            _clean(statement.body)
    _inline(block)


def _inline(block: CodeBlock) -> None:
    readers: Counter[int] = Counter(_values(block.result))
    for statement in block.statements:
        readers.update(statement.uses())
    end = Statement((), block.result, (), inline=False)
    pending: dict[int, tuple[int, Statement]] = {}
    kept: list[Statement] = []
    for position, statement in enumerate([*block.statements, end]):
        for read in _values(statement.code):
            if read not in pending:
                continue
            written, inner = pending[read]
            depth = inner.depth + (statement.depth > 0)
            length = sum(len(VALUE.sub("_____", s.code)) for s in (statement, inner))
            if position - written <= NEAREST and length <= LONGEST and depth <= DEEPEST:
                statement.code = _replaced(statement.code, read, inner.code)
                statement.depth = max(statement.depth, depth)
                kept.remove(inner)
                del pending[read]
        kept.append(statement)
        if statement.inline and readers[statement.targets[0]] == 1:
            pending[statement.targets[0]] = position, statement
    block.result = end.code
    block.statements = kept[:-1]


def _replaced(code: str, number: int, by: str) -> str:
    bare = re.fullmatch(rf"{BARE}(\([^()]*\)|\[[^\[\]]*\])*", by) is not None
    inner = by if bare else f"({by})"
    return re.sub(rf"{MARK}{number}(?!\d)", lambda _: inner, code)


class _Naming:
    """Names for values while a function is written out."""

    def __init__(self, names: dict[int, str], reserved: Iterable[str]) -> None:
        self.names = names
        self.reserved = set(reserved)

    def lines(self, block: CodeBlock) -> list[str]:
        """Return the function's lines, without indentation."""
        last: dict[int, int] = {}
        for position, statement in enumerate(block.statements):
            last.update(dict.fromkeys(statement.uses(), position))
        last.update(dict.fromkeys(_values(block.result), len(block.statements)))
        kinds = {t: s.kind for s in block.statements for t in s.targets}
        outer = set(self.names)
        live = {self.names[value]: value for value in self.names}
        lines: list[str] = []
        for position, statement in enumerate(block.statements):
            ending = [
                v for v in dict.fromkeys(statement.uses()) if last[v] == position and v not in outer
            ]
            if statement.body is not None:
                lines += self._function(statement, live)
                continue
            code = self._named(statement.code)
            for value in ending:
                if live.get(self.names[value]) == value:
                    del live[self.names[value]]
            taken = None  # the value whose name goes over to what is computed
            if len(statement.targets) == 1 and not statement.fresh and statement.kind != "size":
                taken = next((v for v in ending if kinds.get(v) == statement.kind), None)
            for target, hint in zip(statement.targets, statement.hints, strict=True):
                name = self.names[taken] if taken is not None else self._free(hint, live)
                self.names[target] = name
                live[name] = target
            lines.append(f"{', '.join(self.names[t] for t in statement.targets)} = {code}")
        return [*lines, f"return {self._named(block.result)}"]

    def _free(self, hint: str, live: dict[str, int]) -> str:
        base = identifier(hint).strip("_").lower()[-LONGEST_NAME:].strip("_") or "x"
        base = base if not base[0].isdigit() else f"x{base}"
        names = chain([base], (f"{base}_{number}" for number in count(2)))
        return next(name for name in names if name not in live and name not in self.reserved)

    def _function(self, statement: Statement, live: dict[str, int]) -> list[str]:
        assert statement.body is not None
        (target,) = statement.targets
        name = self.names[target] = self._free(statement.hints[0], live)
        live[name] = target
        inner = _Naming(dict(self.names), self.reserved | live.keys())
        parameters: dict[str, int] = {}
        for value, hint in statement.body.inputs.items():
            inner.names[value] = parameter = inner._free(hint, parameters)
            parameters[parameter] = value
        inner.reserved |= parameters.keys()
        lines = (" " * STEP + line for line in inner.lines(statement.body))
        return [f"def {name}({', '.join(parameters)}):", *lines, ""]

    def _named(self, code: str) -> str:
        return plain(VALUE.sub(lambda match: self.names[int(match[1])], code))


def plain(code: str) -> str:
    """Return an expression with only the parentheses it needs.

    >>> plain("(a * b) + (c)")
    'a * b + c'
    """
    tree = ast.parse(code, mode="eval").body
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    text = ast.unparse(tree)
    if all(re.fullmatch(r"[^\\\"']*", t) for t in texts if isinstance(t, str)):
        text = text.replace("'", '"')
    return re.sub(r"(\de)\+", r"\1", text)


def formatted(lines: Iterable[str], indent: int) -> str:
    """Join lines at an indentation, long ones broken."""
    written = []
    for line in lines:
        text = line.lstrip(" ")
        written.append(wrapped(text, indent + len(line) - len(text)) if text else "")
    return "\n".join(written)
