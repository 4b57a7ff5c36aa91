"""Tasks that wrap a task: what all of them share."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, FinetuneError

if TYPE_CHECKING:
    from torch import Tensor

    from ..cached_arrays import ArrayCache
    from ..data.store import Batch, Store
    from ..models.loaded import LoadedModel
    from ..progress import Progress
    from .base import Output, Predictions, Seen

BY_LOSS = ("super_loss", "self_paced", "selective_backprop")  # wrappers that weigh examples: one at a time


def of_base(task: Any, name: str) -> Any:
    """What a wrapper does not have itself (its model's name, metrics, classes), as the task inside has it."""
    if name.startswith("_") or name == "base":  # asked for before there is a base: while it is copied
        raise AttributeError(name)
    return getattr(task.base, name)


# What most wrappers leave as it is. Each has these among its own methods: a protocol asks what the class itself has.


def load_base_model(task: Any) -> LoadedModel:
    """As ``base`` has it."""
    found: LoadedModel = task.base.load_model()
    return found


def base_splits(task: Any) -> tuple[str, ...]:
    """The splits there are."""
    found: tuple[str, ...] = task.base.splits()
    return found


def load_base_split(task: Any, name: str) -> Store:
    """As ``base`` has it."""
    found: Store = task.base.load_split(name)
    return found


def base_score(task: Any, predictions: Predictions) -> dict[str, float]:
    """As ``base`` has it."""
    found: dict[str, float] = task.base.score(predictions)
    return found


def keep_base_tokens(task: Any, cache: ArrayCache | None) -> None:
    """Where the splits that are loaded from now on are kept tokenised, if ``base`` can; None: nowhere."""
    keep = getattr(task.base, "keep_tokens_in", None)
    if keep is not None:
        keep(cache)


def base_records(task: Any, remembered: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """What the task inside a wrapper leaves in the run folder."""
    records = getattr(task.base, "records", None)
    return records(remembered) if records is not None else {}


def base_without_effect(task: Any, progress: Progress) -> list[str]:
    """As ``base`` has it."""
    return without_effect(task.base, progress)


def replaced(task: Any, **changes: Any) -> Any:
    """The task with other values in its fields; of a wrapper, in those of the task inside."""
    if hasattr(task, "base"):
        return dataclasses.replace(task, base=replaced(task.base, **changes))
    return dataclasses.replace(task, **changes)


@contextmanager
def told_inside(task: Any) -> Iterator[None]:
    """Faults of a task inside a wrapper by their own path: its ``task.max_length`` is ``task.base.max_length``."""
    try:
        yield
    except FinetuneError as error:
        error.args = (_by_own_path(task, str(error)),)
        raise


def _by_own_path(task: Any, text: str) -> str:
    places: dict[str, str] = {}
    place = "task."
    while dataclasses.is_dataclass(task):
        for field in dataclasses.fields(task):
            places.setdefault(field.name, place)
        task, place = getattr(task, "base", None), f"{place}base."
    return re.sub(r"\btask\.(\w+)", lambda found: places.get(found[1], "task.") + found[1], text)


def updated_by_base(task: Any, remembered: Mapping[str, Tensor], seen: Seen, progress: Progress) -> dict[str, Tensor]:
    """What the task inside a wrapper remembers after an update, where it remembers anything."""
    update = getattr(task.base, "updated", None)
    return update(remembered, seen, progress) if update is not None else {}


def without_effect(task: Any, progress: Progress) -> list[str]:
    """What of a task is set and changes nothing in a run; ``progress`` is the clock at its start."""
    found = getattr(task, "without_effect", None)
    return list(found(progress)) if found is not None else []


def refuse_inside(task: Any, names: Collection[str]) -> None:
    """A wrapper around others that it cannot go with, at any depth.

    Raises:
        ValueError: One of these ``names`` is inside.
    """
    inside = task.base
    while inside is not None:
        if getattr(inside, "name", "") in names:
            raise ValueError(f"base: {task.name} cannot be around {inside.name}; take one of them away")
        inside = getattr(inside, "__dict__", {}).get("base")


def losses_of_examples(task: Any, output: Output, batch: Batch) -> Tensor:
    """The losses, (batch,), of a task that gives one for each example.

    Raises:
        ConfigError: It gives another number of them.
    """
    assert output.losses is not None and output.weights is not None, "training needs labels"
    if len(output.losses) != len(batch["index"]):
        inside = getattr(task.base, "name", type(task.base).__name__)
        raise ConfigError(
            f"task: {task.name} goes by the loss of each example, and {inside} has losses of parts of examples. "
            "Leave the wrapper out."
        )
    return output.losses
