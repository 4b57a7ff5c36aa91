"""Rows of a file in columns, as CoNLL's shared tasks write them: a word a line, a blank line after each sentence."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError
from .rows import Fault, Rows

SUFFIXES = (".conll", ".bio", ".iob", ".iob2", ".bioes")
_DOCUMENT = "-DOCSTART-"  # CoNLL-2003 begins each document with a line of its own, which is no word
_SAMPLE = 100  # words that tell how many columns there are: the first line may be a comment
_UNDECODED = re.compile("[\udc80-\udcff]")


class _Sentence(NamedTuple):
    first: int  # line
    fields: list[list[str]]  # by word
    fault: str | None
    at: int  # line of the fault


def read_conll(path: Path, source: str) -> Rows:
    """Read sentences; the columns are called ``"0"``, ``"1"`` … from the left, and hold one list of words a sentence.

    Columns are separated by tabs if the first word's are, else by blanks.

    Raises:
        DataError: The file as a whole cannot be read, or holds no words.
    """
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{source} is UTF-16 text, expected UTF-8. Save it as UTF-8.")
    text = content.decode("utf-8", errors="surrogateescape")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    first = next((line for line in lines if _is_word(line)), None)
    if first is None:
        raise DataError(f"{source} holds no words. Expected a word a line with its tag, and a blank line between.")
    separator = "\t" if "\t" in first.strip() else None
    widths = (len(line.split(separator)) for line in lines if _is_word(line))
    width = Counter(islice(widths, _SAMPLE)).most_common(1)[0][0]
    if width < 2:
        raise DataError(
            f"{source}: its first word {first.strip()[:40]!r} has no tag. Expected columns separated by tabs or "
            "blanks: the word first, its tag last."
        )
    numbers, sentences, faults = array("q"), [], []
    for sentence in _sentences(lines, separator=separator, width=width):
        if sentence.fault is not None:
            faults.append(Fault(sentence.first, f"{source} line {sentence.at}", sentence.fault))
            continue
        numbers.append(sentence.first)
        sentences.append(sentence.fields)
    columns = {str(at): [tuple(fields[at] for fields in words) for words in sentences] for at in range(width)}
    return Rows(
        source, columns, "line", numbers=numbers, faults=tuple(faults), typed=False, folder=path.absolute().parent
    )


def _is_word(line: str) -> bool:
    return bool(line.strip()) and not line.startswith(_DOCUMENT)


def _sentences(lines: list[str], *, separator: str | None, width: int) -> Iterator[_Sentence]:
    first, fields, fault, at = 0, [], None, 0
    for number, line in enumerate([*lines, ""], start=1):
        if _is_word(line):
            first = first or number
            fields.append(line.split(separator))
            reason = _fault(fields[-1], width)
            if reason is not None and fault is None:
                fault, at = reason, number
        elif fields:
            yield _Sentence(first, fields, fault, at)
            first, fields, fault, at = 0, [], None, 0


def _fault(fields: list[str], width: int) -> str | None:
    if len(fields) != width:
        return f"{len(fields)} column{'s' if len(fields) > 1 else ''}, expected {width}"
    for value in fields:
        if not value.strip():
            return "a column is empty"
        if "\0" in value:
            return "holds a NUL byte"
        if not value.isascii() and (match := _UNDECODED.search(value)):
            return f"is not UTF-8 (byte 0x{ord(match[0]) - 0xDC00:02x})"
    return None
