"""``finetune demo``: every strategy on real texts and real images, without a network, in a few minutes."""

from __future__ import annotations

from .showing import main

__all__ = ["main"]
