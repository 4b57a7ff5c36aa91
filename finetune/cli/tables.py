"""Tables on the terminal: aligned, never wrapping a number, plain text when nobody looks at a terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """A table whose last left-aligned column may wrap and whose other columns may not.

    Args:
        columns: Headings.
        rows: Cells as text.
        right: Numbers of the columns that are aligned to the right.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1), collapse_padding=True, pad_edge=False)
    wraps = max((index for index in range(len(columns)) if index not in right), default=-1)
    for index, name in enumerate(columns):
        table.add_column(
            Text(name), justify="right" if index in right else "left", no_wrap=index != wraps, overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    out = console()
    out.print(table)
    out.print()


def console() -> Console:
    """Standard output: colours on a terminal; elsewhere plain and wide enough that nothing is cut."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, width=max(80, shutil.get_terminal_size((120, 24)).columns), color_system=None)
