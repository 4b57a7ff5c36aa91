"""Real runs are killed by the kernel at their file operations, one by one and in pairs, and go on bit for bit."""

from __future__ import annotations

import random
import shutil
import signal
from contextlib import nullcontext
from functools import partial
from itertools import product, takewhile

import pytest

from finetune.checkpoints.reading import newest_good
from finetune.errors import PreemptedError
from finetune.policies import Checkpointing
from tests.crashed_runs import SETTINGS, Case, Runs, part_of, remains
from tests.file_faults import PAST, at, in_memory, nth, points_of, tap
from tests.forked import Acting, ended_child, side_by_side, told_by_child
from tests.runs import run, text_task

SYNC, ASYNC = Case("text", "full", "off"), Case("text", "full", "auto")
OTHERS = [Case("image", "full", "auto"), Case("text", "lora", "auto"), Case("image", "gradual_unfreeze", "off")]
ALL = [Case(*each) for each in product(("text", "image"), ("full", "lora", "gradual_unfreeze"), ("off", "auto"))]
NEWEST = "checkpoints/step-000004"  # of a run that is damaged
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
    past = {point.path.partition("/")[0] for point in points if point.operation in PAST}
    assert past == {".lock", ".tmp-model-ID"}  # nothing else goes past what is enumerated: libraries, writing aside
    assert {point.operation for point in points} >= {"rename", "rmtree", "symlink", "fsync", "fsync_path", "close"}
    assert set(points) == set(runs.points(SYNC))  # wherever they are written, the operations are the same


def test_killed_at_some_points(runs):
    """The drill takes all."""
    for point in runs.points(SYNC)[::16]:
        runs.check_killed_at(SYNC, point)


@pytest.mark.parametrize(("parts", "every"), [({"best", "rotate"}, 1), ({"finish"}, 4)])
def test_killed_where_things_are_replaced(runs, parts, every):
    for point in [point for point in runs.points(ASYNC) if part_of(point) in parts][::every]:
        runs.check_killed_at(ASYNC, point)


@pytest.mark.drill
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("case", [SYNC, ASYNC, *OTHERS], ids="-".join)
def test_killed_at_every_point(runs, case):
    points = runs.points(case)
    side_by_side(partial(runs.check_killed_at, case), points, seconds=7200)
    print(f"{len(points)} points, each killed and resumed")


def check_pair(runs, case, seed):
    times = runs.times(case, random.Random(f"{case} {seed}"))
    assert runs.num_kills(case, [*map(nth, times)]) == 2, (case, seed)


@pytest.mark.parametrize("case", ALL, ids="-".join)
def test_killed_twice(runs, case):
    for seed in range(5):
        check_pair(runs, case, seed)


@pytest.mark.drill
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("case", ALL, ids="-".join)
def test_killed_twice_many_times(runs, case):
    runs.points(case)  # before there are two of us
    side_by_side(partial(check_pair, runs, case), range(100, 175), seconds=7200)


@pytest.fixture(scope="module")
def damaged(runs):
    """A run that was stopped after step 4, and has more checkpoints than are to stay; the newest is damaged."""
    folder, task = runs.place / "damaged", Acting(text_task(runs.place))
    with pytest.raises(PreemptedError):
        run(task, output_dir=str(folder), stop_at=4, **{**SETTINGS, "checkpoint": Checkpointing("1 steps", 9)})
    (folder / NEWEST / "model.safetensors").write_bytes(b"rot")
    return folder


def gone_on_from(start, runs, folder, before):
    """On a copy, as long as it is let: where it was struck."""
    tap(shutil.copytree(start, folder, symlinks=True), before=before)
    runs.go(SYNC, folder)


def taking_stock(damaged, runs, whole):
    """The points of a resume before its first save: it sets aside, cuts back and deletes."""
    calls = []

    def counted():
        gone_on_from(damaged, runs, whole, lambda point, _: calls.append(point))
        return calls

    return points_of([*takewhile(lambda point: "/.tmp-step-" not in point.path, told_by_child(counted))])


def check_taking_stock(damaged, runs, is_struck):
    whole = runs.fresh()
    points = [point for point in taking_stock(damaged, runs, whole) if is_struck(point)]
    assert {"rename", "fsync_path"} <= {point.operation for point in points}
    for point in points:
        folder = runs.fresh()
        assert ended_child(partial(gone_on_from, damaged, runs, folder, at(point))).code == -signal.SIGKILL
        is_told = pytest.warns(UserWarning, match="passed over") if (folder / NEWEST).exists() else nullcontext()
        with is_told:
            assert newest_good(folder / "checkpoints").step == 3
            runs.go(SYNC, folder)
        assert remains(folder) == remains(whole), point


def test_killed_while_a_resume_takes_stock(runs, damaged):
    """The drill takes all."""
    check_taking_stock(
        damaged, runs, lambda point: point.operation in ("rename", "fsync_path") and not point.occurrence
    )


@pytest.mark.drill
def test_killed_anywhere_while_a_resume_takes_stock(runs, damaged):
    check_taking_stock(damaged, runs, lambda point: True)
