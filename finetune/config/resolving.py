"""Recipe, files and overrides to one checked configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..choices import listed
from ..errors import ConfigError
from ..redaction import secrets_in
from ..run_config import RunConfig
from ..stages.spec import Stage
from . import schema
from .faults import Fault, raise_all
from .layers import STAGES, Layer, from_overrides, from_tree, origins_of, overlaid
from .recipe_files import load_recipe
from .staging import build_stages, has_stages
from .validation import as_words, build, plain, shown
from .yaml_reader import Document, read_file


class Resolved(NamedTuple):
    """A checked configuration, and how it came about."""

    config: RunConfig
    overrides: dict[str, Any]  # all that was laid over the recipe
    recipe: str  # the recipe file; "" where there is none
    function: str
    stages: tuple[Stage, ...] = ()  # of several runs; ``config`` is then the first
    tree: Mapping[str, Any] = {}  # what makes them again


def resolve(recipe: RunConfig | None, files: Sequence[Path], overrides: Sequence[str]) -> RunConfig:
    """The recipe with the files and then the ``key=value`` words laid over it.

    Args:
        recipe: None starts from the defaults; then a file must give the task.
        files: YAML files, the last on top.
        overrides: ``optimizer.lr=3e-5``; all together are one layer.

    Raises:
        ConfigError: Everything that is wrong, at once; or the configuration is of several runs.
    """
    found = resolved(recipe, files, overrides)
    if found.stages:
        names = listed(stage.name for stage in found.stages)
        raise ConfigError(f"stages: one run is expected here, and this configuration is of several, {names}. Name one")
    return found.config


def resolved(
    recipe: RunConfig | None,
    files: Sequence[Path],
    overrides: Sequence[str],
    *,
    file: str = "",
    function: str = "",
    between: Sequence[Layer] = (),
) -> Resolved:
    """As :func:`resolve`, with what was laid over which recipe; ``file`` and ``function`` name the recipe.

    Layers ``between`` lie over the files and under the ``key=value`` words.
    """
    start, layers = recipe, []
    for path, document in zip(files, _read(files), strict=True):
        if "recipe" in document.tree:
            found = _stored_recipe(document, path)
            start, file, function = found.config, found.file, found.function
            inside = "overrides."
            lines = {at.removeprefix(inside): line for at, line in document.lines.items() if at.startswith(inside)}
            layers = [from_tree(found.overrides, origin=str(path), lines=lines)]
        else:
            layers.append(from_tree(document.tree, origin=str(path), lines=document.lines))
    layers += [*between, from_overrides(overrides)]
    return _built(start, layers, file=file, function=function)


def _read(files: Sequence[Path]) -> list[Document]:
    found, faults = [], []
    for path in files:
        try:
            found.append(read_file(path))
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
    return found


def _built(start: RunConfig | None, layers: Sequence[Layer], *, file: str, function: str) -> Resolved:
    tree = (
        plain(start) if start is not None else {key: plain(value) for key, value in schema.defaults(RunConfig).items()}
    )
    if has_stages(layers):
        return _staged(tree, layers, file=file, function=function)
    laid: dict[str, Any] = {}
    for layer in layers:
        tree = overlaid(tree, layer.tree)
        laid = overlaid(laid, layer.tree)
    _refuse_secrets([tree], layers)
    faults: list[Fault] = [fault for layer in layers for fault in layer.faults]
    config = build(RunConfig, tree, path="", faults=faults, spelling=layers[-1].spelling)
    raise_all(faults, origins_of(layers), default=file or "recipe")
    as_words(laid, config, layers[-1].spelling)
    return Resolved(config, laid, file, function)


def _staged(below: Mapping[str, Any], layers: Sequence[Layer], *, file: str, function: str) -> Resolved:
    _refuse_secrets([below, *(layer.tree for layer in layers)], layers)
    faults: list[Fault] = [fault for layer in layers for fault in layer.faults]
    found = build_stages(below, layers, faults)
    raise_all(faults, origins_of(layers), default=file or "recipe")
    laid: dict[str, Any] = {}
    for layer in layers:
        laid = overlaid(laid, layer.tree)
    first = found.stages[0].run
    assert isinstance(first, RunConfig)
    as_words(laid, first, layers[-1].spelling)
    return Resolved(first, {**laid, STAGES: found.tree[STAGES]}, file, function, found.stages, found.tree)


def _refuse_secrets(trees: Sequence[Mapping[str, Any]], layers: Sequence[Layer]) -> None:
    """What may not stand in a configuration, since that is written down; before any other message could show it."""
    advice = "take it out; tokens are read from the environment (HF_TOKEN) or `hf auth login`"
    paths = dict.fromkeys(path for tree in trees for path in secrets_in(tree))
    faults = [Fault(path, f"holds a password or an access token; {advice}") for path in paths]
    raise_all(faults, origins_of(layers), default="recipe")


class _Stored(NamedTuple):
    config: RunConfig
    file: str
    function: str
    overrides: dict[str, Any]


def _stored_recipe(document: Document, path: Path) -> _Stored:
    """A file that names a recipe and what to lay over it, as a run folder holds it."""
    tree = document.tree
    allowed = {"recipe": str, "function": str, "overrides": dict}
    faults = []
    for key, value in tree.items():
        at = f"{path} line {document.lines[key]}"
        if key not in allowed:
            faults.append(
                f"{at}: beside 'recipe' only 'function' and 'overrides' may stand, not {key!r}. "
                "Move it under overrides."
            )
        elif not isinstance(value, allowed[key]):
            faults.append(f"{at}: {key}: got {shown(value)}; expected a {_WORDS[allowed[key]]}")
    if faults:
        raise ConfigError("\n".join(faults))
    found = load_recipe(tree["recipe"], function=tree.get("function"))
    return _Stored(found.build(), str(found.file), found.name, tree.get("overrides", {}))


_WORDS = {str: "word", dict: "mapping"}
