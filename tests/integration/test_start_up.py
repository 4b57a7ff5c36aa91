"""What a run loads before its first step: told by modules and collections, as a clock would fail on a busy machine."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref

import pytest

from finetune.start_up import rarely_collected
from tests import runs

# None of them computes anything in a full fine-tune, and each takes from 0.1 to 4 seconds to import.
UNNEEDED = {
    "transformers.trainer",
    "transformers.training_args",
    "transformers.pipelines",
    "datasets",
    "evaluate",
    "peft",
    "timm",
    "sklearn",
    "pandas",
    "pyarrow",
    "matplotlib",
    "rich",
    "tensorboard",
    "pydantic",
    "typer",
    "torch._inductor.compile_fx",
    "torch.utils.tensorboard",
}
MOST_COLLECTIONS = 3  # each is a walk over all that is loaded; with Python's own thresholds there are seven and more

_SCRIPT = """
import gc, json, os, sys
from finetune import {name}, fit

class UntilTheFirstStep({name}):
    def forward(self, model, batch, progress):
        if progress.step == 1:  # the first step is done
            told = [sorted(sys.modules), gc.get_stats()[2]["collections"]]
            print(json.dumps(told), flush=True)
            os._exit(0)
        return super().forward(model, batch, progress)

fit(UntilTheFirstStep(**json.loads(sys.argv[1])), length="2 steps", batch_size=4, show="nothing")
"""


def started(name: str, arguments: dict) -> tuple[set[str], int]:
    """The modules of a fresh interpreter after the first step of a run, and how often it collected all garbage."""
    script = _SCRIPT.format(name=name)
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    modules, collections = json.loads(done.stdout.splitlines()[-1])
    return set(modules), collections


def arguments_of(task) -> dict:
    data = {"train": task.data.train, "validation": task.data.validation}
    if task.name == "text_classification":
        return {"model": task.model, "data": data | {"text": "text", "label": "label"}, "max_length": task.max_length}
    return {"model": task.model, "data": data}


@pytest.mark.parametrize("kind", ["text", "images"])
def test_a_run_loads_nothing_that_its_first_step_does_not_need(kind, tmp_path):
    task = runs.text_task(tmp_path) if kind == "text" else runs.image_task(tmp_path)
    modules, collections = started(type(task).__name__, arguments_of(task))
    assert not modules & UNNEEDED
    assert collections <= MOST_COLLECTIONS


def test_collecting_rarely_leaves_the_collector_as_it_was():
    gc.unfreeze()
    before = gc.get_threshold(), gc.isenabled()
    with rarely_collected():
        assert gc.get_threshold()[0] >= 1_000_000
        made = [[number] for number in range(1000)]
        with pytest.raises(KeyError), rarely_collected():
            raise KeyError
    assert (gc.get_threshold(), gc.isenabled()) == before
    assert gc.get_freeze_count() == 0
    assert gc.get_count()[0] < len(made)  # they count as old, so the next small collection does not walk over them


def test_what_the_caller_froze_stays_frozen():
    gc.freeze()
    try:
        before = gc.get_freeze_count()
        with rarely_collected():
            made = [[number] for number in range(1000)]
        assert gc.get_freeze_count() >= before + len(made)
    finally:
        gc.unfreeze()


def test_garbage_is_still_garbage_after_a_start():
    class Node:
        pass

    with rarely_collected():
        node = Node()
        node.itself, gone = node, weakref.ref(node)
        del node
        assert gone() is not None
    gc.collect()
    assert gone() is None
