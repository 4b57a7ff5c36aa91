"""One update: the gradient of (sum of losses) / (valid items), both over all micro-batches of all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..progress import Progress
from ..tasks.base import Task
from .placement import Placement
from .sharding import local

if TYPE_CHECKING:
    from ..data.store import Batch


class UpdateStats(NamedTuple):
    """What one update was."""

    loss: float  # mean over the valid items of the update
    num_items: int
    grad_norms: dict[str, float]  # per layer group, before clipping
    grad_norm: float  # of all of them together, before clipping
    is_finite: bool
    suspects: list[int]  # this rank's examples whose loss is not finite
    flags: list[int]  # the sum over ranks of the flags handed in


def accumulate(
    wrapped: nn.Module,
    micro_batches: Sequence[Batch],
    *,
    task: Task,
    progress: Progress,
    placement: Placement,
    factor: float,
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Forward and backward of every micro-batch of this rank.

    ``factor`` multiplies each loss before backward; a constant, because how many items are valid is known
    only after the last rank's last micro-batch, and the gradient is divided by that then.

    Returns:
        (2,) in fp64: the sum of losses and the number of valid items; and (example ids, losses) for each.
    """
    totals = torch.zeros(2, dtype=torch.float64)
    seen = []
    for number, batch in enumerate(micro_batches):
        is_last = number == len(micro_batches) - 1
        batch = {name: tensor.to(placement.device, non_blocking=True) for name, tensor in batch.items()}
        with nullcontext() if is_last else placement.unreduced(wrapped):
            with placement.autocast():
                output = task.forward(wrapped, batch, progress)
            assert output.losses is not None and output.weights is not None, "training needs labels"
            # where, not a product: 0 x inf would poison the sum with examples that only fill up a rank
            loss = torch.where(output.weights > 0, output.losses * output.weights, 0.0).sum()
            (loss * factor).backward()
        totals += torch.stack([loss.detach(), output.weights.sum()]).double().cpu()
        seen.append((batch["index"], output.losses.detach()))
    return totals, seen


def update(
    wrapped: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[Batch],
    *,
    task: Task,
    progress: Progress,
    placement: Placement,
    batch_size: int,
    loss_scale: float,
    max_grad_norm: float,
    flags: Sequence[int],
) -> UpdateStats:
    """Accumulate, reduce, clip and step; a gradient that is not finite is dropped on every rank.

    The loss is computed from logits and divided once, by the valid items of the whole update, so the
    gradient does not depend on how the update was cut over micro-batches and ranks.
    """
    factor = loss_scale / batch_size  # near the mean, so that a sum does not overflow fp16
    totals, seen = accumulate(wrapped, micro_batches, task=task, progress=progress, placement=placement, factor=factor)
    squares = squared_norms(optimizer)
    shared = torch.cat([totals, torch.tensor(list(flags), dtype=torch.float64)])
    summed = placement.ranks.sum(shared.to(placement.device)).cpu()
    if placement.is_sharded:
        squares = dict(zip(squares, placement.ranks.sum(torch.stack(list(squares.values()))), strict=True))
    loss_sum, num_items = summed[0].item(), summed[1].item()
    unscale = placement.ranks.count / (factor * max(num_items, 1.0))  # DDP and FSDP take the mean over ranks
    norms = {name: square.item() ** 0.5 * unscale for name, square in squares.items()}
    total = sum(norm**2 for norm in norms.values()) ** 0.5
    is_finite = bool(torch.isfinite(torch.tensor([total, loss_sum])).all())
    if is_finite:
        clip = min(1.0, max_grad_norm / (total + 1e-6)) if max_grad_norm else 1.0
        _scale_gradients(optimizer, unscale * clip)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return UpdateStats(
        loss=loss_sum / max(num_items, 1.0),
        num_items=int(num_items),
        grad_norms=norms,
        grad_norm=total,
        is_finite=is_finite,
        suspects=[] if is_finite else _not_finite(seen),
        flags=[int(flag) for flag in summed[2:].tolist()],
    )


def squared_norms(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The squared norm of this rank's gradients by layer group, in fp64."""
    found: dict[str, Tensor] = {}
    for group in optimizer.param_groups:
        gradients = [local(parameter.grad) for parameter in group["params"] if parameter.grad is not None]
        if gradients:
            square = torch.stack(torch._foreach_norm(gradients)).double().square().sum()
            found[group["group"]] = found.get(group["group"], 0.0) + square
    return found


def _scale_gradients(optimizer: torch.optim.Optimizer, factor: float) -> None:
    gradients = [
        local(parameter.grad)
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    if gradients and factor != 1.0:
        torch._foreach_mul_(gradients, factor)


def _not_finite(seen: Sequence[tuple[Tensor, Tensor]]) -> list[int]:
    """The examples whose loss is not finite, where a loss belongs to one example."""
    found: list[int] = []
    for index, losses in seen:
        if len(index) == len(losses):
            found += index[~torch.isfinite(losses)].tolist()
    return found
