"""Scoring a saved model on a split of its run's data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..data.sampling import MicroBatch
from ..encoders import Forward
from ..evaluation import evaluate
from ..models.contained import check_adapter, saved_model
from ..models.sources import explained, resolve
from ..progress import Progress
from ..randomness import preserved
from ..run_config import RunConfig
from ..tasks.base import Task
from ..tasks.wrapping import replaced
from .check_forward import check_forward
from .micro_batches import resolve_micro_batch
from .placement import placed
from .ways import keep_tokens


def score_model(config: RunConfig, model: Path, *, split: str) -> dict[str, float]:
    """The metrics and the mean ``loss`` of ``model/`` on a split, on all processes.

    Args:
        config: Of the run that made it, as its folder holds it.
        model: The run's ``model/``.
        split: ``"train"``, ``"validation"`` or ``"test"``.

    Raises:
        DataError: No such split.
    """
    with preserved(), placed(config.precision) as placement:
        task, module = _saved(config.task, model)
        keep_tokens(task, config.speed)
        store = task.load_split(split)
        forward = Forward(module, config.speed)
        check_forward(forward, store)
        count = sum(parameter.numel() for parameter in module.parameters())
        text = resolve_micro_batch(config.micro_batch, device=placement.device, num_parameters=count, store=store)
        return evaluate(
            forward.to(placement.device),
            store,
            task=task,
            progress=Progress(0, 1, 1),
            placement=placement,
            micro_batch=MicroBatch(text),
            tokens=forward.tokens,
        )


def _saved(task: Any, model: Path) -> tuple[Task, nn.Module]:
    """The task on the saved model: the folder in place of its checkpoint, or the checkpoint with the saved adapter."""
    if (model / "adapter_config.json").is_file():
        from peft import PeftModel

        check_adapter(model)
        base = task.load_model().module
        with explained(resolve(str(model))):
            return task, PeftModel.from_pretrained(base, model, use_safetensors=True)
    task = replaced(task, model=saved_model(model), weights="pretrained")
    return task, task.load_model().module
