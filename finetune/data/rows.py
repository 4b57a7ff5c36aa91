"""Rows as a reader found them, and what is wrong with some of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError
from .spec import Data, share_of

_SHOWN = 5


class Fault(NamedTuple):
    """One row that cannot be used."""

    number: int  # its line, row or place in the source, for the order in which faults are shown
    where: str
    reason: str
    position: int | None = None  # among the rows that were read; None where it could not even be read
    rows: int = 1  # how many rows are lost with it


@dataclass(frozen=True, eq=False)
class Rows:
    """All rows of one source, column by column.

    Args:
        source: Its name in messages, as the user wrote it.
        columns: Values by column; each is sliceable and may load only when it is sliced.
        unit: What a row is called in messages: ``"line"``, ``"row"``, or ``"file"`` for image folders.
        numbers: The number of each row, in units; None counts from 1.
        faults: Rows that could not be read.
        class_names: Names of the classes of columns that carry them (``ClassLabel``), in their own order.
        image_columns: Columns that hold images by their type.
        typed: Whether values carry types; a csv file holds nothing but text.
        folder: What paths in an image column are relative to.
    """

    source: str
    columns: Mapping[str, Sequence[Any]]
    unit: str = "row"
    numbers: Sequence[int] | None = None
    faults: tuple[Fault, ...] = ()
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    image_columns: tuple[str, ...] = ()
    typed: bool = True
    folder: Path = Path()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def number(self, position: int) -> int:
        """The line or row number of a row, from 1."""
        return self.numbers[position] if self.numbers is not None else position + 1

    def where(self, position: int) -> str:
        """``"train.csv line 18"``, or the path of the file."""
        if self.unit == "file":
            return str(self.columns["image"][position])
        return f"{self.source} {self.unit} {self.number(position)}"

    def fault(self, position: int, reason: str) -> Fault:
        """A fault of a row that was read."""
        return Fault(self.number(position), self.where(position), reason, position)


class Settled(NamedTuple):
    """What becomes of the rows of a source."""

    kept: np.ndarray  # positions of those that are used, (rows,) int64
    skipped: tuple[Fault, ...]


def settle(rows: Rows, faults: Iterable[Fault], *, data: Data) -> Settled:
    """Raise for faulty rows, or skip them with a warning.

    Args:
        rows: As they were read, with what could not be read.
        faults: Of rows that were read.
        data: What to do with them.

    Raises:
        DataError: There are faults, and they are not to be skipped, or are too many for that; or no row is left.
    """
    total = len(rows) + sum(fault.rows for fault in rows.faults)
    found = sorted({fault.where: fault for fault in reversed([*rows.faults, *faults])}.values())
    if found:
        _tell(found, total=total, data=data, source=rows.source)
    lost = {fault.position for fault in found}
    kept = np.array([position for position in range(len(rows)) if position not in lost], dtype=np.int64)
    if not len(kept):
        raise DataError(f"{rows.source} holds no rows that can be used.")
    return Settled(kept, tuple(found))


def _tell(faults: Sequence[Fault], *, total: int, data: Data, source: str) -> None:
    lost = sum(fault.rows for fault in faults)
    if data.bad_rows == "error":
        raise DataError(f"{_described(faults)}{_remedy(lost, data.most_bad)}")
    if lost > (share_of(data.most_bad) or 0) * total + 1e-9:  # 29% of 100 are 28.999...6
        raise DataError(
            f"{source}: {lost} of {total} rows cannot be used, and bad_rows: skip leaves out at most "
            f"{data.most_bad} (task.data.most_bad). {_described(faults)}Fix the rows."
        )
    warnings.warn(
        f"{source}: left out {lost} of {total} rows (bad_rows: skip). {_described(faults)}".rstrip(), stacklevel=3
    )


def _remedy(lost: int, most: str) -> str:
    return f"Fix the {'row' if lost == 1 else 'rows'}, or set task.data.bad_rows: skip (it leaves out at most {most})."


def _described(faults: Sequence[Fault]) -> str:
    lost = sum(fault.rows for fault in faults)
    shown = [f"{fault.where}: {fault.reason}" for fault in faults[:_SHOWN]]
    rest = sum(fault.rows for fault in faults[_SHOWN:])
    if rest:
        shown.append(f"and {rest} more {'row' if rest == 1 else 'rows'}")
    return shown[0] + ". " if len(shown) == 1 else "\n  ".join([f"{lost} rows cannot be used:", *shown]) + "\n"
