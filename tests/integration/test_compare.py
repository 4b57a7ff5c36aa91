"""Cells by seeds: each an ordinary run, what is cut goes on, what fails is counted, and what may be said of it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import load_file

import finetune
from finetune import Checkpointing
from finetune.cli import main
from finetune.comparing import compare
from finetune.comparing.processes import Work, done
from finetune.comparing.report import tables
from finetune.comparing.results import summary_of
from finetune.config import dump, resolve
from finetune.errors import ConfigError, LaunchError, RunFolderError
from finetune.forking.children import FORKS
from finetune.optimizers import SGD
from finetune.strategies import Freeze
from finetune.training import fit
from tests.runs import config, digest, replaced, text_task

MODEL = "model/model.safetensors"


def cells(folder, **changes):
    full = config(text_task(folder), **{"length": "4 steps", "evaluate_every": "2 steps", **changes})
    return {"full": full, "freeze": replace(full, strategy=Freeze())}


def compared(given, root, **changes):
    return compare(given, **{"seeds": 2, "output_dir": root, "show": "nothing", **changes}).document


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, compared(cells(folder), folder / "found")


def test_each_run_is_the_one_it_would_be_alone(whole, tmp_path):
    folder, document = whole
    assert finetune.compare is compare
    assert document["seeds"] == [42, 43] and document["split"] == "validation" and document["metric"] == "accuracy"
    for name, cell in cells(folder).items():
        found = folder / "found" / "cells" / name / "seed-43"
        alone = fit(**vars(replace(cell, seed=43, output_dir=str(tmp_path / name))), show="nothing")
        assert digest(load_file(found / MODEL)) == digest(load_file(tmp_path / name / MODEL))
        run = document["cells"][name]["runs"]["43"]
        assert run["score"] == alone.metrics["validation"]["accuracy"] and run["metrics"] == alone.metrics
        assert run["steps"] == 4 and run["folder"] == f"cells/{name}/seed-43"
        again = resolve(None, [found / "config.yaml"], [])
        assert again == replace(cell, seed=43, output_dir=str(found))
        assert not (found / "checkpoints").exists() and not (found / "best").is_symlink()
        assert document["cells"][name]["facts"]["num_trained"] == alone.plan["num_trained"]


def test_the_summary_and_its_reports(whole):
    folder, document = whole
    rows = document["summary"]["rows"]
    scores = [[document["cells"][row["cell"]]["runs"][str(seed)]["score"] for seed in (42, 43)] for row in rows]
    assert [row["mean"] for row in rows] == pytest.approx([np.mean(score) for score in scores])
    assert rows[1]["difference"]["mean"] == pytest.approx(np.mean(np.subtract(scores[1], scores[0])))
    assert rows[0]["difference"] is None and rows[1]["difference"]["verdict"] == "open"
    said = " ".join(document["summary"]["said"])
    assert "with 2 pairs of runs and 1 comparison no difference" in said and "6 seeds could" in said
    assert "Equal budgets: 4 steps, 32 examples each." in said and "Scored on 21 validation examples" in said
    assert (
        json.loads((folder / "found" / "compare.json").read_text())["summary"]["said"] == document["summary"]["said"]
    )
    text, page = ((folder / "found" / f"compare.{kind}").read_text() for kind in ("md", "html"))
    for line in ("Equal budgets: 4 steps", "accuracy on validation", "every run, by seed"):
        assert line in text and line in page
    assert "data:image/png;base64" in page and (folder / "found" / "pareto.png").stat().st_size > 10_000


@pytest.mark.parametrize("ended", ["cut", "killed before it was told"])
def test_what_was_cut_goes_on_where_it_was(whole, tmp_path, monkeypatch, ended):
    import finetune.comparing.running as running
    import finetune.training as training

    folder, document = whole
    began, fit_whole, record = [], training.fit, running._record
    cuts = [ended] if ended == "cut" else []

    def fit_cut(*args, **settings):
        began.append("/".join(settings["output_dir"].split("/")[-2:]))
        return fit_whole(*args, **settings, stop_at=3 if len(began) == 2 and cuts else None)

    def killed(document, root, key, measured, **options):
        if key == ("freeze", 42):
            raise KeyboardInterrupt
        return record(document, root, key, measured, **options)

    monkeypatch.setattr(training, "fit", fit_cut)
    with monkeypatch.context() as patched:
        if ended != "cut":
            patched.setattr(running, "_record", killed)
        with pytest.raises(KeyboardInterrupt):
            compared(cells(folder), tmp_path / "cut")
    assert began == ["full/seed-42", "freeze/seed-42"]
    before = json.loads((tmp_path / "cut" / "compare.json").read_text())
    assert before["summary"]["rows"][1]["waiting"] == 2 and "3 runs have not ended" in " ".join(
        before["summary"]["said"]
    )
    began.clear()
    cuts.clear()
    found = compared(cells(folder), tmp_path / "cut", existing="resume")
    assert began == [*(["freeze/seed-42"] if ended == "cut" else []), "full/seed-43", "freeze/seed-43"]
    for name in ("full", "freeze"):
        there = sorted(path.name for path in (tmp_path / "cut" / "cells" / name).iterdir())
        assert there == ["seed-42", "seed-43"]  # none was moved aside to begin anew
        for seed in ("42", "43"):
            assert found["cells"][name]["runs"][seed]["score"] == document["cells"][name]["runs"][seed]["score"]
            model = f"cells/{name}/seed-{seed}/{MODEL}"
            assert digest(load_file(tmp_path / "cut" / model)) == digest(load_file(folder / "found" / model))


def test_cells_and_seeds_may_be_added_and_none_changed(tmp_path):
    given, root = cells(tmp_path, length="2 steps"), tmp_path / "found"
    compared(given, root, seeds=[1])
    with pytest.raises(RunFolderError, match="is not empty"):
        compared(given, root, seeds=[1])
    other = {name: replace(cell, length="3 steps") for name, cell in given.items()}
    with pytest.raises(RunFolderError, match="cell 'full', 'freeze': length: \"2 steps\" -> \"3 steps\""):
        compared(other, root, seeds=[1], existing="resume")
    long = {**given, "long": replace(given["full"], length="3 steps")}
    found = compared(long, root, seeds=[1, 2], existing="resume")
    assert [row["runs"] for row in found["summary"]["rows"]] == [2, 2, 2]
    assert any("Budgets differ: full 2 steps (16 examples)" in line for line in found["summary"]["said"])
    free = {name: replace(cell, workers=1) for name, cell in long.items()}
    assert compared(free, root, seeds=[1, 2], existing="resume")["summary"] == found["summary"]
    compared(given, root, seeds=[3], existing="overwrite")
    assert (tmp_path / "found.old-1" / "compare.json").is_file()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(RunFolderError, match="holds no comparison of ours"):
        compared(given, tmp_path / "mine", existing="resume")


def test_a_run_that_fails_is_counted_and_the_others_go_on(tmp_path):
    given = cells(tmp_path, length="3 steps")
    given["wild"] = replace(given["full"], optimizer=SGD(lr=1e30))
    found = compared(given, tmp_path / "found", seeds=[1])
    assert found["cells"]["wild"]["runs"]["1"]["ended"] == "diverged"
    rows = found["summary"]["rows"]
    assert [(row["runs"], row["without_score"]) for row in rows] == [(1, 0), (1, 0), (0, 1)]
    assert rows[2]["failed"] == 1 and rows[2]["pareto"] == [] and rows[2]["difference"]["verdict"] == "open"
    assert any(line.startswith("Without a score: wild seed 1: ") for line in found["summary"]["said"])


def test_what_cannot_be_compared_is_told_before_anything_trains(tmp_path, monkeypatch):
    given, root = cells(tmp_path), tmp_path / "found"
    other = tmp_path / "other.csv"
    other.write_text("".join((tmp_path / "validation.csv").read_text().splitlines(keepends=True)[:-3]))
    task = given["full"].task
    fewer = replace(given["full"], task=replaced(task, data=replaced(task.data, validation=str(other))))
    loss = replace(given["full"], task=replaced(task, metrics=("f1",)))
    broken = replace(given["full"], strategy=Freeze(trainable=("no such group",)))
    with pytest.raises(ConfigError, match="cell 'fewer' is not that of 'full'"):
        compared({**given, "fewer": fewer}, root)
    with pytest.raises(ConfigError, match="'accuracy' is not scored in cell 'loss'"):
        compared({**given, "loss": loss}, root)
    with pytest.raises(ConfigError, match="cell 'broken': .*no such group"):
        compared({**given, "broken": broken}, root)
    with pytest.raises(ConfigError, match="'full', 'freeze' has no test split"):
        compared(given, root, split="test")
    with pytest.raises(ConfigError, match="split: got 'train'"):
        compared(given, root, split="train")
    assert not (root / "cells").exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LaunchError, match="without a launcher"):
        compared(given, root)


def document_of(scores, *, constant=0.5, direction="maximize", steps=(10, 10, 10)):
    """A comparison whose runs gave these scores, a list for each cell."""
    facts = {"num_trained": 5, "num_parameters": 10, "batch_size": 2, "splits": {}}
    facts["splits"] = {"test": {"examples": 100, "labels": "", "constant": constant}}
    names = [f"cell-{number}" for number in range(len(scores))]
    found = {}
    for name, values, count in zip(names, scores, steps, strict=False):
        runs = {
            str(seed): {"ended": "finished", "score": value, "steps": count, "seconds": 1.0, "peak_bytes": 7}
            for seed, value in enumerate(values)
        }
        found[name] = {"facts": {**facts, "total_steps": count}, "runs": runs}
    document = {"cells": found, "compared": names, "seeds": list(range(len(scores[0]))), "jobs": 1}
    return {**document, "metric": "accuracy", "split": "test", "direction": direction}


def test_the_exit_code_is_of_the_runs_that_were_asked_for():
    from finetune.cli.compare import _exit_code

    document = document_of([[0.7, 0.8], [0.7, 0.8]])
    document["cells"]["cell-1"]["runs"]["9"] = {"ended": "failed", "error": "out of memory", "exit_code": 1}
    assert _exit_code(document) == 0  # seed 9 is of an earlier call
    document["seeds"].append(9)
    assert _exit_code(document) == 1


def test_differences_beyond_noise_and_within():
    first = [0.70, 0.71, 0.72, 0.70, 0.73, 0.71, 0.70]
    noise = [0.02, -0.01, 0.01, -0.02, 0.01, -0.015, 0.004]
    document = document_of(
        [first, [value + 0.05 for value in first], [a + b for a, b in zip(first, noise, strict=True)]]
    )
    document["summary"] = summary_of(document)
    rows = document["summary"]["rows"]
    assert [row["difference"] and row["difference"]["verdict"] for row in rows] == [None, "better", "within noise"]
    assert rows[1]["difference"]["p"] == 2 / 128 and rows[1]["difference"]["p_holm"] == 4 / 128
    said = document["summary"]["said"]
    assert said[0] == "cell-1 is better than cell-0 (p <= 0.05, corrected for 2)."
    assert said[1] == "Within noise: cell-2 cannot be told from cell-0."
    assert tables(document)[0].rows[1][-2:] == ("0.031", "better")
    lower = summary_of(document_of([first, [value + 0.05 for value in first]], direction="minimize"))
    assert lower["rows"][1]["difference"]["verdict"] == "worse"


def test_six_pairs_tell_of_one_comparison_and_not_of_two():
    first = [0.7] * 6
    one = summary_of(document_of([first, [0.8] * 6]))
    two = summary_of(document_of([first, [0.8] * 6, [0.9] * 6]))
    assert [row["difference"]["verdict"] for row in one["rows"][1:]] == ["better"]
    assert [row["difference"]["verdict"] for row in two["rows"][1:]] == ["open", "open"]
    assert two["rows"][1]["difference"]["p_holm"] == 4 / 64
    assert "(the smallest is 0.0625), whatever the scores of cell-1, cell-2; 7 seeds could." in two["said"][0]


def test_failed_runs_are_those_no_better_than_one_guess():
    rows = summary_of(document_of([[0.5, 0.49, 0.7], [0.6, 0.7, 0.8]]))["rows"]
    assert [(row["failed"], row["at_constant"]) for row in rows] == [(2, 2), (0, 0)]
    rows = summary_of(document_of([[0.5, 0.49, 0.7], [0.6, 0.7, 0.8]], direction="minimize"))["rows"]
    assert [row["failed"] for row in rows] == [2, 3]
    rows = summary_of(document_of([[0.5, 0.49, 0.7], [0.6, float("nan"), 0.8]], constant=None))["rows"]
    assert [row["failed"] for row in rows] == [0, 1]
    assert [row["runs"] for row in rows] == [3, 2] and rows[1]["difference"]["pairs"] == 2


def _asleep():
    time.sleep(60)


def _interrupted():
    raise KeyboardInterrupt


def _killed():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(not FORKS, reason="this platform does not fork")
def test_processes_side_by_side(tmp_path):
    works = [Work(name, do, tmp_path / name) for name, do in (("a", _killed), ("b", dict), ("c", dict))]
    reports = dict(done(works, jobs=2))
    assert "signal 9" in reports.pop("a").error
    assert {name: (report.value, report.error) for name, report in reports.items()} == {"b": ({}, ""), "c": ({}, "")}
    works = [Work("a", _asleep, tmp_path / "a"), Work("b", _interrupted, tmp_path / "b")]
    with pytest.raises(KeyboardInterrupt):
        list(done(works, jobs=2))
    assert multiprocessing.active_children() == []  # the other one was ended, too


@pytest.mark.skipif(not FORKS, reason="this platform does not fork")
def test_the_verb_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    checkpoint = Checkpointing(every="1 step")
    for name, cell in cells(tmp_path, length="200 steps", checkpoint=checkpoint).items():
        (tmp_path / f"{name}.yaml").write_text(dump(cell))

    over = threading.Event()

    def stop():
        while not list((tmp_path / "found").glob("cells/full/*/checkpoints/step-*")) and not over.wait(0.005):
            pass
        if not over.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=stop)
    thread.start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    with pytest.raises(SystemExit) as end:
        words = [str(tmp_path / "full.yaml"), str(tmp_path / "freeze.yaml"), f"output_dir={tmp_path / 'found'}"]
        main(argv=["compare", *words])
    over.set()
    thread.join()
    signal.signal(signal.SIGINT, before)
    assert end.value.code == 130 and "go on with --resume" in capsys.readouterr().err


@pytest.mark.skipif(not FORKS, reason="this platform does not fork")
def test_the_verb_in_processes_of_their_own(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())  # what a parent sets before it forks ends with the test
    full = cells(tmp_path, length="2 steps")["full"]
    (tmp_path / "full.yaml").write_text(dump(full))
    (tmp_path / "grid.yaml").write_text(
        f"config: {{task: {{name: text_classification}}}}\ncells:\n  all: {{}}\n  head: {{strategy: freeze}}\n"
        f"  wild: {{optimizer: {{name: sgd, lr: 1e30}}}}\nseeds: 1\noutput_dir: {tmp_path / 'found'}\n"
    )
    words = ["compare", str(tmp_path / "grid.yaml"), "--config", str(tmp_path / "full.yaml"), "--jobs", "2"]
    with pytest.raises(SystemExit) as end:
        main(argv=words)
    captured = capsys.readouterr()
    assert end.value.code == 0, captured.err  # that one diverged is a result
    assert "accuracy on validation" in captured.out and "Seconds were taken with 2 runs side by side" in captured.out
    assert "wild  seed 42  failed: " in captured.err
    found = json.loads((tmp_path / "found" / "compare.json").read_text())
    runs = {name: cell["runs"]["42"] for name, cell in found["cells"].items()}
    assert runs["all"]["peak_bytes"] > 0 and runs["wild"]["exit_code"] == 70
    alone = fit(**vars(replace(full, strategy=Freeze())), show="nothing")
    assert runs["head"]["score"] == alone.metrics["validation"]["accuracy"]
    with pytest.raises(SystemExit) as end:
        main(argv=[*words, "--resume", "--json"])
    captured = capsys.readouterr()
    assert end.value.code == 0 and json.loads(captured.out)["summary"]["rows"][0]["runs"] == 1
    assert "2 of 3 runs have finished before" in captured.err
