"""A disk that is full costs a checkpoint and a warning; one that stays full ends the run, which goes on later."""

# ruff: noqa: F401, F811 - fixtures are imported by name
from __future__ import annotations

import resource

import pytest
from transformers import PreTrainedTokenizerBase

from finetune.checkpoints.reading import newest_good
from finetune.errors import PreemptedError
from finetune.policies import Checkpointing
from tests.forked import Acting, ended_child
from tests.integration.test_signals import (
    folder,
    go,
    go_on,
    landed,
    last_line,
    left,
    place,
    task,
    whole,
    without_evaluation,
)


def limit(size: int) -> None:
    """No file may grow past this from here on: a full disk, for one process."""
    landed()
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class Passing(Acting):
    """Somebody frees space, two updates later."""

    def forward(self, model, batch, progress):
        if progress.step == self.step + 2 and model.training:
            limit(resource.RLIM_INFINITY)
        return super().forward(model, batch, progress)


def test_a_full_disk_costs_a_warning(task, folder, whole):
    ended = ended_child(lambda: go(Passing(task, 2, lambda: limit(10_000)), folder))
    assert ended.code == 0
    told = [line.split(" could")[0] for line in ended.err.splitlines()]
    assert told[:2] == [f"warning: the checkpoint of step {step}" for step in (3, 4)]
    assert told[2:] == ["warning: the best weights (step 3) were not saved; the last are used"]
    assert left(folder)[:2] == whole[:2]


def test_a_disk_that_stays_full_ends_the_run(task, folder, whole):
    ended = ended_child(lambda: go(Acting(task, 2, lambda: limit(10_000)), folder))
    assert ended.code == 74 and ended.err.splitlines()[-1].startswith("error: the checkpoint of step ")
    assert last_line(folder) == ("failed", 74)
    assert newest_good(folder / "checkpoints").step == 2
    go_on(task, folder)
    assert left(folder) == whole


def test_a_disk_full_at_the_very_end(task, folder, whole):
    """The last checkpoint is there, and what cannot be written is the model."""
    with pytest.raises(PreemptedError):
        go(Acting(task), folder, stop_at=10)

    def limited():
        limit(10_000)
        go_on(task, folder)

    ended = ended_child(limited)
    assert ended.code == 74 and ended.err.count("\n") == 1 and "Free some space" in ended.err
    go_on(task, folder)
    assert without_evaluation(left(folder)) == without_evaluation(whole)


def test_a_disk_full_at_the_last_file_of_the_model(task, folder, whole):
    """Which the tokenizer writes, whose library has no OSError."""
    with pytest.raises(PreemptedError):
        go(Acting(task), folder, stop_at=10)

    def limited():
        save = PreTrainedTokenizerBase.save_pretrained

        def save_limited(tokenizer, *arguments, **options):
            limit(1_000)  # enough for its configuration
            try:
                return save(tokenizer, *arguments, **options)
            finally:
                limit(resource.RLIM_INFINITY)

        PreTrainedTokenizerBase.save_pretrained = save_limited
        go_on(task, folder)

    ended = ended_child(limited)
    assert ended.code == 74 and ended.err.count("\n") == 1 and "File too large" in ended.err, ended.err
    assert last_line(folder) == ("failed", 74)
    assert not list(folder.glob("*model*"))
    go_on(task, folder)
    assert without_evaluation(left(folder)) == without_evaluation(whole)


class Flickering(Acting):
    """Every other save finds the disk full."""

    def forward(self, model, batch, progress):
        if model.training:
            limit(resource.RLIM_INFINITY if progress.step % 2 else 10_000)
        return super().forward(model, batch, progress)


def test_failures_that_are_not_in_a_row_end_nothing(task, folder, whole):
    ended = ended_child(lambda: go(Flickering(task), folder, checkpoint=Checkpointing(every="1 steps")))
    assert ended.code == 0 and ended.err.count("could not be written") == 5, ended.err
    assert left(folder)[:1] == whole[:1]
