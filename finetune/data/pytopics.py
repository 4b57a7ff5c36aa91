"""Several labels for a text, wherever Python is: one to three docstrings in a row, and the chapters they are of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from . import pydocs
from .offline import columns, dealt

MOST = 3  # docstrings in a text


class Joined(NamedTuple):
    """Docstrings of as many chapters as there are labels."""

    text: str
    labels: tuple[str, ...]


def few_shot(*, train: int = 600, validation: int = 200, test: int = 800) -> dict[str, dict[str, list]]:
    """Disjoint splits: ``{split: {"text": [...], "labels": [...]}}``.

    Args:
        train: Docstrings of it; there are about half as many texts.
        validation: Docstrings of it.
        test: Docstrings of it.

    Raises:
        DataError: There are too few.
    """
    splits = dealt(pydocs.docstrings(), name="pytopics", unit="texts", train=train, validation=validation, test=test)
    return {name: columns(list(_joined(rows))) for name, rows in splits.items()}


def _joined(rows: Sequence[pydocs.Docstring]) -> Iterator[Joined]:
    """Texts of one, two and three docstrings by turns; one that has the chapter already begins the next."""
    left: list[pydocs.Docstring] = []
    size = 1
    for row in rows:
        if len(left) == size or row.topic in {one.topic for one in left}:
            yield _text_of(left)
            left, size = [], size % MOST + 1
        left.append(row)
    yield _text_of(left)


def _text_of(rows: Sequence[pydocs.Docstring]) -> Joined:
    return Joined(" ".join(row.text for row in rows), tuple(sorted(row.topic for row in rows)))
