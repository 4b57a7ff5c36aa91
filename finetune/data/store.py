"""What the loop reads examples from: a store of one split, addressed by index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    Batch = dict[str, Tensor]


class Draw(NamedTuple):
    """One example of one update: which, and in which epoch and step it is seen.

    A random transform is seeded with ``seed`` alone, so the same draw is the same tensor in any process; an
    evaluation draws with seed 0, which no transform changes.
    """

    step: int
    epoch: int
    index: int  # type: ignore[assignment]  # a field, not the method of tuple
    seed: int = 0  # a function of (the run's seed, step, index); 0: the example as it is


class Store(Protocol):
    """One split, ready for a model.

    ``lengths`` is (examples,) int32: tokens of each example after truncation, 1 for an image.
    ``labels`` is (examples,) int64 classes or float32 targets; missing (unlabelled split) is None.
    ``fingerprint`` names the content: equal for equal rows, so that a resumed run can tell changed data.
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
