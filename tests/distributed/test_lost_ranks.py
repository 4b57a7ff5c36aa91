"""One process of a run is signalled, dies, fails or hangs: the others end within seconds, and say why."""

# ruff: noqa: F401, F811 - fixtures are imported by name
from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import finetune
from finetune.cli import reporting
from finetune.errors import ConfigError, DataError, ModelError
from finetune.tasks.base import Predictions
from tests.forked import Acting, Child, ended_ranks, send
from tests.integration.test_signal_trials import Noting, watched
from tests.integration.test_signals import folder, go, last_line, left, place, recipe_file, task

TREE = Path(finetune.__file__).parents[1]
GONE_S = 15
ANSWER_S = 8  # of a collective, where a rank hangs


def fail():
    raise DataError("row 7: cannot be read")


def hang():
    while True:
        time.sleep(1)


WAYS = {"killed": send(signal.SIGKILL), "fails": fail, "exits": lambda: os._exit(0), "hangs": hang}
CODES = {"killed": -signal.SIGKILL, "fails": 2, "exits": 0, "hangs": -signal.SIGKILL}
PHASES = {"load": 0, "step": 4, "evaluation": 1, "save": 2, "gather": 1}  # which time it comes there
FEW = [
    ("killed", "load", 1),
    ("killed", "evaluation", 0),
    ("killed", "save", 1),
    ("fails", "step", 1),
    ("fails", "gather", 0),
    ("exits", "step", 0),
    ("exits", "gather", 1),
]
ALL = [(way, phase, (number + other) % 2) for number, way in enumerate(WAYS) for other, phase in enumerate(PHASES)]


def never(task, folder, rank=0):
    return Noting(task, "never", 0, None, folder.parent / "trained", rank)


def go_on_both(task, folder):
    ended = ended_ranks(lambda: go(never(task, folder), folder, existing="resume"))
    assert [rank.code for rank in ended] == [0, 0], ended


@pytest.fixture(scope="module")
def whole(place, task):
    """An uninterrupted run of two ranks."""
    go(never(task, place / "warm"), place / "warm")
    go_on_both(task, place / "whole")
    return left(place / "whole")


def check_lost(task, folder, way, phase, rank):
    """The lost rank tells of its own fault, and the other one in one line that it is lost."""
    when = folder.parent / "when"

    def act():
        when.write_text(str(time.monotonic()))
        WAYS[way]()

    def work():
        go(watched(Noting(task, phase, PHASES[phase], act, folder.parent / "trained", rank)), folder)

    hangs = way == "hangs"
    ended = ended_ranks(work, timeout_s=ANSWER_S if hangs else 60, hanging=rank if hangs else None)
    lasted = time.monotonic() - float(when.read_text())
    assert lasted < (ANSWER_S + 10 if hangs else GONE_S)
    said = [[line for line in one.err.splitlines() if line.startswith("error: ")] for one in ended]
    (other,) = said[1 - rank]
    assert [ended[rank].code, ended[1 - rank].code] == [CODES[way], 76], ended
    assert ("has not answered in time" if hangs else "another process of this run has ended") in other
    assert said[rank] == ([f"error: {'process 1: ' if rank else ''}row 7: cannot be read"] if way == "fails" else [])
    if rank == 1 and phase != "load":
        assert last_line(folder) == ("failed", 76)
    return lasted, ended


@pytest.mark.parametrize(("way", "phase", "rank"), FEW)
def test_a_lost_rank_ends_the_other(task, folder, way, phase, rank):
    check_lost(task, folder, way, phase, rank)


@pytest.mark.drill
@pytest.mark.timeout(3600)
def test_a_rank_lost_in_any_way_in_any_phase(task, folder, whole):
    for way, phase, rank in ALL:
        path = folder.parent / f"{way}-{phase}" / "run"
        path.parent.mkdir()
        print(way, phase, rank, f"gone after {check_lost(task, path, way, phase, rank)[0]:.1f} s")
        go_on_both(task, path)
        assert left(path) == whole, (way, phase, rank)


def test_a_rank_that_fails_unexpectedly_says_why(task, folder, whole):
    """What is no message for a user is one line all the same, of the rank where it was; the other waits no longer."""
    acting = Noting(task, "step", 4, lambda: 1 / 0, folder.parent / "trained", 1)
    first, second = ended_ranks(lambda: go(watched(acting), folder))
    assert (first.code, second.code) == (76, 1) and first.err.count("\n") == 1
    assert second.err.startswith("error: process 1: unexpected ZeroDivisionError: division by zero")
    assert second.err.count("\n") == 1
    (folder / "crash-rank1.log").unlink()
    go_on_both(task, folder)
    assert left(folder) == whole


class Scoring(Acting):
    """Something happens on rank 0 while the other one waits for the score."""

    def score(self, predictions: Predictions):
        self.act()


@pytest.mark.parametrize("act", [fail, lambda: 1 / 0])
def test_a_fault_on_the_first_rank_alone_is_told_once(task, folder, act, tmp_path, monkeypatch):
    """All of them get it, and it is the first that knows."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first, second = ended_ranks(lambda: go(Scoring(task, act=act), folder))
    expected = "row 7: cannot be read" if act is fail else "unexpected ZeroDivisionError: division by zero"
    assert first.err.startswith(f"error: {expected}") and first.err.count("\n") == 1 and second.err == ""
    assert (first.code, second.code) == ((2, 2) if act is fail else (1, 76))


@pytest.mark.parametrize(("kind", "is_told"), [(DataError, True), (ModelError, True), (ConfigError, False)])
def test_what_one_node_alone_may_lack_is_told_there(monkeypatch, capsys, kind, is_told):
    """A node has its own disk; what is set is set for all, and the first rank says it."""

    def fail():
        raise kind("models/bert is not there")

    monkeypatch.setattr(reporting, "_HEAD_START", 0)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert reporting.ended(fail, []) == 2
    assert capsys.readouterr().err == ("error: process 1: models/bert is not there\n" if is_told else "")


def test_a_rank_that_hangs_shows_where(task, folder, monkeypatch):
    """Its own stacks, before the others give up."""
    monkeypatch.setattr("finetune.training.stalls.AFTER_S", 3)
    ended = check_lost(task, folder, "hangs", "evaluation", 0)[1]
    assert ended[0].err.count("has not moved for 3 s") == 1 and ", in hang\n" in ended[0].err


def test_a_collective_waits_ten_minutes_at_most():
    """Not torch's 30: what reaches the process group through Accelerate."""
    import torch.distributed as dist

    from finetune.precision import Precision
    from finetune.training.placement import placed

    def alone():
        store = dist.TCPStore("127.0.0.1", 0, 1, is_master=True)
        os.environ.update(WORLD_SIZE="1", RANK="0", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", ACCELERATE_USE_CPU="true")
        os.environ.update(MASTER_PORT=str(store.port), TORCHELASTIC_USE_AGENT_STORE="True")
        with placed(Precision()):
            timeout = dist.group.WORLD._get_backend(dist.distributed_c10d.torch.device("cpu")).options._timeout
            assert 600 <= timeout.total_seconds() < 660

    ended = Child(alone).wait()
    assert ended.code == 0, ended


def test_ranks_outlive_a_killed_launcher_and_save(task, folder, whole):
    """The real one, in fresh interpreters: both ranks are told by the kernel, and agree."""
    file = recipe_file(folder, "Acting(task, 4, lose_launcher, rank=1)")
    alive, held = os.pipe()
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    launcher = subprocess.Popen(
        [*command, str(TREE / "accelerate_configs" / "ddp_cpu.yaml"), str(file)],
        cwd=TREE,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(TREE), os.environ["PYTHONPATH"])),
            "ACCELERATE_USE_CPU": "true",
        },
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=[held],
    )
    os.close(held)
    said = launcher.communicate(timeout=120)[1]
    assert launcher.returncode == -signal.SIGKILL, said
    assert select.select([alive], [], [], 30)[0], "a rank is left behind"
    os.close(alive)
    assert last_line(folder) == ("preempted", 75), said
    ended = ended_ranks(lambda: go(Acting(task), folder, existing="resume"))
    assert [rank.code for rank in ended] == [0, 0], ended
    assert left(folder) == whole
