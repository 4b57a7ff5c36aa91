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
from finetune.checkpoints.reading import newest_good
from finetune.errors import DataError
from finetune.tasks.base import Predictions
from tests.forked import Acting, Child, ended_ranks, send
from tests.integration.test_signals import folder, go, last_line, left, place, recipe_file, task

KILLED = -signal.SIGKILL
TREE = Path(finetune.__file__).parents[1]


@pytest.fixture(scope="module")
def whole(place, task):
    """An uninterrupted run of two ranks."""
    go(Acting(task), place / "warm")
    assert [ended.code for ended in ended_ranks(lambda: go(Acting(task), place / "whole"))] == [0, 0]
    return left(place / "whole")


def go_on_both(task, folder):
    assert [e.code for e in ended_ranks(lambda: go(Acting(task), folder, existing="resume"))] == [0, 0]


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_a_signal_to_one_rank_stops_both_at_the_same_step(task, folder, whole, name, code):
    acting = Acting(task, 4, send(getattr(signal, name)), rank=1)
    first, second = ended_ranks(lambda: go(acting, folder))
    assert (first.code, second.code) == (code, code)
    assert "ended after step 6" in first.err and second.err == ""
    assert last_line(folder)[1] == code and newest_good(folder / "checkpoints").step == 6
    go_on_both(task, folder)
    assert left(folder) == whole


def test_a_signal_to_one_rank_in_its_last_update(task, folder):
    acting = Acting(task, 9, send(signal.SIGTERM), rank=1)
    assert [ended.code for ended in ended_ranks(lambda: go(acting, folder))] == [75, 75]


def fail():
    raise DataError("row 7: cannot be read")


def check_lost(ended, lost, *, within):
    """The lost rank told of its own fault, and the other one in one line that it is lost."""
    other = ended[1 - lost]
    assert other.code == 76 and other.err.count("error: ") == 1 and other.err.count("\n") == 1, other
    assert "another process of this run has" in other.err
    assert time.monotonic() - within < 20


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("training", [True, False])
def test_a_killed_rank_ends_the_other(task, folder, rank, training):
    acting, began = Acting(task, 3, send(signal.SIGKILL), training, rank), time.monotonic()
    ended = ended_ranks(lambda: go(acting, folder))
    assert ended[rank].code == KILLED
    check_lost(ended, rank, within=began)
    if rank == 1:
        assert last_line(folder) == ("failed", 76)


@pytest.mark.parametrize("act", [fail, lambda: 1 / 0])
def test_a_rank_that_fails_says_why(task, folder, whole, act, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    began = time.monotonic()
    ended = ended_ranks(lambda: go(Acting(task, 4, act, rank=1), folder))
    check_lost(ended, 1, within=began)
    assert ended[1].code == (2 if act is fail else 1)
    expected = "row 7: cannot be read" if act is fail else "unexpected ZeroDivisionError: division by zero"
    assert ended[1].err.startswith(f"error: process 1: {expected}") and ended[1].err.count("\n") == 1
    go_on_both(task, folder)
    assert left(folder) == whole


class Slow(Acting):
    """Scoring never ends on rank 0; here it waits for its own end."""

    def score(self, predictions: Predictions):
        signal.pause()


def test_a_rank_that_hangs_is_not_waited_for_for_ever(task, folder):
    """The hanging rank is rank 0, which scores while the other one waits; a launcher would end it then."""
    began = time.monotonic()

    def work():
        signal.alarm(5)  # in place of the launcher
        go(Slow(task), folder)

    ended = ended_ranks(work, timeout_s=2)
    assert ended[0].code == -signal.SIGALRM
    assert ended[1].code == 76 and "has not answered in time" in ended[1].err
    assert time.monotonic() - began < 30


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
        env={**os.environ, "PYTHONPATH": str(TREE), "ACCELERATE_USE_CPU": "true"},
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=[held],
    )
    os.close(held)
    said = launcher.communicate(timeout=120)[1]
    assert launcher.returncode == KILLED, said
    assert select.select([alive], [], [], 30)[0], "a rank is left behind"
    os.close(alive)
    assert last_line(folder) == ("preempted", 75), said
    go_on_both(task, folder)
    assert left(folder) == whole
