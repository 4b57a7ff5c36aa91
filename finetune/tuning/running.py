"""The search from its arguments to its result."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..checkpoints.atomic import write_file_atomically
from ..checkpoints.documents import to_json
from ..choices import listed
from ..errors import ConfigError, FinetuneError, LaunchError, RunFolderError
from ..plan_document import differences
from ..run_config import RunConfig
from ..tracking import Lines, Show
from .base import Base, check_space, content, metric_of
from .reading import read_space
from .results import TuneResult, write
from .search import Search, seconds_of
from .space import Dimension, endless, grid

if TYPE_CHECKING:
    from .study import Study, Taken

_MARK = "search.json"
_ATTEMPTS = 3  # trials that fail, without one that does not, before the search gives up


def tune(
    config: RunConfig,
    space: Mapping[str, Any],
    *,
    output_dir: str | Path,
    sampler: Literal["grid", "random", "tpe", "gp"] = "tpe",
    pruner: Literal["none", "median", "hyperband"] = "none",
    trials: int | None = None,
    timeout: str | None = None,
    seeds: int | tuple[int, ...] = 1,
    search_seed: int = 0,
    show: Show = "progress",
) -> TuneResult:
    """Search values of a configuration for the best validation score of its ``metric``.

    Every trial is an ordinary run in ``<output_dir>/trials/<number>`` (with several seeds, one in ``seed-<seed>``
    beneath it each). The same call from other processes, on any machine that shares the folder, works on the same
    study; a trial whose process was lost is gone on with, from its checkpoint, by whoever asks next.

    Args:
        config: What trials are laid over; its ``output_dir`` is not used.
        space: Paths of the configuration, each with a range or a list of values.
        output_dir: Of the search.
        sampler: How values are drawn; this and what follows are those of ``Search``.
        pruner: Which trials end before their time.
        trials: How many, over all processes.
        timeout: After which no other trial begins.
        seeds: Runs of each trial.
        search_seed: Of what the sampler draws.
        show: ``"progress"`` on stderr, or ``"nothing"``.

    Raises:
        ConfigError: Everything that is wrong with the space.
        RunFolderError: The folder holds something else, or another search.
        FinetuneError: The process was told to end; or nothing works.
    """
    dimensions = read_space(space)
    try:
        search = Search(
            sampler=sampler, pruner=pruner, trials=trials, timeout=timeout, seeds=seeds, search_seed=search_seed
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return search_with(Base(config), dimensions, search, root=Path(output_dir), show=show)


def search_with(
    base: Base, dimensions: tuple[Dimension, ...], search: Search, *, root: Path, show: Show, runs: bool = True
) -> TuneResult:
    """As ``tune``, of what was read; without ``runs`` only what there is already."""
    check_space(base, dimensions)
    _check_grid(dimensions, search)
    _check_alone()
    study, metric = _opened(base, dimensions, search, root=root, makes=runs)
    lines = Lines(1, start=0)
    if runs:
        _run_trials(study, base, root=root, show=show, metric=metric, tell=lines.line if show != "nothing" else None)
    return _reported(study, root=root, metric=metric, draws=True)


def _check_grid(dimensions: tuple[Dimension, ...], search: Search) -> None:
    if search.sampler != "grid":
        return
    if open_ends := endless(dimensions):
        lines = [f"{dimension.at}: a grid needs a step, or a list of values" for dimension in open_ends]
        raise ConfigError("\n".join(lines))
    try:
        grid(dimensions)
    except ValueError as error:
        raise ConfigError(f"space: {error}") from None


def _check_alone() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise LaunchError(
            "a trial runs in one process. Start `finetune tune` several times instead, with CUDA_VISIBLE_DEVICES=0, "
            "1, ... for each: they share the study."
        )


def _opened(
    base: Base, dimensions: tuple[Dimension, ...], search: Search, *, root: Path, makes: bool
) -> tuple[Study, str]:
    """The study of a folder, made where there is none.

    Raises:
        RunFolderError: The folder holds something else, or another search.
    """
    _check_optuna()
    from .journal import exclusive
    from .study import Study, as_stored, stored

    metric, direction = metric_of(base.resolved(()).config)
    seeds = search.seeds_from(base.resolved(()).config.seed)
    ours = json.loads(
        to_json(
            {
                "space": as_stored(dimensions),
                "search": {"sampler": search.sampler, "pruner": search.pruner, "search_seed": search.search_seed},
                "seeds": list(seeds),
                "metric": metric,
                "config": content(base),
            }
        )
    )
    folder = root / "study"
    if not folder.is_dir():
        _check_free(root, folder, makes=makes)
        folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / "turn"):
        theirs = stored(root / _MARK)
        if theirs is None:
            write_file_atomically(root / _MARK, to_json(ours, indent=2))
        elif apart := differences(theirs, ours):
            raise RunFolderError(
                f"{root} holds another search: {'; '.join(apart[:5])}. Choose another output_dir, or search as there "
                "(trials and timeout may change)."
            )
    return Study(folder, dimensions, search, direction), metric


def _check_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise ConfigError("tune needs Optuna, which is not installed: pip install 'finetune-toolkit[tune]'") from None


def _check_free(root: Path, folder: Path, *, makes: bool) -> None:
    there = sorted(os.listdir(root)) if root.is_dir() else []
    if there and folder.is_dir():
        return  # another process opened the study since: its folder is what comes first
    if root.is_file() or there:
        what = "is a file" if root.is_file() else f"holds {listed(there, most=3)}, which is no search of ours"
        raise RunFolderError(f"{root} {what}. Choose another output_dir.")
    if not makes:
        raise RunFolderError(f"{root} holds no search yet, so there is nothing to report.")


def _run_trials(study: Study, base: Base, *, root: Path, show: Show, metric: str, tell: Any) -> None:
    """Run trials until there are enough, or the time is over."""
    began, timeout = time.monotonic(), study.search.timeout
    while timeout is None or time.monotonic() - began < seconds_of(timeout):
        taken = study.take()
        if taken is None:
            return
        try:
            error = _run(study, base, taken, root=root, show=show, tell=tell)
        finally:
            taken.claim.release()
        result = _reported(study, root=root, metric=metric, draws=False)
        _check_hope(result, error)


def _run(study: Study, base: Base, taken: Taken, *, root: Path, show: Show, tell: Any) -> Exception | None:
    from .trials import run_trial

    if tell is not None:
        values = "  ".join(f"{each.dimension.path}={_short(each.shown)}" for each in taken.assigned)
        goes_on = " goes on" if taken.is_adopted else ""
        tell(f"trial {taken.trial.number} of {study.limit}{goes_on}: {values}")
    seeds = study.search.seeds_from(base.resolved(taken.assigned).config.seed)
    prunes = study.search.pruner != "none"
    error = run_trial(taken.trial, base, taken.assigned, root=root, seeds=seeds, prunes=prunes, show=show)
    if tell is not None and error is not None:
        tell(f"trial {taken.trial.number} failed: {error}")
    return error


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _reported(study: Study, *, root: Path, metric: str, draws: bool) -> TuneResult:
    """The results so far, written down by one process at a time."""
    from .journal import exclusive
    from .plots import draw
    from .reports import report

    with exclusive(study.folder / "report"):
        result = report(study, root=root, metric=metric)
        write(result)
        if draws and result.trials:
            draw(result)
    return result


def _check_hope(result: TuneResult, error: Exception | None) -> None:
    """Give up where nothing works: at once where it is the user's mistake, else after three trials.

    Raises:
        FinetuneError: What the last trial failed of.
    """
    if error is None or any(trial.ended in ("complete", "pruned") for trial in result.trials):
        return
    tried = [trial for trial in result.trials if trial.ended in ("failed", "diverged")]
    is_mistake = isinstance(error, FinetuneError) and error.exit_code == 2
    if not is_mistake and len(tried) < _ATTEMPTS:
        return
    number, count = tried[-1].number, len(tried)
    first = f"no trial works ({count} tried); trial {number}: "
    if isinstance(error, FinetuneError):
        raise type(error)(first + str(error)) from error
    raise error
