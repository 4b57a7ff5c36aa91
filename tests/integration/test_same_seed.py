"""Invariant 13: the same seed gives the same bits; another seed does not; and ``fit`` leaves no trace."""

from __future__ import annotations

import os
import random
import signal

import numpy as np
import pytest
import torch

from tests.runs import STRATEGIES, digest, image_task, run, text_task, weights


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", ["text", "image"])
def test_same_seed_same_bits(tmp_path, strategy, kind):
    task = text_task(tmp_path) if kind == "text" else image_task(tmp_path, augment="light")
    settings = {"strategy": STRATEGIES[strategy], "length": "4 steps"}
    first = digest(weights(run(task, **settings).model))
    torch.rand(3), random.random(), np.random.rand()  # what ran before must not matter
    assert digest(weights(run(task, **settings).model)) == first
    assert digest(weights(run(task, **settings, seed=43).model)) != first


def test_workers_change_nothing(tmp_path):
    task = image_task(tmp_path, augment="light")
    assert digest(weights(run(task, workers=2).model)) == digest(weights(run(task).model))


def test_fit_leaves_the_process_as_it_found_it(tmp_path):
    def found():
        return (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
            signal.getsignal(signal.SIGINT),
            signal.getsignal(signal.SIGTERM),
            {name: value for name, value in os.environ.items() if name.startswith(("ACCELERATE", "FSDP"))},
            torch.get_num_threads(),
        )

    before = found()
    run(text_task(tmp_path), length="2 steps")
    assert found() == before
