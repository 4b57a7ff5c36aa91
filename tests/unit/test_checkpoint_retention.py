"""Old checkpoints go only when they may, and nothing foreign ever does."""

from __future__ import annotations

import math
import os
import shutil
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.checkpoints.files import Files
from finetune.checkpoints.manifest import MANIFEST
from finetune.checkpoints.reading import newest_good, step_name
from finetune.checkpoints.retention import link_best, retained, rotate, saved_steps, set_aside_after, sweep
from finetune.checkpoints.writing import write_checkpoint

RUN = "run-a"
SCORES = st.none() | st.sampled_from([0.1, 0.5, 0.9, math.nan, -math.inf])


def save(root, step, run_id=RUN):
    tensors = {"model": {"w": torch.full((2,), float(step))}}
    return write_checkpoint(root, step, tensors=tensors, documents={"progress": {"step": step}}, run_id=run_id)


@given(
    st.dictionaries(st.integers(0, 30), SCORES, min_size=1, max_size=12),
    st.integers(0, 4),
    st.integers(0, 4),
    st.randoms(),
)
def test_retained_is_the_newest_and_the_best(saved, keep_last, keep_best, shuffler):
    entries = list(saved.items())
    shuffler.shuffle(entries)
    kept = retained(entries, keep_last=keep_last, keep_best=keep_best)
    assert kept <= saved.keys()
    assert max(saved) in kept
    newest = {step for step in saved if sum(other > step for other in saved) < keep_last}
    ranked = {step: score for step, score in saved.items() if score is not None and score == score}
    best = {
        step
        for step, score in ranked.items()
        if sum(s > score or (s == score and other < step) for other, s in ranked.items()) < keep_best
    }
    assert kept == newest | best | {max(saved)}


def test_ties_keep_the_earlier_and_nan_is_never_best():
    saved = [(1, 0.5), (2, 0.5), (3, math.nan), (4, None), (5, 0.1)]
    assert retained(saved, keep_last=1, keep_best=1) == {1, 5}
    assert retained([(1, math.nan), (2, None), (3, 0.0)], keep_last=0, keep_best=5) == {3}


EVENTS = st.lists(st.tuples(st.sampled_from(["save", "resave", "rot", "set back"]), SCORES), min_size=1, max_size=9)


@settings(max_examples=25, deadline=None)
@given(events=EVENTS, keep_last=st.integers(1, 2), keep_best=st.integers(0, 2))
def test_histories(tmp_path_factory, events, keep_last, keep_best):
    root = tmp_path_factory.mktemp("run") / "checkpoints"
    save(root, 900, run_id="foreign")
    (root / "step-000001").mkdir()
    step, scores, rotten = 10, {}, set()
    for event, score in events:
        if event == "rot" and step > 10:
            rotten.add(step)
            shutil.rmtree(root / step_name(step) / "model.safetensors", ignore_errors=True)
            (root / step_name(step) / "model.safetensors").write_bytes(b"rot")
            continue
        if event == "set back" and step > 20:
            on_disk = saved_steps(root, run_id=RUN)
            step = on_disk[0]
            assert set_aside_after(root, step, run_id=RUN) == on_disk[1:]
            scores = {at: value for at, value in scores.items() if at <= step}
        step += event != "resave" and 10
        if score is not None:
            scores.setdefault(step, score)
        save(root, step)
        rotten.discard(step)
        left = rotate(root, run_id=RUN, scores=scores, keep_last=keep_last, keep_best=keep_best)
        assert left == saved_steps(root, run_id=RUN) and step in left and len(left) <= keep_last + keep_best
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert newest_good(root, run_id=RUN).step == step
        assert (root / "step-000900" / MANIFEST).exists() and (root / "step-000001").is_dir()
        assert not [name for name in os.listdir(root) if name.startswith((".tmp", ".del"))]


def test_best_survives_many_saves(tmp_path):
    root = tmp_path / "checkpoints"
    scores = {20: 0.9, 30: 0.9, 40: math.nan}
    for step in range(10, 80, 10):
        save(root, step)
        rotate(root, run_id=RUN, scores=scores, keep_last=2, keep_best=1)
    assert saved_steps(root, run_id=RUN) == [20, 60, 70]


def test_nothing_is_deleted_while_the_newest_is_damaged(tmp_path):
    root = tmp_path / "checkpoints"
    for step in (10, 20, 30):
        save(root, step)
    (root / "step-000030" / "model.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="no old checkpoint is deleted"):
        assert rotate(root, run_id=RUN, scores={}, keep_last=1, keep_best=0) == [10, 20, 30]


def test_strays_and_what_is_not_ours_stay(tmp_path):
    root = tmp_path / "checkpoints"
    for step in (10, 20):
        save(root, step)
    shutil.copytree(root / "step-000010", root / "step-000011")  # its manifest says 10
    (root / "step-000005").mkdir()
    (root / "step-000006").symlink_to("step-000010")
    (root / ".DS_Store").touch()
    assert rotate(root, run_id=RUN, scores={}, keep_last=1, keep_best=0) == [20]
    assert sorted(os.listdir(root)) == [".DS_Store", "step-000005", "step-000006", "step-000011", "step-000020"]


def test_a_deletion_that_fails_costs_space_not_the_run(tmp_path):
    class ReadOnly:
        def __getattr__(self, name):
            return getattr(Files(), name)

        def rmtree(self, path):
            raise OSError(30, "Read-only file system")

    root = tmp_path / "checkpoints"
    for step in (10, 20):
        save(root, step)
    with pytest.warns(UserWarning, match="could not be removed"):
        assert rotate(root, run_id=RUN, scores={}, keep_last=1, keep_best=0, files=ReadOnly()) == [20]
    save(root, 10)
    assert rotate(root, run_id=RUN, scores={}, keep_last=1, keep_best=0) == [20]  # the doomed name is taken


def test_sweep_removes_only_its_own_leftovers(tmp_path):
    root = tmp_path / "checkpoints"
    sweep(root, run_id=RUN)
    save(root, 10)
    own = [f".tmp-step-000020-{RUN}", f".del-step-000005-{RUN}-1"]
    foreign = [".tmp-step-000020-run-b", f".tmp-mine-{RUN}", ".del-x", ".bad-step-000010-1", ".old-step-000010-1"]
    for name in [*own, *foreign]:
        (root / name).mkdir()
        (root / name / "file").touch()
    (root / f".tmp-step-000030-{RUN}").touch()  # a file: none of ours
    sweep(root, run_id=RUN)
    assert sorted(os.listdir(root)) == sorted([*foreign, f".tmp-step-000030-{RUN}", "step-000010"])


def test_best_is_a_relative_link_that_is_replaced(tmp_path):
    root = tmp_path / "checkpoints"
    for step in (10, 20):
        save(root, step)
        link_best(root, step)
    assert os.readlink(tmp_path / "best") == "checkpoints/step-000020"
    (tmp_path / ".tmp-best").symlink_to("left by a kill")
    link_best(root, 10)
    assert (tmp_path / "best").resolve() == root / "step-000010"
    assert sorted(os.listdir(tmp_path)) == ["best", "checkpoints"]


def test_a_folder_called_best_is_not_touched(tmp_path):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "mine").touch()
    save(tmp_path / "checkpoints", 10)
    with pytest.warns(UserWarning, match="does not point at"):
        link_best(tmp_path / "checkpoints", 10)
    assert (tmp_path / "best" / "mine").exists()
