"""Which examples make which update, as a pure function of (seed, step).

The order of the whole run is addressed by the clock, so resuming replays nothing, every rank computes the
same order for itself, and the order does not depend on how an update is cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np

from ..errors import ConfigError
from ..randomness import generator
from .store import Draws, indices_of

Order = Literal["random", "bucketed", "balanced"]
Tokens = Literal["padded", "useful"]
_BUCKET_BATCHES = 50  # batches that are sorted together by length; the usual factor of length-grouped samplers


class Sampler:
    """The draws of every update.

    Without a curriculum each epoch holds every example exactly once; its last update is short where
    ``batch_size`` does not divide. While a curriculum hides examples, an update draws its own from those
    visible, without repetition within it.

    ``balanced`` draws a class for each place of an update, all classes alike, and one of its examples, with
    repetition: so rare classes come as often as frequent ones, every update is full, and an epoch is a number of
    updates only. While a curriculum hides examples, both are drawn among what is visible.

    Args:
        num_examples: Of the training split.
        batch_size: Examples per update, over all ranks.
        seed: Of the run.
        order: ``random``; ``bucketed``: batches of similar length, in random order; or ``balanced``.
        lengths: (examples,), for ``bucketed``.
        labels: Class numbers, (examples,) int64, for ``balanced``.
        visible: The indices that may be drawn at a step; None where all may.
    """

    def __init__(
        self,
        num_examples: int,
        *,
        batch_size: int,
        seed: int,
        order: Order = "random",
        lengths: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        visible: Callable[[int], np.ndarray | None] | None = None,
    ) -> None:
        assert num_examples > 0 and batch_size > 0
        assert order != "bucketed" or lengths is not None
        assert order != "balanced" or labels is not None
        self._num_examples = num_examples
        self._batch_size = batch_size
        self._seed = seed
        self._lengths = lengths
        self._classes = _Classes(labels) if order == "balanced" and labels is not None else None
        self._visible = visible or (lambda step: None)
        self._epoch_batches = lru_cache(maxsize=2)(self._bucketed if order == "bucketed" else self._random)

    @property
    def steps_per_epoch(self) -> int:
        """ceil(examples / batch size), whatever a curriculum shows."""
        return math.ceil(self._num_examples / self._batch_size)

    def draws(self, step: int) -> Draws:
        """The examples of update ``step``, from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        visible = self._visible(step)
        if self._classes is not None:
            indices = self._classes.drawn(
                self._batch_size, visible=visible, source=generator(self._seed, "order", "balanced", step)
            )
        elif visible is None or len(visible) >= self._num_examples:
            indices = self._epoch_batches(epoch)[position]
        else:
            size = min(self._batch_size, len(visible))
            indices = visible[
                generator(self._seed, "order", "visible", step).choice(len(visible), size, replace=False)
            ]
        return Draws(indices.astype(np.int64, copy=False), step=step, epoch=epoch, seed=self._seed)

    def _random(self, epoch: int) -> list[np.ndarray]:
        order = generator(self._seed, "order", epoch).permutation(self._num_examples)
        return [order[start : start + self._batch_size] for start in range(0, len(order), self._batch_size)]

    def _bucketed(self, epoch: int) -> list[np.ndarray]:
        """Sort within stretches of 50 random batches, then shuffle the batches; the short one stays last."""
        order = generator(self._seed, "order", epoch).permutation(self._num_examples)
        stretch = _BUCKET_BATCHES * self._batch_size
        batches = []
        for start in range(0, len(order), stretch):
            part = order[start : start + stretch]
            assert self._lengths is not None
            part = part[np.argsort(self._lengths[part], kind="stable")]
            batches += [part[at : at + self._batch_size] for at in range(0, len(part), self._batch_size)]
        full = [batch for batch in batches if len(batch) == self._batch_size]
        shuffled = generator(self._seed, "order", "batches", epoch).permutation(len(full))
        return [full[at] for at in shuffled] + [batch for batch in batches if len(batch) < self._batch_size]


def check_order(order: Order, labels: np.ndarray | None) -> None:
    """Refuse to balance classes where there are none.

    Args:
        order: Of the run.
        labels: Of the training split.

    Raises:
        ConfigError: They are not one class for each example.
    """
    if order == "balanced" and (labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu"):
        raise ConfigError(
            "order: balanced draws all classes equally often, and the examples of this task do not have one class "
            "each; use order: random or bucketed"
        )


class _Classes:
    """The examples of each class, to draw from.

    Args:
        labels: Class numbers, (examples,).
    """

    def __init__(self, labels: np.ndarray) -> None:
        # Few classes fit 16 bits, which numpy sorts in linear time: while a curriculum grows it does so every step.
        self._labels = labels.astype(np.int16) if labels.max(initial=0) < 2**15 else labels
        self._all = self._sorted(np.arange(len(labels)))

    def drawn(self, count: int, *, visible: np.ndarray | None, source: np.random.Generator) -> np.ndarray:
        """So many examples, (count,): each of a class at random, among those that are visible."""
        is_all = visible is None or len(visible) >= len(self._labels)
        examples, starts, sizes = self._all if is_all or visible is None else self._sorted(visible)
        classes = source.integers(len(starts), size=count)
        found: np.ndarray = examples[starts[classes] + source.integers(sizes[classes])]
        return found

    def _sorted(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Examples class by class, where each class begins, and how many it has; classes without any left out."""
        examples = indices[np.argsort(self._labels[indices], kind="stable")]
        starts = np.flatnonzero(np.diff(self._labels[examples], prepend=-1))
        return examples, starts, np.diff(starts, append=len(examples))


class MicroBatch:
    """How large one forward may be: ``"8 examples"`` or ``"4096 tokens"``."""

    def __init__(self, text: str) -> None:
        amount, _, unit = text.strip().partition(" ")
        unit = {"example": "examples", "token": "tokens"}.get(unit.strip(), unit.strip())
        if not amount.isdecimal() or int(amount) < 1 or unit not in ("examples", "tokens"):
            raise ValueError(f"{text!r} is not a micro-batch; write auto, e.g. '8 examples', or '4096 tokens'")
        self.amount, self.unit = int(amount), unit

    def __str__(self) -> str:
        return f"{self.amount} {self.unit}"

    def times(self, factor: int) -> MicroBatch:
        """One so many times as large."""
        return MicroBatch(f"{self.amount * factor} {self.unit}")

    def halved(self, times: int) -> MicroBatch:
        """One of half the size, so many times over; at least 1."""
        return MicroBatch(f"{max(1, self.amount >> times)} {self.unit}")

    def num_fitting(self, lengths: np.ndarray, *, tokens: Tokens) -> int:
        """How many of these examples, longest first, go through one forward; one always does.

        Args:
            lengths: (examples,), in descending order.
            tokens: Whether padding counts.
        """
        if self.unit == "examples":
            return self.amount
        if tokens == "padded":
            return max(1, self.amount // max(1, int(lengths[0])))
        return max(1, int(np.searchsorted(np.cumsum(lengths), self.amount, side="right")))


def cut(
    draws: Draws,
    lengths: np.ndarray,
    *,
    num_ranks: int,
    micro_batch: MicroBatch,
    tokens: Tokens = "padded",
) -> list[list[Draws]]:
    """One update as micro-batches per rank: ``[rank][micro-batch]`` are draws.

    Examples are dealt in order of length, so that ranks get equal work and micro-batches little padding; the
    loss is a sum over the update, so neither changes its gradient. Every rank gets equally many
    micro-batches; a rank short of examples gets empty ones.

    Args:
        draws: Of one update, or all of a split.
        lengths: (examples,), of the split.
        num_ranks: Among which to deal.
        micro_batch: How much one forward takes.
        tokens: What a micro-batch in tokens counts: a rectangle with its padding, or what lies in it.
    """
    rows = indices_of(draws)
    found = lengths[rows]
    order = np.lexsort((rows, -found))  # longest first, and by number where equal
    shares = [_packed(order[rank::num_ranks], found, micro_batch, tokens) for rank in range(num_ranks)]
    most = max(len(share) for share in shares)
    empty = np.zeros(0, np.int64)
    return [[draws.take(part) for part in share + [empty] * (most - len(share))] for share in shares]


def _packed(order: np.ndarray, lengths: np.ndarray, micro_batch: MicroBatch, tokens: Tokens) -> list[np.ndarray]:
    """Consecutive positions, longest first, cut where one more would not fit."""
    found, start = [], 0
    while start < len(order):
        end = start + micro_batch.num_fitting(lengths[order[start : start + micro_batch.amount]], tokens=tokens)
        found.append(order[start:end])
        start = end
    return found
