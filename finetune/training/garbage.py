"""Garbage collection between updates, never within one."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_EVERY = 20  # updates: what a task's own cycles may keep alive, tensors among it, until then


@contextmanager
def collected_between() -> Iterator[Callable[[int], None]]:
    """Collect only where the given function is called with the number of finished updates.

    What is there already (model, data, libraries) is set aside, so that a collection looks at new objects
    only. All of it is put back at the end.
    """
    was_enabled, was_frozen = gc.isenabled(), gc.get_freeze_count() > 0
    gc.collect(1)  # a full one walks every object of every library, before the first update
    if not was_frozen:
        gc.freeze()
    gc.disable()
    try:
        yield _collect
    finally:
        if not was_frozen:
            gc.unfreeze()
        if was_enabled:
            gc.enable()


def _collect(step: int) -> None:
    if step % _EVERY == 0:
        gc.collect(1)
