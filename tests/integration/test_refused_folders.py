"""A run that is refused leaves nothing behind, and one whose folder cannot be taken is told before data is read."""

from __future__ import annotations

import os

import pytest

from finetune.checkpoints.run_folder import open_run_folder
from finetune.errors import DataError, RunFolderError
from tests.runs import replaced, run, text_task


def broken(folder):
    task = text_task(folder)
    return replaced(task, data=replaced(task.data, train=str(folder / "missing.csv")))


def test_a_refused_run_makes_no_folder(tmp_path):
    task = broken(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("new/deep/run", "empty"):
        with pytest.raises(DataError, match="missing.csv"):
            run(task, output_dir=str(tmp_path / name))
    assert not (tmp_path / "new").exists()
    assert os.listdir(tmp_path / "empty") == []


def test_a_refused_run_does_not_move_the_old_one_aside(tmp_path):
    task = broken(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious.txt").write_text("old")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(DataError, match="missing.csv"):
        run(task, output_dir=str(tmp_path / "run"), existing="overwrite")
    assert sorted(os.listdir(tmp_path)) == before
    assert os.listdir(tmp_path / "run") == ["precious.txt"]


@pytest.mark.parametrize("existing", ["refuse", "resume"])
def test_a_folder_that_is_not_ours_is_told_before_data_is_read(tmp_path, existing):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious.txt").write_text("old")
    with pytest.raises(RunFolderError, match="precious.txt"):
        run(broken(tmp_path), output_dir=str(tmp_path / "run"), existing=existing)
    assert os.listdir(tmp_path / "run") == ["precious.txt"]


def test_a_folder_in_use_and_a_file_are_told_before_data_is_read(tmp_path):
    task = broken(tmp_path)
    with open_run_folder(tmp_path / "run"), pytest.raises(RunFolderError, match="in use by process"):
        run(task, output_dir=str(tmp_path / "run"))
    (tmp_path / "file").write_text("old")
    with pytest.raises(RunFolderError, match="is a file"):
        run(task, output_dir=str(tmp_path / "file"))


def test_a_finished_run_is_told_before_data_is_read(tmp_path):
    task = text_task(tmp_path)
    run(task, length="1 steps", output_dir=str(tmp_path / "run"))
    with pytest.raises(RunFolderError, match="holds a finished run"):
        run(broken(tmp_path), output_dir=str(tmp_path / "run"), existing="resume")
