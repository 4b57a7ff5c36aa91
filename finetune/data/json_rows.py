"""Rows of a json or jsonl file: objects with the same keys, types as they are written."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError
from .rows import Fault, Rows


def read_json(path: Path, source: str) -> Rows:
    """Read one object a line (jsonl), or one list of objects (json).

    Raises:
        DataError: The file as a whole cannot be read, or holds no objects.
    """
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if not content.strip():
        raise DataError(f"{source} is empty. Expected one object a line, or a list of objects.")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{source} is UTF-16 text, expected UTF-8. Save it as UTF-8.")
    if content[:2] == b"\x1f\x8b" or content[:4] == b"PK\x03\x04":
        raise DataError(f"{source} is a compressed file, expected text. Unpack it.")
    is_list = content.lstrip()[:1] == b"["
    parsed = _items(content, source) if is_list else _lines(content)
    unit = "row" if is_list else "line"
    numbers, objects, faults = array("q"), [], []
    for number, value, reason in parsed:
        if reason is None and not isinstance(value, dict):
            reason = f"is {_kind(value)}, expected an object with keys and values"
        if reason is not None:
            faults.append(Fault(number, f"{source} {unit} {number}", reason))
            continue
        numbers.append(number)
        objects.append(value)
    if not objects:
        first = f"{faults[0].where} {faults[0].reason}" if faults else "the list is empty"
        raise DataError(f"{source} holds no rows: {first}. Expected one object a line, or a list of objects.")
    names = list(dict.fromkeys(name for item in objects for name in item))
    columns = {name: [item.get(name) for item in objects] for name in names}
    return Rows(source, columns, unit, numbers=numbers, faults=tuple(faults), folder=path.absolute().parent)


def _lines(content: bytes) -> Iterator[tuple[int, Any, str | None]]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            yield number, *_parsed(line)


def _items(content: bytes, source: str) -> Iterator[tuple[int, Any, str | None]]:
    items, reason = _parsed(content)
    if reason is not None:
        raise DataError(f"{source} {reason}. Expected a list of objects.")
    for number, item in enumerate(items, start=1):
        yield number, item, None


def _parsed(text: bytes) -> tuple[Any, str | None]:
    try:
        return json.loads(text.decode(), object_pairs_hook=_object), None
    except UnicodeDecodeError as error:
        return None, f"is not UTF-8 (byte 0x{text[error.start]:02x})"
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} " if b"\n" in text.strip() else ""
        return None, f"is not JSON ({error.msg} at {place}column {error.colno})"
    except ValueError as error:  # a key twice, or a number of thousands of digits
        return None, f"is not JSON that can be read ({error})"
    except RecursionError:
        return None, "is nested too deeply"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
