"""Scoring a finished run's model on a split, from its run folder."""

from __future__ import annotations

import json
from pathlib import Path

from ..checkpoints.reading import read_checkpoint, step_name
from ..errors import DataError, RunFolderError
from ..evaluation import evaluate
from ..randomness import preserved
from ..run_config import RunConfig
from .placement import placed
from .prepare import prepare
from .sharding import load_model_state


def score_run(config: RunConfig, folder: Path, *, split: str) -> dict[str, float]:
    """The metrics and the mean ``loss`` of a run's final model on a split.

    Args:
        config: Of the run, as its folder holds it.
        folder: The run folder.
        split: ``"train"``, ``"validation"`` or ``"test"``.

    Raises:
        RunFolderError: The run is not finished, or the checkpoint of its model is gone.
        DataError: No such split.
    """
    try:
        step = json.loads((folder / "metrics.json").read_bytes())["best"]["step"]
    except (OSError, ValueError, KeyError):
        raise RunFolderError(
            f"{folder} holds no finished run (no metrics.json). Finish it with --resume first."
        ) from None
    available = config.task.splits()
    if split not in available:
        raise DataError(f"task.data has no {split} split; it has {', '.join(available)}")
    checkpoint = read_checkpoint(folder / "checkpoints" / step_name(step))
    with preserved(), placed(config.precision) as placement:
        prepared = prepare(config, placement)
        load_model_state(prepared.forward, checkpoint.tensors["model"])
        prepared.forward.to(placement.device)
        return evaluate(
            prepared.forward,
            config.task.load_split(split),
            task=config.task,
            progress=prepared.plan.at(step),
            placement=placement,
            micro_batch=prepared.micro_batch,
        )
