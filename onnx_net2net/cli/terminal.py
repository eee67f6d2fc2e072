"""What reaches the terminal: names and texts of a model's file are shown there, and steer nothing.

    sys.stdout = Terminal(sys.stdout)       # whatever is printed goes through printable()
    own_styles(rendered)                    # the colours of our own tables stay colours

Escape sequences move the cursor, rename the window, or hide what was said; characters for text from
right to left let a name read as another. All of these are written as Python writes them.
"""

from __future__ import annotations

import os
import re
import unicodedata
from typing import Any, TextIO

__all__ = ["Terminal", "message", "one_line", "own_styles", "printable"]

_ESCAPE = "\x1b"
# Stands for the escape of our own styles. No file can hold it: it is another for each process.
_OWN = f"\0{os.urandom(8).hex()}\0"
# Controls, formats (bidirectional ones, joiners), private use, surrogates, line separators.
_STEERING = frozenset(("Cc", "Cf", "Co", "Cs", "Zl", "Zp"))


def printable(text: str, lines: bool = True) -> str:
    r"""Escape what steers a terminal; of controls, ends of lines and tabs stay if ``lines`` do.

    >>> printable("a\x1b[2Jb")
    'a\\u001b[2Jb'
    """
    if text.isascii() and text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(
        character
        if character in kept or unicodedata.category(character) not in _STEERING
        else _escaped(character)
        for character in text
    )


def one_line(text: str) -> str:
    r"""Make ``text`` one line, whatever the names in it hold.

    >>> one_line("refused: a\nerror: b")
    'refused: a\\u000aerror: b'
    """
    return printable(text, lines=False)


def message(text: str) -> str:
    r"""Keep the further lines of a message, which are indented; other ends of lines are escaped.

    Those come from names.

    >>> message("2 nodes:\n  a: b\nerror: c")
    '2 nodes:\n  a: b\\u000aerror: c'
    """
    return re.sub(r"\n(?!  )", lambda _: _escaped("\n"), text)


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"


def own_styles(rendered: str) -> str:
    """Keep escape sequences that are our own, in a text made of :func:`printable` parts."""
    return rendered.replace(_ESCAPE, _OWN)


class Terminal:
    """A stream of text that writes only what is printable, and our own styles."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text``; return how long it was."""
        self._stream.write(_ESCAPE.join(map(printable, text.split(_OWN))))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    @property
    def unfiltered(self) -> TextIO:
        """The stream itself, for what draws on it; it is to be given printable texts only."""
        return self._stream

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # nobody writes past this stream
            raise AttributeError(name)
        return getattr(self._stream, name)
