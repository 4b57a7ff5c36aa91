"""A teacher: the run's own task on a model that was fine-tuned before."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..models.contained import saved_model


def taught_task(task: Any, source: str) -> Any:
    """The task that everything else is wrapped around, on another model."""
    while hasattr(task, "base"):
        task = task.base
    names = {field.name for field in dataclasses.fields(task)} if dataclasses.is_dataclass(task) else set()
    if "model" not in names:
        raise ConfigError(f"{type(task).__name__} has no field 'model' that a teacher could take the place of")
    changes = {"model": source} | ({"weights": "pretrained"} if "weights" in names else {})
    return dataclasses.replace(task, **changes)


def source_of_teacher(text: str) -> str:
    """A run folder means its model; a folder that timm saved is read by timm."""
    folder = Path(text).expanduser()
    if not (folder / "config.json").is_file() and (folder / "model" / "config.json").is_file():
        folder = folder / "model"
    if not (folder / "config.json").is_file():
        return text
    return saved_model(folder)
