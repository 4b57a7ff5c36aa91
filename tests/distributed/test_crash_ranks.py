"""Runs of two processes in which the kernel kills one or both at a file operation: they go on bit for bit."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from finetune.checkpoints.log import ending
from tests.crashed_runs import Case, Newest, Runs, assert_loads, part_of, remains
from tests.file_faults import LOG, Before, at, die, in_memory, nth, tap
from tests.forked import ended_ranks

CASES = [Case("text", "full", "auto"), Case("text", "gradual_unfreeze", "off"), Case("image", "lora", "auto")]
WAYS = ("first", "second", "both")  # who dies
KILLED = -signal.SIGKILL
Kill = tuple[str, Callable[[Callable[[], None]], Before]]  # who, and when


class TwoRanks(Runs):
    """The same runs in two processes, of which the first writes."""

    def go_on(self, case: Case, folder: Path) -> None:
        is_over = (folder / LOG).exists() and ending(folder / LOG) == "finished"
        ended = ended_ranks(lambda: self.go(case, folder))
        assert [each.code for each in ended] == ([2, 2] if is_over else [0, 0]), ended

    def _whole(self, case: Case) -> dict:
        super()._whole(case)  # in this process: loads what the children need
        folder = self.place / f"whole-{'-'.join(case)}"
        shutil.rmtree(folder)
        self.go_on(case, folder)
        return remains(folder)

    def num_struck(self, case: Case, kills: list[Kill]) -> int:
        """Kill once and again, go on, and compare; how many kills found their run still at work."""
        expected, folder, found = self.whole(case), self.place / "killed", 0
        with Newest() as newest:
            for who, kill in kills:
                ended = ended_ranks(partial(self._struck, case, folder, who, kill, newest))
                assert all(each.code in (KILLED, 76, 0, 2) for each in ended), (case, ended)
                found += any(each.code == KILLED for each in ended)  # the second is through before the first
                assert_loads(folder, newest.step)
        self.go_on(case, folder)
        assert remains(folder) == expected, case
        shutil.rmtree(folder)
        return found

    def _struck(self, case: Case, folder: Path, who: str, kill: Callable, newest: Newest) -> None:
        """On each rank; the first, which writes, knows when."""
        pids = [torch.zeros(1, dtype=torch.int64) for _ in range(2)]
        dist.all_gather(pids, torch.tensor([os.getpid()]))

        def act() -> None:
            if who != "first":
                os.kill(int(pids[1]), signal.SIGKILL)
            if who != "second":
                die()

        if dist.get_rank() == 0:
            tap(folder, before=kill(act), after=newest.note)
        self.go(case, folder)


@pytest.fixture(scope="module")
def runs():
    with in_memory() as place:
        yield TwoRanks(place)


@pytest.mark.parametrize(("who", "part"), [("first", "save"), ("second", "rotate"), ("both", "finish")])
def test_ranks_killed_at_a_point(runs, who, part):
    points = [point for point in runs.points(CASES[0]) if part_of(point) == part and not point.half]
    assert runs.num_struck(CASES[0], [(who, partial(at, points[len(points) // 2]))]) == 1


@pytest.mark.drill
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_ranks_killed_at_many_points(runs, case):
    points = [point for point in runs.points(case) if not point.half]
    for number, point in enumerate(points[::5]):
        runs.num_struck(case, [(WAYS[number % 3], partial(at, point))])


@pytest.mark.drill
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_ranks_killed_twice(runs, case):
    found, count = 0, 34
    for seed in range(count):
        draw = random.Random(f"{case} {seed}")
        kills = [(draw.choice(WAYS), partial(nth, time)) for time in runs.times(case, draw)]
        found += runs.num_struck(case, kills)
    assert found > 1.5 * count  # the second is through before the first, and then nobody is there to die
