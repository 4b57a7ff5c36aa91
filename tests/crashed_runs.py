"""Real runs that the kernel kills at a file operation, and what is left of them."""

from __future__ import annotations

import json
import mmap
import os
import random
import shutil
import signal
import tempfile
import warnings
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors.torch import load_file

from finetune.checkpoints.log import ending
from finetune.checkpoints.reading import newest_good, read_checkpoint
from finetune.errors import RunFolderError
from finetune.policies import Checkpointing
from finetune.speed import Speed
from tests.file_faults import LOG, After, Before, Point, at, is_counted, points_of, tap
from tests.forked import Acting, ended_child, told_by_child
from tests.integration.test_resume import finished
from tests.runs import STRATEGIES, digest, history, image_task, run, text_task

SETTINGS = {
    "length": "6 steps",
    "checkpoint": Checkpointing(every="2 steps", keep_last=1, keep_best=1),
    "evaluate_every": "3 steps",
    "log_every": "2 steps",
}
TASKS = {"text": text_task, "image": image_task}


class Case(NamedTuple):
    """What runs: kind of task, strategy, and whether saves are written beside the training (``auto`` or ``off``)."""

    kind: str
    strategy: str
    async_save: str


class Runs:
    """Runs of the cases, all below one folder.

    Args:
        place: The folder.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.whole = cache(self._whole)
        self.points = cache(self._points)

    def go(self, case: Case, folder: Path) -> None:
        """Start the run, or go on with it."""
        task = Acting(TASKS[case.kind](self.place))  # no dataclass: its plan is the same wherever the data is
        speed, strategy = Speed(async_save=case.async_save), STRATEGIES[case.strategy]
        run(task, output_dir=str(folder), existing="resume", strategy=strategy, speed=speed, **SETTINGS)

    def go_on(self, case: Case, folder: Path) -> None:
        """Bring a run that was killed to its end."""
        if (folder / LOG).exists() and ending(folder / LOG) == "finished":
            with pytest.raises(RunFolderError, match="finished"):
                self.go(case, folder)
        else:
            self.go(case, folder)

    def _whole(self, case: Case) -> dict[str, Any]:
        """What an undisturbed run leaves; making it also loads what the children need."""
        folder = self.place / f"whole-{'-'.join(case)}"
        self.go(case, folder)
        return remains(folder)

    def _points(self, case: Case) -> list[Point]:
        """Where this run can be struck."""
        self.whole(case)
        folder, calls = self.place / f"counted-{'-'.join(case)}", []

        def counted() -> list[Point]:
            tap(folder, before=lambda point, _: calls.append(point))
            self.go(case, folder)
            return calls

        return points_of(told_by_child(counted))

    def times(self, case: Case, draw: random.Random) -> tuple[int, int]:
        """For ``nth``: when to strike a run, and then the one that goes on, which has at least the rest to do."""
        counted = [point for point in self.points(case) if is_counted(point) and not point.half]
        first = draw.randrange(len(counted) - 2)  # the last two come after the line that says that it is over
        return first, draw.randrange(len(counted) - 2 - first)

    def check_killed_at(self, case: Case, point: Point) -> None:
        """Kill a run there, see that nothing is lost, go on, and compare."""
        assert self.num_kills(case, [at(point)]) == 1, (case, point)

    def num_kills(self, case: Case, kills: list[Before]) -> int:
        """The same for several kills, one after another; how many found their run still at work."""
        found, folder = 0, self.fresh()
        with Newest() as newest:
            for kill in kills:
                ended = ended_child(partial(self._tapped, case, folder, kill, newest.note))
                assert ended.code in (-signal.SIGKILL, 0, RunFolderError.exit_code), (case, ended)
                found += ended.code == -signal.SIGKILL
                assert_loads(folder, newest.step)
        self.go_on(case, folder)
        assert remains(folder) == self.whole(case), case
        shutil.rmtree(folder.parent)
        return found

    def fresh(self) -> Path:
        """Where a run is to be killed that nobody else has."""
        return Path(tempfile.mkdtemp(dir=self.place)) / "killed"

    def _tapped(self, case: Case, folder: Path, before: Before, after: After) -> None:
        tap(folder, before=before, after=after)
        self.go(case, folder)


class Newest:
    """The step of the newest checkpoint that got its name, in memory that a killed process leaves behind."""

    def __enter__(self) -> Newest:
        self._memory = mmap.mmap(-1, 1)
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.close()

    @property
    def step(self) -> int:
        return self._memory[0]

    def note(self, name: str, _: Any, arguments: tuple[Any, ...]) -> None:
        """For ``tap``, after an operation."""
        if name == "rename" and arguments[1].name.startswith("step-"):
            self._memory[0] = int(arguments[1].name.removeprefix("step-"))


def assert_loads(folder: Path, least: int) -> None:
    """Before anything is swept: the newest checkpoint is there, and whatever carries a final name is whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = newest_good(folder / "checkpoints")
    assert (found.step if found else 0) >= least
    for path in folder.glob("checkpoints/step-*"):
        read_checkpoint(path)
    for path in folder.glob("*.json"):
        json.loads(path.read_bytes())


def remains(folder: Path) -> dict[str, Any]:
    """Everything of a run but times: checkpoint, log, metrics, and the bits of what was exported."""
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["training_seconds"]
    exported = [folder / "probe.safetensors", *sorted((folder / "model").glob("*.safetensors"))]
    return {
        "state": finished(folder),
        "log": history(folder),
        "metrics": metrics,
        "exported": {path.name: digest(load_file(path)) for path in exported},
        "names": sorted(str(path.relative_to(folder)) for path in folder.rglob("*")),
        "best": os.readlink(folder / "best"),
    }


def part_of(point: Point) -> str:
    """Which part of a run a point lies in."""
    parts = {
        "rotate": (".del-",),
        "best": (".tmp-best", "best"),
        "save": ("checkpoints",),
        "finish": (".tmp-model", "model", ".tmp-probe", "probe", ".tmp-metrics", "metrics"),
        "log": (LOG,),
    }
    for part, marks in parts.items():
        if any(point.path.startswith(mark) or f"/{mark}" in point.path for mark in marks):
            return part
    return "begin"
