"""What each run of a series will do, before any of them has run."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..checkpoints.log import ending
from ..errors import ConfigError, FinetuneError
from ..models.contained import saved_model
from ..models.saving import save_model
from ..randomness import preserved
from ..run_config import RunConfig
from ..training.placement import placed
from ..training.prepare import Prepared, prepare
from ..training.ways import as_libraries_made_it
from .interpolating import check_alike, on_first, trained_config
from .spec import Average, Stage, check_stages, ends_of, folder_of, start_of, started_from

PLANNING = ".planning-"  # how folders of models that nobody has trained begin


class StagePlan(NamedTuple):
    """The plan of one stage."""

    name: str
    folder: Path
    document: dict[str, Any]  # of a run: what ``plan_run`` gives; of an average: which stages, and the share


def plan_stages(stages: Sequence[Stage], *, output_dir: str | Path) -> list[StagePlan]:
    """The plan of every stage, without training and without writing anything into ``output_dir``.

    A stage that starts from one that has not run yet is planned on that stage's model as it will be saved, head and
    all, with the weights that it starts from; so all but the digest is what will run.

    Raises:
        FinetuneError: As planning one of them raised it, with the stage in its message.
    """
    return planned(stages, root=Path(output_dir), within=None)


def planned(stages: Sequence[Stage], *, root: Path, within: Path | None) -> list[StagePlan]:
    """As ``plan_stages``; models of stages that have not run are meanwhile kept in ``within``, or anywhere."""
    check_stages(stages)
    finished = {number for number in range(len(stages)) if is_finished(folder_of(stages, number, output_dir=root))}
    with _scratch(trained_config(stages, 0), within) as scratch:
        return list(_planned(stages, root, scratch, finished=finished))


@contextmanager
def _scratch(config: RunConfig, within: Path | None) -> Iterator[Path]:
    """A folder that rank 0 makes and all ranks read, gone when the last of them has read it."""
    made: str = on_first(config, lambda: tempfile.mkdtemp(prefix=PLANNING, dir=within))
    try:
        yield Path(made)
        with preserved(), placed(config.precision) as placement:
            placement.ranks.sum(torch.zeros(1))
    finally:
        shutil.rmtree(made, ignore_errors=True)


def is_finished(folder: Path) -> bool:
    """Whether a stage has run to its end."""
    log = folder / "log.jsonl"
    return (folder / "model").is_dir() and ending(log) == "finished"


def model_text(folder: Path) -> str:
    """A run's ``model/`` as a task names it."""
    return saved_model(folder / "model")


def _planned(stages: Sequence[Stage], root: Path, scratch: Path, *, finished: Collection[int]) -> Iterator[StagePlan]:
    models: list[Path] = []  # a folder of each stage with its model: its own, or one as it will be
    for number, stage in enumerate(stages):
        folder = folder_of(stages, number, output_dir=root)
        place = folder if number in finished else scratch / str(number)
        with _naming(number, stage.name):
            if isinstance(stage.run, Average):
                start, end = ends_of(stages, number)
                check_alike(models[start] / "model", models[end] / "model")
                names = {"start": stages[start].name, "end": stages[end].name}
                models.append(place if number in finished else models[end])
                yield StagePlan(stage.name, folder, {"average": names | {"alpha": stage.run.alpha}, "warnings": []})
                continue
            config = replace(stage.run, output_dir=str(folder))
            start_number = start_of(stages, number)
            if start_number is not None:
                config = started_from(config, _start(models[start_number], stages[start_number].name))
            document = _document(config, place if number not in finished else None)
        if start_number is not None and start_number not in finished:
            document = _with_final_names(document, models[start_number], stages, start_number, root)
        models.append(place)
        yield StagePlan(stage.name, folder, document)


def _start(folder: Path, name: str) -> str:
    if (folder / "model" / "adapter_config.json").is_file():
        raise ConfigError(
            f"task.model: the stage before, {name!r}, saves an adapter, and a run cannot start from one. "
            "Put the stage with adapters last, or set task.model."
        )
    return model_text(folder)


def _document(config: RunConfig, place: Path | None) -> dict[str, Any]:
    """The plan of one run; its model as it will be saved goes to ``place``."""
    with preserved(), placed(config.precision) as placement:
        prepared = prepare(config, placement)
        placement.check_phases(len(prepared.plan.phases))
        with as_libraries_made_it(prepared.forward):
            if place is not None:
                placement.ranks.on_first(lambda: _save(prepared, place / "model"))
        return prepared.document


def _save(prepared: Prepared, folder: Path) -> None:
    labels = getattr(prepared.config.task, "id2label", None)
    if labels is None:
        labels = getattr(getattr(prepared.loaded.module, "config", None), "id2label", None) or {0: "LABEL_0"}
    save_model(folder, prepared.loaded, prepared.forward.model, id2label=labels)


def _with_final_names(
    document: dict[str, Any], place: Path, stages: Sequence[Stage], start: int, root: Path
) -> dict[str, Any]:
    """The document with the folder that the start will have, and without a digest, which goes by its weights."""
    final = folder_of(stages, start, output_dir=root)
    text = json.dumps(document).replace(json.dumps(str(place))[1:-1], json.dumps(str(final))[1:-1])
    return json.loads(text) | {"digest": f"not known before {stages[start].name} has run"}


@contextmanager
def _naming(number: int, name: str) -> Iterator[None]:
    """Say which stage a fault is of."""
    try:
        yield
    except FinetuneError as error:
        raise type(error)(in_stage(str(error), number, name)) from error


def in_stage(message: str, number: int, name: str) -> str:
    """``stages[1].optimizer.lr: ...`` for a message that begins with a path of the configuration."""
    first = re.match(r"(\w+)[\w.\[\]]*: ", message)
    is_path = first is not None and first[1] in {field.name for field in fields(RunConfig)}
    return f"stages[{number}].{message}" if is_path else f"stages[{number}] ({name}): {message}"
