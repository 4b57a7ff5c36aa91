"""One update: the gradient of (sum of losses) / (valid items), both over all micro-batches of all ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..data.store import moved
from ..progress import Progress
from ..tasks.base import Output, Task
from .memory import within_memory
from .placement import Placement
from .sharding import local

if TYPE_CHECKING:
    from ..data.store import Batch

_EPSILON = 1e-6  # of torch.nn.utils.clip_grad_norm_


class Shown(NamedTuple):
    """What a micro-batch of this rank has shown, without gradient."""

    ids: Tensor  # (batch,), of examples
    losses: Tensor  # (items,)
    weights: Tensor  # (batch,): 0 for an example that only fills up a rank
    notes: Mapping[str, Tensor] = {}  # (batch,) each: see ``Output``


Totals = list[tuple[Tensor, Tensor]]  # of each micro-batch: the sum of losses and the sum of weights, () each
Accumulate = Callable[..., tuple[Totals, list[Shown]]]


class UpdateStats(NamedTuple):
    """What one update was."""

    step: int  # its number, from 0
    loss: float  # mean over the valid items of the update
    num_items: int  # valid ones; with weights of classes the sum of the weights, rounded down
    grad_norms: dict[str, float]  # per layer group, before clipping
    grad_norm: float  # of all of them together, before clipping
    unscale: float  # what the gradient that backward left is to be multiplied by, before clipping
    is_finite: bool
    suspects: list[int]  # this rank's examples whose loss is not finite
    flags: list[int]  # the sum over ranks of the flags handed in
    first_bad: str = ""  # the first weight whose gradient is not finite
    lacks_memory: bool = False  # some rank could not compute its part

    @property
    def is_applied(self) -> bool:
        """Whether the optimizer stepped."""
        return self.is_finite and not self.lacks_memory


class Trained:
    """What trains in a phase, listed once; and, of updates not yet read, whether one was not finite.

    Args:
        optimizer: Its groups, with ``requires_grad`` as the phase has it.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        members: dict[str, list[tuple[str, Tensor]]] = {}
        for group in optimizer.param_groups:
            pairs = zip(group["names"], group["params"], strict=True)
            members.setdefault(group["group"], []).extend(pair for pair in pairs if pair[1].requires_grad)
        self.names = [name for group in members.values() for name, _ in group]
        self.parameters = [parameter for group in members.values() for _, parameter in group]
        self.counts = {name: len(group) for name, group in members.items() if group}
        self._is_sharded = any(isinstance(parameter, DTensor) for parameter in self.parameters)
        self.spoiled: Tensor | None = None  # on the device: 1 from the first bad update on

    def gradients(self) -> list[Tensor]:
        """This rank's part of every gradient; one that is missing is left out."""
        found = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        return [local(gradient) for gradient in found] if self._is_sharded else found

    def norms(self) -> list[Tensor]:
        """The norm of this rank's part of every gradient, () each; 0 where there is none."""
        gradients = self.gradients()
        norms = list(torch._foreach_norm(gradients))
        if len(gradients) < len(self.parameters):
            found, nothing = iter(norms), norms[0].new_zeros(())
            norms = [nothing if parameter.grad is None else next(found) for parameter in self.parameters]
        return norms

    def clear(self) -> None:
        """Drop the gradients."""
        for parameter in self.parameters:
            parameter.grad = None


class Pending:
    """The figures of an update, which a device may still be computing.

    Args:
        row: Sum of losses, valid items, flags, how many ranks lack memory, and squared gradient norms, the same on
            every rank: (3 + flags + parameters,) fp64, or numbers where nothing is under way.
        progress: The clock of the update.
        trained: What the norms are of.
        num_ranks: Over which the gradient was averaged.
        factor: By which the loss was multiplied before backward.
        shown: By each micro-batch of this rank.
    """

    def __init__(
        self,
        row: Tensor | list[float],
        *,
        progress: Progress,
        trained: Trained,
        num_ranks: int,
        factor: float,
        shown: Sequence[Shown],
    ) -> None:
        self._row = row
        self._arrived: torch.cuda.Event | None = None
        if isinstance(row, Tensor) and row.is_cuda:  # without a word from the host, until it asks
            self._row = torch.empty_like(row, device="cpu", pin_memory=True).copy_(row, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()
        self._step, self._counts, self._names = progress.step, trained.counts, trained.names
        self._averaged = num_ranks / factor
        self.shown = shown

    def read(self) -> UpdateStats:
        """The figures, waited for."""
        if self._arrived is not None:
            self._arrived.synchronize()
        values: list[float] = self._row.tolist() if isinstance(self._row, Tensor) else self._row
        at = len(values) - len(self._names)
        loss_sum, num_items, flags, num_lacking = values[0], values[1] or 1.0, values[2 : at - 1], values[at - 1]
        unscale = self._averaged / num_items
        norms, begin = {}, at
        for name, count in self._counts.items():
            norms[name] = math.sqrt(sum(values[begin : begin + count])) * unscale
            begin += count
        total = math.sqrt(sum(norm**2 for norm in norms.values()))
        is_finite = math.isfinite(loss_sum) and math.isfinite(total)
        return UpdateStats(
            step=self._step,
            loss=loss_sum / num_items,
            num_items=int(values[1]),
            grad_norms=norms,
            grad_norm=total,
            unscale=unscale,
            is_finite=is_finite,
            suspects=[] if is_finite else _not_finite(self.shown),
            flags=[int(flag) for flag in flags],
            first_bad="" if is_finite else self._first_bad(values[at:]),
            lacks_memory=num_lacking > 0,
        )

    def _first_bad(self, squares: Sequence[float]) -> str:
        """The first weight whose gradient is not finite; none where only the loss is not."""
        return next((name for name, square in zip(self._names, squares, strict=True) if not math.isfinite(square)), "")


def num_unread(optimizer: torch.optim.Optimizer, placement: Placement) -> int:
    """How many updates may be under way before their figures are read: 1 where nothing needs them at once.

    The next update under fp16 needs them, for its scale; and an optimizer without a fused kernel, which cannot
    be told on the device to leave a bad update out.
    """
    return int(placement.device.type == "cuda" and placement.precision != "fp16" and _is_fused(optimizer))


def accumulate(
    wrapped: nn.Module,
    micro_batches: Sequence[Batch],
    *,
    task: Task,
    progress: Progress,
    placement: Placement,
    factor: float,
) -> tuple[Totals, list[Shown]]:
    """Forward and backward of every micro-batch of this rank.

    ``factor`` multiplies each loss before backward; a constant, because how many items are valid is known
    only after the last rank's last micro-batch, and the gradient is divided by that then.

    Returns:
        For each: the sum of losses and of weights, and what it has shown.
    """
    totals, shown = [], []
    for number, batch in enumerate(micro_batches):
        is_last = number == len(micro_batches) - 1
        with nullcontext() if is_last else placement.unreduced(wrapped):
            inputs = moved(batch, placement.device)
            output = output_of(wrapped, inputs, task=task, progress=progress, placement=placement)
            loss, losses, weights = summed(output)
            loss.backward(torch.full_like(loss, factor))
        totals.append((loss.detach(), weights.sum()))
        shown.append(Shown(batch["index"], losses.detach(), batch["weights"], output.notes))
    return totals, shown


def output_of(wrapped: nn.Module, batch: Batch, *, task: Task, progress: Progress, placement: Placement) -> Output:
    """What the task gives for a batch on its device, in the format of the run."""
    with placement.autocast():
        return task.forward(wrapped, batch, progress)


def summed(output: Output) -> tuple[Tensor, Tensor, Tensor]:
    """The sum of the losses, (); and of each item loss and weight, (items,)."""
    assert output.losses is not None and output.weights is not None, "training needs labels"
    # where, not a product: 0 x inf would poison the sum with examples that only fill up a rank
    return torch.where(output.weights > 0, output.losses * output.weights, 0.0).sum(), output.losses, output.weights


def update(
    wrapped: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[Batch],
    *,
    trained: Trained,
    task: Task,
    progress: Progress,
    placement: Placement,
    batch_size: int,
    loss_scale: float,
    max_grad_norm: float,
    flags: Sequence[int],
    unread: int = 0,
    gradients: Accumulate | None = None,
    filler: Callable[[], Batch] | None = None,
) -> Pending:
    """Accumulate, reduce, clip and step; a gradient that is not finite is dropped on every rank.

    The loss is computed from logits and divided once, by the valid items of the whole update, so the
    gradient does not depend on how the update was cut over micro-batches and ranks. Division and clipping
    are one factor, which a fused optimizer applies as it reads the gradients.

    Args:
        wrapped: The model.
        optimizer: Over all groups of the plan.
        micro_batches: Of this rank.
        trained: What trains in this phase.
        task: Gives the losses.
        progress: The clock.
        placement: Device and ranks.
        batch_size: Examples of an update.
        loss_scale: Of fp16; else 1.
        max_grad_norm: 0 never clips.
        flags: To be summed over ranks.
        unread: As ``num_unread`` has it: 0 reads the figures before the step.
        gradients: What does as ``accumulate`` does, in a faster way.
        filler: Makes a batch of weight 0, which a rank that lacks memory computes instead of its part, so that the
            others do not wait for it; the update is not applied anywhere then. None: it raises.

    Raises:
        MemoryError: For that batch there is no memory either.
    """
    factor = loss_scale / batch_size  # near the mean, so that a sum does not overflow fp16
    settings: dict[str, Any] = {"task": task, "progress": progress, "placement": placement, "factor": factor}

    def part() -> tuple[Totals, list[Shown]]:
        return (gradients or accumulate)(wrapped, micro_batches, **settings)

    def nothing() -> tuple[Totals, list[Shown]]:
        assert filler is not None
        return accumulate(wrapped, [filler()], **settings)

    (totals, shown), lacks_memory = within_memory(part, instead=nothing) if filler is not None else (part(), False)
    flags = [*flags, int(lacks_memory)]
    row = _row(totals, flags, trained.norms(), placement, unread=unread)
    count = placement.ranks.count  # DDP and FSDP take the mean over ranks
    pending = Pending(row, progress=progress, trained=trained, num_ranks=count, factor=factor, shown=shown)
    if unread:
        assert isinstance(row, Tensor)
        divisor, trained.spoiled = _judged(
            row, trained, num_flags=len(flags), averaged=count / factor, max_grad_norm=max_grad_norm
        )
        _step(optimizer, grad_scale=divisor, found_inf=trained.spoiled)
    elif (stats := pending.read()).is_applied:
        clip = max(1.0, (stats.grad_norm + _EPSILON) / max_grad_norm) if max_grad_norm else 1.0
        _divide_and_step(optimizer, trained, clip / stats.unscale)
    trained.clear()
    return pending


def _row(
    totals: Sequence[tuple[Tensor, Tensor]],
    flags: Sequence[int],
    norms: Sequence[Tensor],
    placement: Placement,
    *,
    unread: int,
) -> Tensor | list[float]:
    """The figures of the update over all ranks, in one reduction: norms are part of it where gradients are sharded."""
    device, count = placement.device, placement.ranks.count
    if device.type == "cpu" and count == 1 and not unread:  # a tensor for each sum would cost more than the sum
        sums = [sum(map(float, column)) for column in zip(*totals, strict=True)]
        return [*sums, *flags, *(float(norm) ** 2 for norm in norms)]
    asked = torch.tensor(list(flags), dtype=torch.float64, pin_memory=device.type == "cuda")
    sums_and_flags = torch.cat(
        [torch.stack([torch.stack(pair).double() for pair in totals]).sum(0), asked.to(device, non_blocking=True)]
    )
    squares = torch.stack(list(norms)).double().square()
    if placement.is_sharded:
        return placement.ranks.sum(torch.cat([sums_and_flags, squares]))
    return torch.cat([placement.ranks.sum(sums_and_flags), squares])


def _judged(
    row: Tensor, trained: Trained, *, num_flags: int, averaged: float, max_grad_norm: float
) -> tuple[Tensor, Tensor]:
    """What divides the gradients, and whether they must not be applied, (), fp32 on the device; nothing is read.

    After an update that is not finite, or lacks memory, none is applied, as the host learns of it only during the
    next. The last of the flags says which lacks memory.
    """
    unscale = averaged / torch.where(row[1] > 0, row[1], 1.0)
    norm = row[2 + num_flags :].sum().sqrt() * unscale
    spoiled = (~torch.isfinite(norm + row[0]) | (row[1 + num_flags] > 0)).float()
    if trained.spoiled is not None:
        spoiled = torch.maximum(spoiled, trained.spoiled)
    divisor = unscale.reciprocal()
    if max_grad_norm:
        divisor = divisor * ((norm + _EPSILON) / max_grad_norm).clamp(min=1.0)
    return divisor.float(), spoiled


def _is_fused(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its kernel takes ``grad_scale`` and ``found_inf``, which are fp32: too coarse for fp64 weights."""
    supports = getattr(optimizer, "_step_supports_amp_scaling", False)  # torch's own mark, for its gradient scaler
    return bool(supports) and optimizer.param_groups[0]["params"][0].dtype == torch.float32


def _divide_and_step(optimizer: torch.optim.Optimizer, trained: Trained, divisor: float) -> None:
    if divisor == 1.0:
        optimizer.step()
    elif _is_fused(optimizer):
        device = trained.parameters[0].device
        _step(optimizer, grad_scale=torch.tensor(divisor, dtype=torch.float32, device=device), found_inf=None)
    else:
        torch._foreach_div_(trained.gradients(), divisor)
        optimizer.step()


def _step(optimizer: torch.optim.Optimizer, *, grad_scale: Tensor, found_inf: Tensor | None) -> None:
    """One step of a fused optimizer, which divides the gradients by ``grad_scale``."""
    vars(optimizer).update(grad_scale=grad_scale, found_inf=found_inf)
    try:
        optimizer.step()
    finally:
        del optimizer.grad_scale, optimizer.found_inf  # type: ignore[attr-defined]


def _not_finite(shown: Sequence[Shown]) -> list[int]:
    """The examples whose loss is not finite, where a loss belongs to one example."""
    found: list[int] = []
    for each in shown:
        if len(each.ids) == len(each.losses):
            found += each.ids[~torch.isfinite(each.losses).cpu()].tolist()
    return found
