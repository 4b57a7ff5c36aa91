"""All rows, in the order of the table."""

from __future__ import annotations

from ..definition import Row
from . import frozen, full, gpu, growth, images, overheads, safety

ROWS: tuple[Row, ...] = (
    *full.ROWS,
    *frozen.ROWS,
    *images.ROWS,
    *overheads.ROWS,
    *growth.ROWS,
    *safety.ROWS,
    *gpu.ROWS,
)


def row_named(name: str) -> Row:
    """The row of this name.

    Raises:
        SystemExit: There is none; names those there are.
    """
    for row in ROWS:
        if row.name == name:
            return row
    raise SystemExit(f"no row {name!r}; there are {', '.join(row.name for row in ROWS)}")
