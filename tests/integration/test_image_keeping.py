"""A run on images that were decoded once is the run that decodes them each time."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from finetune.precision import Precision
from finetune.speed import PLAIN
from finetune.strategies import Freeze
from finetune.training.facts import evaluation_steps
from finetune.training.image_keeping import keep_images, plan_images
from finetune.training.placement import placed
from finetune.training.prepare import prepare
from tests.runs import config, image_task


def kept(task, tmp_path, *, setting: str = "auto", **changes):
    """The prepared run before and after, what it said of itself, and its plan of it."""
    speed = replace(PLAIN, image_store=setting, cache_folder=str(tmp_path / "cache"), **changes.pop("speed", {}))
    run = config(task, speed=speed, **{"length": "3 epochs", "evaluate_every": "1 epoch", **changes})
    lines: list[dict] = []

    class Log:
        def append(self, line):
            lines.append(line)

    with placed(Precision()) as placement:
        before = prepare(run, placement)
        due = evaluation_steps(run, before.plan)
        stores = {"train": before.train, "validation": before.validation}
        planned = plan_images(stores, before.plan, evaluations=due, cached=before.cached, speed=speed)
        after = keep_images(before, placement, evaluations=due, log=Log())
    return before, after, {line["split"]: line["image_store"] for line in lines}, planned


@pytest.mark.parametrize("augment", ["none", "light"])
def test_images_are_made_once_and_found_by_the_next_run(tmp_path, augment):
    task = image_task(tmp_path / "files", augment=augment)
    before, after, said, planned = kept(task, tmp_path)
    assert said == {"train": "made", "validation": "made"}
    assert planned["train"]["bytes"] == after.train.kept.bytes.nbytes == 18 * 16 * 16 * 3
    assert "3 times" in planned["validation"]["why"]
    _, again, said, _ = kept(task, tmp_path, seed=7)
    assert said == {"train": "found", "validation": "found"}
    expected = [before.train.batch(draws) for draws in _updates(before)]
    shutil.rmtree(tmp_path / "files" / "images")
    for run in (after, again):
        found = [run.train.batch(draws) for draws in _updates(before)]
        assert all(torch.equal(a["pixel_values"], b["pixel_values"]) for a, b in zip(found, expected, strict=True))


def test_it_says_why_not(tmp_path):
    task = image_task(tmp_path / "files")
    _, after, said, planned = kept(task, tmp_path, setting="off")
    assert after.train.kept is None and said["train"] == planned["train"]["why"] == "speed.image_store is off"
    _, after, said, planned = kept(task, tmp_path, length="1 epoch")
    assert after.train.kept is None and said["train"] == planned["train"]["why"] and "too few" in said["train"]
    _, after, said, planned = kept(task, tmp_path, speed={"cache_disk": "10 KB"})
    assert after.train.kept is None and said["train"] == planned["train"]["why"] and "cache_disk" in said["train"]
    (tmp_path / "cache").write_text("a file")
    _, after, said, _ = kept(task, tmp_path)
    assert after.train.kept is None and "cannot be written" in said["train"]


def test_where_the_frozen_layers_are_kept_each_image_is_decoded_once_anyway(tmp_path):
    task = image_task(tmp_path / "files")
    _, after, said, _ = kept(task, tmp_path, speed={"prefix_cache": "memory"}, strategy=Freeze())
    assert after.cached.where == "memory" and after.train.kept is None and "1 times" in said["train"]


def _updates(prepared):
    from finetune.training.prepare import sampler_of

    sampler = sampler_of(prepared, None)
    return [sampler.draws(step) for step in (0, 1, 4)]
