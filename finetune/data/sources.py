"""Reading a split and checking it against the task, before any model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from ..choices import listed
from ..errors import DataError
from ..letters import letter_fault
from . import labels
from .columns import Columns, choose
from .label_sets import LabelSets, check_several, flagged_sets_of, label_flags, listed_sets_of
from .opening import read_rows, split_names
from .presets import resolved
from .rows import Fault, Rows, settle
from .spec import Data, Split
from .splits import held_out, warn_of_leakage
from .table import Table

_UNSEEN = "\u200b\u200c\u200d\u2060\ufeff \t\r\n\xa0"  # of no width, and blanks between them

TaskName = Literal[
    "text_classification",
    "text_regression",
    "text_multi_label",
    "image_classification",
    "image_multi_label",
    "masked_language",
]


def splits(data: Data, *, task: TaskName) -> tuple[str, ...]:
    """The splits that there are, of train, validation and test.

    Raises:
        DataError: The data set is unknown, or cannot be reached.
    """
    return split_names(resolved(data, images=_is_images(task)))


def read(
    data: Data,
    split: Split,
    *,
    task: TaskName,
    label_names: Sequence[str] | None = None,
    train: Table | None = None,
) -> Table:
    """Read one split, with every row checked.

    Args:
        data: Where the splits are.
        split: The split to read.
        task: What the rows are for.
        label_names: The classes, in their order; None takes those of train.
        train: The training table, when it is there already; it saves reading it again for the classes and for the
            warning about rows that are in both.

    Raises:
        DataError: The split does not exist or does not fit the task; names files, rows and columns.
    """
    data = resolved(data, images=_is_images(task))
    if split == "train" or split in data.shares:
        return read_train(data, task=task, label_names=label_names)[split]
    there = split_names(data)
    if split not in there:
        raise DataError(f"task.data has no {split} split; it has {listed(there)}. Set task.data.{split}.")
    if train is None and label_names is None and "train" in there:
        train = read(data, "train", task=task)
    if train is not None and label_names is None:
        label_names = train.label_names
    if label_names is None and task not in ("text_regression", "masked_language"):
        raise DataError(f"task.data: the classes come from train, and there is none to read {split} by. Set train.")
    table = _table(data, split, task, label_names)
    if train is not None:
        warn_of_leakage(train, table, split)
    return table


def read_train(data: Data, *, task: TaskName, label_names: Sequence[str] | None = None) -> Mapping[str, Table]:
    """The training split and those that are shares of it, as ``read`` has them, by one reading of the source."""
    data = resolved(data, images=_is_images(task))
    whole = _table(data, "train", task, label_names)
    if not data.shares:
        return {"train": whole}
    if task != "masked_language":
        return held_out(whole, data.shares)
    parts = held_out(_with_labels_if_any(data, whole), data.shares)
    return {split: replace(part, labels=None, label_names=None) for split, part in parts.items()}


def _with_labels_if_any(data: Data, table: Table) -> Table:
    """The rows as a task with labels has them, where they have any, so that both hold the same ones out."""
    has_sets = data.separator is not None or isinstance(data.label, tuple)
    try:
        return _table(data, "train", "text_multi_label" if has_sets else "text_classification", None)
    except DataError:
        return table


def _is_images(task: TaskName) -> bool:
    return task in ("image_classification", "image_multi_label")


def _has_sets(task: TaskName) -> bool:
    return task in ("text_multi_label", "image_multi_label")


def _table(data: Data, split: Split, task: TaskName, label_names: Sequence[str] | None) -> Table:
    if split not in split_names(data):
        raise DataError("task.data has no train split. Set task.data.train.")
    rows = read_rows(data, split)
    if rows.unit == "file" and not _is_images(task):
        raise DataError(f"{rows.source} is a folder of images, and the task is {task}. Name a file with texts.")
    _check_form(data, task)
    columns = choose(rows, data, images=_is_images(task), split="test" if task == "masked_language" else split)
    digests, faults = _inputs(rows, columns, data)
    values, label_faults = _labels(rows, columns, data, task, split)
    kept, skipped = settle(rows, [*faults, *label_faults], data=data)
    table = Table(rows, kept, columns.text, columns.image, digests=digests, skipped=skipped)
    if _has_sets(task):
        return _with_sets(table, values, columns, label_names)
    if task == "masked_language":
        return table
    return _labelled(table, values, columns.label, task, label_names)


def _check_form(data: Data, task: TaskName) -> None:
    """Refuse what only tasks with several labels read."""
    if _has_sets(task) or task == "masked_language":
        return
    remedy = f"Leave it out, or use task.name: {'image' if _is_images(task) else 'text'}_multi_label."
    if data.separator is not None:
        raise DataError(f"task.data.separator: without effect on {task}, which reads one label a row. {remedy}")
    if isinstance(data.label, tuple):
        raise DataError(f"task.data.label: {len(data.label)} columns, and {task} reads one label a row. {remedy}")


def _inputs(rows: Rows, columns: Columns, data: Data) -> tuple[Sequence[bytes], list[Fault]]:
    if columns.image is not None:
        from .images import scan

        return scan(rows, columns.image, decodes=data.bad_rows == "skip")
    faults = []
    for name in columns.text:
        what = "text" if len(columns.text) == 1 else f"text {name!r}"
        for position, value in enumerate(rows.columns[name][:]):
            reason = text_fault(value)
            if reason is not None:
                faults.append(rows.fault(position, f"{what} {reason}"))
    return (), faults


def text_fault(value: Any) -> str | None:
    """What is wrong with a text, or nothing."""
    if value is None:
        return "is missing"
    if not isinstance(value, str):
        return f"is {str(value)[:40]!r} of type {type(value).__name__}, expected text"
    if not value.strip() or (not value.isascii() and not value.strip(_UNSEEN)):
        return "is empty"
    return letter_fault(value)


def _labels(rows: Rows, columns: Columns, data: Data, task: TaskName, split: Split) -> tuple[Any, list[Fault]]:
    """Names, sets of them, or targets, by row, None for an unlabelled split; and faults."""
    if (columns.label is None and not columns.flags) or task == "masked_language":
        return None, []
    values: Any
    if _has_sets(task):
        values = _label_sets(rows, columns, data, split)
        _, faults, missing = values
        return _unless_unlabelled(rows, columns, values, faults, missing, split)
    assert columns.label is not None, "flags are of tasks with several labels"
    if task == "text_regression":
        values, faults, missing = labels.targets_of(rows, columns.label)
    else:
        values, faults, missing = labels.class_names_of(rows, columns.label)
    return _unless_unlabelled(rows, columns, values, faults, missing, split)


def _unless_unlabelled(
    rows: Rows, columns: Columns, values: Any, faults: list[Fault], missing: list[int], split: Split
) -> tuple[Any, list[Fault]]:
    """The same, and a fault for each row without a label; None for a test split without any."""
    if split == "test" and len(missing) == len(rows):
        return None, faults
    what = columns.label or ", ".join(columns.flags)
    return values, faults + [rows.fault(position, f"label ({what!r}) is empty") for position in missing]


def _label_sets(rows: Rows, columns: Columns, data: Data, split: Split) -> LabelSets:
    if columns.flags:
        return flagged_sets_of(rows, columns.flags)
    assert columns.label is not None
    sets = listed_sets_of(rows, columns.label, separator=data.separator)
    if data.separator is not None and split == "train":
        check_several(rows, columns.label, sets, separator=data.separator)
    return sets


def _with_sets(table: Table, sets: LabelSets | None, columns: Columns, label_names: Sequence[str] | None) -> Table:
    """The table with which labels each example has; the labels are those given, else its own."""
    if sets is None:
        return replace(table, label_names=tuple(label_names or ()))
    source = columns.flags or columns.label
    assert source is not None
    flags, names = label_flags(table.rows, source, table.positions.tolist(), sets, label_names)
    return replace(table, labels=flags, label_names=names)


def _labelled(
    table: Table, values: Any, column: str | None, task: TaskName, label_names: Sequence[str] | None
) -> Table:
    """The table with its labels; the classes are those given, else its own."""
    rows, positions = table.rows, table.positions
    numbers = names = None
    if task != "text_regression":
        kept = [values[position] for position in positions.tolist()] if values is not None else []
        if label_names is None:
            assert column is not None, "classes come from train, and train has labels"
            label_names = labels.class_order(rows, column, kept)
        names = tuple(label_names)
        numbers = labels.class_numbers(rows, positions.tolist(), kept, names) if values is not None else None
    elif values is not None:
        numbers = values[positions]
    return replace(table, labels=numbers, label_names=names)
