"""JSON that every reader can read, and that comes back as it was.

Plain JSON has no NaN or infinity, and a metric that is one of them must neither break a resume nor the
programs that read a run. They are written as strings, and a real string that reads the same is escaped.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

MOST_BYTES = 16 * 2**20
MOST_LEVELS = 64

_ESCAPED = re.compile(r"~*(?:NaN|Infinity|-Infinity)")


def to_json(document: Mapping[str, Any], *, indent: int | None = 1) -> bytes:
    """A document as JSON that ends with a newline; tuples become lists.

    Raises:
        TypeError: A value is not JSON (numbers, text, lists, mappings with text keys); names its path.
    """
    text = json.dumps(_encoded(document, "", 0), indent=indent, allow_nan=False, ensure_ascii=False)
    data = (text + "\n").encode("utf-8", errors="strict")
    if len(data) > MOST_BYTES:
        raise TypeError(
            f"the document has {len(data)} bytes of JSON, at most {MOST_BYTES}: keep large state in tensors"
        )
    return data


def from_json(data: bytes) -> dict[str, Any]:
    """The document in ``data``.

    Raises:
        ValueError: Not a JSON mapping, or larger or deeper than anything we write.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"{len(data)} bytes of JSON, at most {MOST_BYTES}")
    try:
        document = json.loads(data, parse_constant=_refuse_constant)
        found = _decoded(document, 0)
    except RecursionError:
        raise ValueError(f"JSON is nested deeper than {MOST_LEVELS} levels") from None
    if not isinstance(found, dict):
        raise ValueError(f"expected a JSON mapping, got {type(found).__name__}")
    return found


def _encoded(value: Any, path: str, depth: int) -> Any:
    if depth > MOST_LEVELS:
        raise TypeError(f"{path[:60]}… is nested deeper than {MOST_LEVELS} levels")
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _constant(value)
    if isinstance(value, str):
        return f"~{value}" if _ESCAPED.fullmatch(value) else value
    if isinstance(value, list | tuple):
        return [_encoded(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {_key(key, path): _encoded(item, f"{path}.{key}", depth + 1) for key, item in value.items()}
    where = path.lstrip(".") or "the document"
    raise TypeError(f"{where} is a {type(value).__name__}: state is kept as JSON values, or as tensors")


def _key(key: Any, path: str) -> str:
    if not isinstance(key, str):
        raise TypeError(
            f"the key {key!r} in {path.lstrip('.') or 'the document'} is not text, which JSON would change"
        )
    return key


def _constant(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _decoded(value: Any, depth: int) -> Any:
    if depth > MOST_LEVELS:
        raise ValueError(f"JSON is nested deeper than {MOST_LEVELS} levels")
    if isinstance(value, str) and _ESCAPED.fullmatch(value):
        return value[1:] if value.startswith("~") else float(value)
    if isinstance(value, list):
        return [_decoded(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {key: _decoded(item, depth + 1) for key, item in value.items()}
    return value
