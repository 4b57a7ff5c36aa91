"""What strangers hand in ends in one message and the documented exit code, and nothing is written."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from finetune.cli import main
from finetune.errors import PreemptedError
from finetune.running import describe_plan, prepare
from finetune.training import fit
from tests.bad_inputs import CASES, Case
from tests.forked import Child
from tests.tiny_data import write_images, write_texts
from tests.tiny_models import save_image_folder, save_text_folder

TASKS = {
    "text": "{name: text_classification, model: bert, max_length: 32, "
    "data: {train: train.csv, validation: validation.csv, text: text, label: label}}",
    "image": "{name: image_classification, model: vit, data: {train: img, validation: 20%}}",
    "numbers": "{name: text_regression, model: bert, data: {train: train.csv, validation: 20%, text: text}}",
    "several": "{name: text_multi_label, model: bert, max_length: 32, data: {train: none, validation: 20%}}",
    "words": "{name: token_classification, model: bert, data: {train: none, validation: 20%}}",
    "questions": "{name: question_answering, model: bert, data: {train: none, validation: 20%}}",
}
# Cases that share a process: those in which no library keeps anything of a model that is spoiled.
_TOGETHER = {"table": 20, "image": 20, "path": 20, "model": 1, "checkpoint": 1}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod"}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder in which all is well, with a stopped and a finished run; what the verbs need is loaded."""
    place = tmp_path_factory.mktemp("good")
    with contextlib.chdir(place):
        save_text_folder(Path("bert"))
        save_image_folder(Path("vit"))
        write_texts(Path("train.csv"), 26)
        write_texts(Path("validation.csv"), 21, seed=1)
        write_images(Path("img"))
        for name, task in TASKS.items():
            Path(f"{name}.yaml").write_text(f"task: {task}\nlength: 4 steps\nbatch_size: 8\noutput_dir: runs/new\n")
        describe_plan(prepare("image.yaml", function=None, files=(), overrides=()))
        for folder, stop in (("runs/whole", None), ("runs/cut", 3)):
            ready = prepare("text.yaml", function=None, files=(), overrides=(f"output_dir={folder}",))
            with contextlib.suppress(PreemptedError):
                fit(**vars(ready.config), show="nothing", config_text=ready.yaml, stop_at=stop)
    return place


@pytest.fixture(scope="module")
def found(good, tmp_path_factory):
    """How a case ended: found with those beside it, as a process of its own costs as much as a case."""
    ended: dict[tuple[str, str], dict[str, Any]] = {}

    def of(kind: str, name: str) -> dict[str, Any]:
        if (kind, name) not in ended:
            names = list(CASES[kind])
            start = names.index(name) // _TOGETHER[kind] * _TOGETHER[kind]
            group = {name: CASES[kind][name] for name in names[start : start + _TOGETHER[kind]]}
            ends = watched(group, good, tmp_path_factory.mktemp("cases"))
            ended.update({(kind, name): end for name, end in ends.items()})
        return ended[kind, name]

    return of


def told(verb: str, words: str) -> dict[str, Any]:
    """How one command line ended, in this process."""
    name, *options = verb.split()
    out, err, code = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(argv=[name, *filter(None, words.split(" ")), *options])
        except SystemExit as ended:
            code = ended.code
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def watched(cases: Mapping[str, Case], good: Path, place: Path) -> dict[str, dict[str, Any]]:
    """How each verb of each case ended, in a process beside this one, and what it wrote anywhere.

    Args:
        cases: By name.
        good: The folder to be spoiled; each case has a copy of its own.
        place: For the copies.
    """
    report = place / "report.json"

    def work() -> None:
        sys.dont_write_bytecode = True
        writes: list[str] = []
        changes: list[tuple[str, str]] = []

        def hook(event: str, args: tuple[Any, ...]) -> None:
            if event == "open" and isinstance(args[0], str | bytes) and args[2] & _WRITES:
                writes.append(os.fsdecode(args[0]))
            elif event in _CHANGES:
                changes.append((event, str(args[0])))

        sys.addaudithook(hook)  # of this process alone
        found = {}
        for number, (name, case) in enumerate(cases.items()):
            folder, home = shutil.copytree(good, place / f"{number}/here", symlinks=True), place / f"{number}/home"
            home.mkdir()
            os.environ.update(HOME=str(home), TMPDIR=str(home))
            tempfile.tempdir = None
            os.chdir(folder)
            case.spoil()
            before = snapshot(folder)
            writes.clear()
            changes.clear()
            ends = [told(verb, case.words) for verb in case.verbs]
            found[name] = {"ends": ends, "written": _seen(writes, changes, before, folder) + os.listdir(home)}
        report.write_text(json.dumps(found))

    ended = Child(work).wait()
    assert ended == (0, ""), ended
    return json.loads(report.read_text())


def _seen(writes: list[str], changes: list[tuple[str, str]], before: dict[str, int], folder: Path) -> list[str]:
    """The files that were opened to be written, made, changed or removed."""
    changed = [path for path, data in snapshot(folder).items() if before.get(path) != data]
    gone = [path for path in before if not os.path.lexists(folder / path)]
    made = [path for event, path in changes if event != "os.mkdir" or os.path.exists(path)]  # else in vain
    own = str(folder / "runs")  # a run that is to go on opens its log, and nothing that ``snapshot`` sees is done
    opened = [path for path in [*writes, *made] if not path.startswith(own) and not path.isdecimal()]
    return [*(path for path in opened if path != os.devnull), *changed, *gone]


def snapshot(folder: Path) -> dict[str, int]:
    """When every file was written, but for locks, which say who looked last."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, cases in CASES.items() for name in cases])
def test_a_bad_input_ends_in_one_message(found, kind, name):
    case = CASES[kind][name]
    ends, written = found(kind, name).values()
    for verb, end in zip(case.verbs, ends, strict=True):
        assert end["code"] == case.code and not end["out"], (verb, end)
        warned, _, message = end["err"].partition("error: ")
        assert re.search(case.said, message, re.DOTALL), (verb, end["err"])
        assert not re.search("Traceback|unexpected|^error: ", message, re.MULTILINE), (verb, message)
        assert all(line.startswith("warning: ") for line in warned.splitlines()), (verb, warned)
        assert message.replace("\n", "").isprintable(), (verb, message)
    assert len({end["err"] for end in ends}) == 1, ends  # plan says what train says
    assert written == []


def test_the_table_is_as_large_as_was_promised():
    sizes = {kind: len(cases) for kind, cases in CASES.items()}
    assert sizes["table"] >= 25 and sizes["image"] >= 20 and sizes["path"] >= 15
    assert sizes["model"] >= 10 and sizes["checkpoint"] >= 10
