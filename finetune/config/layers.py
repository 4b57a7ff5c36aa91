"""Laying values over a recipe: recipe < ``--config`` files < ``key=value``.

One rule: a mapping merges key by key, unless it names another component; then it replaces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..choices import listed
from ..errors import ConfigError
from ..run_config import RunConfig
from ..speed import PLAIN, Speed
from . import schema
from .faults import Fault
from .yaml_reader import read_value

COMMAND_LINE = "command line"
STAGES = "stages"  # the key of a list of overlays, one for each of several runs

# Words that stand for a mapping of their own.
_WHOLE: dict[type, dict[str, dict[str, Any]]] = {
    Speed: {"off": {name: word for name, word in vars(PLAIN).items() if word == "off"}, "auto": vars(Speed())}
}


class Layer(NamedTuple):
    """Values to lay over others, where each was written, and how, by dotted path."""

    tree: dict[str, Any]
    origins: dict[str, str]
    spelling: dict[str, str]
    faults: list[Fault]


def from_tree(tree: Mapping[str, Any], *, origin: str, lines: Mapping[str, int]) -> Layer:
    """The layer of a mapping; shorthands become mappings before anything is laid over them."""
    origins = {path: f"{origin} line {line}" for path, line in lines.items()} or dict.fromkeys(tree, origin)
    return Layer(_expanded(tree, RunConfig), origins, {}, [])


def from_overrides(overrides: Sequence[str]) -> Layer:
    """The layer of all ``key=value`` words together, so that their order does not matter."""
    layer = Layer({}, {}, {}, [])
    for word in overrides:
        _add_override(layer, word)
    return layer


def origins_of(layers: Sequence[Layer]) -> dict[str, str]:
    """Where values were written, of several layers; the last of a path comes last."""
    found: dict[str, str] = {}
    for layer in layers:
        is_replaced = isinstance(layer.tree.get(STAGES), list)
        found = {
            path: origin
            for path, origin in found.items()
            if path not in layer.origins and not (is_replaced and path.startswith(f"{STAGES}["))
        }
        found |= layer.origins
    return found


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``below`` with ``above`` laid over it."""
    merged = dict(below)
    for key, value in above.items():
        found = merged.get(key)
        if isinstance(value, Mapping) and isinstance(found, Mapping) and not _names_another(found, value):
            merged[key] = overlaid(found, value)
        elif isinstance(value, Mapping) and "name" not in value and type(found) not in _PLAIN:
            merged[key] = Unreachable(found, value)
        else:
            merged[key] = value
    return merged


class Unreachable(NamedTuple):
    """Values laid over an object of the user's own, which only its recipe can change."""

    found: Any
    value: Mapping[str, Any]


_PLAIN = (dict, list, tuple, str, int, float, bool, type(None))


def _names_another(below: Mapping[str, Any], above: Mapping[str, Any]) -> bool:
    if "name" in above:
        return bool(above["name"] != below.get("name"))
    # Data: files to train on are another data set than the named one that the recipe has.
    return "train" in above and below.get("name") is not None


def _add_override(layer: Layer, word: str) -> None:
    key, equals, text = word.partition("=")
    key = placed(key.strip())
    parts = re.sub(rf"^{STAGES}\[([0-9]+)\]", rf"{STAGES}.\1", key).split(".")
    if not equals or not all(parts):
        advice = "write e.g. optimizer.lr=3e-5, and quote values with spaces: length='3 epochs'"
        layer.origins[word] = COMMAND_LINE
        layer.faults.append(Fault(word, f"not key=value; {advice}"))
        return
    layer.origins[key] = COMMAND_LINE
    layer.spelling[key] = text.strip()
    try:
        addition = read_value(text)
    except ConfigError as error:
        layer.faults.append(Fault(key, str(error)))
        return
    inside = parts[2:] if parts[0] == STAGES else parts  # a stage holds what the top level holds
    for part in reversed(inside):
        addition = {part: addition}
    addition = _expanded(addition, RunConfig) if inside else addition
    for part in reversed(parts[: len(parts) - len(inside)]):
        addition = {part: addition}
    if twice := _join(layer.tree, addition, ""):
        layer.faults.append(Fault(placed(twice), f"given twice, the second time by {word!r}; keep one"))


def placed(path: str) -> str:
    """``stages[1].seed`` for ``stages.1.seed``."""
    return re.sub(rf"^{STAGES}\.([0-9]+)(?=\.|$)", rf"{STAGES}[\1]", path)


def _join(into: dict[str, Any], addition: Mapping[str, Any], path: str) -> str:
    """Puts the values of one word among those of the others; the path that is already there, or nothing."""
    for key, value in addition.items():
        here = f"{path}.{key}" if path else key
        if key not in into:
            into[key] = value
        elif isinstance(into[key], dict) and isinstance(value, Mapping):
            if twice := _join(into[key], value, here):
                return twice
        else:
            return here
    return ""


def _expanded(tree: Mapping[str, Any], *owners: type) -> dict[str, Any]:
    """The tree with words for components turned into mappings; ``none`` becomes null where null may stand."""
    found = {}
    for key, value in tree.items():
        holders = [owner for owner in owners if key in schema.hints(owner)]
        kinds = tuple(dict.fromkeys(kind for owner in holders for kind in schema.components(owner, key)))
        if kinds and value == "none" and all(schema.is_nullable(owner, key) for owner in holders):
            value = None
        elif kinds and isinstance(value, str) and value in _WHOLE.get(kinds[0], {}):
            value = dict(_WHOLE[kinds[0]][value])
        elif kinds and not isinstance(value, Mapping) and any(schema.takes_words(owner, key) for owner in holders):
            pass
        elif kinds and isinstance(value, (str, int, float)) and not isinstance(value, bool):
            value = {schema.SHORTHAND.get(kinds[0], "name"): value}
        elif kinds and isinstance(value, Mapping):
            value = _expanded(value, *kinds)
        found[key] = value
    return found


def unreachable_fault(value: Unreachable) -> str:
    """What to say about values that cannot be laid over a user's own object."""
    own = f"{type(value.found).__module__}.{type(value.found).__qualname__}"
    return (
        f"the recipe has an object of its own here ({own}), and {listed(value.value)} cannot be laid over it; "
        "change the recipe, or replace the whole by giving its name"
    )
