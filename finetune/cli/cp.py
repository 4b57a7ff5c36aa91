"""``finetune cp``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from .options import Debug


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Copy a recipe file, to edit; finetune train ./FILE runs the copy.")(cp)


def cp(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name, such as bert_text.")],
    target: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to; its own name by default.")] = Path("."),
    debug: Debug = False,  # noqa: FBT002
) -> None:
    """Copies the file of a recipe."""
    from ..config.recipe_files import find_file

    source = find_file(recipe)
    path = target / source.name if target.is_dir() else target
    if path.exists():
        raise ConfigError(f"{path} exists already. Give another name: finetune cp {recipe} mine.py")
    try:
        shutil.copyfile(source, path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}. Give a place that can be written.") from error
    print(f"{path} is yours to edit; run it with: finetune train {path if path.parent != Path('.') else f'./{path}'}")
