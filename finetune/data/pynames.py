"""Real English with names in it that is wherever Python is: what docstrings of the standard library speak of.

Words are tagged from the code beside them. A ``parameter`` is a word that the function's own signature has, which the
text alone does not tell (``key`` or ``value`` are words, too); a ``name`` is written like code (``os.path``,
``SomeClass``, ``call()``); a ``literal`` is a quoted text, a number, or one of True, False and None.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from . import pydocs
from .offline import columns, dealt

_ENGLISH = frozenset("all an and any as at be by do for from how if in is it no not of on or so the to up us".split())
_WORD = re.compile(r"\w+|[^\w\s]")
_QUOTED = re.compile(r"(?<![\w'\"`])(['\"`]{1,2})([^'\"`\s][^'\"`]{0,29})\1(?![\w'\"`])")
_CODE = re.compile(
    r"\b(?!(?:e\.g|i\.e)\b)[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?:\(\))?"  # a.b
    r"|\b[A-Za-z]\w*_\w+(?:\(\))?"  # a_b
    r"|\b[A-Z][a-z]+[A-Z]\w*"  # AbCd
    r"|\b[A-Za-z_]\w*\(\)"  # a()
)
_LITERAL = re.compile(r"\b(?:True|False|None)\b|(?<![\w.])\d+(?:\.\d+)?(?!\w)")


class Tagged(NamedTuple):
    """The first paragraph of a docstring, word by word."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]  # IOB2


@cache
def sentences() -> tuple[Tagged, ...]:
    """Every text with at least one such name, each once, sorted; equal for equal Pythons. Nothing is imported."""
    found = {
        text: tagged(text, parameters=_own(pydocs.parameters_of(function)))
        for modules in pydocs.CHAPTERS.values()
        for module in modules.split()
        for function in pydocs.functions(module)
        if (text := pydocs.paragraph_of(function)) is not None
    }
    return tuple(found[text] for text in sorted(found) if set(found[text].tags) != {"O"})


def few_shot(
    *, train: int = 400, validation: int = 150, test: int = 400
) -> dict[str, dict[str, list[tuple[str, ...]]]]:
    """Disjoint splits: ``{split: {"tokens": [...], "tags": [...]}}``.

    Raises:
        DataError: There are too few.
    """
    splits = dealt(sentences(), name="pynames", unit="sentences", train=train, validation=validation, test=test)
    return {name: columns(rows) for name, rows in splits.items()}


def tagged(text: str, *, parameters: frozenset[str]) -> Tagged:
    """A text with the names in it.

    Args:
        text: On one line.
        parameters: Of the function that it is about.
    """
    spans: list[tuple[int, int, str]] = []
    own = re.compile(r"\b(?:" + "|".join(map(re.escape, sorted(parameters))) + r")\b(?!\()") if parameters else None
    for kind, pattern in (("literal", _QUOTED), ("name", _CODE), ("parameter", own), ("literal", _LITERAL)):
        for match in pattern.finditer(text) if pattern is not None else ():
            start, end = match.span()
            if all(end <= first or last <= start for first, last, _ in spans):
                spans.append((start, end, "parameter" if match[0] in parameters else kind))
    words = list(_WORD.finditer(text))
    tags = []
    for word in words:
        inside = next((span for span in spans if span[0] <= word.start() < span[1]), None)
        tags.append("O" if inside is None else f"{'B' if inside[0] == word.start() else 'I'}-{inside[2]}")
    return Tagged(tuple(word[0] for word in words), tuple(tags))


def _own(parameters: Iterable[str]) -> frozenset[str]:
    """Those whose names could not be plain English words that are everywhere, nor single letters."""
    return frozenset(name for name in parameters if len(name) > 1 and name not in _ENGLISH)
