"""From a mapping to frozen objects, with every fault named at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ..choices import listed, nearest
from ..errors import FinetuneError
from ..run_config import RunConfig
from . import schema
from .faults import Fault
from .layers import STAGES, Unreachable, unreachable_fault
from .trainer_names import advice

# Strict: true is no 1, 2.0 is no 2, '3' is no 3; an int where a number is meant is one.
_STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


def build(owner: type, tree: Mapping[str, Any], *, path: str, faults: list[Fault], spelling: Mapping[str, str]) -> Any:
    """An ``owner`` from its mapping; None where anything in it was wrong, which ``faults`` then say.

    Args:
        owner: A closed dataclass.
        tree: Its fields; objects that were built in Python stay as they are.
        path: Where the mapping stands, dotted.
        faults: Receives all faults.
        spelling: How values of the command line were written, for ``output_dir=2024``.
    """
    before = len(faults)
    for key in tree:
        if key not in schema.hints(owner):
            faults.append(Fault(_join(path, key), _unknown(owner, key, tree[key], at=path)))
    for key in schema.required(owner):
        if key not in tree:
            faults.append(Fault(_join(path, key), f"missing; give {_expected_at(owner, key)}"))
    values = {
        key: _value(owner, key, value, path=_join(path, key), faults=faults, spelling=spelling)
        for key, value in tree.items()
        if key in schema.hints(owner)
    }
    if len(faults) > before:
        return None
    try:
        return owner(**values)
    except (ValueError, FinetuneError) as error:
        field, colon, what = str(error).partition(": ")
        is_of_field = bool(colon) and field.partition(".")[0] in schema.hints(owner)
        faults.append(Fault(_join(path, field), what) if is_of_field else Fault(path, str(error)))
        return None


def plain(value: Any) -> Any:
    """The mapping that ``build`` turns into ``value``; a user's own objects stay objects."""
    if type(value) in schema.CLOSED:
        owner: type = type(value)
        return {name: plain(getattr(value, name)) for name in schema.hints(owner)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return value


def as_words(tree: dict[str, Any], built: Any, spelling: Mapping[str, str]) -> None:
    """Puts into ``tree`` the words that ``built`` has of the command line, where they look like something else."""
    for path, text in spelling.items():
        *parents, last = path.split(".")
        inside: Any = tree
        value = built
        for parent in parents:
            inside = inside.get(parent) if isinstance(inside, dict) else None
            value = getattr(value, parent, None)
        if isinstance(inside, dict) and last in inside and getattr(value, last, None) == text:
            inside[last] = text


def _value(owner: type, key: str, value: Any, *, path: str, faults: list[Fault], spelling: Mapping[str, str]) -> Any:
    if isinstance(value, Unreachable):
        faults.append(Fault(path, unreachable_fault(value)))
        return None
    if kinds := schema.components(owner, key):
        if value is None and schema.is_nullable(owner, key):
            return None
        if isinstance(value, Mapping):
            return _component(kinds, value, path=path, faults=faults, spelling=spelling)
        if isinstance(value, str) and schema.takes_words(owner, key):
            return value
        if value is None or isinstance(value, (str, int, float, list, tuple)):
            faults.append(Fault(path, f"got {shown(value)}; expected {_expected_at(owner, key)}"))
            return None
        return value
    before, hint = len(faults), schema.hints(owner)[key]
    if isinstance(value, list):
        value = tuple(
            _item(owner, key, item, path=f"{path}[{number}]", faults=faults, spelling=spelling)
            for number, item in enumerate(value)
        )
    return None if len(faults) > before else _leaf(hint, value, path=path, faults=faults, spelling=spelling)


def _item(owner: type, key: str, value: Any, *, path: str, faults: list[Fault], spelling: Mapping[str, str]) -> Any:
    kinds = schema.items(owner, key)
    if kinds and isinstance(value, Mapping):
        return _component(kinds, value, path=path, faults=faults, spelling=spelling)
    return tuple(value) if isinstance(value, list) else value


def _component(
    kinds: tuple[type, ...], tree: Mapping[str, Any], *, path: str, faults: list[Fault], spelling: Mapping[str, str]
) -> Any:
    kind = schema.chosen(kinds, tree.get("name"))
    if kind is not None:
        return build(kind, tree, path=path, faults=faults, spelling=spelling)
    names = [str(schema.name_of(kind)) for kind in kinds]
    if "name" in tree:
        what = f"got {shown(tree['name'])}{nearest(str(tree['name']), names)}; expected one of {listed(names)}"
    else:
        what = f"missing; give one of {listed(names)}"
    faults.append(Fault(_join(path, "name"), what))
    return None


def _leaf(hint: Any, value: Any, *, path: str, faults: list[Fault], spelling: Mapping[str, str]) -> Any:
    try:
        return _adapter(hint).validate_python(value)
    except ValidationError as error:
        said = [item["msg"].removeprefix("Value error, ") for item in error.errors() if item["type"] == "value_error"]
    if path in spelling and not isinstance(value, (str, Mapping, list, tuple)):
        # On the command line nothing is quoted: output_dir=2024 is a word.
        with suppress(ValidationError):
            return _adapter(hint).validate_python(spelling[path])
    words = [str(word) for word in get_args(hint)] if get_origin(hint) is Literal else []
    faults.append(
        Fault(
            path,
            said[0] if said else f"got {shown(value)}{nearest(str(value), words)}; expected {schema.expected(hint)}",
        )
    )
    return None


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    if dataclasses.is_dataclass(hint):
        return TypeAdapter(hint)
    return TypeAdapter(hint, config=_STRICT)


def shown(value: Any) -> str:
    """A value as a user would write it, cut to one short line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        value = list(value)
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _expected_at(owner: type, key: str) -> str:
    kinds = schema.components(owner, key)
    names = [name for kind in kinds if (name := schema.name_of(kind))]
    orelse = ", or none" if kinds and schema.is_nullable(owner, key) else ""
    if names and schema.takes_words(owner, key):
        return f"a word, or a mapping whose name is one of {listed(names)}{orelse}"
    if names:
        return f"one of {listed(names)}, or a mapping with that name{orelse}"
    if kinds:
        return f"a mapping of {listed(schema.hints(kinds[0]))}{orelse}"
    return schema.expected(schema.hints(owner)[key])


def _unknown(owner: type, key: str, value: Any, *, at: str) -> str:
    """What to say about a key that does not exist here: Trainer's name for it, the nearest, or where it belongs."""
    known = [*schema.hints(owner), *([STAGES] if owner is RunConfig else [])]
    holder = schema.name_of(owner) or (at.rpartition(".")[2] if at else "the configuration")
    told = advice(key, value)
    near = "" if told else nearest(key, known)
    told = told or ("" if near else _elsewhere(key))
    return f"{holder} has no {key!r}{near}; {told or f'there are {listed(known, most=30)}'}"


def _elsewhere(key: str) -> str:
    """Where a key belongs that was written at the wrong place."""
    places = [f"{key} at the top level"] if key in schema.hints(RunConfig) else []
    for field in schema.hints(RunConfig):
        kinds = schema.components(RunConfig, field)
        holders = [kind for kind in kinds if key in schema.hints(kind) and key != "name"]
        if holders:
            names = " or ".join(str(schema.name_of(kind)) for kind in holders)
            places.append(f"{field}.{key}" + (f" with {field}.name: {names}" if len(holders) < len(kinds) else ""))
    return f"write {', or '.join(places[:3])}" if places else ""


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
