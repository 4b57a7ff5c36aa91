"""Two processes go on from a step of a run of 40 updates, and end bit for bit where they would have."""

from __future__ import annotations

import random

import pytest

from finetune.errors import PreemptedError
from tests.distributed.two_ranks import on_ranks
from tests.resume_rows import ROWS, STEPS, left, returned, whole
from tests.runs import run

VARIANTS = [
    ("bert-gradual_unfreeze", False),
    ("bert-lora", True),
    ("bert-gradual_unfreeze", True),
    ("bert-lora", False),
]
NUM_CUTS = 10


def cuts(name, sharded, count):
    """Steps drawn over the whole run, each from another tenth."""
    draw = random.Random(f"{name} {sharded}")
    tenths = [draw.randrange(start, start + STEPS // NUM_CUTS) for start in range(1, STEPS, STEPS // NUM_CUTS)]
    return sorted(draw.sample(tenths, count))


def check(folder, name, sharded, count, *, stops):
    def run_whole():
        found, result = whole(ROWS[name], folder)
        return found, returned(result)

    (undisturbed, expected), (_, other) = on_ranks(run_whole, sharded=sharded)
    assert expected == other
    killed = [undisturbed.after(step, folder / f"killed-{step}") for step in cuts(name, sharded, count)]
    stopped = [folder / f"stopped-{step}" for step in stops]

    def resumed():
        for step, path in zip(stops, stopped, strict=True):
            with pytest.raises(PreemptedError):
                run(undisturbed.task, output_dir=str(path), stop_at=step, **undisturbed.settings)
        return [returned(undisturbed.resumed(path)) for path in (*killed, *stopped)]

    for first, second, path in zip(*on_ranks(resumed, sharded=sharded), [*killed, *stopped], strict=True):
        assert first == second == expected, path.name
        assert left(path) == left(undisturbed.folder), path.name


@pytest.mark.parametrize(("name", "sharded"), VARIANTS[:2])
def test_from_drawn_steps_two_ranks_end_as_undisturbed(tmp_path, name, sharded):
    check(tmp_path, name, sharded, 2, stops=())


@pytest.mark.drill
@pytest.mark.parametrize(("name", "sharded"), VARIANTS)
def test_from_ten_steps_two_ranks_end_as_undisturbed(tmp_path, name, sharded):
    check(tmp_path, name, sharded, NUM_CUTS, stops=(14, 17))
