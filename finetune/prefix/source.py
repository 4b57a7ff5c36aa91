"""One split as it goes through the frozen layers: what is drawn in which batch, and where its rows lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..data.store import Draw, Draws, Store
from .boundaries import fixed_batches
from .sizes import Part, Rows
from .store import CachedStore
from .views import kept_views, view_draw


@dataclass(frozen=True, eq=False)
class Source:
    """A split and its kept views. An item is an example, or a view of one: view 0 of all of them, then view 1.

    Args:
        store: The split.
        views: Of each example that are kept where it looks different each time.
        seed: Of the run, which draws them.
    """

    store: Store
    views: int
    seed: int

    @property
    def num_views(self) -> int:
        """Kept of each example; 0 where it always looks the same."""
        return kept_views(self.store, self.views)

    @cached_property
    def offsets(self) -> np.ndarray:
        """The first token of each item, and the end, (items + 1,)."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self._lengths, dtype=np.int64)])

    @property
    def part(self) -> Part:
        """How much it is."""
        return Part(len(self.store), int(self.store.lengths.sum(dtype=np.int64)), max(1, self.num_views))

    def draws(self, items: Sequence[int]) -> Sequence[Draw]:
        """What the store is asked for."""
        if not self.num_views:
            return Draws(np.asarray(items, np.int64))
        size = len(self.store)
        return [view_draw(item % size, item // size, seed=self.seed) for item in items]

    def batches(self, *, tokens: int, examples: int) -> list[list[int]]:
        """All items, longest first."""
        return fixed_batches(self._lengths.tolist(), tokens=tokens, examples=examples)

    def shape(self, rows: Rows) -> tuple[int, ...]:
        """Of the array that holds all items."""
        return rows.count(self.part), *rows.shape

    def write(self, array: np.ndarray, rows: Rows, items: Sequence[int], found: np.ndarray) -> None:
        """Put what a batch gave where its items have their rows."""
        if rows.each == "example":
            array[items] = found
            return
        at = 0
        for item in items:
            start, end = int(self.offsets[item]), int(self.offsets[item + 1])
            array[start:end] = found[at : at + end - start]
            at += end - start

    def cached(self, array: np.ndarray, rows: Rows, *, depth: int, is_text: bool) -> CachedStore:  # noqa: FBT001
        """The store that reads what was written."""
        return CachedStore(
            self.store,
            array,
            depth=depth,
            offsets=self.offsets[: len(self.store) + 1] if rows.each == "token" else None,
            has_lengths=is_text,
            views=max(1, self.num_views),
        )

    @property
    def _lengths(self) -> np.ndarray:
        return np.tile(self.store.lengths, max(1, self.num_views))
