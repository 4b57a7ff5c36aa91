"""Evaluation on exactly the examples of a split, each once, over any number of ranks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from .data.loading import updates
from .data.sampling import MicroBatch, Tokens, cut
from .data.store import Draws, Store, indices_of, moved
from .tasks.base import Output, Predictions, Task

if TYPE_CHECKING:
    from .progress import Progress
    from .training.placement import Placement

_LARGER = 4  # batches than in training: no activation is kept for a backward
_PAUSE_EVERY = 8  # batches


def _go_on() -> None:
    """What is done between batches where nothing is asked for."""


def predict(
    forward: nn.Module,
    store: Store,
    *,
    task: Task,
    progress: Progress,
    placement: Placement,
    micro_batch: MicroBatch,
    tokens: Tokens = "padded",
    between: Callable[[], None] = _go_on,
) -> tuple[Predictions, np.ndarray]:
    """Logits of every example in the order of the split, and its loss.

    Examples go by length, so that there is little padding. Every rank runs equally many forwards and gets all
    results in one gather; which rank computed which example is known, so nothing is trimmed by a guess at what
    was padding.

    Args:
        forward: The wrapped model.
        store: The split.
        task: Gives logits and losses.
        progress: The clock.
        placement: Device and ranks.
        micro_batch: Of training; batches here are larger.
        tokens: What a micro-batch in tokens counts.
        between: Called after every few batches, equally often on every rank; what it raises ends the evaluation.

    Returns:
        Predictions, and losses (items,) with their weights: (items, 2); empty without labels.
    """
    every = Draws(np.arange(len(store)))
    ranks = placement.ranks
    limit = micro_batch.times(_LARGER)
    shares = cut(every, store.lengths, num_ranks=ranks.count, micro_batch=limit, tokens=tokens)
    mine = shares[ranks.index]
    kept: _Kept | None = None
    forward.eval()
    batches = updates(store, lambda at: [mine[at]], steps=range(len(mine)), workers=0, device=placement.device)
    # not inference_mode: what a model keeps of such a forward (a table of positions) can serve no backward
    with torch.no_grad(), closing(batches):
        for number, (part, (batch,)) in enumerate(zip(mine, batches, strict=True), 1):
            with placement.autocast():
                output = task.forward(forward, moved(batch, placement.device), progress)
            kept = kept or _Kept(output, num_examples=sum(map(len, mine)))
            kept.add(output, count=len(part))
            if number % _PAUSE_EVERY == 0:
                between()
    assert kept is not None
    rows = ranks.rows(kept.rows().cpu().numpy())
    order = np.concatenate([indices_of(part) for share in shares for part in share])
    if kept.counts is None:
        counts = np.ones(len(order), np.int64)
    else:
        counts = ranks.rows(torch.cat(kept.counts).cpu().numpy())
    assert len(order) == len(counts) == len(store) and len(rows) == counts.sum(), "every example exactly once"
    in_order = rows[_by_example(order, counts)]
    logits = np.ascontiguousarray(in_order[:, : kept.width]).reshape(-1, *kept.shape)
    losses = in_order[:, kept.width :] if kept.items is None else ranks.rows(torch.cat(kept.items).cpu().numpy())
    if kept.items is not None and len(losses) == len(store):  # one of each example, whose logits are several rows
        losses = losses[np.argsort(order)]
    found = Predictions(logits, store.labels, getattr(store, "words", None))
    return found, losses if losses.shape[1] else losses.reshape(0, 2)


def _by_example(order: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Where the rows of example 0 are, then those of example 1, (rows,).

    Args:
        order: The example whose rows come first, second …, (examples,).
        counts: How many rows it has, (examples,).
    """
    starts = np.cumsum(counts) - counts
    place = np.empty_like(order)
    place[order] = np.arange(len(order))  # of example i among those that came
    starts, counts = starts[place], counts[place]
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + counts, counts)


class _Kept:
    """Results of this rank's examples, left on the device: (rows, classes), and loss and weight beside them.

    A row is an example, or where examples have several items each one of those, with ``counts`` of them. Losses
    that are not one per row are kept in ``items``, (items, 2) for each batch.
    """

    def __init__(self, output: Output, *, num_examples: int) -> None:
        self.shape = output.logits.shape[1:]
        self.width = self.shape.numel()
        has_losses = output.losses is not None
        is_per_row = output.losses is not None and len(output.losses) == len(output.logits)
        none_yet = torch.empty(0, 2, dtype=torch.float32, device=output.logits.device)
        self.items: list[Tensor] | None = [none_yet] if has_losses and not is_per_row else None
        self.counts: list[Tensor] | None = None if output.counts is None else []
        columns = self.width + 2 * is_per_row
        size = num_examples if output.counts is None else 0
        self._rows = torch.empty(size, columns, dtype=torch.float32, device=output.logits.device)
        self._ragged: list[Tensor] = []  # where how many there are in all is not known before
        self._filled = 0

    def rows(self) -> Tensor:
        """Of all examples so far, (rows, classes), and (rows, classes + 2) where each has a loss."""
        return self._rows if self.counts is None else torch.cat([self._rows, *self._ragged])

    def add(self, output: Output, *, count: int) -> None:
        """Those of a batch; ``count`` is 0 where it only kept this rank in step."""
        if self.counts is not None:
            assert output.counts is not None
            self.counts.append(output.counts[:count])
        if not count:
            return
        here = self._place(len(output.logits))
        here[:, : self.width] = output.logits.reshape(-1, self.width)
        if output.losses is None or output.weights is None:
            return
        losses = torch.stack([output.losses, output.weights], 1).float()
        if self.items is None:
            here[:, self.width :] = losses
        else:
            self.items.append(losses)

    def _place(self, count: int) -> Tensor:
        """Where the next rows go."""
        if self.counts is not None:
            self._ragged.append(self._rows.new_empty(count, self._rows.shape[1]))
            return self._ragged[-1]
        self._filled += count
        return self._rows[self._filled - count : self._filled]


def evaluate(
    forward: nn.Module,
    store: Store,
    *,
    task: Task,
    progress: Progress,
    placement: Placement,
    micro_batch: MicroBatch,
    tokens: Tokens = "padded",
    between: Callable[[], None] = _go_on,
) -> dict[str, float]:
    """The task's metrics and the mean ``loss`` on a split: computed on rank 0 from all predictions, and shared."""
    predictions, losses = predict(
        forward,
        store,
        task=task,
        progress=progress,
        placement=placement,
        micro_batch=micro_batch,
        tokens=tokens,
        between=between,
    )

    def scored() -> dict[str, float]:
        metrics = {}
        if len(losses):
            metrics["loss"] = float((losses[:, 0] * losses[:, 1]).sum(dtype=np.float64) / losses[:, 1].sum())
        return metrics | task.score(predictions)

    return placement.ranks.on_first(scored)
