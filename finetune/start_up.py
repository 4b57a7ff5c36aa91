"""Loading libraries and models without the garbage collector walking over all of it again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# Importing torch and transformers and loading a model makes some 700,000 objects that stay. With Python's own
# threshold, 700, they are walked over and over, a quarter of the time to the first step; garbage stays bounded.
_THRESHOLD = 1_000_000


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Collect garbage only after a million new objects; what is there at the end counts as old from then on.

    The collector's own settings are put back. Where the caller has frozen objects (``gc.freeze``), the new ones are
    frozen, too, as those of the two cannot be told apart again.
    """
    thresholds, was_frozen = gc.get_threshold(), gc.get_freeze_count() > 0
    gc.set_threshold(_THRESHOLD, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.freeze()
        if not was_frozen:
            gc.unfreeze()  # into the oldest generation, without a walk
