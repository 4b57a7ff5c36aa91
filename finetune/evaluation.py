"""Evaluation on exactly the examples of a split, each once, over any number of ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from .data.loading import weighted_batch
from .data.sampling import MicroBatch, cut
from .data.store import Draw, Store
from .tasks.base import Predictions, Task

if TYPE_CHECKING:
    from .progress import Progress
    from .training.placement import Placement


def predict(
    forward: nn.Module,
    store: Store,
    *,
    task: Task,
    progress: Progress,
    placement: Placement,
    micro_batch: MicroBatch,
) -> tuple[Predictions, np.ndarray]:
    """Logits of every example in the order of the split, and its loss.

    Every rank runs equally many forwards and gets all results: rows are gathered with their index, sorted by
    it, and counted, so nothing is trimmed by a guess at what was padding.

    Returns:
        Predictions, and losses (items,) with their weights: (items, 2); empty without labels.
    """
    draws = [Draw(0, 0, index) for index in range(len(store))]
    mine = cut(draws, store.lengths, num_ranks=placement.ranks.count, micro_batch=micro_batch)[placement.ranks.index]
    index, logits, losses = [], [], []
    forward.eval()
    with torch.no_grad():
        for part in mine:
            batch = {name: tensor.to(placement.device) for name, tensor in weighted_batch(store, part).items()}
            with placement.autocast():
                output = task.forward(forward, batch, progress)
            if part:
                index.append(batch["index"].cpu().numpy())
                logits.append(output.logits.float().cpu().numpy())
                if output.losses is not None and output.weights is not None:
                    losses.append(torch.stack([output.losses, output.weights], 1).float().cpu().numpy())
    width = output.logits.shape[1:]
    all_index = placement.ranks.rows(np.concatenate([np.zeros(0, np.int64), *index]))
    all_logits = placement.ranks.rows(np.concatenate([np.zeros((0, *width), np.float32), *logits]))
    all_losses = placement.ranks.rows(np.concatenate([np.zeros((0, 2), np.float32), *losses]))
    order = np.argsort(all_index, kind="stable")
    assert np.array_equal(all_index[order], np.arange(len(store))), "every example exactly once"
    if len(all_losses) == len(order):
        all_losses = all_losses[order]
    return Predictions(all_logits[order], store.labels), all_losses


def evaluate(
    forward: nn.Module,
    store: Store,
    *,
    task: Task,
    progress: Progress,
    placement: Placement,
    micro_batch: MicroBatch,
) -> dict[str, float]:
    """The task's metrics and the mean ``loss`` on a split: computed on rank 0 from all predictions, and shared."""
    predictions, losses = predict(
        forward, store, task=task, progress=progress, placement=placement, micro_batch=micro_batch
    )

    def scored() -> dict[str, float]:
        metrics = {}
        if len(losses):
            metrics["loss"] = float((losses[:, 0] * losses[:, 1]).sum(dtype=np.float64) / losses[:, 1].sum())
        return metrics | task.score(predictions)

    return placement.ranks.on_first(scored)
