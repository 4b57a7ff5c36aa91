"""Several labels a row: from lists, from one text with a separator, or from a column for each label."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from ..choices import listed
from ..errors import DataError
from .labels import class_numbers, class_order, named_label
from .rows import Fault, Rows

_FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
_WRITTEN_LIST = re.compile(r"""[\[({]\s*(['"].*['"]|\d[\d\s,.]*)?\s*[\])}]""", re.DOTALL)  # as str() writes them
_SIGNS = ("|", ";", ",", "\t", " ")  # that separate labels in files people have


class LabelSets(NamedTuple):
    """What label columns say, row by row; None where a row says nothing, or something faulty."""

    names: list[tuple[str, ...] | None]
    faults: list[Fault]
    missing: list[int]  # positions that say nothing


def listed_sets_of(rows: Rows, column: str, *, separator: str | None) -> LabelSets:
    """The labels of every row from one column: a list, or a text with ``separator`` between them.

    An empty list is a row without labels, and so is an empty text; unless all are empty, which says nothing.

    Raises:
        DataError: The column holds text, and nothing says what separates the labels in it; or what is in it are no
            names of labels.
    """
    values: Sequence[Any] = rows.columns[column][:]
    texts = [value for value in values if isinstance(value, str)]
    _check_names(rows, column, values)
    if separator is None and texts:
        raise DataError(_unseparated(rows, column, texts))
    if separator is not None and not texts and any(isinstance(value, list | tuple | np.ndarray) for value in values):
        raise DataError(
            f"task.data.separator: {separator!r} without effect: column {column!r} of {rows.source} holds lists, not "
            "text. Leave it out."
        )
    is_blank = [isinstance(value, str) and not value.strip() for value in values]
    if all(blank or value is None for blank, value in zip(is_blank, values, strict=True)):
        return LabelSets([None] * len(values), [], list(range(len(values))))
    if any(is_blank):
        count = sum(is_blank)
        warnings.warn(
            f"{rows.source}: {count} of {len(values)} rows have an empty {column!r}, and count as rows without any "
            "label.",
            stacklevel=2,
        )
    found = LabelSets([], [], [])
    for position, value in enumerate(values):
        labels, reason = _labels_of(value, rows, column, separator)
        found.names.append(labels)
        if reason is not None:
            found.faults.append(rows.fault(position, reason))
        elif labels is None:
            found.missing.append(position)
    return found


def flagged_sets_of(rows: Rows, columns: Sequence[str]) -> LabelSets:
    """The labels of every row from one column each, which holds 0 or 1, true or false."""
    found = LabelSets([], [], [])
    for position, values in enumerate(zip(*(rows.columns[column][:] for column in columns), strict=True)):
        flags = [None if value is None else _FLAGS.get(str(value).strip().lower()) for value in values]
        named = tuple(name for name, flag in zip(columns, flags, strict=True) if flag)
        is_known = None not in flags
        found.names.append(named if is_known else None)
        if all(value is None or value == "" for value in values):
            found.missing.append(position)
        elif not is_known:
            place = flags.index(None)
            found.faults.append(rows.fault(position, f"{columns[place]!r} is {values[place]!r}, expected 0 or 1"))
    return found


def check_several(rows: Rows, column: str, sets: LabelSets, *, separator: str) -> None:
    """Refuse a separator that separates nothing in train.

    Raises:
        DataError: No row has two labels.
    """
    if not any(len(names or ()) > 1 for names in sets.names):
        raise DataError(
            f"{rows.source}, column {column!r}: no row has more than one label between {separator!r}. Set "
            "task.data.separator to what stands between them, or use a task with one class a row."
        )


def label_flags(
    rows: Rows, columns: str | Sequence[str], positions: Sequence[int], sets: LabelSets, order: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which labels each example has, (examples, labels) bool; and the labels, by the second axis.

    Args:
        rows: The source.
        columns: The one that holds all labels, or one for each.
        positions: The row of each example.
        sets: Of all rows.
        order: The labels of train; None: these rows are train's.

    Raises:
        DataError: A label that train does not have; names row and label.
    """
    names = [sets.names[position] or () for position in positions]
    flat = list(chain.from_iterable(names))
    if order is None:
        order = class_order(rows, columns, flat) if isinstance(columns, str) else tuple(columns)
        _warn_of_none(rows, flat, order)
    counts = [len(one) for one in names]
    found = np.zeros((len(names), len(order)), bool)
    numbers = class_numbers(rows, np.repeat(positions, counts).tolist(), flat, order)
    found[np.repeat(np.arange(len(names)), counts), numbers] = True
    return found, tuple(order)


def _check_names(rows: Rows, column: str, values: Sequence[Any]) -> None:
    """Refuse what looks like labels and is not: lists that became text, and a 0 or 1 for each label."""
    where = f"{rows.source}: column {column!r} holds"
    for value in values:
        if isinstance(value, str) and _WRITTEN_LIST.fullmatch(value.strip()):
            raise DataError(
                f"{where} lists that were written as text ({value[:40]!r}), whose brackets and quotes would become "
                "part of the labels. Give lists (jsonl, parquet, datasets), or take those signs out."
            )
    lists = [value for value in values if isinstance(value, list | tuple | np.ndarray)]
    is_flags = len({len(value) for value in lists}) == 1 and len(lists[0]) > 1 and column not in rows.class_names
    if is_flags and all(item in (0, 1) and not isinstance(item, str) for value in lists for item in value):
        raise DataError(
            f"{where} {len(lists[0])} times 0 or 1 in each row, expected the names of the labels that a row has. Give "
            "those, or a column for each label and task.data.label: [first, second …]."
        )


def _labels_of(
    value: Any, rows: Rows, column: str, separator: str | None
) -> tuple[tuple[str, ...] | None, str | None]:
    """The labels of one row, and what is wrong with them."""
    if value is None:
        return None, None
    if isinstance(value, str):
        parts = (part.strip() for part in value.split(separator))
        return tuple(dict.fromkeys(part for part in parts if part)), None
    if not isinstance(value, list | tuple | np.ndarray):
        return None, f"labels are {str(value)[:40]}, expected a list"
    known = rows.class_names.get(column)
    labels = [named_label(item, known, typed=rows.typed) for item in value]
    reason = next((reason for _, _, reason in labels if reason), None)
    if reason is None and any(name is None for name, _, _ in labels):
        reason = "one of the labels is empty"
    return (None, reason) if reason else (tuple(dict.fromkeys(name for name, _, _ in labels if name)), None)


def _unseparated(rows: Rows, column: str, texts: Sequence[str]) -> str:
    counts = {sign: sum(sign in text for text in texts) for sign in _SIGNS}
    likely = max(_SIGNS, key=lambda sign: counts[sign])
    hint = f", here perhaps {likely!r}" if counts[likely] else ""
    return (
        f"{rows.source}: column {column!r} holds text ({texts[0][:40]!r}), and a row has several labels. Say what "
        f"stands between them{hint}: task.data.separator; or give lists (jsonl, parquet, datasets)."
    )


def _warn_of_none(rows: Rows, names: Sequence[str], order: Sequence[str]) -> None:
    if lacking := sorted(set(order) - set(names)):
        warnings.warn(
            f"{rows.source}: no row of train has the label{'s' if len(lacking) > 1 else ''} {listed(lacking)}, so "
            "nothing can be learnt of it but that it is rare.",
            stacklevel=2,
        )
