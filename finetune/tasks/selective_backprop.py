"""Selective backprop: for a part of the run, learning mostly from the examples with the largest losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from ..durations import Duration, DurationText
from ..randomness import seed_for
from .base import Output, Seen, Task
from .recent_losses import share_below, with_latest
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

_LOSSES, _RECENT = "selective_backprop.losses", "selective_backprop.recent"


@dataclass(frozen=True, kw_only=True)
class SelectiveBackprop:
    """A task that drops examples of small loss at random, and learns from the rest: hard-example mining.

    An example whose loss is not below a share c of the last ``memory`` losses is kept with probability c^b, where
    b = 1/keep - 1 makes ``keep`` the share that is kept on average (Jiang et al. 2019, arXiv 1910.00762, whose b is
    a setting; the exponent and the part of the run are those of MosaicML's Composer). The loss of an
    update is the mean over the examples kept. What decides is known before the update, so it does not depend on how
    the update is cut. All examples still go forward and backward: this changes what is learned, not what it costs.

    Args:
        base: The task; it has one loss for each example.
        keep: Share of the examples that is kept.
        start: When dropping begins; losses are remembered from the start of the run.
        until: When it ends.
        memory: Losses that each is compared with.
    """

    name: Literal["selective_backprop"] = "selective_backprop"
    base: Task
    keep: Annotated[float, Gt(0), Lt(1)] = 0.5
    start: DurationText = "50%"
    until: DurationText = "90%"
    memory: Annotated[int, Ge(2)] = 1024

    __pydantic_config__ = {"extra": "forbid"}

    load_model = load_base_model
    splits = base_splits
    load_split = load_base_split
    score = base_score
    records = base_records

    def __post_init__(self) -> None:
        refuse_inside(self, BY_LOSS)
        start, until = Duration.parse(self.start), Duration.parse(self.until)
        if start.unit == until.unit and start.amount >= until.amount:
            raise ValueError(f"until: {self.until!r} is not after start, {self.start!r}")

    def __getattr__(self, name: str) -> Any:
        return of_base(self, name)

    def forward(self, model: nn.Module, batch: Batch, progress: Progress) -> Output:
        """As ``base`` has it; in its part of training, with weight 0 for what is dropped.

        Raises:
            ConfigError: ``base`` does not give one loss for each example.
        """
        output = self.base.forward(model, batch, progress)
        if not model.training or progress.step >= progress.steps(self.until):
            return output
        losses = losses_of_examples(self, output, batch).detach()
        output = output._replace(notes={**output.notes, _LOSSES: losses})
        recent = progress.remembered.get(_RECENT)
        if recent is None or progress.step < progress.steps(self.start):
            return output
        assert output.weights is not None
        chance = share_below(recent, losses) ** (1 / self.keep - 1)
        is_kept = uniform(batch["index"].to(losses.device), progress.step, seed=progress.seed) < chance
        return output._replace(weights=output.weights * is_kept)

    def updated(self, remembered: Mapping[str, Tensor], seen: Seen, progress: Progress) -> dict[str, Tensor]:
        """The last losses; nothing more once nothing is dropped."""
        found = updated_by_base(self, remembered, seen, progress)
        if progress.step < progress.steps(self.until):
            found[_RECENT] = with_latest(remembered, _RECENT, seen.notes[_LOSSES], most=self.memory)
        return found

    def without_effect(self, progress: Progress) -> list[str]:
        """What is set and changes nothing in a run."""
        found = without_effect(self.base, progress)
        start, until = progress.steps(self.start), min(progress.steps(self.until), progress.total_steps)
        if max(start, 1) >= until:
            found.append(
                f"task.start: selective_backprop drops nothing from {self.start} until {self.until} of this run"
            )
        return found


def uniform(index: Tensor, step: int, *, seed: int) -> Tensor:
    """A number in [0, 1) for each example of a step, (batch,) float64; the same on every device and rank.

    A hash and no generator, whose draws would depend on how the update is cut: SplitMix64 (Steele et al. 2014),
    its sequence addressed by the example.
    """
    state = index * _signed(0x9E3779B97F4A7C15) + seed_for(seed, "selective_backprop", step)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (state ^ _shifted(state, shift)) * _signed(factor)
    return _shifted(state ^ _shifted(state, 31), 11).double() / 2**53


def _shifted(value: Tensor, places: int) -> Tensor:
    """To the right, with zeros from the left: int64 would repeat its sign."""
    return (value >> places) & ((1 << (64 - places)) - 1)


def _signed(value: int) -> int:
    """The same 64 bits as a number that int64 can hold."""
    return value - (1 << 64) if value >> 63 else value
