"""Pairs of texts that are wherever Python is: the head of a function and a docstring, its own or another's."""

from __future__ import annotations

import ast
from functools import cache
from typing import NamedTuple

from ..randomness import generator
from . import pydocs
from .offline import columns, dealt


class Pair(NamedTuple):
    """A function and a text."""

    function: str  # its name and parameters, on one line
    text: str  # first paragraph of a docstring
    label: str  # "own", or "other": of another function of the same chapter


@cache
def pairs() -> tuple[Pair, ...]:
    """Every function and every docstring once, half of them together; equal for equal Pythons."""
    found: list[Pair] = []
    for topic, modules in pydocs.CHAPTERS.items():
        heads: dict[str, str] = {}
        for module in modules.split():
            for node in pydocs.functions(module):
                text = pydocs.paragraph_of(node)
                if text is not None:
                    heads.setdefault(text, _head(node))
        of_head = sorted({head: text for text, head in heads.items()}.items())
        rows = [of_head[place] for place in generator(0, "pypairs", topic).permutation(len(of_head))]
        half = len(rows) // 2
        found += [Pair(head, text, "own") for head, text in rows[:half]]
        others = rows[half:]  # each takes the text of the next
        found += [Pair(head, text, "other") for (head, _), (_, text) in zip(others, others[1:], strict=False)]
    return tuple(found)


def few_shot(*, train: int = 800, validation: int = 200, test: int = 600) -> dict[str, dict[str, list]]:
    """Disjoint splits: ``{split: {"function": [...], "text": [...], "label": [...]}}``.

    Raises:
        DataError: There are too few.
    """
    splits = dealt(pairs(), name="pypairs", unit="pairs", train=train, validation=validation, test=test)
    return {name: columns(rows) for name, rows in splits.items()}


def _head(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return f"{function.name}({', '.join(pydocs.parameters_of(function))})"
