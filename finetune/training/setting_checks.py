"""Settings that change nothing, or less than they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.sampling import MicroBatch
from ..durations import Duration, due_steps
from ..plans import Plan
from ..policies import NonFinite
from ..precision import Precision
from ..run_config import RunConfig


def setting_warnings(
    config: RunConfig, plan: Plan, *, evaluations: Sequence[int], precision: str, lengths: np.ndarray
) -> list[str]:
    """What ``plan`` is to say of sizes, intervals, policies and formats that are set.

    Args:
        config: The run.
        plan: Its plan.
        evaluations: The steps after which it evaluates.
        precision: In which it computes.
        lengths: Of the training examples, (examples,).
    """
    return [
        *_of_policies(config, plan, evaluations),
        *_of_bad_updates(config, plan, evaluations),
        *_of_formats(config, precision),
        *_of_sizes(config, plan, lengths),
    ]


def _of_policies(config: RunConfig, plan: Plan, evaluations: Sequence[int]) -> list[str]:
    found, stopping, every = [], config.early_stopping, config.checkpoint.keep_every
    if stopping is not None and not config.checkpoint.keep_best:
        found.append("early_stopping with checkpoint.keep_best: 0 ends with the last weights, which are not the best")
    if stopping is not None and stopping.patience >= len(evaluations):
        found.append(f"early_stopping.patience: {stopping.patience} cannot be reached in this run's evaluations")
    if every is not None and not due_steps(every, steps_per_epoch=plan.steps_per_epoch, total_steps=plan.total_steps):
        found.append(f"checkpoint.keep_every: {every}: without effect, as the run is shorter")
    return found


def _of_bad_updates(config: RunConfig, plan: Plan, evaluations: Sequence[int]) -> list[str]:
    """Where the policy for them does not do what it says."""
    policy = config.non_finite
    if policy.name == "stop" and policy.at_most != NonFinite().at_most:
        return [f"non_finite.at_most: {policy.at_most}: without effect, as non_finite.name: stop allows none"]
    if policy.name != "rollback":
        return []
    if config.output_dir is None:
        return ["non_finite.name: rollback: nothing is saved without output_dir, so the first bad update ends the run"]
    due = due_steps(config.checkpoint.every, steps_per_epoch=plan.steps_per_epoch, total_steps=plan.total_steps)
    first = min([*due, *evaluations])
    return [f"non_finite.name: rollback: a bad update before the first checkpoint (step {first}) ends the run"]


def _of_formats(config: RunConfig, precision: str) -> list[str]:
    scaler, plain = ("initial_scale", "growth", "backoff", "interval", "min", "max"), Precision()
    changed = [name for name in scaler if getattr(config.precision, name) != getattr(plain, name)]
    if not changed or precision == "fp16":
        return []
    return [f"precision.{', precision.'.join(changed)}: without effect, as the run computes in {precision}"]


def _of_sizes(config: RunConfig, plan: Plan, lengths: np.ndarray) -> list[str]:
    found = []
    if config.order == "bucketed" and int(lengths.min()) == int(lengths.max()):
        found.append("order: bucketed: without effect, as all examples have one length")
    if config.optimizer.head_lr is not None and "head" not in plan.trained():
        found.append("optimizer.head_lr: without effect, as the head never trains")
    if config.batch_size > len(lengths):
        found.append(
            f"batch_size: {config.batch_size}, and there are {len(lengths)} examples: every update takes all of them"
        )
    cut = MicroBatch(config.micro_batch) if config.micro_batch != "auto" else None
    if cut is not None and cut.unit == "examples" and cut.amount > config.batch_size:
        found.append(f"micro_batch: {config.micro_batch}: without effect, as an update has {config.batch_size}")
    for path, text in (("evaluate_every", config.evaluate_every), ("checkpoint.every", config.checkpoint.every)):
        interval = Duration.parse(text)  # in epochs it may be the default, and need not fit a trial of a few steps
        if interval.unit == "steps" and interval.amount > plan.total_steps:
            found.append(
                f"{path}: {text}: without effect, as the run has {plan.total_steps} steps; its end is always one"
            )
    return found
