"""Rot in the checkpoints of a real run: each damage of each file is found, the checkpoint before it is used."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from finetune.checkpoints.log import ending
from finetune.checkpoints.manifest import MANIFEST
from finetune.checkpoints.reading import newest_good
from finetune.cli import main
from finetune.config import dump
from finetune.curricula import Curriculum
from finetune.errors import PreemptedError, RunFolderError
from finetune.policies import Checkpointing
from finetune.tasks.data_map import DataMap
from tests.distributed.two_ranks import on_ranks
from tests.forked import ended_child
from tests.integration.test_checkpoint_contents import rewrite, without_a_weight
from tests.integration.test_resume import finished
from tests.runs import config, digest, history, run, text_task, weights

# What has every file that a checkpoint can have: scores of a curriculum, and what a task remembers.
SETTINGS = {
    "curriculum": Curriculum(difficulty="loss", start=0.4, until="80%"),
    "checkpoint": Checkpointing(every="2 steps", keep_last=2),
    "evaluate_every": "4 steps",
}
STEMS = ("model", "optimizer", "extra", "remembered")
FILES = [*(f"{stem}.safetensors" for stem in STEMS), "plan.json", "progress.json", MANIFEST]
DAMAGES = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "one byte less": lambda data: data[:-1],
    "one byte more": lambda data: data + b"\n",
    "deleted": lambda data: None,
}
FLIPS = 64


def task_in(folder: Path) -> DataMap:
    return DataMap(base=text_task(folder))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An uninterrupted run, and one that was stopped after step 5: its checkpoints are of steps 4 and 5."""
    root = tmp_path_factory.mktemp("damaged")
    run(task_in(root), output_dir=str(root / "whole"), **SETTINGS)
    settings = config(task_in(root), output_dir=str(root / "cut"), **SETTINGS)
    with pytest.raises(PreemptedError):
        run(task_in(root), output_dir=str(root / "cut"), stop_at=5, config_text=dump(settings), **SETTINGS)
    assert sorted(path.name for path in (root / "cut" / "checkpoints" / "step-000005").iterdir()) == sorted(FILES)
    return root


@pytest.fixture
def folder(place, tmp_path):
    """The stopped run, to be damaged."""
    return Path(shutil.copytree(place / "cut", tmp_path / "run", symlinks=True))


def damage(path: Path, kind: str) -> None:
    data = DAMAGES[kind](path.read_bytes())
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)


def assert_passed_over(checkpoints: Path, file: str) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert newest_good(checkpoints).step == 4
    assert len(told) == 1 and f"step-000005: {file}: " in str(told[0].message)


@pytest.mark.parametrize("file", FILES)
def test_every_damage_of_every_file_is_found(folder, file):
    path = folder / "checkpoints" / "step-000005" / file
    data = path.read_bytes()
    for kind in DAMAGES:
        path.write_bytes(data)
        damage(path, kind)
        assert_passed_over(folder / "checkpoints", file)
    draw = random.Random(file)
    for place in draw.sample(range(len(data) * 8), FLIPS):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert_passed_over(folder / "checkpoints", file)
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert newest_good(folder / "checkpoints").step == 5


@pytest.mark.parametrize(("file", "kind"), [(file, [*DAMAGES][at % 5]) for at, file in enumerate(FILES)])
def test_a_run_goes_on_from_the_one_before(place, folder, file, kind):
    damage(folder / "checkpoints" / "step-000005" / file, kind)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run(task_in(place), output_dir=str(folder), existing="resume", **SETTINGS)
    assert len([one for one in told if "passed over the checkpoint" in str(one.message)]) == 1
    assert finished(folder) == finished(place / "whole")
    assert history(folder) == history(place / "whole")


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, which says who looked last."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("kind", DAMAGES)
def test_when_all_are_damaged_the_command_ends_with_74_and_touches_nothing(folder, kind):
    for number, path in enumerate(sorted((folder / "checkpoints").glob("step-*"))):
        damage(path / FILES[number], kind)
    before = snapshot(folder)
    words = ["train", str(folder / "config.yaml"), f"output_dir={folder}", "--resume"]
    ended = ended_child(lambda: main(argv=words))
    assert ended.code == 74, ended.err
    assert [line.split(":")[0] for line in ended.err.splitlines()] == ["warning", "warning", "error"]
    assert "no checkpoint in" in ended.err and "Traceback" not in ended.err
    assert snapshot(folder) == before


@pytest.mark.parametrize("where", [0, 1])
def test_a_rotten_line_of_the_log_is_told_and_stops_nothing(place, folder, where):
    log = folder / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    lines[where] = b'{"step": \xff}\n'
    log.write_bytes(b"".join(lines))
    with pytest.warns(UserWarning, match=rf"log\.jsonl line {where + 1}: "):
        run(task_in(place), output_dir=str(folder), existing="resume", **SETTINGS)
    assert finished(folder) == finished(place / "whole")
    with pytest.warns(UserWarning, match="line"):
        assert ending(log) == "finished"
    with pytest.warns(UserWarning), pytest.raises(RunFolderError, match="holds a finished run"):
        run(task_in(place), output_dir=str(folder), existing="resume", **SETTINGS)


def test_a_log_that_is_gone_is_told_and_stops_nothing(place, folder):
    (folder / "log.jsonl").unlink()
    with pytest.warns(UserWarning, match=r"log\.jsonl lacks lines that it had at step 5"):
        run(task_in(place), output_dir=str(folder), existing="resume", **SETTINGS)
    assert finished(folder) == finished(place / "whole")


def test_a_refused_resume_gives_the_folder_back(place, folder):
    """In one process, as from Python: the next try must not find it in use."""
    changed = {**SETTINGS, "seed": 7}
    for _ in range(2):
        with pytest.raises(RunFolderError, match="made under another plan"):
            run(task_in(place), output_dir=str(folder), existing="resume", **changed)
    run(task_in(place), output_dir=str(folder), existing="resume", **SETTINGS)


BEST = {"evaluate_every": "2 steps", "checkpoint": Checkpointing(every="10 steps", keep_last=1)}


def rot(folder: Path) -> None:
    (folder / "checkpoints" / "step-000004" / "model.safetensors").write_bytes(b"rot")


class Rotting:
    """The scores of the evaluations are as given; before the last of them the best checkpoint rots on the disk."""

    def __init__(self, task, folder: Path, *, rot: Callable[[Path], None] = rot):
        self.task, self.folder, self.rot = task, folder, rot
        self.scores = iter([0.1, 0.9, 0.2, 0.3, 0.4, 0.5])

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.task, name)

    def score(self, predictions):
        if (self.folder / "checkpoints" / "step-000004").exists():
            self.rot(self.folder)
        return {**self.task.score(predictions), "accuracy": next(self.scores)}


@pytest.mark.parametrize("sharded", [False, True])
def test_all_ranks_take_the_last_weights_when_the_best_are_damaged(tmp_path, sharded):
    task = text_task(tmp_path)

    def go():
        rotting = Rotting(task, tmp_path / "run")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            result = run(rotting, output_dir=str(tmp_path / "run"), **BEST)
        about = [str(one.message) for one in told if "best weights" in str(one.message)]
        return digest(weights(result.model)), result.best["step"], about

    (first, step, told), (second, other, _) = on_ranks(go, sharded=sharded)
    assert first == second and step == other == 10
    assert len(told) == 1 and "(step 4) cannot be read: model.safetensors: 3 bytes, expected" in told[0]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["best"]["step"] == 10


def test_the_best_weights_are_used_where_nothing_is_wrong(tmp_path):
    task = Rotting(text_task(tmp_path), tmp_path / "run", rot=lambda folder: None)
    result = run(task, output_dir=str(tmp_path / "run"), **BEST)
    assert result.best["step"] == 4 and result.best["accuracy"] == 0.9


def test_best_weights_that_lack_one_are_not_put_into_the_last(tmp_path):
    """With checksums that are right: half of the one and half of the other would be the result."""
    lacking = partial(rewrite, step=4, change=without_a_weight)
    task = Rotting(text_task(tmp_path), tmp_path / "run", rot=lacking)
    with pytest.warns(UserWarning, match=r"best weights \(step 4\) cannot be read: model\.safetensors: .*missing"):
        assert run(task, output_dir=str(tmp_path / "run"), **BEST).best["step"] == 10
