"""Naming the nearest thing that exists, for messages about something that does not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, choices: Iterable[str]) -> str:
    """``" (did you mean 'rank'?)"``, or nothing where no choice is near."""
    found = difflib.get_close_matches(str(name), list(choices), n=1, cutoff=0.6)
    return f" (did you mean {found[0]!r}?)" if found else ""


def listed(choices: Iterable[object], *, most: int = 12) -> str:
    """``"'a', 'b', 'c'"``, cut off after ``most`` with the number left out."""
    items = [repr(choice) for choice in choices]
    rest = len(items) - most
    return ", ".join(items[:most]) + (f" and {rest} more" if rest > 0 else "")
