"""Long lines of Python, broken the way ruff and black break them.

>>> print(wrapped("x = torch.cat((first, second, third), dim=1)", 0, 24))
x = torch.cat(
    (first, second, third),
    dim=1,
)
"""

from __future__ import annotations

from collections.abc import Iterator

WIDTH = 100
STEP = 4
_OPEN, _CLOSE = "([{", ")]}"
# Operators at which a line inside brackets may break, those that bind least first.
_OPERATORS = (
    (" if ", " else "),
    (" or ",),
    (" and ",),
    (" & ", " | "),
    (" + ", " - "),
    (" * ", " / ", " // ", " @ "),
)


def wrapped(line: str, indent: int = 0, width: int = WIDTH) -> str:
    """Return ``line`` at ``indent``, broken at its brackets where it is too long."""
    pad = " " * indent
    if indent + len(line) <= width:
        return pad + line
    opening = line.index("(") if line.startswith("def ") else _trailing_bracket(line)
    if opening is not None and (line.startswith("def ") or indent + opening < width):
        return "\n".join(_bracketed(line, opening, indent, width))
    head, sign, body = line.partition(" = ")
    if not sign and line.startswith("return "):
        head, sign, body = line.partition(" ")
    if not sign:
        return pad + line
    return "\n".join([f"{pad}{head}{sign}(", *_inside(body, indent + STEP, width), f"{pad})"])


def _bracketed(line: str, opening: int, indent: int, width: int) -> list[str]:
    """Return head and opening bracket, what stands in it, closing bracket and tail."""
    closing = next(at for at, depth in _depths(line, opening) if at > opening and not depth)
    body, tail = line[opening + 1 : closing], line[closing:]
    pad, inner = " " * indent, indent + STEP
    head = pad + line[: opening + 1]
    if not body.strip():
        return [pad + line]
    each, word, rest = _split_at(body, (" for _ in ",))
    if word:
        lines = [*_inside(each, inner, width), *_inside(word + rest, inner, width)]
        return [head, *lines, pad + tail]
    parts = elements(body)
    if len(parts) == 1 and not body.rstrip().endswith(","):
        return [head, *_inside(body, inner, width), pad + tail]
    if inner + len(body) <= width and not body.rstrip().endswith(","):
        return [head, " " * inner + body, pad + tail]
    lines = [line for part in parts for line in _inside(f"{part},", inner, width)]
    return [head, *lines, pad + tail]


def _inside(code: str, indent: int, width: int) -> list[str]:
    """Break an expression that stands in brackets, at operators as well."""
    if indent + len(code) <= width:
        return [" " * indent + code]
    for group in _OPERATORS:
        first, word, rest = _split_at(code, group)
        if word:
            lines = _inside(first, indent, width)
            while word:
                operator = word
                first, word, rest = _split_at(rest, group)
                lines += _inside(operator.strip() + " " + first, indent, width)
            return lines
    opening = _trailing_bracket(code)
    return [" " * indent + code] if opening is None else _bracketed(code, opening, indent, width)


def _split_at(code: str, words: tuple[str, ...]) -> tuple[str, str, str]:
    """Split ``code`` at the first of ``words`` outside brackets: before, the word, behind."""
    for at, depth in _depths(code, 0):
        if depth == 0:
            for word in words:
                if code.startswith(word, at):
                    return code[:at], word.lstrip(), code[at + len(word) :]
    return code, "", ""


def _depths(code: str, start: int) -> Iterator[tuple[int, int]]:
    """Yield positions outside quotes, each with the number of brackets open behind it."""
    depth, quoted = 0, ""
    for at in range(start, len(code)):
        character = code[at]
        if quoted:
            quoted = "" if character == quoted else quoted
            continue
        if character in "\"'":
            quoted = character
        depth += (character in _OPEN) - (character in _CLOSE)
        yield at, depth


def _trailing_bracket(line: str) -> int | None:
    """Return where the bracket opens that the line ends with (a comma or colon may follow)."""
    end = len(line.rstrip(",:")) - 1
    if end < 0 or line[end] not in _CLOSE:
        return None
    opened = [at for at, depth in _depths(line, 0) if depth == 1 and line[at] in _OPEN and at < end]
    return opened[-1] if opened else None


def elements(body: str) -> list[str]:
    """Return the comma-separated parts of what stands between two brackets."""
    commas = [at for at, depth in _depths(body, 0) if depth == 0 and body[at] == ","]
    starts = [0, *(at + 1 for at in commas)]
    parts = [body[a:b].strip() for a, b in zip(starts, [*commas, len(body)], strict=True)]
    return [part for part in parts if part]
