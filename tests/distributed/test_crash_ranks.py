"""Runs of two processes in which the kernel kills one or both at a file operation: they go on bit for bit."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from finetune.checkpoints.log import ending
from tests.crashed_runs import Case, Newest, Runs, assert_loads, part_of, remains
from tests.file_faults import LOG, Before, at, die, in_memory, nth, tap
from tests.forked import ended_ranks, side_by_side

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

    def struck(self, case: Case, kills: Sequence[Kill]) -> list[bool]:
        """Kill once and again, go on, and compare; which of the kills found somebody still at work."""
        expected, folder, found = self.whole(case), self.fresh(), []
        with Newest() as newest:
            for who, kill in kills:
                ended = ended_ranks(partial(self._tapped_ranks, case, folder, who, kill, newest))
                assert all(each.code in (KILLED, 76, 0, 2) for each in ended), (case, ended)
                found.append(any(each.code == KILLED for each in ended))
                assert_loads(folder, newest.step)
        self.go_on(case, folder)
        assert remains(folder) == expected, case
        shutil.rmtree(folder.parent)
        return found

    def _tapped_ranks(self, case: Case, folder: Path, who: str, kill: Callable, newest: Newest) -> None:
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
    assert runs.struck(CASES[0], [(who, partial(at, points[len(points) // 2]))]) == [True]


@pytest.mark.drill
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_ranks_killed_at_many_points(runs, case):
    points = [point for point in runs.points(case) if not point.half]
    saved = max(at for at, point in enumerate(points) if part_of(point) in ("save", "rotate", "best"))
    todo = [(WAYS[number % 3], point) for number, point in enumerate(points[::5])]
    struck = side_by_side(lambda one: runs.struck(case, [(one[0], partial(at, one[1]))])[0], todo, seconds=7200)
    print(f"{sum(struck)} of {len(todo)} kills found somebody at work")
    missed = [one for one, found in zip(todo, struck, strict=True) if not found]
    # The second writes nothing: after the last save it may be through, and gone, while the first still writes.
    assert all(who == "second" and point in points[saved + 1 :] for who, point in missed), missed
    assert sum(struck) >= 0.9 * len(todo) > 30


@pytest.mark.drill
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_ranks_killed_twice(runs, case):
    runs.points(case)  # before there are two of us

    def killed(seed: int) -> list[bool]:
        draw = random.Random(f"{case} {seed}")
        return runs.struck(case, [(draw.choice(WAYS), partial(nth, time)) for time in runs.times(case, draw)])

    struck = side_by_side(killed, range(34), seconds=7200)
    print(f"{sum(map(sum, struck))} of {2 * len(struck)} kills found somebody at work")
    # The second may be gone when the first writes what comes last; and where it alone was killed, the first went on to
    # its next word with it, so that the run that goes on has less to do than was counted.
    assert sum(map(sum, struck)) > 1.5 * len(struck)
