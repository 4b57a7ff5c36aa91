"""What the data sets made from Python's own docstrings share: how their rows are dealt into splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from ..errors import DataError
from ..randomness import generator

Row = TypeVar("Row")


def dealt(
    rows: Sequence[Row], *, name: str, unit: str, train: int, validation: int, test: int
) -> dict[str, list[Row]]:
    """Disjoint random splits, the same ones every time; a smaller training split is the start of a larger one.

    Args:
        rows: All there are.
        name: Of the data set.
        unit: What a row is, in the plural.
        train: Rows of it.
        validation: Rows of it.
        test: Rows of it.

    Raises:
        DataError: There are too few.
    """
    sizes = {"test": test, "validation": validation, "train": train}
    if len(rows) < sum(sizes.values()):
        raise DataError(
            f"{name}: the docstrings of this Python give {len(rows)} {unit}, and {sum(sizes.values())} are needed. "
            "It came without the sources of its standard library: use a Python that has them, such as python.org's, "
            "or your own data: task.data={train: FILE, validation: FILE}."
        )
    order = iter(generator(0, name).permutation(len(rows)))
    splits = {split: [rows[next(order)] for _ in range(size)] for split, size in sizes.items()}
    return {split: splits[split] for split in ("train", "validation", "test")}


def columns(rows: Sequence[Any]) -> dict[str, list[Any]]:
    """Named tuples by field."""
    return {field: [getattr(row, field) for row in rows] for field in rows[0]._fields}
