"""A series of runs, one after the other, each in its own folder; what is done is not done again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from ..checkpoints.atomic import write_file_atomically
from ..checkpoints.files import free_path
from ..checkpoints.lock import LOCK, Lock, check_unused, take_lock
from ..choices import listed
from ..config import dump
from ..config.yaml_reader import read_text
from ..errors import ConfigError, FinetuneError, RunFolderError
from ..plan_document import differences
from ..run_config import RunConfig, as_plain
from ..tracking import Lines, Show
from ..training.ranks import Ranks
from .interpolating import average, on_first, trained_config
from .planning import PLANNING, in_stage, is_finished, model_text, planned
from .spec import Average, Stage, check_stages, folder_of, start_of, started_from

Existing = Literal["refuse", "resume", "overwrite"]
_LIST = "stages.json"
# A stage that has run is not run again for these: they change no result, or only where it is written.
_FREE = ("output_dir", "workers", "log_every", "speed", "micro_batch", "checkpoint")


class StageResult(NamedTuple):
    """What a stage gave."""

    name: str
    folder: Path
    metrics: dict[str, dict[str, float]]  # of its ``model/``, by split


def run_stages(
    stages: Sequence[Stage],
    *,
    output_dir: str | Path,
    existing: Existing = "refuse",
    show: Show = "progress",
    config_text: str | None = None,
) -> list[StageResult]:
    """Run a series: each stage is an ordinary run in ``<output_dir>/<number>-<name>``.

    A stage starts from the best model of the one before (the last, with ``checkpoint.keep_best: 0``). Before anything
    trains every stage is planned, so that what is wrong with the last one is known at once.

    Args:
        stages: In their order.
        output_dir: Of the series.
        existing: What to do with a folder that is not empty: refuse it, go on with its series (stages that are done
            are not run again, the one that was cut goes on where it was), or move it aside.
        show: ``"progress"`` on stderr, or ``"nothing"``.
        config_text: What ``config.yaml`` of the series holds, from whoever read one.

    Raises:
        FinetuneError: As a run raised it, with the stage in its message.
    """
    check_stages(stages)
    locks: list[Lock] = []
    try:
        _begin(stages, root=Path(output_dir), existing=existing, config_text=config_text, locks=locks)
        return _run_all(stages, root=Path(output_dir), resumes=existing == "resume", show=show)
    finally:
        for lock in locks:
            lock.release()


def _begin(
    stages: Sequence[Stage], *, root: Path, existing: Existing, config_text: str | None, locks: list[Lock]
) -> None:
    """Take the folder, plan all stages in it, and write what the series is."""
    first = trained_config(stages, 0)
    names = [folder_of(stages, number, output_dir=root).name for number in range(len(stages))]
    taken: _Taken = on_first(first, lambda: _take(root, names, existing=existing, locks=locks))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each run says them again
            planned(stages, root=root, within=root)  # where all nodes can read
    except BaseException:
        if Ranks(torch.device("cpu")).is_first:
            _give_back(root, taken)
        raise
    on_first(first, lambda: _write(root, names, config_text))


def _run_all(stages: Sequence[Stage], *, root: Path, resumes: bool, show: Show) -> list[StageResult]:
    results = []
    for number, stage in enumerate(stages):
        if show == "progress" and Ranks(torch.device("cpu")).is_first:
            Lines(0, start=0).line(f"stage {number + 1} of {len(stages)}: {stage.name}")
        try:
            metrics = _run(stages, number, root=root, resumes=resumes, show=show)
        except FinetuneError as error:
            raise type(error)(in_stage(str(error), number, stage.name)) from error
        results.append(StageResult(stage.name, folder_of(stages, number, output_dir=root), metrics))
    return results


def _run(
    stages: Sequence[Stage], number: int, *, root: Path, resumes: bool, show: Show
) -> dict[str, dict[str, float]]:
    from ..training import fit

    folder, run = folder_of(stages, number, output_dir=root), stages[number].run
    config = trained_config(stages, number)
    if isinstance(run, RunConfig):
        start = start_of(stages, number)
        config = replace(run, output_dir=str(folder))
        if start is not None:
            config = started_from(config, on_first(run, lambda: model_text(folder_of(stages, start, output_dir=root))))
    if on_first(config, lambda: is_finished(folder)):
        on_first(config, lambda: _check_same(folder, config if isinstance(run, RunConfig) else None))
        metrics: dict[str, Any] = on_first(config, lambda: json.loads((folder / "metrics.json").read_text("utf-8")))
        return metrics["final"]
    if isinstance(run, Average):
        return average(stages, number, root=root, resumes=resumes)
    result = fit(**vars(config), existing="resume" if resumes else "refuse", show=show, config_text=_text(config))
    return result.metrics


def _text(config: RunConfig) -> str | None:
    try:
        return dump(config)
    except ConfigError:  # it holds a user's own object
        return None


def _check_same(folder: Path, config: RunConfig | None) -> None:
    """Refuse to go on from a stage that was run with another configuration.

    Raises:
        RunFolderError: Names what is other.
    """
    if config is None:
        return
    before = read_text((folder / "config.yaml").read_text(encoding="utf-8"), origin=str(folder / "config.yaml")).tree
    now = json.loads(json.dumps(as_plain(config)))
    then, current = ({key: tree.get(key) for key in now if key not in _FREE} for tree in (before, now))
    lines = differences(then, current)
    if lines:
        raise RunFolderError(
            f"{folder} was run with another configuration: {'; '.join(lines[:5])}. "
            "Go on with that one, or choose another output_dir."
        )


class _Taken(NamedTuple):
    """What became of a folder."""

    is_new: bool
    aside: Path | None  # where what was there is now


def _take(root: Path, names: Sequence[str], *, existing: Existing, locks: list[Lock]) -> _Taken:
    """Make the folder of the series, and refuse one that holds something else.

    Args:
        root: The folder.
        names: Of its run folders.
        existing: As for ``run_stages``.
        locks: Gets the one of the folder.

    Raises:
        RunFolderError: It is in use, not empty, or of another series.
    """
    if root.is_file():
        raise RunFolderError(f"{root} is a file, expected a folder. Choose another output_dir.")
    check_unused(root)
    there, aside = _contents(root), None
    if there and existing == "overwrite":
        aside = root.rename(free_path(root.parent, f"{root.name}.old"))
        there = []
    if there and existing == "refuse":
        raise RunFolderError(
            f"{root} is not empty: it holds {listed(there, most=3)}. Choose another output_dir, go on with it by "
            "--resume, or move it aside by --overwrite."
        )
    if there:
        _check_series(root, names)
    is_new = not root.exists()
    root.mkdir(parents=True, exist_ok=True)
    locks.append(take_lock(root))
    locks[0].sign()
    for left in root.glob(f"{PLANNING}*"):  # by one that was killed
        shutil.rmtree(left, ignore_errors=True)
    return _Taken(is_new, aside)


def _give_back(root: Path, taken: _Taken) -> None:
    """Undo ``_take`` for a series that is refused."""
    with contextlib.suppress(OSError):
        (root / LOCK).unlink()
        if taken.is_new:
            root.rmdir()
        if taken.aside is not None:
            taken.aside.rename(root)


def _write(root: Path, names: Sequence[str], config_text: str | None) -> None:
    write_file_atomically(root / _LIST, (json.dumps({"stages": names}, indent=2) + "\n").encode())
    if config_text is not None:
        write_file_atomically(root / "config.yaml", config_text.encode())


def _contents(root: Path) -> list[str]:
    """What a new series could mix with; one that ended before its first stage left nothing."""
    names = set(os.listdir(root)) - {_LIST, "config.yaml", LOCK} if root.is_dir() else set()
    return sorted(name for name in names if not name.startswith(PLANNING))


def _check_series(root: Path, names: Sequence[str]) -> None:
    try:
        before = json.loads((root / _LIST).read_text(encoding="utf-8"))["stages"]
    except (OSError, ValueError, KeyError):
        raise RunFolderError(
            f"{root} holds no series of ours (it has no {_LIST}), so there is nothing to resume. Choose another "
            "output_dir."
        ) from None
    if before != list(names):
        raise RunFolderError(
            f"{root} holds other stages: {listed(before)}, and these are {listed(names)}. Choose another output_dir."
        )
