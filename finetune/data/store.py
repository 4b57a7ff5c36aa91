"""What the loop reads examples from: a store of one split, addressed by index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, overload

import numpy as np

from ..randomness import seed_for
from .pixels import finished

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Batch = dict[str, Tensor]

_ON_THE_CPU = ("lengths", "depth", "longest")  # read by Python code, which would wait for a device


class Draw(NamedTuple):
    """One example of one update: which, and in which epoch and step it is seen.

    A random transform is seeded with ``seed`` alone, so the same draw is the same tensor in any process; an
    evaluation draws with seed 0, which no transform changes.
    """

    step: int
    epoch: int
    index: int  # type: ignore[assignment]  # a field, not the method of tuple
    seed: int = 0  # a function of (the run's seed, step, index); 0: the example as it is


class Draws(Sequence[Draw]):
    """The examples of one update, or of a part of it, as an array; a ``Draw`` is made only where one is asked for.

    Args:
        index: (draws,) int64.
        step: Of the update.
        epoch: That it belongs to.
        seed: Of the run, which keys the seed of each draw; None: examples as they are, for an evaluation.
    """

    __slots__ = ("epoch", "index", "seed", "step")

    def __init__(self, index: np.ndarray, *, step: int = 0, epoch: int = 0, seed: int | None = None) -> None:
        self.index = index  # type: ignore[assignment,method-assign]  # a field, not the method of Sequence
        self.step, self.epoch, self.seed = step, epoch, seed

    def take(self, positions: np.ndarray) -> Draws:
        """Those at these positions, in this order."""
        return Draws(self.index[positions], step=self.step, epoch=self.epoch, seed=self.seed)  # type: ignore[index]

    def __len__(self) -> int:
        return len(self.index)  # type: ignore[arg-type]

    @overload
    def __getitem__(self, at: int) -> Draw: ...
    @overload
    def __getitem__(self, at: slice) -> Draws: ...
    def __getitem__(self, at: int | slice) -> Draw | Draws:
        if isinstance(at, slice):
            return self.take(at)  # type: ignore[arg-type]
        index = int(self.index[at])  # type: ignore[index]
        seed = 0 if self.seed is None else seed_for(self.seed, "draw", self.step, index)
        return Draw(self.step, self.epoch, index, seed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(Draw.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]


def indices_of(draws: Sequence[Draw]) -> np.ndarray:
    """Which examples these are, (draws,) int64."""
    if isinstance(draws, Draws):
        found: np.ndarray = draws.index  # type: ignore[assignment]
        return found
    return np.fromiter((draw.index for draw in draws), np.int64, count=len(draws))


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device, but for what Python code reads of it, which stays on the CPU; images scaled there."""
    if device.type != "cpu":
        batch = {
            name: tensor if name in _ON_THE_CPU else tensor.to(device, non_blocking=True)
            for name, tensor in batch.items()
        }
    return finished(batch)


def is_labelled(store: Store) -> bool:
    """Whether its batches say what is right, as those of a test split need not."""
    return "labels" in store.batch([Draw(0, 0, 0)])


class Store(Protocol):
    """One split, ready for a model.

    ``lengths`` is (examples,) int32: tokens of each example after truncation, 1 for an image.
    ``labels`` is (examples,) int64 classes or float32 targets, or (examples, labels) bool where an example may have
    several; missing (unlabelled split) is None.
    ``fingerprint`` names the content: equal for equal rows, so that a resumed run can tell changed data.

    A store may also say ``varies`` (bool): whether a batch depends on the seeds of its draws, as random views do.
    One that does not say may vary. One of texts may say what its limit of length left out: ``num_cut`` (int), texts
    that were cut, and ``share_left_out`` (float), of all their tokens. One of files may have ``skipped`` (faults of
    ``data.rows``): rows that ``bad_rows: skip`` left out.
    """

    lengths: np.ndarray
    labels: np.ndarray | None
    fingerprint: str

    def __len__(self) -> int: ...

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """CPU tensors for these draws, one row each: the model's inputs, ``labels`` and ``index`` (int64).

        Pure: equal draws give equal tensors, whatever was asked before and in whichever process.
        """

    def column(self, name: str) -> np.ndarray:
        """A column of the source by name, (examples,), as a curriculum's difficulty.

        Raises:
            DataError: No such column; names those there are.
        """
