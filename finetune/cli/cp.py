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
    app.command(help="Copy a recipe file (or an accelerate configuration) here, to edit.")(cp)


def cp(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A recipe such as bert_text, or a launch such as ddp.yaml.")
    ],
    target: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to; its own name by default.")] = Path("."),
    debug: Debug = False,  # noqa: FBT002
) -> None:
    """Copies the file."""
    from ..config.recipe_files import find_file, shipped

    launch = shipped("accelerate_configs") / name
    source = launch if name.endswith(".yaml") and launch.is_file() else find_file(name)
    path = target / source.name if target.is_dir() else target
    if path.exists():
        raise ConfigError(f"{path} exists already. Give another name: finetune cp {name} mine.py")
    try:
        shutil.copyfile(source, path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}. Give a place that can be written.") from error
    verb = f"accelerate launch --config_file {path} RECIPE.py" if source == launch else f"finetune train ./{path}"
    print(f"{path} is yours to edit; run it with: {verb.replace('.//', '/')}")
