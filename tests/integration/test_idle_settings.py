"""Sizes and intervals that change nothing are named, by the plan and by the run itself."""

import pytest

from finetune.policies import Checkpointing
from finetune.schedules import CosineRestarts
from finetune.training import plan_run

from ..runs import config, run, text_task


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"batch_size": 400}, "batch_size: 400, and there are"),
        ({"batch_size": 8, "micro_batch": "64 examples"}, "micro_batch: 64 examples: without effect"),
        ({"evaluate_every": "100 steps"}, "evaluate_every: 100 steps: without effect"),
        ({"checkpoint": Checkpointing(every="7 steps")}, "checkpoint.every: 7 steps: without effect"),
    ],
)
def test_a_size_without_effect_is_named(tmp_path, settings, named):
    warnings = plan_run(config(text_task(tmp_path), length="6 steps", **settings))["warnings"]
    assert [warning.startswith(named) for warning in warnings] == [True]


def test_what_just_fits_is_not_named(tmp_path):
    settings = {"batch_size": 8, "micro_batch": "8 examples", "evaluate_every": "6 steps"}
    saved = Checkpointing(every="6 steps")
    assert not plan_run(config(text_task(tmp_path), length="6 steps", checkpoint=saved, **settings))["warnings"]


def test_training_says_what_the_plan_warns_of(tmp_path, capfd):
    run(text_task(tmp_path), length="2 steps", batch_size=8, micro_batch="64 examples", show="progress")
    assert "warning: micro_batch: 64 examples: without effect, as an update has 8\n" in capfd.readouterr().err


def test_more_restarts_than_steps_are_named(tmp_path):
    schedule = CosineRestarts(cycles=7, warmup="0 steps")
    (warning,) = plan_run(config(text_task(tmp_path), length="6 steps", schedule=schedule))["warnings"]
    assert warning.startswith("schedule.cycles: 7 are more than its 6 steps")
    assert not plan_run(config(text_task(tmp_path), length="7 steps", schedule=schedule))["warnings"]
