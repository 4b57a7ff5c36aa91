"""What no text may hold."""

from __future__ import annotations

import re

_HALF = re.compile("[\ud800-\udfff]")  # also how Python keeps a byte of a name that is no UTF-8


def letter_fault(text: str) -> str | None:
    """What a text holds that could not be written down, or nothing."""
    if "\0" in text:
        return "holds a NUL byte"
    if not text.isascii() and _HALF.search(text):
        return "holds half of a surrogate pair, or a byte that is no UTF-8, which is not a letter"
    return None
