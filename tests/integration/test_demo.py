"""The demonstration's parts, on tiny models: a child's report, what a fault does, the folder, the tables."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from finetune.config import dump
from finetune.demonstration import baselines, showing
from finetune.demonstration.courses import Course, Trained, courses
from finetune.demonstration.folder import RESULTS, claim
from finetune.demonstration.report import Part, Row, as_json, ending, print_part
from finetune.errors import DataError, ModelError, RunFolderError
from finetune.forking.children import FORKS, Report, report_of
from tests import runs

forking = pytest.mark.skipif(not FORKS, reason="this platform does not fork")
MEGABYTE = 1_000_000


def nothing() -> None:
    pass


@pytest.fixture
def text_course(tmp_path) -> Course:
    """Two functions of a recipe file on a tiny BERT, and the real baseline."""
    task = runs.text_task(tmp_path)
    (tmp_path / "tiny.yaml").write_text(dump(runs.config(task)))
    (tmp_path / "tiny.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from finetune import Freeze, RunConfig\n"
        "from finetune.config import resolve\n\n\n"
        "def full() -> RunConfig:\n"
        f"    return resolve(None, [Path({str(tmp_path / 'tiny.yaml')!r})], [])\n\n\n"
        "def broken() -> RunConfig:\n"
        "    return replace(full(), strategy=Freeze(trainable=('no such group',)))\n"
    )
    return Course("text", str(tmp_path / "tiny.py"), ("full", "broken"), baselines.tfidf, nothing)


def ones(megabytes: int) -> int:
    return len(b"\1" * (megabytes * MEGABYTE))


def fails() -> None:
    raise DataError("train.csv line 3:\n  is bad")


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def is_interrupted() -> None:
    raise KeyboardInterrupt


@forking
def test_a_child_reports_its_own_peak(tmp_path):
    ballast = b"\1" * (100 * MEGABYTE)  # of the parent, and none of the child's
    small, large = (report_of(partial(ones, size), crash_log=tmp_path / "log") for size in (20, 120))
    assert (small.value, small.error, small.exit_code) == (20 * MEGABYTE, "", 0)
    assert 19 <= small.peak_bytes / MEGABYTE < 50 and 119 <= large.peak_bytes / MEGABYTE < 150, len(ballast)


@pytest.mark.parametrize("forks", [pytest.param(True, marks=forking), False])
def test_a_fault_is_one_line_and_an_exit_code(tmp_path, forks):
    report = report_of(fails, crash_log=tmp_path / "log", forks=forks)
    assert (report.value, report.error, report.exit_code) == (None, "train.csv line 3: is bad", 2)
    assert not (tmp_path / "log").exists()
    report = report_of(lambda: {}["missing"], crash_log=tmp_path / "log", forks=forks)
    assert report.error.startswith("unexpected KeyError: 'missing' (") and report.exit_code == 1
    assert "Traceback" in (tmp_path / "log").read_text()
    with pytest.raises(KeyboardInterrupt):
        report_of(is_interrupted, crash_log=tmp_path / "log", forks=forks)


@forking
def test_a_child_that_is_killed_is_told_of(tmp_path):
    report = report_of(dies, crash_log=tmp_path / "log")
    assert report.exit_code == 1 and "signal 9; the machine may be out of memory" in report.error


def test_one_failing_run_leaves_the_others_alone(tmp_path, text_course, capsys):
    part = showing.run_course(text_course, tmp_path / "demo", forks=False)
    baseline, full, broken = part.rows
    assert [row.name for row in part.rows] == ["tfidf", "full", "broken"]
    assert baseline.trained.accuracy > 0.5 and baseline.trained.classes == 2 and baseline.trained.trained > 30
    assert full.trained.trained == full.trained.parameters and full.trained.examples == {"train": 26, "validation": 21}
    assert broken.trained is None and broken.report.exit_code == 2 and "no such group" in broken.report.error
    left = Path(full.trained.folder)
    assert not (left / "checkpoints").exists()
    assert json.loads((left / "metrics.json").read_text())["final"]["validation"]["accuracy"] == full.trained.accuracy
    assert "text 3/3  broken: failed: " in capsys.readouterr().err

    print_part(part)
    out = capsys.readouterr().out
    assert "26 training examples, 2 classes (chance 50.0%)" in out and "broken failed: " in out
    assert f"{full.trained.accuracy:.1%}" in out and "baseline: TF-IDF + logistic regression" in out


def test_what_a_run_leaves_opens_with_the_plain_library(tmp_path, text_course):
    from transformers import pipeline

    part = showing.run_course(text_course._replace(functions=("full",)), tmp_path / "demo", forks=False)
    model = f"{part.rows[1].trained.folder}/model"
    assert pipeline("text-classification", model)("good book")[0]["label"] in ("negative", "positive")
    assert f"'{model}'" in "\n".join(ending([part], tmp_path / "demo", seconds=1.0))


def test_pixels_of_colours_are_learned(tmp_path):
    scored = baselines.pixels(runs.image_task(tmp_path))
    assert scored.parameters == 3 * (16 * 16 + 1) and scored.accuracy > 0.4
    assert scored.examples == {"train": 18, "validation": 21}


def test_a_part_that_cannot_be_prepared_says_so_and_the_other_runs(tmp_path, text_course, monkeypatch, capsys):
    def without_extra() -> None:
        raise ModelError("needs the package x.\nRun `pip install x`")

    for name in ("OMP_WAIT_POLICY", "PYTORCH_NVML_BASED_CUDA_CHECK"):  # which it sets; here they are put back
        monkeypatch.setenv(name, os.environ.get(name, ""))
    chosen = (
        text_course._replace(prepare=without_extra),
        text_course._replace(name="images", functions=("full",)),
    )
    code = showing.main(output=tmp_path / "demo", json_only=True, chosen=chosen, forks=False)
    assert code == ModelError.exit_code
    found = json.loads(capsys.readouterr().out)
    assert found["text"] == {"recipe": text_course.recipe, "not_run": "needs the package x. Run `pip install x`",
                             "rows": []}  # fmt: skip
    assert [row["name"] for row in found["images"]["rows"]] == ["tfidf", "full"]
    assert json.loads((tmp_path / "demo" / RESULTS).read_text())["demonstration"]["text"] == found["text"]


def test_the_real_courses_name_recipes_that_there_are():
    from finetune.config.recipe_files import find_file, list_recipes

    for course in courses():
        names = [found.name for found in list_recipes(find_file(course.recipe))]
        assert set(course.functions) <= set(names) and len(course.functions) == 6


def test_of_older_demonstrations_one_is_kept(tmp_path):
    output = tmp_path / "runs" / "demo"
    for number in (1, 2, 3):
        lock, moved = claim(output)
        (output / f"{number}.txt").touch()
        lock.release()
    previous = output.with_name("demo.previous")
    assert (output / "3.txt").exists() and (previous / "2.txt").exists() and str(previous) in moved
    assert sorted(path.name for path in output.parent.iterdir()) == ["demo", "demo.previous"]


def test_a_folder_of_others_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(RunFolderError, match="no demonstration wrote it"):
        claim(tmp_path / "mine")
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="is no folder"):
        claim(tmp_path / "file")
    lock, _ = claim(tmp_path / "demo")
    with pytest.raises(RunFolderError, match="is in use"):
        claim(tmp_path / "demo")
    lock.release()
    (tmp_path / "demo.previous").mkdir()
    with pytest.raises(RunFolderError, match="is not one of ours"):
        claim(tmp_path / "demo")
    assert (tmp_path / "mine" / "thesis.txt").exists() and (tmp_path / "demo" / RESULTS).exists()


def test_without_its_memory_a_row_has_an_empty_cell(capsys):
    course = Course("text", "bert_text", ("full",), baselines.tfidf, nothing)
    done = Trained(1000, 1000, 0.5, {"train": 10, "test": 100}, 2, "runs/demo/text-full")
    print_part(Part(course, [Row("full", Report(done, seconds=2.0)), Row("lora", Report(done, peak_bytes=MEGABYTE))]))
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("full")).rstrip().endswith("2.0")
    assert next(line for line in lines if line.startswith("lora")).rstrip().endswith("1 MB")
    assert "+-9.8 points" in "\n".join(lines)
    assert as_json([Part(course, [])], seconds=1.0)["text"]["not_run"] is None


_INTERRUPTED = """
import signal, sys
from pathlib import Path
from finetune.forking.children import report_of

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored

def work():
    print("at work", flush=True)
    while True:
        signal.pause()

try:
    report_of(work, crash_log=Path("unused"))
except KeyboardInterrupt:
    sys.exit(130)
"""


@forking
def test_ctrl_c_ends_parent_and_child():
    parent = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout.readline() == "at work\n"
    os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: to everyone
    assert parent.wait(timeout=60) == 130
    assert parent.stdout.read() == ""  # the child held it too: it has ended
    with pytest.raises(ProcessLookupError):
        for _ in range(300):  # until the system has taken note of its end
            os.killpg(parent.pid, 0)
            time.sleep(0.1)
