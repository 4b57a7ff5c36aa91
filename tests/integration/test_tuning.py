"""``tune`` on tiny real runs: trials are run folders, seeds repeat them, pruning ends some, processes share them."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from safetensors.torch import load_file

import finetune
from finetune.checkpoints.lock import LOCK
from finetune.cli import main
from finetune.config import dump, resolve
from finetune.config.dumping import as_yaml
from finetune.errors import ConfigError, DivergedError, PreemptedError, RunFolderError
from finetune.tuning import tune
from finetune.tuning.base import Base
from finetune.tuning.reading import read_space
from finetune.tuning.running import search_with
from finetune.tuning.search import Search
from tests import runs
from tests.forked import Child

WAIT_S = 240
SPACE = {
    "optimizer.lr": {"low": 1e-3, "high": 1e-1, "log": True},
    "strategy": ["full", {"name": "lora", "space": {"strategy.rank": {"low": 1, "high": 4}}}],
}


@pytest.fixture
def config(tmp_path):
    return runs.config(runs.text_task(tmp_path), length="4 steps")


@pytest.fixture
def cli(capsys):
    def ran(*words):
        with pytest.raises(SystemExit) as end:
            main(argv=[str(word) for word in words])
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return ran


def search(config, folder, space=SPACE, **changes):
    return tune(config, space, output_dir=folder, **{"sampler": "random", "trials": 3, "show": "nothing", **changes})


def weights(folder):
    return runs.digest(
        {k: v for path in sorted((folder / "model").glob("*.safetensors")) for k, v in load_file(path).items()}
    )


def test_a_trial_is_a_run_that_runs_again_to_the_same_bits(config, tmp_path):
    result = search(config, tmp_path / "s")
    assert [trial.ended for trial in result.trials] == ["complete"] * 3
    assert {trial.values["strategy"] for trial in result.trials} == {"full", "lora"}
    for trial in result.trials:
        stored = trial.folder / "config.yaml"
        found = resolve(None, [stored], [])
        assert found.optimizer.lr == trial.values["optimizer.lr"] and found.strategy.name == trial.values["strategy"]
        metrics = json.loads((trial.folder / "metrics.json").read_text())
        assert trial.value == metrics["best"]["accuracy"] and (trial.folder / "report.html").exists() is False
        again = resolve(None, [stored], [f"output_dir={tmp_path / 'again' / str(trial.number)}"])
        finetune.fit(**vars(again), show="nothing")
        assert weights(Path(again.output_dir)) == weights(trial.folder)
        plans = [json.loads((folder / "plan.json").read_text()) for folder in (trial.folder, Path(again.output_dir))]
        assert plans[0]["digest"] == plans[1]["digest"]
    best = max(result.trials, key=lambda trial: (trial.value, -trial.number))
    assert result.best == best
    assert (tmp_path / "s" / "best.yaml").read_text() == (best.folder / "config.yaml").read_text()
    document = json.loads((tmp_path / "s" / "results.json").read_text())
    assert document["best"] == best.number and document["trials"][0]["folder"] == "trials/0000"
    assert "validation accuracy, one run each" in (tmp_path / "s" / "history.svg").read_text()


def test_it_goes_on_and_refuses_another_search(config, tmp_path):
    first = search(config, tmp_path / "s", trials=1)
    both = search(config, tmp_path / "s", trials=2)
    assert both.trials[0] == first.trials[0] and len(both.trials) == 2
    assert search(config, tmp_path / "s", trials=2).trials == both.trials
    for changes, message in (
        ({"space": {"batch_size": [8]}}, "space.batch_size"),
        ({"sampler": "tpe"}, 'search.sampler: "random" -> "tpe"'),
        ({"seeds": 2}, "seeds"),
    ):
        with pytest.raises(RunFolderError) as error:
            search(config, tmp_path / "s", **changes)
        assert "holds another search" in str(error.value) and message in str(error.value)
    with pytest.raises(RunFolderError, match="config.batch_size: 8 -> 4"):
        search(runs.config(config.task, length="4 steps", batch_size=4), tmp_path / "s")


def test_seeds_repeat_each_trial(config, tmp_path):
    result = search(config, tmp_path / "s", {"batch_size": [4, 8]}, sampler="grid", trials=None, seeds=2)
    assert [trial.values for trial in result.trials] == [{"batch_size": "4"}, {"batch_size": "8"}]
    for trial in result.trials:
        scores = []
        for seed in (42, 43):
            folder = trial.folder / f"seed-{seed}"
            assert resolve(None, [folder / "config.yaml"], []).seed == seed
            scores.append(json.loads((folder / "metrics.json").read_text())["best"]["accuracy"])
        assert trial.scores == tuple(scores) and trial.value == pytest.approx(sum(scores) / 2)
    assert (tmp_path / "s" / "best.yaml").is_file()


def test_a_bad_trial_is_pruned_and_a_good_one_is_not(tmp_path):
    """Five trials of a rate that learns, then one that does not, then one more that does."""
    config = runs.config(
        runs.replaced(runs.text_task(tmp_path), metrics=("accuracy",)),
        length="8 steps",
        evaluate_every="2 steps",
        metric="loss",
    )
    space = {"optimizer.lr": [1e-2, 1.01e-2, 1.02e-2, 1.03e-2, 1.04e-2, 1e-9, 1.2e-2]}
    result = search(config, tmp_path / "s", space, sampler="grid", trials=None, pruner="median")
    ended = [trial.ended for trial in result.trials]
    assert result.direction == "minimize" and ended[:6] == ["complete"] * 5 + ["pruned"]
    pruned = result.trials[5]
    metrics = json.loads((pruned.folder / "metrics.json").read_text())
    assert metrics["steps"] < 8 and metrics["stopped_early"] and len(pruned.reached) == metrics["steps"] // 2
    assert pruned.value == pruned.reached[-1] and result.best.number != 5
    assert all(len(trial.reached) == 4 for trial in result.trials if trial.ended == "complete")
    # Its config is that of a whole run: pruning is none of the run's own business.
    assert resolve(None, [pruned.folder / "config.yaml"], []).early_stopping is None
    assert "pruned, as far as it came" in (tmp_path / "s" / "history.svg").read_text()


def test_hyperband_ends_what_learns_nothing(tmp_path):
    """Of trials alike but in their rate: two that learn, four that do not, one more that does."""
    config = runs.config(runs.text_task(tmp_path), length="8 steps", evaluate_every="2 steps", metric="loss")
    space = {"optimizer.lr": [1e-2, 1.02e-2, 1e-9, 1.1e-9, 1.2e-9, 1.3e-9, 1.1e-2]}
    result = search(config, tmp_path / "s", space, sampler="grid", trials=None, pruner="hyperband")
    ended = [trial.ended for trial in result.trials]
    # Its brackets differ in how early they end a trial, so one of the four may be let through.
    assert [ended[at] for at in (0, 1, 6)] == ["complete"] * 3 and ended[2:6].count("pruned") >= 3
    for trial in result.trials[2:6]:
        steps = json.loads((trial.folder / "metrics.json").read_text())["steps"]
        assert steps == 2 * len(trial.reached) and (steps < 8) == (trial.ended == "pruned")
    assert result.best.number in (0, 1, 6)


def test_what_diverges_is_told_and_the_others_go_on(config, tmp_path):
    space = {"optimizer.lr": [1e-2, 1e30]}
    config = runs.config(config.task, length="4 steps", max_grad_norm=0.0)
    result = search(config, tmp_path / "s", space, sampler="grid", trials=None)
    assert [trial.ended for trial in result.trials] == ["complete", "diverged"]
    assert "Nothing of it was applied" in result.trials[1].cause and result.best.number == 0
    with pytest.raises(DivergedError, match=r"no trial works \(3 tried\)"):
        search(config, tmp_path / "t", {"optimizer.lr": [1e30, 2e30, 3e30, 4e30]}, sampler="grid", trials=None)


def test_a_mistake_that_only_a_plan_sees_ends_it_at_once(config, tmp_path):
    space = {"strategy": [{"name": "freeze", "trainable": ["nothing.*"]}, "full"]}
    with pytest.raises(ConfigError) as error:
        search(config, tmp_path / "s", space, sampler="grid", trials=None)
    assert "trial 0: " in str(error.value) and "nothing.*" in str(error.value)
    result = search(config, tmp_path / "s", space, sampler="grid", trials=None)  # the rest of it works
    assert [trial.ended for trial in result.trials] == ["failed", "complete"]
    assert any("1 of 2 trials failed" in warning for warning in result.warnings)


def yaml_of(config, tmp_path, **changes):
    (tmp_path / "run.yaml").write_text(dump(config))
    tree = {"recipe": str(tmp_path / "run.yaml"), "output_dir": str(tmp_path / "s"), "space": SPACE}
    (tmp_path / "space.yaml").write_text(as_yaml({**tree, "sampler": "random", "trials": 2, **changes}))
    return tmp_path / "space.yaml"


def test_the_verb(config, cli, tmp_path):
    file = yaml_of(config, tmp_path)
    code, out, err = cli("tune", file)
    assert code == 0 and "best: trial" in out and "trial 0 of 2: " in err, err
    assert "optimizer.lr" in out and str(tmp_path / "s" / "best.yaml") in out
    code, out, _ = cli("tune", file, "--report", "--json")
    assert code == 0 and len(json.loads(out)["trials"]) == 2
    code, _, err = cli("tune", file, "--trials", 3, "length=2 steps")
    assert code == 2 and "holds another search: config.length" in err
    assert cli("show", tmp_path / "s" / "best.yaml")[0] == 0
    code, _, err = cli("tune", file, "--sampler", "grid", f"output_dir={tmp_path / 't'}")
    assert code == 2 and "space.optimizer.lr: a grid needs a step" in err


def started(file):
    return Child(lambda: main(argv=["tune", str(file)]))


def wait_until(there, *children):
    """What ``there`` gives, as soon as it gives something, while the children run."""
    ends = time.monotonic() + WAIT_S
    while not (found := there()):
        assert time.monotonic() < ends and all(child.is_running() for child in children), [
            child.wait(0) for child in children
        ]
        time.sleep(0.005)
    return found


def first_checkpoint(folder):
    return list(folder.glob("trials/0000/checkpoints/step-*"))


@contextmanager
def stopped(folder):
    """This process is sent SIGTERM when the first trial has a checkpoint, unless it is through by then."""
    over = threading.Event()

    def stop():
        while not first_checkpoint(folder) and not over.wait(0.005):
            pass
        if not over.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def long(tmp_path):
    return runs.config(
        runs.text_task(tmp_path),
        length="60 steps",
        evaluate_every="30 steps",
        checkpoint=finetune.Checkpointing(every="2 steps"),
    )


def test_a_trial_whose_process_was_killed_is_gone_on_with(tmp_path):
    config = long(tmp_path)
    file = yaml_of(config, tmp_path, trials=1)
    child = started(file)
    wait_until(lambda: first_checkpoint(tmp_path / "s"), child)
    os.kill(child.pid, signal.SIGKILL)
    ended = child.wait()
    assert ended.code == -signal.SIGKILL, ended
    steps = [int(path.name[5:]) for path in (tmp_path / "s").glob("trials/0000/checkpoints/step-*")]
    assert 0 < max(steps) < 60
    check_goes_on(config, tmp_path)


def test_a_trial_that_was_asked_to_stop_is_gone_on_with(tmp_path):
    config, folder = long(tmp_path), tmp_path / "s"
    with stopped(folder), pytest.raises(PreemptedError):
        search(config, folder, trials=1)
    shown = report(config, folder)
    assert [trial.ended for trial in shown.trials] == ["running"] and "left by one that ended" in shown.warnings[0]
    check_goes_on(config, tmp_path)


def test_the_verb_says_how_to_go_on(cli, tmp_path):
    """Not by --resume, as a run of its own would."""
    file = yaml_of(long(tmp_path), tmp_path, trials=1)
    with stopped(tmp_path / "s"):
        code, _, err = cli("tune", file)
    assert code == 75 and "the same command goes on" in err and "--resume" not in err, err


def report(config, folder):
    dimensions, how = read_space(SPACE), Search(sampler="random", trials=1)
    return search_with(Base(config), dimensions, how, root=folder, show="nothing", runs=False)


def check_goes_on(config, tmp_path):
    result = search(config, tmp_path / "s", trials=1)
    assert [trial.ended for trial in result.trials] == ["complete"]
    whole = search(config, tmp_path / "w", trials=1)
    assert whole.trials[0].values == result.trials[0].values
    assert weights(whole.trials[0].folder) == weights(result.trials[0].folder)


def test_of_two_processes_one_is_killed_and_the_other_ends_its_trial_too(tmp_path):
    """SIGKILL in the middle of a trial: the other goes on with it from its checkpoint, to the same bits."""
    file = yaml_of(long(tmp_path), tmp_path, space={"optimizer.lr": [1e-2, 2e-2]}, sampler="grid", trials=None)
    both = [started(file), started(file)]
    pid, number = wait_until(lambda: _at_work(tmp_path / "s"), *both)
    killed, other = sorted(both, key=lambda child: child.pid != pid)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.pid == pid and killed.wait().code == -signal.SIGKILL
    there = [int(path.name[5:]) for path in (tmp_path / "s").glob(f"trials/{number:04}/checkpoints/step-*")]
    assert 0 < max(there) < 60
    ended = other.wait(WAIT_S)
    assert ended.code == 0 and f"trial {number} of 2 goes on" in ended.err, ended
    trials = json.loads((tmp_path / "s" / "results.json").read_text())["trials"]
    assert [trial["ended"] for trial in trials] == ["complete"] * 2
    trial = tmp_path / "s" / "trials" / f"{number:04}"
    again = resolve(None, [trial / "config.yaml"], [f"output_dir={tmp_path / 'again'}"])
    alone = finetune.fit(**vars(again), show="nothing")
    assert weights(trial) == weights(tmp_path / "again")
    assert trials[number]["value"] == alone.metrics["validation"]["accuracy"]


def _at_work(folder):
    """Process and number of a trial that has a checkpoint and goes on."""
    for path in folder.glob("trials/*/checkpoints/step-*"):
        number = int(path.parts[-3])
        claim = folder / "study" / "claims" / f"{number:04}" / LOCK
        if (text := claim.read_text() if claim.exists() else "") and not (path.parents[1] / "metrics.json").exists():
            return json.loads(text)["pid"], number
    return None


def test_a_study_that_another_process_makes_meanwhile_is_shared(config, tmp_path, monkeypatch):
    """It was not there yet when this one looked, and it is when this one looks what else the folder holds."""
    root, listdir, made = tmp_path / "s", os.listdir, []
    root.mkdir()

    def late(path="."):
        if path == root and not made:
            made.append((root / "study").mkdir())
        return listdir(path)

    monkeypatch.setattr(os, "listdir", late)
    result = search(config, root, trials=1)
    assert made and [trial.ended for trial in result.trials] == ["complete"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(RunFolderError, match="holds 'thesis.tex', which is no search of ours"):
        search(config, tmp_path / "mine", trials=1)


def test_processes_share_a_study(config, tmp_path):
    space = {"optimizer.lr": [1e-2, 2e-2, 3e-2, 4e-2]}
    file = yaml_of(config, tmp_path, space=space, sampler="grid", trials=None)
    ended = [child.wait(WAIT_S) for child in [started(file), started(file)]]
    assert [one.code for one in ended] == [0, 0], ended
    ran = [{line.split()[1] for line in one.err.splitlines() if line.startswith("trial ")} for one in ended]
    assert ran[0] | ran[1] == set("0123") and not ran[0] & ran[1]
    document = json.loads((tmp_path / "s" / "results.json").read_text())
    assert [trial["ended"] for trial in document["trials"]] == ["complete"] * 4
