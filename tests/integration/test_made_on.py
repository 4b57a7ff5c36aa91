"""Exactness is promised for the same place: a run that goes on elsewhere says so, in one line with what differs."""

from __future__ import annotations

import json
import warnings
from contextlib import suppress

import pytest
import torch

from finetune.errors import PreemptedError
from tests.forked import told_by_child
from tests.integration.test_checkpoint_contents import rewrite
from tests.integration.test_reload import cut
from tests.runs import run, text_task

HERE = {"sharded": False, "ranks": 1, "threads": 1, "torch": torch.__version__, "micro_batch": "8 examples"}


def told(task, folder, **settings):
    """What a resumed run says of where its checkpoint was made."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with suppress(PreemptedError):
            run(task, output_dir=str(folder), existing="resume", **settings)
    return [str(each.message) for each in caught if "made elsewhere" in str(each.message)]


def made_on(folder, step):
    path = folder / "checkpoints" / f"step-{step:06d}" / "progress.json"
    return json.loads(path.read_text())["made_on"]


def test_a_checkpoint_says_where_it_was_made(tmp_path):
    found = made_on(cut(text_task(tmp_path), tmp_path / "run", 2), 2)
    assert HERE.items() <= found.items() and found.keys() - HERE.keys() == {"device"}
    assert "CPU, " in found["device"]


@pytest.mark.parametrize("micro_batch", ["auto", "8 examples", "64 examples"])
def test_in_the_same_place_nothing_is_said(tmp_path, micro_batch):
    """Nor for another way to write that an update is not cut."""
    task = text_task(tmp_path)
    assert told(task, cut(task, tmp_path / "run", 2), micro_batch=micro_batch) == []


@pytest.mark.parametrize(
    ("before", "line"),
    [
        ({"torch": "2.14.1"}, f'torch: "2.14.1" -> "{torch.__version__}"'),
        ({"device": "NVIDIA H200"}, 'device: "NVIDIA H200" -> "'),
        ({"ranks": 8, "sharded": True}, "ranks: 8 -> 1; sharded: true -> false"),
    ],
)
def test_another_place_is_named_once(tmp_path, before, line):
    """And not again by the run that goes on from there."""
    task = text_task(tmp_path)
    folder = cut(task, tmp_path / "run", 2)
    rewrite(folder, 2, lambda tensors, documents: documents["progress"]["made_on"].update(before))
    (message,) = told(task, folder, stop_at=4)
    assert "checkpoint of step 2" in message and line in message and "bit for bit" in message
    assert "\n" not in message
    assert told(task, folder) == []


def test_other_threads_are_named(tmp_path):
    task = text_task(tmp_path)
    folder = cut(task, tmp_path / "run", 2)

    def on_two():
        torch.set_num_threads(2)
        return told(task, folder), made_on(folder, 10)["threads"]

    (message,), threads = told_by_child(on_two)
    assert "threads: 1 -> 2" in message and threads == 2


def test_another_cut_of_the_update_is_named(tmp_path):
    """Draws of dropout fall on other examples, and sums are cut elsewhere."""
    task = text_task(tmp_path)
    (message,) = told(task, cut(task, tmp_path / "run", 2), micro_batch="4 examples")
    assert 'micro_batch: "8 examples" -> "4 examples"' in message
