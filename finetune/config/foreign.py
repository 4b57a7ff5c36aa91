"""The configuration in a run folder, which somebody else may have made: code that it names runs only where allowed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError
from ..metrics.scores import METRICS
from ..run_config import RunConfig
from .recipe_files import shipped
from .resolving import resolve
from .yaml_reader import read_file

Code = Literal["refuse", "run"]


def resolve_run(folder: Path, *, code: Code) -> RunConfig:
    """The configuration of a run.

    Args:
        folder: The run's, with its ``config.yaml``.
        code: What to do with Python files that it names, other than recipes of this package.

    Raises:
        ConfigError: It names such files, and they may not run; or anything that is wrong in it.
    """
    file = folder / "config.yaml"
    named = list(_code(read_file(file).tree)) if code == "refuse" else []
    if named:
        raise ConfigError(
            f"{file} names code, which would run here: {', '.join(dict.fromkeys(named))}. Read it first; "
            "if you trust it, add --trust-code (in Python: code='run')."
        )
    return resolve(None, [file], [])


def _code(tree: Mapping[str, Any]) -> Iterator[str]:
    """What of a configuration runs when it is built: its recipe, and metrics that are scripts, at any depth."""
    recipe = tree.get("recipe")
    if isinstance(recipe, str) and _is_path(recipe) and Path(recipe).resolve().parent != shipped("recipes").resolve():
        yield f"the recipe {recipe}"
    yield from _scripts(tree)


def _is_path(name: str) -> bool:
    return "/" in name or name.endswith(".py")  # else it is the name of a recipe of this package


def _scripts(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        if key == "metrics":
            yield from _scripts(value.get("source"), key)
        for name, inner in value.items():
            yield from _scripts(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _scripts(inner, key)
    elif key == "metrics" and isinstance(value, str) and value not in METRICS and os.path.exists(value):
        yield f"the metric {value}"
