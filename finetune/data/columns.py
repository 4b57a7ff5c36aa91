"""Which columns a task reads: those that are named, or the only ones that can be meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..choices import listed, nearest
from ..errors import DataError
from .rows import Rows
from .spec import Data, Split

_TEXT = ("text", "sentence", "review", "content", "question", "query", "utterance", "document", "comment", "tweet")
_IMAGE = ("image", "img", "picture", "photo", "file", "path", "file_name", "filename", "image_path")
_LABEL = ("label", "labels", "category", "target", "class", "intent", "sentiment", "topic", "stars", "rating", "score")
_COUNTERS = ("", "id", "idx", "index", "unnamed: 0")
_SAMPLE = 100  # rows that tell what a column holds


class Columns(NamedTuple):
    """The columns that a task reads; ``text`` is empty for images, ``label`` is None where there is none.

    ``flags`` are the columns of labels that have one each, and empty for all other tasks; ``label`` is then None.
    """

    text: tuple[str, ...]
    image: str | None
    label: str | None
    flags: tuple[str, ...] = ()


def choose(rows: Rows, data: Data, *, images: bool, split: Split) -> Columns:
    """The columns to read from one source; only a test split may have no labels.

    Raises:
        DataError: A column is not there, or several could be meant; names those there are.
    """
    named = data.image if images else data.text
    wrong = ("text", data.text) if images else ("image", data.image)
    if wrong[1] is not None:
        kind = "images" if images else "texts"
        raise DataError(f"task.data.{wrong[0]}: {wrong[1]!r} has no effect on a task of {kind}. Leave it out.")
    named = (named,) if isinstance(named, str) else named
    labels = _asked(rows, data, needed=split != "test")
    if named is not None:
        inputs = tuple(name for name in named if _present(rows, name, "image" if images else "text"))
    else:
        inputs = (_image(rows, labels) if images else _text(rows, labels),)
    if data.label is None and (found := _label(rows, inputs, needed=split != "test")):
        labels = (found,)
    for name in labels:
        if name in inputs:
            raise DataError(
                f"{rows.source}: column {name!r} cannot be both the input and the label. Set task.data.label."
            )
    columns = Columns((), inputs[0], None) if images else Columns(inputs, None, None)
    if isinstance(data.label, tuple):
        return columns._replace(flags=labels)
    return columns._replace(label=labels[0]) if labels else columns


def _asked(rows: Rows, data: Data, *, needed: bool) -> tuple[str, ...]:
    """The label columns that the user has named; of several all must be there, or none."""
    if data.label is None:
        return ()
    names = (data.label,) if isinstance(data.label, str) else data.label
    if not needed and not any(name in rows.columns for name in names):
        return ()
    return tuple(name for name in names if _present(rows, name, "label"))


def _present(rows: Rows, name: str, key: str) -> str:
    if name in rows.columns:
        return name
    hint = nearest(name, rows.columns) + _separated(rows)
    raise DataError(
        f"{rows.source} has no column {name!r}{hint}; it has {listed(rows.columns)}. "
        f"Set task.data.{key} to one of them."
    )


def _separated(rows: Rows) -> str:
    """What to say where the whole header was read as one column."""
    names = list(rows.columns)
    if len(names) == 1 and not rows.typed:
        expected = "tabs" if rows.source.lower().endswith(".tsv") else "commas"
        for sign, word in (
            (";", "semicolons"),
            ("\t", "tabs (name it .tsv)"),
            ("|", "bars"),
            (",", "commas (name it .csv)"),
        ):
            if sign in names[0]:
                return f" (fields seem to be separated by {word}, expected {expected})"
    return ""


def _text(rows: Rows, labels: tuple[str, ...]) -> str:
    others = [name for name in rows.columns if name not in labels]
    found = _known(others, _TEXT)
    if not found:
        found = [name for name in others if name.lower() not in (*_LABEL, *_COUNTERS) and _holds_text(rows, name)]
    return _only(rows, found, "text", "text")


def _image(rows: Rows, labels: tuple[str, ...]) -> str:
    if len(rows.image_columns) == 1:
        return rows.image_columns[0]
    names = rows.image_columns or rows.columns
    return _only(rows, _known([name for name in names if name not in labels], _IMAGE), "image", "images")


def _label(rows: Rows, inputs: tuple[str, ...], *, needed: bool) -> str | None:
    others = [name for name in rows.columns if name not in inputs]
    found = _known(others, _LABEL)
    if not found:
        found = [name for name in others if name.lower() not in _COUNTERS]
    if not needed and len(found) != 1:
        return None
    return _only(rows, found, "label", "label")


def _known(names: Iterable[str], known: tuple[str, ...]) -> list[str]:
    return [name for name in names if name.lower() in known]


def _only(rows: Rows, found: list[str], key: str, what: str) -> str:
    if len(found) == 1:
        return found[0]
    which = f"{listed(found)} could each be" if found else "none is plainly"
    raise DataError(
        f"{rows.source}: which column holds the {what}? {which} meant, of {listed(rows.columns)}{_separated(rows)}. "
        f"Set task.data.{key}."
    )


def _holds_text(rows: Rows, name: str) -> bool:
    values = [value for value in rows.columns[name][:_SAMPLE] if value not in (None, "")]
    if not values or not all(isinstance(value, str) for value in values):
        return False
    return rows.typed or not all(_is_number(value) for value in values)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
