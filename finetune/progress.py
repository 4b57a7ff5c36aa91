"""The one clock: everything that varies during training is a function of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .durations import Duration, DurationText

if TYPE_CHECKING:
    from torch import Tensor


class Evaluation(NamedTuple):
    """One evaluation that has been made: after ``step`` updates, with ``score`` (higher is better)."""

    step: int
    score: float


class Progress(NamedTuple):
    """Where a run stands before update number ``step`` (from 0).

    ``step`` counts updates *attempted*: one that the fp16 scaler skips is counted too, so the
    position in the data is a function of it.
    """

    step: int
    total_steps: int
    steps_per_epoch: int
    evaluations: Sequence[Evaluation] = ()
    remembered: Mapping[str, Tensor] = {}  # what a task keeps of earlier updates; in training only, never changed
    seed: int = 0  # of the run, for what a task draws by itself; in training only

    def steps(self, duration: DurationText | Duration) -> int:
        """``duration`` in updates; a percentage is a share of ``total_steps``."""
        return Duration.parse(duration).steps(steps_per_epoch=self.steps_per_epoch, total_steps=self.total_steps)

    @property
    def epoch(self) -> int:
        """The epoch that this update belongs to, from 0."""
        return self.step // self.steps_per_epoch
