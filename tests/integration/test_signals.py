"""Somebody pulls the plug: the run saves and says so where it can, and goes on bit for bit as if nothing had been."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

import pytest

from finetune.checkpoints.reading import newest_good
from finetune.cli import main
from finetune.errors import PreemptedError, RunFolderError
from finetune.policies import Checkpointing
from finetune.training.signals import StopRequests
from tests.forked import Acting, Child, ended_child, send, told_by_child
from tests.integration.test_resume import finished
from tests.runs import history, run, text_task

SETTINGS = {"checkpoint": Checkpointing(every="2 steps"), "evaluate_every": "3 steps", "log_every": "2 steps"}
NAMES = {75: "preempted", 130: "interrupted", 74: "failed", 76: "failed"}


@pytest.fixture(scope="module")
def place():
    """A folder in memory where there is one: an fsync costs 6 ms on a disk."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def task(place):
    return text_task(place)


@pytest.fixture(scope="module")
def whole(place, task):
    """What an uninterrupted run leaves; making it also loads what the children need."""
    run(Acting(task), output_dir=str(place / "whole"), **SETTINGS)
    return left(place / "whole")


@pytest.fixture
def folder(place, request):
    yield (path := Path(tempfile.mkdtemp(dir=place)) / "run")
    shutil.rmtree(path.parent)


def left(folder: Path) -> list:
    """Everything of a run but times: checkpoint, log, metrics, and the exported weights."""
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["training_seconds"]
    names = sorted(path.name for path in folder.rglob("*"))
    link = os.readlink(folder / "best")
    return [finished(folder), history(folder), metrics, hash_of(folder / "model" / "model.safetensors"), names, link]


def hash_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def go(task, folder, **changes):
    run(task, output_dir=str(folder), **{**SETTINGS, **changes})


def go_on(task, folder, **changes):
    go(Acting(task), folder, existing="resume", **changes)


def last_line(folder: Path) -> tuple[str, int]:
    line = history(folder)[-1]
    return line["ended"], line["exit_code"]


def count_calls(work) -> int:
    """How many Python functions are called and returned from."""
    counted = [0]

    def count(*_):
        counted[0] += 1

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return counted[0]


def killed_at(number: int, work) -> None:
    """SIGKILL at that call."""
    left = [number]

    def count(*_):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    work()


def check_kills(task, place, folder, whole, seeds):
    calls = told_by_child(lambda: count_calls(partial(go, Acting(task), folder.parent / "counted")))
    kills = 0
    for seed in seeds:
        path, draw = folder.parent / f"run-{seed}", random.Random(seed)
        go_again = partial(go, Acting(task), path, existing="resume")
        for _ in range(draw.choice((1, 2))):
            ended = ended_child(partial(killed_at, draw.randrange(1, calls), go_again))
            kills += ended.code == -signal.SIGKILL
            assert ended.code in (-signal.SIGKILL, 0, RunFolderError.exit_code), ended  # it may be through by then
        if not path.exists() or not (path / "log.jsonl").exists() or last_line_is_open(path):
            go_again()
        assert left(path) == whole, seed
        shutil.rmtree(path)
    assert kills >= 0.8 * len(seeds)  # a few come too late: warm caches save calls


def last_line_is_open(folder: Path) -> bool:
    lines = history(folder)
    return not lines or "ended" not in lines[-1]


def test_killed_at_any_moment(task, place, folder, whole):
    check_kills(task, place, folder, whole, range(6))


@pytest.mark.drill
def test_killed_at_many_moments(task, place, folder, whole):
    check_kills(task, place, folder, whole, range(100, 160))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT"])
@pytest.mark.parametrize("moment", [(1, True), (4, True), (6, False)])
def test_a_signal_saves_and_stops(task, folder, whole, name, moment):
    """The moments: the first update, one in the middle, and an evaluation."""
    code = 130 if name == "SIGINT" else 75
    ended = ended_child(lambda: go(Acting(task, moment[0], send(getattr(signal, name)), moment[1]), folder))
    assert ended.code == code and ended.err.count("\n") == 1 and "go on with --resume" in ended.err
    assert last_line(folder) == (NAMES[code], code)
    go_on(task, folder)
    assert left(folder) == whole


def test_a_signal_in_the_last_update_leaves_the_rest_to_a_resume(task, folder, whole):
    """The last evaluation and the export: what they give is the same, but the checkpoint knew nothing of it yet."""
    ended = ended_child(lambda: go(Acting(task, 9, send(signal.SIGTERM)), folder))
    assert ended.code == 75 and not (folder / "metrics.json").exists()
    go_on(task, folder)
    assert without_evaluation(left(folder)) == without_evaluation(whole)


def test_the_best_of_all_may_be_scored_after_a_resume(task, folder):
    """The evaluation of the last step was still to come when the run was stopped."""
    once = {"evaluate_every": "10 steps"}
    with pytest.raises(PreemptedError):
        go(Acting(task), folder, stop_at=10, **once)
    go_on(task, folder, **once)
    assert json.loads((folder / "metrics.json").read_text())["best"]["step"] == 10
    assert os.readlink(folder / "best") == "checkpoints/step-000010"


def test_killed_before_the_first_checkpoint(task, folder, whole):
    ended_child(lambda: go(Acting(task, 1, send(signal.SIGKILL)), folder))
    (folder / "plan.json").unlink()  # as if it had been killed a moment before
    go_on(task, folder)
    assert left(folder) == whole


def without_evaluation(found: list) -> list:
    step, digests, progress = found[0]
    return [step, digests, {key: progress[key] for key in ("step", "losses", "scaler")}, *found[1:]]


def test_the_second_interrupt_ends_at_once(task, folder, whole):
    ended = ended_child(lambda: go(Acting(task, 4, send(signal.SIGINT, signal.SIGINT)), folder))
    assert ended.code == 130
    assert last_line(folder) == ("interrupted", 130)
    assert newest_good(folder / "checkpoints").step == 4  # and not 5: nothing was saved on the way out
    go_on(task, folder)
    assert left(folder) == whole


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_the_first_signal_says_how_it_ends(task, folder, numbers):
    ended = ended_child(lambda: go(Acting(task, 4, send(*numbers)), folder))
    assert ended.code == (130 if numbers[0] == signal.SIGINT else 75)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_a_signal_before_training_ends_at_once(task, folder, whole, name, code):
    class Loading(Acting):
        def load_model(self):
            self.act()
            raise AssertionError("the signal was to end it")

    ended = ended_child(lambda: go(Loading(task, act=send(getattr(signal, name))), folder))
    assert ended.code == code and ended.err.count("\n") == 1
    go(Acting(task), folder)  # the folder is as good as new
    assert left(folder) == whole


def test_an_interrupt_that_python_drops_is_still_known():
    """What a handler raises in a finaliser goes nowhere; the run then stops when it begins to train."""
    requests = StopRequests()
    with contextlib.suppress(KeyboardInterrupt):
        requests.receive(signal.SIGINT, None)
    requests.defer()
    assert requests.flags() == [1, 0]


def test_what_is_ignored_stays_ignored(task, folder):
    def under_nohup():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        go(Acting(task, 4, send(signal.SIGHUP)), folder)

    assert ended_child(under_nohup).code == 0
    assert last_line(folder) == ("finished", 0)


def test_handlers_are_given_back(task):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with pytest.raises(PreemptedError):
        run(Acting(task), stop_at=2)
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_run_outlives_its_launcher_and_saves(task, folder, whole):
    """`accelerate launch` of one process is gone at once when it is stopped; the kernel tells the process."""
    file = recipe_file(folder, "Acting(task, 4, lose_launcher)")

    def launched():
        os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
        main(argv=["train", str(file)])

    def launcher():
        child = Child(launched)
        raise AssertionError(child.wait())  # only if it is not killed first

    assert ended_child(launcher) == (-signal.SIGKILL, "")
    assert last_line(folder) == ("preempted", 75)
    go_on(task, folder)
    assert left(folder) == whole


def recipe_file(folder: Path, task: str) -> Path:
    """A recipe of our run with this task."""
    file = folder.parent / "recipe.py"
    file.write_text(f"""import os, signal
from pathlib import Path
from finetune import RunConfig
from finetune.cli import main
from tests import runs
from tests.forked import Acting
from tests.integration.test_signals import SETTINGS

def lose_launcher():
    launcher = os.getppid()
    os.kill(launcher, signal.SIGKILL)
    while os.getppid() == launcher:  # it dies when the kernel pleases, and the signal comes with its death
        pass

def ours() -> RunConfig:
    task = runs.text_task(Path({str(folder.parents[1])!r}))
    return runs.config({task}, output_dir={str(folder)!r}, **SETTINGS)

if __name__ == "__main__":
    main(ours)
""")
    return file


def landed() -> None:
    """Wait for the save in flight, so that what follows meets the next one."""
    for thread in threading.enumerate():
        if thread.name.startswith("checkpoint"):
            thread.join()


def test_a_folder_has_one_run(task, folder, whole):
    ready, told = os.pipe()
    held, release = os.pipe()

    def wait():
        landed()
        os.write(told, b".")
        os.read(held, 1)

    child = Child(lambda: go(Acting(task, 4, wait), folder))
    os.read(ready, 1)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for existing in ("refuse", "resume", "overwrite"):
        with pytest.raises(RunFolderError, match=f"in use by process {child.pid} ") as error:
            go(Acting(task), folder, existing=existing)
        assert error.value.exit_code == 2
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    os.write(release, b".")
    assert child.wait().code == 0
    assert left(folder) == whole
