"""Dropping patches between embeddings and blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from ...data.store import Batch


def kept_patches(hidden: Tensor, batch: Batch, *, num_prefix: int) -> Tensor:
    """What the blocks get: all tokens, or without the ``dropped_patches`` share of patches that a batch asks for.

    Args:
        hidden: (examples, tokens, width), with positions.
        batch: That it was made from.
        num_prefix: Class tokens and the like, which come first and stay.
    """
    if "dropped_patches" not in batch:
        return hidden
    patches = hidden[:, num_prefix:]
    num_kept = max(1, round(patches.shape[1] * (1 - float(batch["dropped_patches"]))))
    order = torch.rand(patches.shape[:2], device=hidden.device).argsort(dim=1)
    kept = order[:, :num_kept, None].expand(-1, -1, hidden.shape[2])
    return torch.cat([hidden[:, :num_prefix], patches.gather(1, kept)], dim=1)
