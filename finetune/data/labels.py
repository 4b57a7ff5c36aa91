"""From what a label column holds to class numbers or targets."""

from __future__ import annotations

import math
import re
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..choices import listed
from ..errors import DataError
from ..letters import letter_fault
from .rows import Fault, Rows

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(r"([+-]?\d+)\.0*")  # what a table of floats becomes in a csv file
_NO_VALUE = {"nan", "NaN", "NAN", "<NA>", "null", "NULL", "#N/A", "N/A"}  # as programs write a cell without one
_LARGEST = float(np.finfo(np.float32).max)
_SHOWN = 40  # letters of a value, in a message
_MOST_FRACTIONS = 20  # classes that are fractions: half-star ratings are ten, measurements have no end


class Named(NamedTuple):
    """A label column as class names; None where a row has no label or a faulty one."""

    names: list[str | None]
    faults: list[Fault]
    missing: list[int]  # positions without a label


def class_names_of(rows: Rows, column: str) -> Named:
    """The class name of every row; whole numbers lose their point, so 1 and 1.0 are one class."""
    values = rows.columns[column][:]
    known = rows.class_names.get(column)
    named = [named_label(value, known, typed=rows.typed) for value in values]
    faults = [rows.fault(position, reason) for position, (_, _, reason) in enumerate(named) if reason]
    if known is None:
        faults += _mixed(rows, named)
    missing = [position for position, (name, _, reason) in enumerate(named) if name is None and not reason]
    return Named([name for name, _, _ in named], faults, missing)


def named_label(value: Any, known: tuple[str, ...] | None, *, typed: bool) -> tuple[str | None, str, str | None]:
    """Name, kind and fault of one label.

    Args:
        value: As the source has it.
        known: The names of numbered classes; None where they have none.
        typed: Whether values of the source carry types.
    """
    if isinstance(value, list):
        return None, "", "label is a list, expected one text or number; several a row are for multi_label tasks"
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None, "", None
    if known is not None:
        if value == -1:  # how ``datasets`` writes the labels of a split that keeps them secret
            return None, "", None
        if 0 <= value < len(known):
            return known[value], "", None
        return None, "", f"label {value} is out of range, there are {len(known)} classes"
    return _text_label(value, typed=typed) if isinstance(value, str) else _plain_label(value)


def _text_label(value: str, *, typed: bool) -> tuple[str | None, str, str | None]:
    if not value.strip():
        return None, "", None
    if reason := letter_fault(value):
        return None, "", f"label {reason}"
    if typed or not _NUMBER.fullmatch(value):
        return value, "text", None
    whole = _WHOLE.fullmatch(value)
    return whole[1] if whole else value, "a number", None


def _plain_label(value: Any) -> tuple[str | None, str, str | None]:
    if isinstance(value, bool):
        return str(value).lower(), "true or false", None
    if isinstance(value, float) and not math.isfinite(value):
        return None, "", f"label is {value}, expected text or a finite number"
    if isinstance(value, int | float):
        return (str(int(value)) if value == value // 1 else str(value)), "a number", None
    return None, "", f"label is a {type(value).__name__}, expected text or a number"


def _mixed(rows: Rows, named: list[tuple[str | None, str, str | None]]) -> list[Fault]:
    """Rows whose label is of another kind than most."""
    kinds = Counter(kind for _, kind, _ in named if kind)
    if len(kinds) < 2:
        return []
    usual = kinds.most_common(1)[0][0]
    return [
        rows.fault(position, f"label {name[:_SHOWN]!r} is {kind}, and most are {usual}")
        for position, (name, kind, _) in enumerate(named)
        if name and kind != usual
    ]


def class_order(rows: Rows, column: str, names: Sequence[str]) -> tuple[str, ...]:
    """The classes of a training split: as its type orders them, else by value, else by name.

    Raises:
        DataError: They do not look like classes.
    """
    if column in rows.class_names:
        return rows.class_names[column]
    found = set(names)
    where = f"{rows.source}, column {column!r}"
    if len(found) < 2:
        raise DataError(f"{where}: every row has the same class ({listed(found)}). Expected at least two.")
    padded = sorted(name for name in found if name != name.strip() and name.strip() in found)
    if padded:
        raise DataError(f"{where}: {padded[0]!r} and {padded[0].strip()!r} differ only in spaces. Make them one.")
    _warn_of_names(found, where)
    numeric = all(_NUMBER.fullmatch(name) for name in found)
    if numeric and len(found) > _MOST_FRACTIONS and any(not float(name).is_integer() for name in found):
        raise DataError(
            f"{where}: {len(found)} different fractions ({listed(sorted(found), most=3)}) look like targets, not "
            "classes. Use task.name: text_regression, or another column as task.data.label."
        )
    if len(found) > _MOST_FRACTIONS and len(found) > len(names) / 2:
        raise DataError(
            f"{where}: {len(found)} classes in {len(names)} rows ({listed(sorted(found), most=3)}). Name the column "
            "with the classes as task.data.label, or use task.name: text_regression for targets."
        )
    return tuple(sorted(found, key=lambda name: (float(name), name)) if numeric else sorted(found))


def _warn_of_names(found: set[str], where: str) -> None:
    """Say which classes may be one that was written in two ways, or a cell without any."""
    alike = defaultdict(list)
    for name in sorted(found):
        alike[unicodedata.normalize("NFKC", name).casefold()].append(name)
    for names in alike.values():
        if len(names) > 1:
            warnings.warn(
                f"{where}: {listed(names)} are classes of their own, and differ only in capitals or in how letters "
                "are encoded. Write them alike if they are one.",
                stacklevel=2,
            )
    if empty := sorted(found & _NO_VALUE):
        warnings.warn(
            f"{where}: {listed(empty)} counts as a class. Take those rows out, if they have no label.", stacklevel=2
        )


def class_numbers(rows: Rows, positions: Sequence[int], names: Sequence[str], order: Sequence[str]) -> np.ndarray:
    """The class of each example, (examples,), int64.

    Raises:
        DataError: A class that ``order``, the classes of train, does not have; names row and class.
    """
    numbers = {name: number for number, name in enumerate(order)}
    unknown = [(position, name) for position, name in zip(positions, names, strict=True) if name not in numbers]
    if unknown:
        shown = "\n  ".join(f"{rows.where(position)}: label {name[:_SHOWN]!r}" for position, name in unknown[:5])
        rest = f"\n  and {len(unknown) - 5} more rows" if len(unknown) > 5 else ""
        raise DataError(
            f"{rows.source} has labels that train does not have; train has {listed(order)}.\n  {shown}{rest}\n"
            "Correct the labels, or add examples of them to train."
        )
    return np.array([numbers[name] for name in names], dtype=np.int64)


def targets_of(rows: Rows, column: str) -> tuple[np.ndarray, list[Fault], list[int]]:
    """The target of every row, (rows,) float32, NaN where it is faulty or missing; faults; missing positions."""
    values = rows.columns[column][:]
    targets = np.full(len(values), np.nan, dtype=np.float32)
    faults, missing = [], []
    for position, value in enumerate(values):
        target, reason = _target(value, typed=rows.typed)
        if reason is not None:
            faults.append(rows.fault(position, reason))
        elif target is None:
            missing.append(position)
        else:
            targets[position] = target
    return targets, faults, missing


def _target(value: Any, *, typed: bool) -> tuple[float | None, str | None]:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None, None
    shown = repr(value if len(str(value)) <= _SHOWN else f"{str(value)[:_SHOWN]}…")
    if isinstance(value, str) and typed:
        return None, f"target {shown} is text, expected a number"
    if not isinstance(value, str | int | float) or isinstance(value, bool) or "_" in str(value):
        return None, f"target {shown} is not a number"
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    except ValueError:
        return None, f"target {shown} is not a number"
    if not math.isfinite(number) or abs(number) > _LARGEST:
        return None, f"target is {shown}, expected a finite number"
    return number, None
