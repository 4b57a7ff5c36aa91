"""Runs of tasks that wrap a task: they resume, are scored as plain ones, and use no cache that would be wrong."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest

from finetune.optimizers import SGD
from finetune.policies import Checkpointing
from finetune.schedules import Constant
from finetune.speed import Speed
from finetune.strategies import Freeze
from finetune.tasks.growing_length import GrowingLength
from finetune.tasks.patch_dropout import PatchDropout
from finetune.tasks.progressive import ProgressiveResolution
from finetune.training import plan_run
from finetune.training.scoring import score_model
from tests.integration.test_resume import check
from tests.runs import Exact, assert_close, config, digest, image_task, run, text_task, weights


def progressive(folder, **changes):
    return ProgressiveResolution(base=image_task(folder), **{"sizes": (8,), "until": ("6 steps",), **changes})


def growing(folder, **changes):
    return GrowingLength(base=text_task(folder), **{"start": 4, "until": "6 steps", **changes})


def dropping(folder):
    return PatchDropout(base=image_task(folder), share=0.5)


WRAPPED = {"progressive": progressive, "growing": growing, "dropping": dropping}


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_resumed_run_ends_where_a_whole_one_does(tmp_path, kind):
    check(WRAPPED[kind](tmp_path / "files"), tmp_path, 4)


@pytest.mark.parametrize("kind", WRAPPED)
def test_the_saved_model_scores_as_under_the_plain_task(tmp_path, kind):
    task = WRAPPED[kind](tmp_path / "files")
    result = run(task, output_dir=str(tmp_path / "run"))
    for scored in (task, task.base):
        found = score_model(config(scored), tmp_path / "run" / "model", split="validation")
        assert found == pytest.approx(result.metrics["validation"], rel=1e-5)


@pytest.mark.parametrize("kind", ["progressive", "growing"])
def test_after_the_last_size_it_is_the_plain_run_bit_for_bit(tmp_path, kind):
    """A wrapper that ends at once changes nothing; one that ends later differs by its first steps alone."""
    same = {"until": ("0 steps",) if kind == "progressive" else "0 steps"}
    settings = {"schedule": Constant(), "checkpoint": Checkpointing(keep_best=0)}
    never, always = WRAPPED[kind](tmp_path, **same), WRAPPED[kind](tmp_path)
    plain = run(never.base, **settings)
    assert digest(weights(run(never, **settings).model)) == digest(weights(plain.model))
    assert digest(weights(run(always, **settings).model)) != digest(weights(plain.model))


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_frozen_prefix_is_not_kept_of_what_changes(tmp_path, kind):
    task = WRAPPED[kind](tmp_path / "files")
    settings = {"strategy": Freeze(), "length": "12 steps", "checkpoint": Checkpointing(keep_best=0)}
    results = {}
    for cache in ("off", "memory"):
        folder = tmp_path / cache
        warned = pytest.warns(UserWarning, match="frozen layers are computed each time")
        with warned if cache == "memory" else nullcontext():
            results[cache] = run(task, speed=Speed(prefix_cache=cache), output_dir=str(folder), **settings)
    assert digest(weights(results["memory"].model)) == digest(weights(results["off"].model))
    lines = map(json.loads, (tmp_path / "memory" / "log.jsonl").read_text().splitlines())
    assert [line["prefix_cache"] for line in lines if "prefix_cache" in line] == ["off"]


@pytest.mark.parametrize("kind", ["progressive", "growing"])
def test_how_an_update_is_cut_changes_nothing(tmp_path, kind):
    """Micro-batches are cut by full lengths, whatever is left of them in the forward."""
    task, small = Exact(WRAPPED[kind](tmp_path)), {"progressive": "3 examples", "growing": "40 tokens"}[kind]
    settings = {"checkpoint": Checkpointing(keep_best=0), "length": "4 steps", "optimizer": SGD(lr=0.1)}
    found = [weights(run(task, micro_batch=text, **settings).model) for text in ("32 examples", small)]
    assert_close(*found)


@pytest.mark.parametrize("kind", WRAPPED)
def test_the_plan_names_them_and_a_resume_would_see_a_change(tmp_path, kind):
    task = WRAPPED[kind](tmp_path)
    document = plan_run(config(task))
    assert document["task"] == task.name and document["model"] == task.base.model
    assert document["identity"]["task"]["base"]["name"] == task.base.name
    other = plan_run(config(task.base))
    assert other["digest"] != document["digest"]
