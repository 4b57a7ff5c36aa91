"""What a plan says of a curriculum: how much is visible when, how difficult that is, and what has no effect."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..curricula.difficulties import described
from ..plans import Plan
from ..run_config import RunConfig
from .difficulty import Difficulty

_POINTS = 50  # of the course that the plan holds; all of its steps where these are fewer


class CourseFacts(NamedTuple):
    """A curriculum over the data of a run."""

    visible: list[tuple[int, float, int]]  # (from step, share, examples); empty without a curriculum
    difficulty: dict[str, Any]  # what it is, where its values come from, and how they lie; empty without one
    warnings: list[str]
    ways: dict[str, str]  # what becomes of the cache, among the techniques of speed


def course_facts(
    config: RunConfig,
    plan: Plan,
    difficulty: Difficulty | None,
    *,
    num_examples: int,
    is_head_new: bool,  # noqa: FBT001
) -> CourseFacts:
    """What ``describe`` needs to know of a curriculum.

    Args:
        config: Of the run.
        plan: Its clock.
        difficulty: What it ranks by; None without a curriculum.
        num_examples: Of the training split.
        is_head_new: Whether the checkpoint left the head's weights to chance.
    """
    curriculum = config.curriculum
    if curriculum is None or difficulty is None:
        return CourseFacts([], {}, [], {})
    until = plan.at(0).steps(curriculum.until)
    steps = sorted({round(until * part / _POINTS) for part in range(_POINTS + 1)})
    shares = [(step, curriculum.share(plan.at(step))) for step in steps]
    counts, spread = _counts(config, plan, difficulty, steps=steps, num_examples=num_examples)
    visible = [(step, share, count) for (step, share), count in zip(shares, counts, strict=True)]
    document: dict[str, Any] = {
        "name": difficulty.told,
        "order": curriculum.order,
        "scores": difficulty.scores,
        "spread": spread,
    }
    document["pacing"] = {key: getattr(curriculum, key) for key in ("pacing", "start", "until")}
    warnings = missing_words(difficulty)
    if counts[0] >= num_examples:
        warnings.append("curriculum: without effect, as all examples may be drawn from step 0")
    if config.order == "bucketed":
        warnings.append("order: bucketed acts only once the curriculum shows all examples")
    if curriculum.difficulty == "loss" and is_head_new:
        warnings.append(
            f"curriculum.difficulty: the {described('loss')} says little, as its head is new; a teacher or the data "
            "map of an earlier run says more"
        )
    ways = {"difficulty_cache": difficulty.way} if difficulty.way else {}
    return CourseFacts(visible, document, warnings, ways)


def missing_words(difficulty: Difficulty) -> list[str]:
    """Of a column that has no number for some examples."""
    if difficulty.values is None or not (unknown := np.isnan(difficulty.values)).any():
        return []
    return [f"curriculum: {unknown.sum()} of {len(unknown)} examples have no {difficulty.told}; they are shown last"]


def _counts(
    config: RunConfig, plan: Plan, difficulty: Difficulty, *, steps: list[int], num_examples: int
) -> tuple[list[int], list[list[float]] | None]:
    """How many examples may be drawn at these steps, and the lowest, median and highest difficulty of these."""
    curriculum, size = config.curriculum, config.batch_size
    assert curriculum is not None
    if difficulty.values is None:
        clocks = [plan.at(step) for step in steps]
        return [curriculum.num_visible(clock, num_examples=num_examples, batch_size=size) for clock in clocks], None
    course = curriculum.course(difficulty.values, seed=config.seed, batch_size=size)
    shown = [difficulty.values[course.visible(plan.at(step))] for step in steps]
    known = [values[~np.isnan(values)] for values in shown]
    spread = [
        [float(value) for value in np.quantile(part, (0, 0.5, 1), method="lower")] if len(part) else []
        for part in known
    ]
    return [len(values) for values in shown], spread
