"""What a schedule cannot do in this run: it contradicts the optimizer, or it never acts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import ConfigError
from ..plan_curves import flat
from ..plans import Plan
from ..run_config import RunConfig
from ..schedules import CosineRestarts, MultiStep, ReduceOnPlateau, Schedule, WarmupLinear


class Use(NamedTuple):
    """A schedule over a stretch of the run, and how a message names it."""

    path: str
    schedule: Schedule
    start: int
    end: int


def schedule_warnings(config: RunConfig, plan: Plan, evaluations: Sequence[int]) -> list[str]:
    """Schedules, and fields of them, that change nothing.

    Args:
        config: The run.
        plan: Its plan.
        evaluations: The steps after which it evaluates.

    Raises:
        ConfigError: A schedule sets the momentum of an optimizer that was told to have none.
    """
    uses = _uses(plan, evaluations)
    _check_momentum(config, plan, uses)
    found = []
    if all(use.schedule is not plan.schedule for use in uses) and config.schedule != WarmupLinear():
        found.append("schedule: without effect, as every phase has a schedule of its own")
    for path, schedule, start, end in uses:
        if isinstance(schedule, ReduceOnPlateau):
            count, needed = sum(start < step < end for step in evaluations), schedule.patience + 2
            if count < needed:
                found.append(
                    f"{path}.patience: {schedule.patience} is never exceeded, so the rate never falls: a cut needs "
                    f"{needed} evaluations before the end, and there are {count}"
                )
        if isinstance(schedule, CosineRestarts) and schedule.cycles > end - start:
            found.append(f"{path}.cycles: {schedule.cycles} are more than its {end - start} steps; have fewer")
        if isinstance(schedule, MultiStep):
            clock = plan.at(0)._replace(total_steps=end - start)
            late = [text for text in schedule.milestones if clock.steps(text) >= end - start]
            if late:
                found.append(f"{path}.milestones: {', '.join(late)} without effect, as the end comes first")
    return found


def _uses(plan: Plan, evaluations: Sequence[int]) -> list[Use]:
    """Every schedule that the run may ask, once for each stretch: the longest, where a plateau may start it."""
    starts = plan.starts(plan.at(plan.total_steps, flat(plan, evaluations)))
    ends = [min(end, plan.total_steps) for end in (*plan.starts(plan.at(0))[1:], plan.total_steps)]
    found: dict[tuple[int, int], Use] = {}
    for number in plan.reachable():
        for rate in plan.phases[number].rates.values():
            if rate.schedule is None:
                found[id(plan.schedule), 0] = Use("schedule", plan.schedule, 0, plan.total_steps)
            elif starts[number] < plan.total_steps:
                path = f"strategy: phase {number}, schedule"
                found[id(rate.schedule), number] = Use(path, rate.schedule, starts[number], ends[number])
    return list(found.values())


def _check_momentum(config: RunConfig, plan: Plan, uses: Sequence[Use]) -> None:
    if getattr(config.optimizer, "momentum", None) != 0:
        return
    for path, schedule, _, end in uses:
        if schedule.momentum(plan.at(0)._replace(total_steps=end)) is not None:
            raise ConfigError(
                f"{path}: it sets the optimizer's momentum, and optimizer.momentum is 0. Give the optimizer a "
                f"momentum, or leave it alone with {path}.momenta: null"
            )
