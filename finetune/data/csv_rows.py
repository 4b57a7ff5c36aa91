"""Rows of a csv or tsv file, read strictly: nothing is widened, padded or guessed."""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DataError
from .rows import Fault, Rows

_LARGEST_FIELD = 10_000_000  # characters; csv's own limit of 131,072 is below the length of a book
_UNDECODED = re.compile("[\udc80-\udcff]")


def read_csv(path: Path, source: str) -> Rows:
    """Read a csv or tsv file; every value stays text.

    Raises:
        DataError: The file as a whole cannot be read (empty, no rows, an unclosed quote, not UTF-8 text).
    """
    _check_start(path, source)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with _large_fields(), path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        header = _header(reader, source)
        columns: list[list[str]] = [[] for _ in header]
        numbers, faults = array("q"), []
        for line, last, row, reason in _parsed(reader, source):
            reason = reason or _fault(row, header)
            if reason:
                faults.append(Fault(line, f"{source} line {line}", reason, rows=last - line + 1))
                continue
            numbers.append(line)
            for column, value in zip(columns, row, strict=True):
                column.append(value)
    if not numbers and not faults:
        raise DataError(f"{source} has a header and no rows. Add rows, or name another file.")
    values = dict(zip(header, columns, strict=True))
    return Rows(
        source, values, "line", numbers=numbers, faults=tuple(faults), typed=False, folder=path.absolute().parent
    )


@contextmanager
def _large_fields() -> Iterator[None]:
    """Raise csv's limit on a field, which belongs to the whole process, for one file."""
    before = csv.field_size_limit(_LARGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _check_start(path: Path, source: str) -> None:
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise DataError(f"{source} is empty (zero bytes). Expected a header line and rows.")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{source} is UTF-16 text, expected UTF-8. Save it as UTF-8.")
    if start == b"PAR1":
        raise DataError(f"{source} is a parquet file. Name it .parquet.")
    if start == b"PK\x03\x04" or start[:2] == b"\x1f\x8b":
        raise DataError(
            f"{source} is a compressed file or a spreadsheet, expected text. Unpack it, or save it as csv."
        )


def _header(reader: Iterator[list[str]], source: str) -> list[str]:
    try:
        header = next((row for row in reader if row), [])
    except csv.Error as error:
        raise DataError(f"{source}: the header cannot be read: {error}. Fix its quotes.") from error
    if not any(name.strip() for name in header):
        raise DataError(f"{source} has no header. Expected column names in the first line.")
    if any("\0" in name or _UNDECODED.search(name) for name in header):
        raise DataError(f"{source}: the header is not UTF-8 text. Save the file as UTF-8.")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{source}: column {twice[0]!r} is there {header.count(twice[0])} times. Rename all but one.")
    return header


def _parsed(reader, source: str) -> Iterator[tuple[int, int, list[str], str | None]]:
    """First and last line of every row, its fields, and why it could not be parsed."""
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                # Not a bad row: it has swallowed every row that follows.
                message = f"{source} line {line}: a quote is opened and never closed. Close it, or double it."
                raise DataError(message) from error
            is_long = "field larger" in str(error)
            what = (
                f"a field has more than {_LARGEST_FIELD:,} characters"
                if is_long
                else f"a quote is out of place ({error})"
            )
            yield line, reader.line_num, [], what
            continue
        if row:
            yield line, reader.line_num, row, None


def _fault(row: list[str], header: list[str]) -> str | None:
    if len(row) != len(header):
        return f"{len(row)} field{'s' if len(row) > 1 else ''}, expected {len(header)}"
    for value in row:
        if "\0" in value:
            return "holds a NUL byte"
        if not value.isascii() and (match := _UNDECODED.search(value)):
            return f"is not UTF-8 (byte 0x{ord(match[0]) - 0xDC00:02x})"
    return None
