"""Self-paced learning: from what is easy for the model now, and from more as it gets better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from ..durations import Duration, DurationText
from .base import Output, Seen, Task
from .recent_losses import with_latest
from .wrapping import (
    BY_LOSS,
    base_records,
    base_score,
    base_splits,
    load_base_model,
    load_base_split,
    losses_of_examples,
    of_base,
    refuse_inside,
    updated_by_base,
    without_effect,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.store import Batch
    from ..progress import Progress

_LOSSES, _RECENT = "self_paced.losses", "self_paced.recent"
_SMALLEST = 1e-12  # threshold: losses that are all 0 are below it


@dataclass(frozen=True, kw_only=True)
class SelfPaced:
    """A task that learns from examples whose loss is below a threshold, which rises until all of them count.

    The threshold is the quantile of the losses of the last ``memory`` examples that were trained on; it begins at
    ``start``, rises by equal steps, and from ``until`` on training is plain, as it is in the first update, before
    there are losses. A loss is multiplied by its weight, and the sum divided by the number of all examples, so fewer
    or lighter examples make smaller gradients, as in the papers' objective.

    Kumar et al. 2010 (NeurIPS) with ``hard`` weights; for the others see ``finetune.losses.self_paced_weights``. The
    papers raise the threshold itself by a factor; a quantile needs no knowledge of how large losses are.

    Args:
        base: The task; it has one loss of at least 0 for each example.
        weights: ``hard`` (1 below the threshold, else 0), ``linear``, ``logarithmic`` or ``logistic``.
        start: Share of the examples that are below the threshold at first.
        until: When all examples count in full.
        memory: Losses that the quantile is taken of.
    """

    name: Literal["self_paced"] = "self_paced"
    base: Task
    weights: Literal["hard", "linear", "logarithmic", "logistic"] = "linear"
    start: Annotated[float, Gt(0), Lt(1)] = 0.5
    until: DurationText = "50%"
    memory: Annotated[int, Ge(2)] = 1024

    __pydantic_config__ = {"extra": "forbid"}

    load_model = load_base_model
    splits = base_splits
    load_split = load_base_split
    score = base_score
    records = base_records

    def __post_init__(self) -> None:
        Duration.parse(self.until)
        refuse_inside(self, BY_LOSS)

    def __getattr__(self, name: str) -> Any:
        return of_base(self, name)

    def forward(self, model: nn.Module, batch: Batch, progress: Progress) -> Output:
        """As ``base`` has it; in training, until its end, with weighted losses.

        Raises:
            ConfigError: ``base`` does not give one loss for each example.
        """
        from ..losses import self_paced_weights

        output = self.base.forward(model, batch, progress)
        share = self.share(progress)
        if not model.training or share >= 1:
            return output
        losses = losses_of_examples(self, output, batch)
        notes = {**output.notes, _LOSSES: losses.detach()}
        recent = progress.remembered.get(_RECENT)
        if recent is not None:
            threshold = recent.quantile(share).clamp(min=_SMALLEST).to(losses.dtype)
            losses = losses * self_paced_weights(losses.detach(), threshold=threshold, kind=self.weights)
        return output._replace(losses=losses, notes=notes)

    def share(self, progress: Progress) -> float:
        """The share of the examples that are below the threshold now; 1: training is plain."""
        until = progress.steps(self.until)
        through = progress.step / until if until else 1.0
        return min(1.0, self.start + (1 - self.start) * through)

    def updated(self, remembered: Mapping[str, Tensor], seen: Seen, progress: Progress) -> dict[str, Tensor]:
        """The last losses; nothing more once all examples count."""
        found = updated_by_base(self, remembered, seen, progress)
        if self.share(progress) < 1:
            found[_RECENT] = with_latest(remembered, _RECENT, seen.notes[_LOSSES], most=self.memory)
        return found

    def without_effect(self, progress: Progress) -> list[str]:
        """What is set and changes nothing in a run."""
        found = without_effect(self.base, progress)
        until = progress.steps(self.until)
        if until <= 1:
            found.append(f"task.until: {self.until} is over before self_paced knows a loss; it has no effect")
        elif until > progress.total_steps:
            found.append(
                f"task.until: {self.until} is after the end of the run; the hardest examples never count in full"
            )
        return found
