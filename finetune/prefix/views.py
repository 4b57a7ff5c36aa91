"""Kept views: whether an example may look different each time, and the same few looks of it."""

from __future__ import annotations

from ..data.store import Draw, Store
from ..randomness import seed_for


def varies(store: Store) -> bool:
    """Whether an example may look different each time; a store that does not say may."""
    return bool(getattr(store, "varies", True))


def kept_views(store: Store, views: int) -> int:
    """How many views of each example are kept; 0 where it always looks the same."""
    return views if varies(store) else 0


def view_draw(index: int, view: int, *, seed: int) -> Draw:
    """A kept random view of an example: always the same one, for a run's seed."""
    return Draw(0, view, index, seed_for(seed, "view", view, index))
