"""Questions with their answers in a text, wherever Python is: made from sentences of docstrings by three patterns.

A toy: whoever knows the patterns answers without a model. A model that learns from examples has to find them out.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from . import pydocs
from .offline import columns, dealt

MIN_WORDS = 20
MAX_WORDS = 80

_END = r"(?P<answer>[^.]{8,120})\.(?=\s|$)"
_PATTERNS = {
    "What does {name} return?": rf"\bReturns? {_END}",
    "When does {name} raise {what}?": rf"\b[Rr]aises? (?:an? )?(?P<what>\w+(?:Error|Exception)) (?:if|when) {_END}",
    "What happens if {what}?": rf"\b(?:If|When) (?P<what>[^,.;:]{{5,60}}), {_END}",
}


class Question(NamedTuple):
    """A question about a text."""

    question: str
    context: str
    answers: dict[str, list]  # one, as SQuAD has it


@cache
def texts() -> tuple[tuple[Question, ...], ...]:
    """The questions about every text that has any, each text once, sorted; equal for equal Pythons."""
    found: dict[str, tuple[Question, ...]] = {}
    for modules in pydocs.CHAPTERS.values():
        for module in modules.split():
            for node in pydocs.functions(module):
                text = " ".join((ast.get_docstring(node) or "").split())
                if MIN_WORDS <= len(text.split()) <= MAX_WORDS and text not in found:
                    found[text] = tuple(_asked(node.name, text))
    return tuple(found[text] for text in sorted(found) if found[text])


def few_shot(*, train: int = 300, validation: int = 60, test: int = 120) -> dict[str, dict[str, list]]:
    """Disjoint splits: ``{split: {"question": [...], "context": [...], "answers": [...]}}``; sizes are of texts.

    Raises:
        DataError: There are too few.
    """
    splits = dealt(texts(), name="pyquestions", unit="texts", train=train, validation=validation, test=test)
    return {name: columns([one for each in rows for one in each]) for name, rows in splits.items()}


def _asked(name: str, text: str) -> Iterator[Question]:
    """At most one question of each kind: of two answers to the same one only the first would be known."""
    for question, pattern in _PATTERNS.items():
        if match := re.search(pattern, text):
            parts = match.groupdict()
            answer: dict[str, list] = {"text": [match["answer"]], "answer_start": [match.start("answer")]}
            yield Question(question.format(name=name, what=parts.get("what")), text, answer)
