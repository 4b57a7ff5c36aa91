"""SuperLoss: examples that are harder than the average count less, and easier ones more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from .base import Output, Seen, Task
from .wrapping import (
    BY_LOSS,
    base_records,
    base_score,
    base_splits,
    base_without_effect,
    load_base_model,
    load_base_split,
    losses_of_examples,
    of_base,
    refuse_inside,
    updated_by_base,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.store import Batch
    from ..progress import Progress

_LOSSES, _AVERAGE = "super_loss.losses", "super_loss.average"


@dataclass(frozen=True, kw_only=True)
class SuperLoss:
    """A task that trusts examples less the further their loss is above the average; for labels with noise.

    Each loss l becomes (l - t) s + r (log s)^2 at the confidence s that makes this smallest, where t is a moving
    average of the mean loss of updates: above t the gradient is scaled down, below it up, by e at most. The first
    update, before there is an average, is plain. No further forward is needed. The training loss in the log is this
    one, which may be negative; evaluation is that of ``base``.

    Castells et al. 2020 (NeurIPS).

    Args:
        base: The task; it has one loss for each example.
        regularisation: r, the paper's lambda, in units of the loss; the larger, the nearer to plain training. It used
            1 for 10 classes and 0.25 for 100.
        smoothing: Of the average: the share that it keeps at each update; 0.9 is the paper's.
    """

    name: Literal["super_loss"] = "super_loss"
    base: Task
    regularisation: Annotated[float, Gt(0)] = 1.0
    smoothing: Annotated[float, Ge(0), Lt(1)] = 0.9

    __pydantic_config__ = {"extra": "forbid"}

    load_model = load_base_model
    splits = base_splits
    load_split = load_base_split
    score = base_score
    records = base_records
    without_effect = base_without_effect

    def __post_init__(self) -> None:
        refuse_inside(self, BY_LOSS)

    def __getattr__(self, name: str) -> Any:
        return of_base(self, name)

    def forward(self, model: nn.Module, batch: Batch, progress: Progress) -> Output:
        """As ``base`` has it; in training, with its losses weighed against the average.

        Raises:
            ConfigError: ``base`` does not give one loss for each example.
        """
        from ..losses import super_loss

        output = self.base.forward(model, batch, progress)
        if not model.training:
            return output
        losses = losses_of_examples(self, output, batch)
        notes = {**output.notes, _LOSSES: losses.detach()}
        average = progress.remembered.get(_AVERAGE)
        if average is not None:
            losses = super_loss(losses, threshold=average, regularisation=self.regularisation)
        return output._replace(losses=losses, notes=notes)

    def updated(self, remembered: Mapping[str, Tensor], seen: Seen, progress: Progress) -> dict[str, Tensor]:
        """The average, moved towards the mean loss of the update."""
        mean = seen.notes[_LOSSES].mean()
        before = remembered.get(_AVERAGE, mean)
        average = self.smoothing * before + (1 - self.smoothing) * mean
        return {**updated_by_base(self, remembered, seen, progress), _AVERAGE: average}
