"""Learning-rate schedules as closed forms of the clock.

``multiplier`` is f(t) of the base LR, with t = ``progress.step`` finished updates: update number t (from 0)
is applied with f(t), the last with f(T - 1), and f(T) is the end. Nothing counts, so nothing can be
stepped twice, once per process, or restored wrongly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal, Protocol

from annotated_types import Ge, Le

from .durations import Duration, DurationText
from .progress import Progress

_STRICT = {"extra": "forbid"}


class Schedule(Protocol):
    """The course of the learning rate over a run, or over a phase that has its own."""

    def multiplier(self, progress: Progress) -> float:
        """Times the base LR; at most 1 for those shipped here."""

    def momentum(self, progress: Progress) -> float | None:
        """The optimizer's momentum (Adam's first beta); None leaves the optimizer's own."""


@dataclass(frozen=True, kw_only=True)
class Constant:
    """The base LR throughout."""

    name: Literal["constant"] = "constant"

    __pydantic_config__ = _STRICT

    def multiplier(self, progress: Progress) -> float:
        return 1.0

    def momentum(self, progress: Progress) -> float | None:
        return None


@dataclass(frozen=True, kw_only=True)
class WarmupLinear:
    """Linear warm-up from 0, then linear decay to 0 (Devlin et al. 2019, appendix A.3: 10 % warm-up).

    Equal to ``transformers.get_linear_schedule_with_warmup`` at every update, so the first update
    of a warm-up has LR 0.

    Args:
        warmup: Duration of the warm-up; a percentage is of the run.
    """

    name: Literal["warmup_linear"] = "warmup_linear"
    warmup: DurationText = "10%"

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        Duration.parse(self.warmup)

    def multiplier(self, progress: Progress) -> float:
        warmup = _warmup_steps(self.warmup, progress.total_steps, progress.steps_per_epoch)
        if progress.step < warmup:
            return progress.step / warmup
        return max(0.0, (progress.total_steps - progress.step) / max(1, progress.total_steps - warmup))

    def momentum(self, progress: Progress) -> float | None:
        return None


@dataclass(frozen=True, kw_only=True)
class WarmupCosine:
    """Linear warm-up from 0, then half a cosine down to ``floor`` (Loshchilov & Hutter 2017, section 3).

    Equal to ``transformers.get_cosine_schedule_with_warmup`` (floor 0) and
    ``get_cosine_with_min_lr_schedule_with_warmup`` (``min_lr_rate`` = floor) at every update.

    Args:
        warmup: Duration of the warm-up; a percentage is of the run.
        floor: The multiplier at the end, of the base LR.
    """

    name: Literal["warmup_cosine"] = "warmup_cosine"
    warmup: DurationText = "10%"
    floor: Annotated[float, Ge(0), Le(1)] = 0.0

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        Duration.parse(self.warmup)
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor is a share of the base LR, from 0 to 1; got {self.floor}")

    def multiplier(self, progress: Progress) -> float:
        warmup = _warmup_steps(self.warmup, progress.total_steps, progress.steps_per_epoch)
        if progress.step < warmup:
            return progress.step / warmup
        through = (progress.step - warmup) / max(1, progress.total_steps - warmup)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(through, 1.0)))

    def momentum(self, progress: Progress) -> float | None:
        return None


@lru_cache  # asked at every step
def _warmup_steps(warmup: str, total_steps: int, steps_per_epoch: int) -> int:
    """The warm-up in updates.

    Raises:
        ValueError: It is as long as the run, so the LR would never come down (or never reach its peak).
    """
    steps = Duration.parse(warmup).steps(steps_per_epoch=steps_per_epoch, total_steps=total_steps)
    if steps >= total_steps > 0:
        raise ValueError(f"warmup: {warmup!r} is {steps} steps, and the whole is {total_steps}; shorten it")
    return steps
