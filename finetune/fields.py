"""A frozen dataclass against its own annotations, for those who build one in Python and not from a file."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from .choices import listed, nearest
from .durations import CheckedText
from .letters import letter_fault

_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def check_fields(value: Any) -> None:
    """Words of a ``Literal``, bounds of numbers and lists, in ``value`` and every dataclass that it holds.

    Without this a misspelt word would be taken for whatever the last branch of the code does.

    Raises:
        ValueError: Names every field that is wrong, by its path.
    """
    faults = list(_faults(value, ""))
    if faults:
        raise ValueError("\n".join(faults))


def _faults(value: Any, path: str) -> Iterator[str]:
    try:
        hints = get_type_hints(type(value), include_extras=True)
    except (NameError, TypeError):  # a user's own class, whose types exist for the type checker only
        hints = {}
    for field in dataclasses.fields(value):
        item, at = getattr(value, field.name), f"{path}{field.name}"
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            yield from _faults(item, f"{at}.")
        elif isinstance(item, str) and (fault := _text_fault(hints.get(field.name, Any), item)):
            yield f"{at}: {fault}"
        elif fault := _fault(hints.get(field.name, Any), item):
            yield f"{at}: got {item!r}{fault}"


def _text_fault(hint: Any, item: str) -> str | None:
    """What no text may hold, and what one that is checked says of itself."""
    if fault := letter_fault(item):
        return f"{item!r} {fault}; write it in other letters"
    for mark in get_args(hint) if get_origin(hint) is Annotated else ():
        if isinstance(mark, CheckedText):
            try:
                mark.check(item)
            except ValueError as error:
                return str(error)
    return None


def _fault(hint: Any, item: Any) -> str | None:
    """What is wrong with ``item``; None where nothing is, or where the annotation says nothing to be checked."""
    kind, arguments = get_origin(hint), get_args(hint)
    if kind in (Union, types.UnionType):
        found = [_fault(option, item) for option in arguments]
        return None if None in found else max(filter(None, found), key=len)
    if kind is Annotated:
        return _fault(arguments[0], item) or _bound_fault(arguments[1:], item)
    if kind is Literal:
        near = nearest(item, arguments) if isinstance(item, str) else ""
        return None if item in arguments else f"{near}; expected one of {listed(arguments)}"
    if kind is tuple and not isinstance(item, (list, tuple)):
        return "; expected a tuple"
    if kind is tuple and arguments[-1] is ...:
        return next((fault for part in item if (fault := _fault(arguments[0], part))), None)
    if kind is tuple and len(arguments) != len(item):
        return f"; expected {len(arguments)} values"
    if kind is tuple:
        return next((fault for one, part in zip(arguments, item, strict=True) if (fault := _fault(one, part))), None)
    if hint is types.NoneType and item is not None:
        return "; expected none"
    return _class_fault(hint, item) if isinstance(hint, type) else None


def _class_fault(hint: type, item: Any) -> str | None:
    """Whether ``item`` is what a plain class, or a protocol with methods, asks for."""
    if getattr(hint, "_is_protocol", False):
        methods = [name for name, value in vars(hint).items() if callable(value) and not name.startswith("_")]
        if isinstance(item, type):
            return f"; expected an instance: write {item.__name__}()"
        missing = [name for name in methods if not hasattr(item, name)]
        return f"; expected an object with the methods {listed(methods)}" if missing else None
    if hint is int and (isinstance(item, bool) or not isinstance(item, int)):
        return "; expected a whole number"
    if (hint is str or dataclasses.is_dataclass(hint)) and not isinstance(item, hint):
        return f"; expected a {hint.__name__}" if hint is not str else "; expected text"
    return None


def _bound_fault(bounds: tuple[Any, ...], item: Any) -> str | None:
    if item is None or not isinstance(item, (int, float)):
        return "; expected a number" if any(hasattr(bound, name) for bound in bounds for name in _BOUNDS) else None
    kept = {
        "ge": lambda limit: item >= limit,
        "gt": lambda limit: item > limit,
        "le": lambda limit: item <= limit,
        "lt": lambda limit: item < limit,
    }
    for bound in bounds:
        for name, words in _BOUNDS.items():
            limit = getattr(bound, name, None)
            if limit is not None and not kept[name](limit):
                return f"; expected {words} {limit:g}"
    return None
