"""Questions about texts, and where in them the answers stand."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..choices import listed, nearest
from ..errors import DataError
from .opening import read_rows, split_names
from .presets import resolved
from .rows import Fault, Rows, settle
from .sources import text_fault
from .spec import Data, Split
from .splits import held_out, warn_of_leakage
from .table import Table

_COLUMNS = ("question", "context")
_ANSWERS = "answers"


class Answer(NamedTuple):
    """A stretch of the text."""

    text: str
    start: int  # its first character


@dataclass(frozen=True, eq=False)
class Questions:
    """One split.

    Args:
        table: Question and text of each example.
        answers: What is right for each, any of several; none of them: the text does not say. None where the split
            has no answers.
    """

    table: Table
    answers: tuple[tuple[Answer, ...], ...] | None

    def __len__(self) -> int:
        return len(self.table)

    @property
    def fingerprint(self) -> str:
        """Of questions, texts and answers, in their order; 32 hex digits."""
        import xxhash

        return xxhash.xxh3_128_hexdigest(f"{self.table.fingerprint} {self.answers!r}".encode())


def read_questions(data: Data, split: Split, *, train: Questions | None = None) -> Questions:
    """Read one split: rows with ``question``, ``context`` and ``answers``, or a file as SQuAD has it.

    ``answers`` is ``{"text": [...], "answer_start": [...]}`` or a list of ``{"text", "answer_start"}``; without any
    of them the text does not say.

    Args:
        data: Where the splits are.
        split: The split to read.
        train: For the warning about rows that are in both.

    Raises:
        DataError: The split does not exist, or does not fit; names files, rows and columns.
    """
    data = resolved(data, images=False)
    if split == "train" or split in data.shares:
        whole = _read(data, "train")
        return _held_out(whole, data.shares, split) if data.shares else whole
    there = split_names(data)
    if split not in there:
        raise DataError(f"task.data has no {split} split; it has {listed(there)}. Set task.data.{split}.")
    found = _read(data, split)
    if train is not None:
        warn_of_leakage(train.table, found.table, split)
    return found


def _held_out(whole: Questions, shares: Mapping[str, float], split: Split) -> Questions:
    """A part of train, by texts: questions about one text stay together."""
    table = whole.table
    texts = replace(table, text=table.text[1:])
    part = held_out(texts, shares)[split]
    indices = np.searchsorted(table.positions, part.positions)
    answers = None if whole.answers is None else tuple(whole.answers[index] for index in indices.tolist())
    return Questions(replace(part, text=table.text), answers)


def _read(data: Data, split: Split) -> Questions:
    if split not in split_names(data):
        raise DataError(f"task.data has no {split} split. Set task.data.{split}.")
    rows = _rows(data, split)
    (question, context), column = _columns(rows, data, needed=split != "test")
    faults: list[Fault] = []
    for name in (question, context):
        for position, value in enumerate(rows.columns[name][:]):
            if (reason := text_fault(value)) is not None:
                faults.append(rows.fault(position, f"{name} {reason}"))
    answers = None
    if column is not None:
        broken = {fault.position for fault in faults}
        answers, wrong = _all_answers(rows, rows.columns[column][:], rows.columns[context][:], broken=broken)
        if split == "test" and all(one is None for one in answers) and not wrong:
            answers = None
        else:
            faults += wrong
            lacking = [position for position, one in enumerate(answers) if one is None]
            known = {fault.position for fault in faults}
            faults += [rows.fault(place, f"{column!r} is missing") for place in lacking if place not in known]
    kept, skipped = settle(rows, faults, data=data)
    table = Table(rows, kept, (question, context), skipped=skipped)
    return Questions(table, None if answers is None else tuple(answers[position] or () for position in kept))


def _rows(data: Data, split: Split) -> Rows:
    """As other tasks read them, but for the nested file of SQuAD."""
    source = getattr(data, split)
    path = Path(os.path.expanduser(source)) if isinstance(source, str) else None
    if path is None or path.suffix.lower() != ".json" or not path.is_file():
        return read_rows(data, split)
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError, RecursionError):
        return read_rows(data, split)  # it says what is wrong, and where
    if not isinstance(document, dict) or not isinstance(document.get("data"), list):
        return read_rows(data, split)
    try:
        flat = list(_flat(document["data"]))
    except (AttributeError, TypeError) as fault:
        raise DataError(
            f'{source} is not built as SQuAD is: expected {{"data": [{{"paragraphs": [{{"context": "…", "qas": '
            '[{"question": "…", "answers": […]}]}]}]}.'
        ) from fault
    if not flat:
        raise DataError(f"{source} holds no questions.")
    columns = {name: [row.get(name) for row in flat] for name in ("id", *_COLUMNS, _ANSWERS)}
    return Rows(str(source), columns, "question", folder=path.absolute().parent)


def _flat(articles: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """The questions of SQuAD's articles, each with its paragraph."""
    for article in articles:
        for paragraph in article.get("paragraphs", ()):
            for asked in paragraph.get("qas", ()):
                yield {**asked, "context": paragraph.get("context")}


def _columns(rows: Rows, data: Data, *, needed: bool) -> tuple[tuple[str, str], str | None]:
    """The columns with questions and texts, and that with answers."""
    named = data.text or _COLUMNS
    if isinstance(named, str) or len(named) != 2:
        raise DataError(
            f"task.data.text: {named!r}; a question and a text are read. Give two columns: [question, context]."
        )
    if isinstance(data.label, tuple) or data.separator is not None:
        raise DataError("task.data: question_answering reads one column of answers; leave separator out.")
    for name in named:
        if name not in rows.columns:
            raise DataError(
                f"{rows.source} has no column {name!r}{nearest(name, rows.columns)}; it has {listed(rows.columns)}. "
                "Set task.data.text to two of them, the question first."
            )
    label = data.label or _ANSWERS
    if label in rows.columns:
        return (named[0], named[1]), label
    if not needed:
        return (named[0], named[1]), None
    raise DataError(
        f"{rows.source} has no column {label!r}{nearest(label, rows.columns)} with the answers; it has "
        f"{listed(rows.columns)}. Set task.data.label."
    )


def _all_answers(
    rows: Rows, values: Sequence[Any], contexts: Sequence[Any], *, broken: set[int | None]
) -> tuple[list[tuple[Answer, ...] | None], list[Fault]]:
    found: list[tuple[Answer, ...] | None] = []
    faults = []
    for position, (value, context) in enumerate(zip(values, contexts, strict=True)):
        answers, reason = (None, None) if position in broken else _answers(value, context)
        found.append(answers)
        if reason is not None:
            faults.append(rows.fault(position, reason))
    return found, faults


def _answers(value: Any, context: str) -> tuple[tuple[Answer, ...] | None, str | None]:
    """The answers of a row; None where it does not say; and what is wrong with them."""
    if value is None:
        return None, None
    pairs: list[tuple[Any, Any]]
    if isinstance(value, Mapping) and {"text", "answer_start"} <= value.keys():
        texts, starts = value["text"], value["answer_start"]
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            return None, f"answers are {str(value)[:80]!r}, expected as many texts as starts, in two lists"
        pairs = list(zip(texts, starts, strict=True))
    elif isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
        pairs = [(one.get("text"), one.get("answer_start")) for one in value]
    else:
        return None, f'answers are {str(value)[:40]!r}, expected {{"text": [...], "answer_start": [...]}}'
    for text, start in pairs:
        if not isinstance(text, str) or not text or not isinstance(start, int) or start < 0:
            return None, f"an answer is {text!r} at {start!r}, expected a text and the number of its first character"
        if context[start : start + len(text)] != text:
            return None, f"answer {text[:40]!r} does not stand at character {start} of the text"
    return tuple(dict.fromkeys(Answer(text, start) for text, start in pairs)), None
