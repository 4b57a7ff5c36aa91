"""Long runs and large data: nothing grows that need not, and nothing piles up.

``SOAK_MINUTES`` (30) says how long the run of the first test is.
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from finetune.policies import Checkpointing
from finetune.tasks.images import ImageClassification
from finetune.tasks.text import TextClassification
from tests import tiny_data, tiny_models
from tests.file_faults import tap
from tests.forked import Child
from tests.runs import run, text_task

MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
MOST_MIB = 4.0  # by which memory may drift over the second half: evaluations are remembered, and allocators breathe

pytestmark = pytest.mark.timeout(3600 + 60 * MINUTES)


class Sample(NamedTuple):
    """What the process held at a step."""

    step: int
    mib: float
    files: int


class Sampled:
    """A task that notes what its process holds, at every so many steps of training.

    No dataclass: what it does is no part of the plan.
    """

    def __init__(self, task: Any, *, every: int) -> None:
        self.task, self.every, self.samples = task, every, []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.task, name)

    def forward(self, model: Any, batch: Any, progress: Any) -> Any:
        if model.training and progress.step % self.every == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            mib = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
            self.samples.append(Sample(progress.step, mib, len(os.listdir("/proc/self/fd"))))
        return self.task.forward(model, batch, progress)


class Until:
    """Ends a run at the first evaluation after a time."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def should_stop(self, evaluations: Sequence[Any]) -> bool:
        return time.monotonic() > self.end


def drift(values: Sequence[tuple[int, float]]) -> float:
    """By how much the line through the second half of (step, value) rises, by least squares."""
    later = np.array(values[len(values) // 2 :], float)
    slope = np.polyfit(later[:, 0], later[:, 1], 1)[0]
    return float(slope * (later[-1, 0] - later[0, 0]))


def assert_level(samples: Sequence[Sample]) -> str:
    """Neither memory nor open files rise over the second half; returns the figures."""
    assert len(samples) >= 20, len(samples)
    mib = drift([(sample.step, sample.mib) for sample in samples])
    files = drift([(sample.step, sample.files) for sample in samples])
    told = f"{samples[-1].step} steps: memory {mib:+.2f} MiB of {samples[-1].mib:.0f}, open files {files:+.2f}"
    assert mib < MOST_MIB and files < 1, told
    return told


def told_by(work: Callable[[], Any], *, seconds: float) -> Any:
    """What ``work`` returns, as JSON, in a child of its own, whose memory is nobody else's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "value.json"
        done = Child(lambda: path.write_text(json.dumps(work()))).wait(seconds)
        assert path.exists(), done.err
        return json.loads(path.read_text())


def test_a_leak_is_seen():
    level = [Sample(step, 900 + step % 3, 8 + step % 2) for step in range(100)]
    assert_level(level)
    for leak in ({"mib": 0.2}, {"files": 0.1}):
        leaking = [s._replace(**{name: getattr(s, name) + by * s.step for name, by in leak.items()}) for s in level]
        with pytest.raises(AssertionError, match="steps: memory"):
            assert_level(leaking)


@pytest.mark.drill
def test_neither_memory_nor_open_files_grow(tmp_path, record_testsuite_property):
    """With evaluations, checkpoints written beside the training, and a log."""

    def train() -> list[Sample]:
        task = Sampled(text_task(tmp_path), every=50)
        run(
            task,
            length="1000000 steps",
            evaluate_every="200 steps",
            checkpoint=Checkpointing(every="50 steps"),
            output_dir=str(tmp_path / "run"),
            stopping=Until(60 * MINUTES),
        )
        return task.samples

    run(text_task(tmp_path), length="1 steps")  # what the child needs is loaded
    samples = [Sample(*one) for one in told_by(train, seconds=60 * MINUTES + 600)]
    record_testsuite_property("soak", assert_level(samples))  # in --junit-xml


@pytest.mark.drill
def test_a_thousand_checkpoints_kept_at_three_leave_three(tmp_path):
    folder = tmp_path / "run"

    def train() -> int:
        named = []
        tap(folder, after=lambda name, _, arguments: named.append(arguments[-1].name) if name == "rename" else None)
        policy = Checkpointing(every="1 steps", keep_last=3, keep_best=0)
        run(
            text_task(tmp_path),
            length="1000 steps",
            evaluate_every="1000 steps",
            checkpoint=policy,
            output_dir=str(folder),
        )
        return sum(name.startswith("step-") for name in named)

    run(text_task(tmp_path), length="1 steps")
    assert told_by(train, seconds=1800) == 1000
    assert sorted(os.listdir(folder / "checkpoints")) == ["step-000998", "step-000999", "step-001000"]


@pytest.mark.drill
def test_a_folder_of_ten_thousand_images(tmp_path):
    tiny_models.save_image_folder(tmp_path / "vit")
    tiny_data.write_images(tmp_path / "few", 6)
    for kind in sorted(path for path in (tmp_path / "few").iterdir() if path.is_dir()):
        (tmp_path / "many" / kind.name).mkdir(parents=True)
        pictures = [path.read_bytes() for path in sorted(kind.iterdir())]
        for number in range(10_000 // 3 + (kind.name == "red")):
            (tmp_path / "many" / kind.name / f"{number:05d}.png").write_bytes(pictures[number % len(pictures)])
    data = {"train": str(tmp_path / "many"), "validation": str(tmp_path / "few")}
    task = ImageClassification(model=str(tmp_path / "vit"), data=data)
    assert len(task.load_split("train")) == 10_000
    result = run(task, length="20 steps", output_dir=str(tmp_path / "run"))
    assert result.state.step == 20


@pytest.mark.drill
def test_a_table_of_a_million_rows(tmp_path):
    """A few hundred bytes of memory for a row, and no more."""
    task = text_task(tmp_path)
    head, *rows = (tmp_path / "train-26.csv").read_text().splitlines()
    with (tmp_path / "many.csv").open("w") as file:
        file.write(f"{head}\n")
        for number in range(1_000_000):
            file.write(f"{rows[number % len(rows)]}\n")
    run(task, length="1 steps")
    columns = {"text": "text", "label": "label"}
    data = {"train": str(tmp_path / "many.csv"), "validation": str(tmp_path / "validation.csv"), **columns}
    large = TextClassification(model=task.model, data=data, max_length=32)

    def train() -> tuple[int, float]:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result = run(large, length="5 steps", evaluate_every="5 steps")
        assert result.plan["steps_per_epoch"] == 125_000
        return result.state.step, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10

    step, mib = told_by(train, seconds=1800)
    assert step == 5 and mib < 1500, mib
