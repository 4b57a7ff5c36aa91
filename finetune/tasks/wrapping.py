"""Tasks that wrap a task: what all of them share."""

from __future__ import annotations

import dataclasses
from typing import Any


def of_base(task: Any, name: str) -> Any:
    """What a wrapper does not have itself (its model's name, metrics, classes), as the task inside has it."""
    if name.startswith("_") or name == "base":  # asked for before there is a base: while it is copied
        raise AttributeError(name)
    return getattr(task.base, name)


def replaced(task: Any, **changes: Any) -> Any:
    """The task with other values in its fields; of a wrapper, in those of the task inside."""
    if hasattr(task, "base"):
        return dataclasses.replace(task, base=replaced(task.base, **changes))
    return dataclasses.replace(task, **changes)
