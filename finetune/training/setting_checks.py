"""Numbers of a run that are larger than what they divide, and so change nothing."""

from __future__ import annotations

from ..data.sampling import MicroBatch
from ..durations import Duration
from ..plans import Plan
from ..run_config import RunConfig


def setting_warnings(config: RunConfig, plan: Plan, *, num_examples: int) -> list[str]:
    """What ``plan`` is to say of sizes and intervals that are set.

    Args:
        config: The run.
        plan: Its plan.
        num_examples: Of the training split.
    """
    found = []
    if config.batch_size > num_examples:
        found.append(
            f"batch_size: {config.batch_size}, and there are {num_examples} examples: every update takes all of them"
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
