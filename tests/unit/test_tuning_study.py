"""The study without training: what comes next, from any process, and after one was killed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from finetune.tuning import claims
from finetune.tuning.journal import Journal
from finetune.tuning.reading import read_space
from finetune.tuning.search import Search
from finetune.tuning.study import Study

SPACE = {
    "optimizer.lr": {"low": 1e-5, "high": 1e-1, "log": True},
    "strategy": ["full", {"name": "lora", "space": {"strategy.rank": {"low": 1, "high": 64, "log": True}}}],
}


def study_in(folder, *, space=SPACE, direction="maximize", **search):
    folder.mkdir(parents=True, exist_ok=True)
    return Study(folder, read_space(space), Search(**search), direction)


def values_of(taken):
    return {each.dimension.path: each.shown for each in taken.assigned}


def run_all(study):
    """Runs what comes, each trial worth what its learning rate says; the values of each."""
    found = []
    while (taken := study.take()) is not None:
        values = values_of(taken)
        score = -abs(values["optimizer.lr"] - 1e-3) - 0.01 * values.get("strategy.rank", 0)
        taken.trial.study.tell(taken.trial, score)
        taken.claim.release()
        found.append((taken.trial.number, values))
    return found


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp"])
def test_a_study_that_stopped_goes_on_as_if_it_had_not(tmp_path, sampler):
    whole = run_all(study_in(tmp_path / "whole", sampler=sampler, trials=14))
    parts = [
        *run_all(study_in(tmp_path / "parts", sampler=sampler, trials=11)),
        *run_all(study_in(tmp_path / "parts", sampler=sampler, trials=14)),
    ]
    assert parts == whole and [number for number, _ in whole] == list(range(14))
    assert len({values["optimizer.lr"] for _, values in whole}) >= 12  # an end of the range may come twice
    other = run_all(study_in(tmp_path / "other", sampler=sampler, trials=3, search_seed=1))
    assert other != whole[:3]


def test_tpe_learns(tmp_path):
    """Else a sampler could as well be random."""
    found = run_all(study_in(tmp_path, sampler="tpe", trials=40))
    late = [values["optimizer.lr"] for _, values in found[25:]]
    assert sum(1e-4 < lr < 1e-2 for lr in late) >= 12


def test_a_grid_runs_each_point_once_in_order(tmp_path):
    space = {"batch_size": [1, 2], "strategy": ["full", {"name": "lora", "space": {"strategy.rank": [4, 8]}}]}
    study = study_in(tmp_path, space=space, sampler="grid")
    assert study.limit == 6
    found = []
    while (taken := study.take()) is not None:
        taken.trial.study.tell(taken.trial, 0.0)
        taken.claim.release()
        found.append(values_of(taken))
    assert found == [
        {"batch_size": size, **rest}
        for size in ("1", "2")
        for rest in (
            {"strategy": "full"},
            {"strategy": "lora", "strategy.rank": "4"},
            {"strategy": "lora", "strategy.rank": "8"},
        )
    ]


def test_a_trial_belongs_to_one_process(tmp_path):
    first, second = study_in(tmp_path, trials=3), study_in(tmp_path, trials=3)
    taken = [first.take(), second.take(), first.take()]
    assert [each.trial.number for each in taken] == [0, 1, 2] and second.take() is None
    assert len({values_of(each)["optimizer.lr"] for each in taken}) == 3
    taken[1].claim.release()
    again = second.take()
    assert (again.trial.number, again.is_adopted) == (1, True) and values_of(again) == values_of(taken[1])
    for each in (taken[0], taken[2], again):
        each.trial.study.tell(each.trial, 1.0)
        each.claim.release()
    assert first.take() is None


KILLED = """
import os, sys
from pathlib import Path
from tests.unit.test_tuning_study import study_in, values_of
study = study_in(Path(sys.argv[1]), trials=2)
taken = study.take()
taken.trial.report(0.5, step=0)
print(values_of(taken), flush=True)
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_ran_is_taken_over_with_its_values(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    with (tmp_path / "journal.log").open("ab") as file:
        file.write(b'{"op_code":7,"trial_id"')  # it was killed in the middle of a line
    study = study_in(tmp_path, trials=2)
    taken = study.take()
    assert (taken.trial.number, taken.is_adopted, str(values_of(taken))) == (0, True, done.stdout.strip())
    taken.trial.study.tell(taken.trial, 1.0)
    assert [trial.intermediate_values for trial in study.opened().get_trials()] == [{0: 0.5}]
    taken.claim.release()
    assert study.take().trial.number == 1


def test_a_trial_killed_while_its_values_were_drawn(tmp_path):
    study = study_in(tmp_path, trials=1)
    trial = study.opened().ask()
    trial.suggest_float("optimizer.lr", 1e-5, 1e-1, log=True)
    taken = study.take()
    assert taken.is_adopted and values_of(taken)["optimizer.lr"] == trial.params["optimizer.lr"]
    assert "strategy" in values_of(taken)


def test_a_journal_is_read_by_optuna_and_mends_a_torn_line(tmp_path):
    from optuna.storages.journal import JournalFileBackend

    journal = Journal(tmp_path / "journal.log")
    journal.append_logs([{"a": 1}, {"b": 2}])
    with (tmp_path / "journal.log").open("ab") as file:
        file.write(b'{"c": "longer than the line that follows')
    assert list(journal.read_logs(0)) == [{"a": 1}, {"b": 2}]
    journal.append_logs([{"d": 4}])
    assert list(journal.read_logs(1)) == [{"b": 2}, {"d": 4}]
    assert (tmp_path / "journal.log").read_bytes().endswith(b'{"b":2}\n{"d":4}\n')
    assert list(JournalFileBackend(str(tmp_path / "journal.log")).read_logs(0)) == [{"a": 1}, {"b": 2}, {"d": 4}]


def test_another_machine_is_judged_by_its_silence(tmp_path):
    """A lock of another machine may not be seen here; what is signed there and beats is alive."""
    tmp_path.mkdir(exist_ok=True)
    signed = tmp_path / claims.LOCK
    signed.write_text(json.dumps({"pid": 1, "host": f"not-{socket.gethostname()}"}))
    assert claims.claim(tmp_path) is None
    os.utime(signed, (1e9, 1e9))
    found = claims.claim(tmp_path)
    assert found is not None and json.loads(signed.read_text())["host"] == socket.gethostname()
    assert claims.claim(tmp_path) is None
    found.release()
    assert signed.read_text() == ""


def test_a_claim_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "_BEAT_S", 0.01)
    found, signed = claims.claim(tmp_path), tmp_path / claims.LOCK
    os.utime(signed, (1e9, 1e9))
    ends = time.monotonic() + 60
    while signed.stat().st_mtime < 1.1e9 and time.monotonic() < ends:
        time.sleep(0.01)
    assert signed.stat().st_mtime > 1.1e9
    found.release()
