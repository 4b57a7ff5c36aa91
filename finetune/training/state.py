"""What a run has come to, beside its weights: small, and all of it in the checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ..policies import best_evaluation
from ..precision import ScalerState
from ..progress import Evaluation

if TYPE_CHECKING:
    from torch import Tensor


class Losses(NamedTuple):
    """Of the updates since the last line of the log, as their mean needs them: a run may log but once."""

    total: float = 0.0
    num_updates: int = 0

    def mean(self) -> float:
        """NaN for none."""
        return self.total / self.num_updates if self.num_updates else math.nan


class NotFinite(NamedTuple):
    """Updates that were left out by the run's policy, because loss or gradient was not finite."""

    num_updates: int = 0
    in_a_row: int = 0  # since the last one that was finite


@dataclass
class RunState:
    """Where a run stands after ``step`` attempted updates.

    Everything random is keyed by the clock, and order and schedule are functions of it, so this, the weights
    and the optimizer's moments are the whole state.
    """

    step: int = 0
    evaluations: list[Evaluation] = field(default_factory=list)
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)  # of the validation split, by step
    scaler: ScalerState = field(default_factory=ScalerState)
    not_finite: NotFinite = field(default_factory=NotFinite)
    halvings: int = 0  # of the micro-batch, because updates did not fit in memory
    losses: Losses = field(default_factory=Losses)
    stopped_early: bool = False
    seconds: float = 0.0  # of training, over all resumes
    remembered: dict[str, Tensor] = field(default_factory=dict)  # by the task, on the device; not in ``document``

    def document(self) -> dict[str, Any]:
        """As JSON can hold it; of the metrics those that the run can still ask for, as the log has all."""
        asked = _asked(self.evaluations)
        return {
            "step": self.step,
            "evaluations": [list(evaluation) for evaluation in self.evaluations],
            "metrics": {str(step): values for step, values in self.metrics.items() if step in asked},
            "scaler": self.scaler._asdict(),
            "not_finite": self.not_finite._asdict(),
            "halvings": self.halvings,
            "losses": self.losses._asdict(),
            "stopped_early": self.stopped_early,
            "seconds": self.seconds,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> RunState:
        """The state that ``document`` holds; what else is in it is left alone.

        Raises:
            ValueError: An entry is missing, or is nothing that a run can have come to; names it.
        """
        found = {}
        for key, read in READERS.items():
            try:
                found[key] = read(document[key])
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as fault:
                raise ValueError(f"{key}: {'missing' if key not in document else fault}") from fault
        state = cls(**found)
        steps = [evaluation.step for evaluation in state.evaluations]
        if steps != sorted(set(steps)) or any(step > state.step for step in steps):
            raise ValueError(f"evaluations: of the steps {steps}, at step {state.step}")
        if state.metrics.keys() != _asked(state.evaluations):
            raise ValueError(f"metrics: of the steps {sorted(state.metrics)}, which are not the newest and the best")
        return state


def _asked(evaluations: Sequence[Evaluation]) -> set[int]:
    """The steps whose metrics the end of a run may ask for: the newest, and the best."""
    best = best_evaluation(evaluations)
    return {each.step for each in (best, *evaluations[-1:]) if each is not None}


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r:.40} is no count")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"{value!r:.40} is no number")
    return float(value)


def _positive(value: Any) -> float:
    if not 0 <= _number(value) < math.inf:
        raise ValueError(f"{value!r:.40} is negative or no number")
    return float(value)


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{value!r:.40} is neither true nor false")
    return value


def _evaluations(value: Any) -> list[Evaluation]:
    return [Evaluation(_count(step), _number(score)) for step, score in value]


def _metrics(value: Any) -> dict[int, dict[str, float]]:
    for scores in value.values():
        for score in scores.values():
            _number(score)
    return {int(step): dict(scores) for step, scores in value.items()}


def _losses(value: Any) -> Losses:
    found = Losses(**value)
    return Losses(_number(found.total), _count(found.num_updates))


def _scaler(value: Any) -> ScalerState:
    found = ScalerState(**value)
    if _positive(found.scale) == 0:
        raise ValueError("a scale of 0")
    return found._replace(good_steps=_count(found.good_steps), skipped=_count(found.skipped))


def _not_finite(value: Any) -> NotFinite:
    found = NotFinite(**value)
    return NotFinite(_count(found.num_updates), _count(found.in_a_row))


READERS: Mapping[str, Callable[[Any], Any]] = {
    "step": _count,
    "evaluations": _evaluations,
    "metrics": _metrics,
    "scaler": _scaler,
    "not_finite": _not_finite,
    "halvings": _count,
    "losses": _losses,
    "stopped_early": _flag,
    "seconds": _positive,
}
