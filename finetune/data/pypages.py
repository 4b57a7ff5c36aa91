"""Long texts that are wherever Python is: pages of docstrings of one source file, each with its manual chapter."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from . import pydocs
from .offline import columns, dealt

WORDS = 250  # of a page


class Page(NamedTuple):
    """So many words of a file's docstrings, one after the other."""

    text: str
    label: str


@cache
def pages() -> tuple[Page, ...]:
    """Every full page; equal for equal Pythons."""
    return tuple(
        Page(text, topic)
        for topic, modules in pydocs.CHAPTERS.items()
        for module in modules.split()
        for path in pydocs._sources(module)
        for text in _pages(path)
    )


def few_shot(*, train: int = 240, validation: int = 60, test: int = 180) -> dict[str, dict[str, list]]:
    """Disjoint splits: ``{split: {"text": [...], "label": [...]}}``; pages of one file may be in several.

    Raises:
        DataError: There are too few.
    """
    splits = dealt(pages(), name="pypages", unit="pages", train=train, validation=validation, test=test)
    return {name: columns(rows) for name, rows in splits.items()}


def _pages(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_bytes())
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    docstrings = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
    words = " ".join(docstrings).split()
    for start in range(0, len(words) - WORDS + 1, WORDS):
        yield " ".join(words[start : start + WORDS])
