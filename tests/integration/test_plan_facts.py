"""What a plan says of memory, of a curriculum's course and of strategies that change nothing, on tiny models."""

from __future__ import annotations

import pytest

from finetune.curricula import Curriculum
from finetune.progress import Progress
from finetune.strategies import Discriminative, Freeze, Full, LoRA, Mixout
from finetune.training import plan_run
from tests.runs import config, text_task

_OFFSETS = 100  # bytes: a packed batch has one boundary more than sequences


def activations(task, *, examples: int, **settings) -> int:
    """Bytes that backward needs of a micro-batch of so many examples."""
    planned = plan_run(config(task, micro_batch=f"{examples} examples", **settings))
    return planned["memory"]["activations"]


def of_none(task, **settings) -> int:
    """What a micro-batch keeps however many examples are in it."""
    two, four = (activations(task, examples=examples, **settings) for examples in (2, 4))
    return 2 * two - four


def test_what_is_kept_once_for_a_micro_batch_is_counted_once(tmp_path):
    """Mixout keeps each matrix that it has mixed; no example has its own."""
    task = text_task(tmp_path)
    assert 0 <= of_none(task, strategy=Full()) <= _OFFSETS
    mixed = 4 * sum(
        group["num_decayed"] for group in plan_run(config(task))["groups"] if group["name"].startswith("layer.")
    )
    assert mixed <= of_none(task, strategy=Mixout(probability=0.3)) <= 1.2 * mixed  # and the pooler's


@pytest.mark.parametrize("pacing", ["root", "step"])
def test_a_course_of_few_steps_is_told_step_by_step(tmp_path, pacing):
    curriculum = Curriculum(pacing=pacing, start=0.4, until="20 steps")
    told = plan_run(config(text_task(tmp_path), curriculum=curriculum, length="24 steps"))["curriculum"]
    assert [point["step"] for point in told] == list(range(21))
    assert [point["share"] for point in told] == [curriculum.share(Progress(step, 24, 4)) for step in range(21)]


def test_adapters_that_never_train_are_warned_of(tmp_path):
    task = text_task(tmp_path)
    told = "strategy.base: lora without effect, as nothing below the head trains"
    assert told in plan_run(config(task, strategy=Discriminative(base=LoRA(rank=2, base=Freeze()))))["warnings"]
    assert told not in plan_run(config(task, strategy=Discriminative(base=LoRA(rank=2))))["warnings"]
