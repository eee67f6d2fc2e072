"""Tables for people, fitted to the terminal; what a file says stands in them as it is.

table = empty_table(("output", "left"), ("allowed", "right"))
table.add_row("[bold]", "0.1")
print(text(table))
"""

from __future__ import annotations

import io
import sys
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from onnx_net2net.cli.terminal import own_styles, printable

_UNBOUNDED = 100_000  # columns, where nobody looks at a screen


def text(table: Table, *narrower: Table) -> str:
    """Return a table as text: in colour and fitted to the terminal if there is one, else complete.

    The first of the ``narrower`` tables that fits is taken where ``table`` does not, or the last.
    """
    terminal = sys.stdout.isatty()
    console = Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=None if terminal else _UNBOUNDED,
        highlight=False,
        markup=False,
        emoji=False,
    )
    free = console.options.update(max_width=_UNBOUNDED)
    for other in narrower:
        if Measurement.get(console, free, table).minimum <= console.width:
            break
        table = other
    with console.capture() as captured:
        console.print(table)
    return own_styles("\n".join(line.rstrip() for line in captured.get().split("\n")).rstrip())


class _Table(Table):
    """A table whose cells are shown as they are: nothing in them is markup, nothing steers."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row of texts."""
        styles = [cell.style if isinstance(cell, Text) else "" for cell in cells]
        texts = [printable(str(cell), lines=False) for cell in cells]
        super().add_row(*map(Text, texts, styles), **options)


def empty_table(*columns: tuple[str, str]) -> Table:
    """Make a table; a column is a title and "left", "right", "name" or "fold" (long text).

    What is of the last two kinds is written in lines where it does not fit into one.
    """
    table = _Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title, kind in columns:
        table.add_column(
            title,
            justify="right" if kind == "right" else "left",
            no_wrap=kind not in ("fold", "name"),
            min_width=20 if kind == "fold" else None,
            overflow="fold",
        )
    return table
