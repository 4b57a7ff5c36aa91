"""What the verbs do, below the words of the command line: find a recipe, resolve it, plan, train, evaluate."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .checkpoints.lock import check_unused
from .checkpoints.run_folder import check_run_folder
from .errors import RunFolderError
from .start_up import rarely_collected

if TYPE_CHECKING:
    from .config.foreign import Code
    from .run_config import RunConfig
    from .stages import Stage
    from .stages.planning import StagePlan
    from .stages.running import StageResult
    from .training import FitResult


class Prepared(NamedTuple):
    """A run that is ready: its configuration, the same as text, and a name for headings."""

    config: RunConfig
    yaml: str
    title: str
    stages: tuple[Stage, ...] = ()  # of several runs; ``config`` is then the first


def prepare(name: str, *, function: str | None, files: Sequence[Path], overrides: Sequence[str]) -> Prepared:
    """The resolved configuration of a recipe's name, a recipe file or a YAML file.

    Raises:
        ConfigError: No such recipe, or everything that is wrong in the configuration.
    """
    from .config import resolved
    from .config.dumping import dump_resolved
    from .config.recipe_files import find_file, load_recipe
    from .errors import ConfigError

    file = find_file(name)
    if file.suffix in (".yaml", ".yml"):
        if function is not None:
            raise ConfigError(
                f"--recipe {function} names a function of a recipe file, and {file} is YAML. Leave it out."
            )
        found = resolved(None, [file, *files], overrides, file=str(file))
        title = file.stem
    else:
        recipe = load_recipe(name, function=function)
        found = resolved(recipe.build(), files, overrides, file=str(recipe.file), function=recipe.name)
        title = f"{recipe.file.stem}.{recipe.name}"
    return Prepared(found.config, dump_resolved(found), title, found.stages)


def trusting(prepared: Prepared) -> Prepared:
    """The same run with the code of its Hub metrics downloaded and loaded, each at the revision that it pins."""
    import dataclasses

    stages = tuple(dataclasses.replace(stage, run=_trusted(stage.run)) for stage in prepared.stages)
    return prepared._replace(config=_trusted(prepared.config), stages=stages)


def _trusted(config: Any) -> Any:
    import dataclasses

    from .metrics.external import External, Loaded, resolve
    from .tasks.wrapping import replaced

    def loaded(metric: Any) -> Any:
        found = resolve(metric, trusted="remote code") if isinstance(metric, External) else None
        return dataclasses.replace(metric, source=found.module) if isinstance(found, Loaded) else metric

    if not hasattr(config, "task"):  # an average of two stages
        return config
    metrics = [loaded(metric) for metric in config.task.metrics]
    return dataclasses.replace(config, task=replaced(config.task, metrics=tuple(metrics)))


def describe_plan(prepared: Prepared) -> dict[str, Any]:
    """What ``finetune plan`` shows, as JSON can hold it; loads data and model, and trains nothing."""
    with rarely_collected():
        from .training import plan_run
    return plan_run(prepared.config)


def describe_stages(prepared: Prepared) -> list[StagePlan]:
    """As ``describe_plan``, of every stage of several."""
    with rarely_collected():
        from .stages.planning import plan_stages
    assert prepared.config.output_dir is not None
    return plan_stages(prepared.stages, output_dir=prepared.config.output_dir)


def train_stages(prepared: Prepared, *, existing: Literal["refuse", "resume", "overwrite"]) -> list[StageResult]:
    """Run every stage of several."""
    folder = prepared.config.output_dir
    assert folder is not None
    if "WORLD_SIZE" not in os.environ:  # as in ``train``
        check_unused(Path(folder))
    with rarely_collected():
        from .stages.running import run_stages
    return run_stages(prepared.stages, output_dir=folder, existing=existing, config_text=prepared.yaml)


def train(prepared: Prepared, *, existing: Literal["refuse", "resume", "overwrite"]) -> FitResult:
    """Run it."""
    config = prepared.config
    if config.output_dir is not None and "WORLD_SIZE" not in os.environ:  # else the first one asks for all, in ``fit``
        check_run_folder(Path(config.output_dir), resume=existing == "resume", overwrite=existing == "overwrite")
    with rarely_collected():  # seconds, which who is refused need not wait
        from .training import fit
    return fit(**vars(config), existing=existing, config_text=prepared.yaml)


def evaluate_folder(
    folder: Path, *, split: str, code: Code = "refuse", trust_remote_code: bool = False
) -> dict[str, float]:
    """The scores of a run's ``model/`` on a split of its data, with the run's precision and on all processes.

    Args:
        folder: The run's.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        code: What to do with code in files that the run's ``config.yaml`` names.
        trust_remote_code: Download and run the code of its Hub metrics, each at the revision that it pins.

    Raises:
        RunFolderError: It is no finished run.
        ConfigError: No such split; or code that may not run.
    """
    from .checkpoints.run_folder import runs_inside
    from .choices import listed, nearest
    from .config.foreign import resolve_run
    from .data.spec import SPLITS
    from .errors import ConfigError

    with rarely_collected():
        from .training import score_model

    if split not in SPLITS:
        raise ConfigError(f"--split {split}: no such split{nearest(split, SPLITS)}; there are {listed(SPLITS)}.")
    for name in ("config.yaml", "model/README.md"):
        if not (folder / name).is_file():
            raise RunFolderError(
                f"{folder} is no finished run: it has no {name}. Give the output_dir of a finished run"
                f"{runs_inside(folder)}."
            )
    config = resolve_run(folder, code=code)
    if trust_remote_code:
        config = _trusted(config)
    there = config.task.splits()
    if split not in there:
        raise ConfigError(f"--split {split}: the run has no such split in task.data; there are {listed(there)}.")
    return score_model(config, folder / "model", split=split)
