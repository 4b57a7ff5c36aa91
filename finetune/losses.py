"""Losses per item, from logits; what is summed and divided by what is the loop's business (DESIGN, invariant 1)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def _at_least_fp32(logits: Tensor) -> Tensor:
    """An exponential or a square in half precision overflows; float64 stays for tests that need its digits."""
    return logits if logits.dtype == torch.float64 else logits.float()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of the labels, in nats.

    Args:
        logits: (items, classes).
        labels: Class numbers, (items,) int64.

    Returns:
        (items,), in float32 (float64 for float64 logits).
    """
    return functional.cross_entropy(_at_least_fp32(logits), labels, reduction="none")


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared difference between the single output and the target.

    Args:
        outputs: (items, 1).
        targets: (items,).

    Returns:
        (items,), in float32 (float64 for float64 outputs).
    """
    assert outputs.dim() == 2 and outputs.shape[1] == 1, f"one output per item, not {tuple(outputs.shape)}"
    outputs = _at_least_fp32(outputs).squeeze(1)  # (items, 1) - (items,) would broadcast to (items, items)
    return (outputs - targets.to(outputs.dtype)) ** 2
