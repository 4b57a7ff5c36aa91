"""From ``GRID.yaml`` or the names of recipes to cells: what is compared with what."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..choices import listed, nearest
from ..config import Resolved, resolved
from ..config.layers import Layer, from_tree
from ..config.recipe_files import Recipe, find_file, load_recipe
from ..config.validation import shown
from ..config.yaml_reader import Document, read_file
from ..errors import ConfigError
from .cells import Cell

SEEDS = 5  # enough for a spread; to tell a difference from chance takes 6 and more
_KEYS = ("recipe", "config", "cells", "axes", "seeds", "metric", "split", "output_dir")
_OURS = {"seed": "give seeds: to the comparison", "output_dir": "each run is a folder in that of the comparison"}


class Grid(NamedTuple):
    """What a comparison is of."""

    cells: list[Cell]
    seeds: list[int]
    output_dir: str
    metric: str  # "": that of the first cell
    split: str  # "": test where there is one


class _Part(NamedTuple):
    """What one choice adds to a cell."""

    label: str
    layer: Layer
    recipe: Recipe | None = None  # another than that of the grid


def read_grid(words: Sequence[str], *, files: Sequence[Path], overrides: Sequence[str], seeds: str = "") -> Grid:
    """The cells that the words of a command line mean, each checked.

    Args:
        words: One grid file; or recipes as ``NAME`` or ``NAME:function``, and YAML files, a cell each.
        files: YAML laid over recipes, and under what the cells say.
        overrides: ``key=value`` laid over all cells.
        seeds: A number of seeds, or several with commas; ``""``: as the file says, or 5.

    Raises:
        ConfigError: Everything that is wrong with them.
    """
    documents = [_grid_file(word) for word in words]
    tree: Mapping[str, Any] = {}
    if any(documents):
        if len(words) > 1:
            raise ConfigError(f"{listed(words)}: a grid stands alone; put the other cells into it")
        document = documents[0]
        assert document is not None
        cells = _of_grid(document, Path(words[0]), files, overrides)
        tree, stem = document.tree, Path(words[0]).stem
    else:
        cells, stem = _of_words(words, files, overrides), Path(words[0].partition(":")[0]).stem
    return Grid(
        cells,
        _seeds(_given(seeds) if seeds else tree.get("seeds", SEEDS), first=cells[0].config.seed),
        _output_dir(cells, overrides) or tree.get("output_dir") or f"runs/compare-{stem}",
        tree.get("metric", ""),
        tree.get("split", ""),
    )


def _grid_file(word: str) -> Document | None:
    if not word.endswith((".yaml", ".yml")):
        return None
    document = read_file(find_file(word))
    return document if document.tree.keys() & {"axes", "cells"} else None


def _of_words(words: Sequence[str], files: Sequence[Path], overrides: Sequence[str]) -> list[Cell]:
    choices = list[tuple[str, list[_Part], Recipe | None]]()
    for word in words:
        if word.endswith((".yaml", ".yml")):
            found = read_file(find_file(word))
            layer = from_tree(found.tree, origin=word, lines=found.lines)
            choices.append((Path(word).stem, [_Part("", layer)], None))
        else:
            recipe = _recipe(word)
            several = len({each.partition(":")[0] for each in words}) > 1
            name = f"{recipe.file.stem}-{recipe.name}" if several else recipe.name
            choices.append((name, [], recipe))
    return _resolved(choices, files, overrides)


def _recipe(word: str) -> Recipe:
    name, colon, function = word.rpartition(":")
    return load_recipe(name, function=function) if colon else load_recipe(word, function=None)


def _recipe_of(word: str, document: Document, path: Path, at: str) -> Recipe:
    if word.endswith((".yaml", ".yml")):
        remedy = f"Leave it out, and give the file beside the grid: --config {word}."
        raise ConfigError(
            f"{path} line {document.lines[at]}: {at}: got {shown(word)}; expected a recipe's name, bert_text or "
            f"bert_text:lora. {remedy if at == 'recipe' else 'Write what the file says into the cell.'}"
        )
    return _recipe(word)


def _of_grid(document: Document, path: Path, files: Sequence[Path], overrides: Sequence[str]) -> list[Cell]:
    tree = document.tree
    faults = [_no_key(path, document, key) for key in tree if key not in _KEYS]
    for key, kind, what in (
        ("recipe", str, "a recipe's name, bert_text or bert_text:lora"),
        ("config", dict, "a mapping of values for all cells"),
        ("cells", dict, "a mapping of a name to what it lays over the others, {} for nothing"),
        ("axes", dict, "a mapping of a path of the configuration to its values"),
        ("metric", str, "a metric's name"),
        ("split", str, "validation or test"),
        ("output_dir", str, "a folder"),
    ):
        if key in tree and not isinstance(tree[key], kind):
            faults.append(f"{path} line {document.lines[key]}: {key}: got {shown(tree[key])}; expected {what}")
    if faults:
        raise ConfigError("\n".join(faults))
    recipe = _recipe_of(tree["recipe"], document, path, "recipe") if "recipe" in tree else None
    whole = _layer(tree.get("config", {}), document, path, "config")
    axes = [_cell_parts(document, path)] if tree.get("cells") else []
    axes += [_axis_parts(key, document, path) for key in tree.get("axes", {})]
    choices = []
    for parts in itertools.product(*axes):
        name = "-".join(part.label for part in parts)
        own = next((part.recipe for part in parts if part.recipe is not None), recipe)
        choices.append((name, [_Part("", whole), *parts], own))
    return _resolved(choices, files, overrides)


def _no_key(path: Path, document: Document, key: str) -> str:
    return (
        f"{path} line {document.lines[key]}: a grid has no {key!r}{nearest(key, _KEYS)}; there are {listed(_KEYS)}. "
        "Values for all cells stand under config."
    )


def _cell_parts(document: Document, path: Path) -> list[_Part]:
    parts = []
    for name, overlay in document.tree["cells"].items():
        if not isinstance(overlay, Mapping):
            raise ConfigError(
                f"{path} line {document.lines[f'cells.{name}']}: cells.{name}: got {shown(overlay)}; expected a "
                "mapping of values, or {} for none"
            )
        rest = {key: value for key, value in overlay.items() if key != "recipe"}
        place = f"cells.{name}.recipe"
        recipe = _recipe_of(str(overlay["recipe"]), document, path, place) if "recipe" in overlay else None
        parts.append(_Part(name, _layer(rest, document, path, f"cells.{name}"), recipe))
    return parts


def _axis_parts(key: str, document: Document, path: Path) -> list[_Part]:
    """The values of one path, each with the name it gives to a cell."""
    found, at = document.tree["axes"][key], f"axes.{key}"
    where = f"{path} line {document.lines[at]}: {at}"
    if key.partition(".")[0] in _OURS:
        raise ConfigError(f"{where}: {_OURS[key.partition('.')[0]]}")
    if isinstance(found, Mapping):
        named = {name: (value, f"{at}.{name}") for name, value in found.items()}
    elif isinstance(found, list) and found:
        names = _labels(found, key)
        if len(set(names)) < len(names):
            raise ConfigError(f"{where}: two values are called {names[0]!r}; write name: value, each with a name")
        named = {
            name: (value, f"{at}[{number}]") for number, (name, value) in enumerate(zip(names, found, strict=True))
        }
    else:
        raise ConfigError(f"{where}: got {shown(found)}; expected a list of values, or a mapping of names to values")
    parts = []
    for name, (value, place) in named.items():
        lines = _below(document.lines, place, key)
        tree: Any = value
        words = key.split(".")
        for depth in range(len(words), 0, -1):
            lines.setdefault(".".join(words[:depth]), document.lines[at])
            tree = {words[depth - 1]: tree}
        parts.append(_Part(name, from_tree(tree, origin=str(path), lines=lines)))
    return parts


def _labels(values: Sequence[Any], key: str) -> list[str]:
    """A word for each value: its own, or its ``name`` with what sets it apart from others of that name."""
    mappings = [value if isinstance(value, Mapping) else {} for value in values]
    found = []
    for value, mapping in zip(values, mappings, strict=True):
        if not isinstance(value, Mapping):
            word = "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
            found.append(word if isinstance(value, str | None) else f"{key.rpartition('.')[2]}{word}")
            continue
        name = str(mapping.get("name", key.rpartition(".")[2]))
        alike = [other for other in mappings if other and other.get("name") == mapping.get("name")]
        apart = [field for field in mapping if any(other.get(field) != mapping[field] for other in alike)]
        words = [f"{field}{mapping[field]}" for field in apart if not isinstance(mapping[field], (Mapping, list))]
        found.append("-".join([name, *words]))
    return [_safe(word) for word in found]


def _safe(word: str) -> str:
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_" for letter in word)


def _layer(tree: Mapping[str, Any], document: Document, path: Path, at: str) -> Layer:
    return from_tree(tree, origin=str(path), lines=_below(document.lines, at, ""))


def _below(lines: Mapping[str, int], at: str, prefix: str) -> dict[str, int]:
    """The lines of what stands below a path, by their paths from there on."""
    found = {path.removeprefix(f"{at}."): line for path, line in lines.items() if path.startswith(f"{at}.")}
    return {f"{prefix}.{path}" if prefix else path: line for path, line in found.items()}


def _resolved(
    choices: Sequence[tuple[str, Sequence[_Part], Recipe | None]], files: Sequence[Path], overrides: Sequence[str]
) -> list[Cell]:
    """Every cell, or one error with what is wrong with any; what is wrong with several alike is said once."""
    cells, faults = [], dict[str, list[str]]()
    for name, parts, recipe in choices:
        try:
            found = _cell(parts, recipe, files, overrides)
            cells.append(Cell(name, found.config, found))
        except ConfigError as error:
            faults.setdefault(str(error), []).append(name)
    if faults:
        raise ConfigError("\n".join(_told(faults, len(choices))))
    if not cells:
        raise ConfigError("there are no cells; give cells:, or axes: with values")
    return cells


def _cell(parts: Sequence[_Part], recipe: Recipe | None, files: Sequence[Path], overrides: Sequence[str]) -> Resolved:
    start = recipe.build() if recipe is not None else None
    names = {"file": str(recipe.file), "function": recipe.name} if recipe is not None else {}
    found = resolved(start, files, overrides, between=[part.layer for part in parts], **names)
    if found.stages:
        raise ConfigError("stages: a comparison is of single runs, and this is a configuration of several")
    return found


def _told(faults: Mapping[str, Sequence[str]], count: int) -> Iterator[str]:
    for message, names in faults.items():
        yield message if len(names) == count else f"cell {listed(names, most=3)}: {message}"


def _given(seeds: str) -> Any:
    words = seeds.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise ConfigError(f"--seeds {seeds}: expected a number of seeds, or several seeds with commas: 1,2,3")
    return int(seeds) if len(words) == 1 else [int(word) for word in words]


def _seeds(given: Any, *, first: int) -> list[int]:
    """The seeds; a number of them begins with that of the first cell, so that its run is the one it would be alone."""
    if isinstance(given, int) and not isinstance(given, bool) and given > 0:
        return [first + number for number in range(given)]
    if isinstance(given, list) and given:
        return given
    raise ConfigError(f"seeds: got {shown(given)}; expected a number of seeds, at least 1, or a list of them")


def _output_dir(cells: Sequence[Cell], overrides: Sequence[str]) -> str:
    is_given = any(word.partition("=")[0].strip() == "output_dir" for word in overrides)
    return (cells[0].config.output_dir or "") if is_given else ""
