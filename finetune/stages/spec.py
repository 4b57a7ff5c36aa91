"""What a series of runs is made of, and whether its parts fit, told without loading anything."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from ..choices import listed, nearest
from ..errors import ConfigError
from ..fields import check_fields
from ..run_config import RunConfig

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,60}")


@dataclass(frozen=True, kw_only=True)
class Average:
    """Weights between those of two stages: (1 - alpha) start + alpha end (WiSE-FT: Wortsman et al. 2022).

    arXiv 2109.01903, section 3: with an alpha of one half close to the best, in and out of distribution.

    Args:
        start: Name of a stage; None: the one that ``end`` started from.
        end: Name of a stage; None: the one before this.
        alpha: Share of the end.
    """

    start: str | None = None
    end: str | None = None
    alpha: Annotated[float, Ge(0), Le(1)] = 0.5

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Stage:
    """One run of a series.

    Args:
        name: A word; its folder is ``<output_dir>/<number>-<name>``.
        run: What it does; its ``output_dir`` does not count.
        starts_from: ``"previous"``: the model of the stage before, in place of the task's own (the first stage has
            no stage before it).
    """

    name: str
    run: RunConfig | Average
    starts_from: Literal["previous", "own"] = "previous"


def folder_of(stages: Sequence[Stage], number: int, *, output_dir: Path) -> Path:
    """The run folder of a stage; numbers are from 0, folders from 1."""
    return output_dir / f"{number + 1}-{stages[number].name}"


def start_of(stages: Sequence[Stage], number: int) -> int | None:
    """The stage that a run starts from; None for its task's own model."""
    return number - 1 if number and stages[number].starts_from == "previous" else None


def ends_of(stages: Sequence[Stage], number: int) -> tuple[int, int]:
    """The two stages that an average lies between.

    Raises:
        ValueError: One of them is not there, or comes later; the message begins with the field.
    """
    average = stages[number].run
    assert isinstance(average, Average)
    end = _named(stages, number, average.end, field="end") if average.end is not None else number - 1
    if average.start is not None:
        start = _named(stages, number, average.start, field="start")
    else:
        found = None if isinstance(stages[end].run, Average) else start_of(stages, end)
        if found is None:
            raise ValueError(
                f"start: {stages[end].name!r} starts from no stage of this series; name the stage that the "
                "average starts from"
            )
        start = found
    if start == end:
        raise ValueError(f"start: {stages[end].name!r} is the end too; name two stages")
    return start, end


def _named(stages: Sequence[Stage], number: int, name: str, *, field: str) -> int:
    before = [stage.name for stage in stages[:number]]
    if name not in before:
        raise ValueError(
            f"{field}: no stage {name!r} before this one{nearest(name, before)}; there are {listed(before)}"
        )
    return before.index(name)


def check_stages(stages: Sequence[Stage]) -> None:
    """Refuse a series whose parts do not fit.

    Raises:
        ConfigError: Everything that is wrong, by its path.
    """
    faults = faults_of(stages)
    if faults:
        raise ConfigError("\n".join(f"{path}: {what}" for path, what in faults))


def faults_of(stages: Sequence[Stage]) -> list[tuple[str, str]]:
    """Path and fault of all that is wrong with a series; nothing is said of a run that is None, as one with faults."""
    if not stages:
        return [("stages", "there are none; give at least one")]
    faults = []
    seen: dict[str, int] = {}
    for number, stage in enumerate(stages):
        path = f"stages[{number}]"
        if not _NAME.fullmatch(stage.name):
            faults.append((f"{path}.name", f"got {stage.name!r}; expected a word that can name a folder"))
        first = seen.setdefault(stage.name, number)
        if first != number:
            faults.append((f"{path}.name", f"{stage.name!r} is the name of stages[{first}] already; give another"))
        if fault := _fault(stages, number):
            faults.append((f"{path}{fault[0]}", fault[1]))
    return faults


def _fault(stages: Sequence[Stage], number: int) -> tuple[str, str] | None:
    stage = stages[number]
    if isinstance(stage.run, Average):
        if not number:
            return ".average", "the first stage has nothing to average; put it behind the stages that train"
        try:
            ends_of(stages, number)
        except ValueError as error:
            field, _, what = str(error).partition(": ")
            return f".average.{field}", what
        return None
    if stage.run is None:  # type: ignore[unreachable]
        return None
    if start_of(stages, number) is not None and "model" not in _fields(innermost(stage.run.task)):
        kind = type(innermost(stage.run.task)).__name__
        return ".task", f"a {kind} has no field model, in which it could be given the model of the stage before"
    return None


def innermost(task: Any) -> Any:
    """The task inside all wrappers."""
    while hasattr(task, "base"):
        task = task.base
    return task


def _fields(task: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(task)} if dataclasses.is_dataclass(task) else set()


def started_from(config: RunConfig, model: str) -> RunConfig:
    """The run on another model; a task that was to start from random weights takes those of the model."""
    from ..tasks.wrapping import replaced

    changes = {"model": model} | ({"weights": "pretrained"} if "weights" in _fields(innermost(config.task)) else {})
    return dataclasses.replace(config, task=replaced(config.task, **changes))
