"""Policies as questions that the loop asks: when to save, what to keep, when to stop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from annotated_types import Ge

from .durations import DurationText, check_interval
from .progress import Evaluation

_STRICT = {"extra": "forbid"}


@dataclass(frozen=True)
class Checkpointing:
    """When checkpoints are written and which are kept; an improving evaluation also saves.

    Args:
        every: Interval; a percentage is of the run.
        keep_last: The newest so many are kept, at least 1.
        keep_best: The best so many by the run's metric are kept as well; 0: ``model/`` holds the last weights.
        keep_every: Interval; the first checkpoint of each is kept as well, for good. None: none is.
        keep_spaced: ``yes`` keeps, as well, one checkpoint of each doubling of age: those that were due 1, 2 to 3,
            4 to 7, 8 to 15 … saves before the newest.
    """

    every: DurationText = "1 epoch"
    keep_last: Annotated[int, Ge(1)] = 2
    keep_best: Annotated[int, Ge(0)] = 1
    keep_every: DurationText | None = None
    keep_spaced: Literal["yes", "no"] = "no"

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        check_interval(self.every, field="every")
        if self.keep_every is not None:
            check_interval(self.keep_every, field="keep_every")


@dataclass(frozen=True)
class EarlyStopping:
    """Stops when the run's metric has not improved for ``patience`` evaluations.

    Args:
        patience: Evaluations in a row without improvement.
        min_delta: By how much a score must beat the best to count, in the metric's own unit.
    """

    patience: Annotated[int, Ge(1)] = 3
    min_delta: Annotated[float, Ge(0)] = 0.0

    __pydantic_config__ = _STRICT

    def should_stop(self, evaluations: Sequence[Evaluation]) -> bool:
        """Replays the evaluations so far; a score that is not a number is no improvement."""
        return without_improvement(evaluations, min_delta=self.min_delta) >= self.patience


@dataclass(frozen=True)
class NonFinite:
    """What is done about an update whose loss or gradient is not finite; it is never applied, whatever stands here.

    Clock, schedule and order of the data go on. Under fp16 a gradient that overflows is the loss scaler's affair
    until the scale is at its minimum; a loss that is not finite never is, as no scale has touched it.

    Args:
        name: ``stop`` ends the run. ``skip`` goes on from the weights as they are. ``rollback`` puts weights and
            moments of the newest good checkpoint back first; a stop saves one more, so a run that was resumed may
            go back less far.
        at_most: So many updates in a row are skipped, or so many in the whole run rolled back; one more ends it.
    """

    name: Literal["stop", "skip", "rollback"] = "stop"
    at_most: Annotated[int, Ge(1)] = 3

    __pydantic_config__ = _STRICT


class Stopping(Protocol):
    """Whether a run ends here, for reasons that lie outside of it; the same answer on every rank."""

    def should_stop(self, evaluations: Sequence[Evaluation]) -> bool:
        """Asked after each evaluation, with all so far."""
        ...


def without_improvement(evaluations: Sequence[Evaluation], *, min_delta: float = 0.0) -> int:
    """How many of the last evaluations in a row did not beat the best before them."""
    best, count = -math.inf, 0
    for evaluation in evaluations:
        if evaluation.score > best + min_delta:
            best, count = evaluation.score, 0
        else:
            count += 1
    return count


def best_evaluation(evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """The evaluation with the highest score; ties keep the earlier, and a NaN is never best."""
    finite = [evaluation for evaluation in evaluations if not math.isnan(evaluation.score)]
    return max(finite, key=lambda evaluation: evaluation.score) if finite else None
