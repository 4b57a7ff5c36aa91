"""Real runs are killed by the kernel at their file operations, one by one and in pairs, and go on bit for bit."""

from __future__ import annotations

import random
from itertools import product

import pytest

from tests.crashed_runs import Case, Runs, part_of
from tests.file_faults import in_memory, nth

SYNC, ASYNC = Case("text", "full", "off"), Case("text", "full", "auto")
OTHERS = [Case("image", "full", "auto"), Case("text", "lora", "auto"), Case("image", "gradual_unfreeze", "off")]
ALL = [Case(*each) for each in product(("text", "image"), ("full", "lora", "gradual_unfreeze"), ("off", "auto"))]
PARTS = {"begin", "log", "save", "best", "rotate", "finish"}


@pytest.fixture(scope="module")
def runs():
    with in_memory() as place:
        yield Runs(place)


@pytest.mark.parametrize("case", [SYNC, ASYNC], ids="-".join)
def test_points_of_a_run(runs, case):
    points = runs.points(case)
    assert len(points) == len(set(points)) >= 150
    assert {part_of(point) for point in points} == PARTS
    assert {point.operation for point in points} >= {"rename", "rmtree", "symlink", "fsync", "fsync_path", "close"}
    assert set(points) == set(runs.points(SYNC))  # wherever they are written, the operations are the same


def test_killed_at_some_points(runs):
    """The drill takes all."""
    for point in runs.points(SYNC)[::16]:
        runs.check_killed_at(SYNC, point)


@pytest.mark.parametrize(("parts", "every"), [({"best", "rotate"}, 1), ({"finish"}, 3)])
def test_killed_where_things_are_replaced(runs, parts, every):
    for point in [point for point in runs.points(ASYNC) if part_of(point) in parts][::every]:
        runs.check_killed_at(ASYNC, point)


@pytest.mark.drill
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("case", [SYNC, ASYNC, *OTHERS], ids="-".join)
def test_killed_at_every_point(runs, case):
    for point in runs.points(case):
        runs.check_killed_at(case, point)


def check_pairs(runs, case, seeds):
    for seed in seeds:
        times = runs.times(case, random.Random(f"{case} {seed}"))
        assert runs.num_kills(case, [*map(nth, times)]) == 2, (case, seed)


@pytest.mark.parametrize("case", ALL, ids="-".join)
def test_killed_twice(runs, case):
    check_pairs(runs, case, range(5))


@pytest.mark.drill
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("case", ALL, ids="-".join)
def test_killed_twice_many_times(runs, case):
    check_pairs(runs, case, range(100, 175))
