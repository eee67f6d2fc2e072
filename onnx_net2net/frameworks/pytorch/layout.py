"""Long lines of Python, broken the way ruff and black break them.

>>> print(wrapped("x = torch.cat((first, second, third), dim=1)", 0, 24))
x = torch.cat(
    (first, second, third),
    dim=1,
)
"""

from __future__ import annotations

WIDTH = 100
STEP = 4
_OPEN, _CLOSE = "([{", ")]}"


def wrapped(line: str, indent: int = 0, width: int = WIDTH) -> str:
    """``line`` at ``indent``, broken at its outermost trailing bracket where it is too long."""
    return "\n".join(_broken(line, indent, width))


def _broken(line: str, indent: int, width: int) -> list[str]:
    pad = " " * indent
    if indent + len(line) <= width:
        return [pad + line]
    opening = _trailing_bracket(line)
    if opening is None:
        return _parenthesised(line, indent, width) or [pad + line]
    closing = _match(line, opening)
    body, tail = line[opening + 1 : closing], line[closing:]
    if not body.strip():
        return [pad + line]
    lines = [pad + line[: opening + 1]]
    parts = elements(body)
    inner = indent + STEP
    if len(parts) == 1 or (inner + len(body) <= width and not _is_call(line, opening)):
        lines += _broken(body, inner, width)
    elif inner + len(body) <= width:
        lines += [" " * inner + body]
    else:
        for part in parts:
            lines += _broken(part + ("" if part.startswith("*") and False else ","), inner, width)
    return [*lines, pad + tail]


def _is_call(line: str, opening: int) -> bool:
    return opening > 0 and (line[opening - 1].isalnum() or line[opening - 1] in "_)]")


def _parenthesised(line: str, indent: int, width: int) -> list[str] | None:
    """``x = a + b`` as ``x = (``, ``a + b``, ``)``."""
    head, found, body = line.partition(" = ")
    if not found or "(" in head:
        return None
    pad = " " * indent
    return [f"{pad}{head} = (", *_broken(body, indent + STEP, width), f"{pad})"]


def _trailing_bracket(line: str) -> int | None:
    """Where the bracket opens that the line ends with (a comma or colon may follow)."""
    end = len(line.rstrip(",:")) - 1
    if end < 0 or line[end] not in _CLOSE:
        return None
    depth, quoted = [], ""
    for index, character in enumerate(line[: end + 1]):
        if quoted:
            quoted = "" if character == quoted else quoted
        elif character in "\"'":
            quoted = character
        elif character in _OPEN:
            depth.append(index)
        elif character in _CLOSE:
            opening = depth.pop()
            if index == end:
                return opening
    return None


def _match(line: str, opening: int) -> int:
    depth, quoted = 0, ""
    for index in range(opening, len(line)):
        character = line[index]
        if quoted:
            quoted = "" if character == quoted else quoted
        elif character in "\"'":
            quoted = character
        elif character in _OPEN:
            depth += 1
        elif character in _CLOSE:
            depth -= 1
            if not depth:
                return index
    raise ValueError(f"no bracket closes {line!r}")


def elements(body: str) -> list[str]:
    """The comma-separated parts of what stands between two brackets."""
    parts, depth, start, quoted = [], 0, 0, ""
    for index, character in enumerate(body):
        if quoted:
            quoted = "" if character == quoted else quoted
        elif character in "\"'":
            quoted = character
        elif character in _OPEN:
            depth += 1
        elif character in _CLOSE:
            depth -= 1
        elif character == "," and not depth:
            parts.append(body[start:index].strip())
            start = index + 1
    rest = body[start:].strip()
    return [*parts, rest] if rest else parts
