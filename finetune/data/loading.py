"""Batches for the draws of each update, made here or in loader processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader, Dataset

from .store import Draw, Store

if TYPE_CHECKING:
    from .store import Batch

_TIMEOUT_S = 300  # of a loader process; torch's default waits for ever for one that hangs


def weighted_batch(store: Store, draws: Sequence[Draw]) -> Batch:
    """The batch of these draws, each of weight 1; for none, one example of weight 0.

    Every rank must run every forward (else DDP and FSDP wait for ever), so a rank without examples runs
    one that counts for nothing.
    """
    batch = store.batch(draws or [Draw(0, 0, 0)])
    weight = 1.0 if draws else 0.0
    return {**batch, "weights": torch.full((len(draws) or 1,), weight)}


class _Steps(Dataset):  # type: ignore[type-arg]
    """The micro-batches of one rank, addressed by step."""

    def __init__(self, store: Store, cuts: Callable[[int], Sequence[Sequence[Draw]]]) -> None:
        self._store = store
        self._cuts = cuts

    def __getitem__(self, step: int) -> list[Batch]:
        return [weighted_batch(self._store, draws) for draws in self._cuts(step)]


def updates(
    store: Store, cuts: Callable[[int], Sequence[Sequence[Draw]]], *, steps: range, workers: int
) -> Iterator[list[Batch]]:
    """The micro-batches of each step in turn.

    Args:
        store: Of the training split.
        cuts: A step's draws for this rank, micro-batch by micro-batch; pure, so workers need no state.
        steps: From where the run stands to its end.
        workers: Loader processes; the batches do not depend on how many.
    """
    loader = DataLoader(
        _Steps(store, cuts),
        sampler=steps,
        batch_size=None,
        collate_fn=_as_is,
        num_workers=workers,
        timeout=_TIMEOUT_S if workers else 0,
        multiprocessing_context="fork" if workers else None,  # the cuts are a closure
        generator=torch.Generator().manual_seed(0),  # else the loader draws from the global generator
    )
    return iter(loader)


def _as_is(batches: list[Batch]) -> list[Batch]:
    return batches
