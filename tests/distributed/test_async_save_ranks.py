"""Several ranks and a save in flight: one writes, all hear of it at the same call."""

from __future__ import annotations

import os
import resource
import warnings

import pytest

from finetune.errors import StorageError
from finetune.policies import Checkpointing
from finetune.speed import Speed
from tests.distributed.two_ranks import on_ranks
from tests.forked import Acting
from tests.integration.test_async_save import saved, writers
from tests.runs import run, text_task

SETTINGS = {"checkpoint": Checkpointing(every="2 steps", keep_last=9), "evaluate_every": "3 steps"}


@pytest.mark.parametrize("sharded", [False, True])
def test_two_ranks_save_beside_the_training_as_they_do_in_the_loop(tmp_path, sharded):
    task = text_task(tmp_path)

    def save(name: str, speed: Speed):
        run(task, output_dir=str(tmp_path / name), speed=speed, **SETTINGS)
        return writers()

    on_ranks(lambda: save("plain", Speed(async_save="off")), sharded=sharded)
    assert on_ranks(lambda: save("async", Speed()), sharded=sharded) == [[], []]
    assert len(saved(tmp_path / "plain")) >= 6
    assert saved(tmp_path / "async") == saved(tmp_path / "plain")


def fill_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))


def test_a_full_disk_ends_all_ranks_with_the_same_message(tmp_path):
    task = text_task(tmp_path)

    def fail():
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                run(Acting(task, 1, fill_disk), output_dir=str(tmp_path / "run"), **SETTINGS)
            except StorageError as error:
                return str(error), [str(warning.message) for warning in told if "checkpoint" in str(warning.message)]
            return os.getpid(), []

    (first, told), (second, silent) = on_ranks(fail)
    assert first == second and first.startswith("the checkpoint of step 4 could not be written")
    assert [text.split(" could")[0] for text in told] == ["the checkpoint of step 2", "the checkpoint of step 3"]
    assert silent == []
