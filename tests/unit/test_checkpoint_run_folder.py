"""The run folder: one owner, nothing overwritten, and refused with what to do."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import finetune
from finetune.checkpoints.files import Files
from finetune.checkpoints.log import Log, ending, read_log
from finetune.checkpoints.run_folder import check_run_folder, open_run_folder, read_run_id
from finetune.errors import RunFolderError, StorageError

OWNER = """
import os, sys, time
from pathlib import Path
from finetune.checkpoints.run_folder import open_run_folder
folder = open_run_folder(Path(sys.argv[1]), resume=True)
child = os.fork() if "fork" in sys.argv else None
if not child:  # the child itself, where there is one: from here on it holds no lock
    print("ready", flush=True)
time.sleep(60)
"""


def snapshot(path: Path) -> dict:
    return {
        str(p.relative_to(path)): (p.lstat().st_ino, p.lstat().st_mtime_ns, p.read_bytes() if p.is_file() else None)
        for p in sorted(path.rglob("*"))
    }


def make_run(path: Path) -> str:
    with open_run_folder(path) as folder:
        folder.write_document("config.yaml", "a: 1\n")
        folder.log.append({"step": 1})
        return folder.run_id


def test_a_new_folder_with_its_parents(tmp_path):
    with open_run_folder(tmp_path / "a" / "b") as folder:
        assert not folder.resumed and folder.path == tmp_path / "a" / "b"
        assert len(folder.run_id) == 32 and read_run_id(folder.path) == folder.run_id
        assert folder.checkpoints == tmp_path / "a" / "b" / "checkpoints"


def test_resume_keeps_the_id_and_everything_else(tmp_path):
    run_id = make_run(tmp_path / "run")
    with open_run_folder(tmp_path / "run", resume=True) as folder:
        assert folder.resumed and folder.run_id == run_id
        assert (folder.path / "config.yaml").read_text() == "a: 1\n"
        assert read_log(folder.log.path) == [{"step": 1}]


@pytest.mark.parametrize("is_link", [True, False])
def test_checkpoints_in_another_place_are_no_new_start(tmp_path, is_link):
    """Somebody moved them to a larger disk."""
    make_run(tmp_path / "run")
    (tmp_path / "larger").mkdir()
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.symlink_to(tmp_path / "larger") if is_link else checkpoints.touch()
    before = snapshot(tmp_path)
    for refuse in (check_run_folder, open_run_folder):
        with pytest.raises(RunFolderError, match="checkpoints is a link or a file"):
            refuse(tmp_path / "run", resume=True)
    assert snapshot(tmp_path) == before


def foreign(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("mine")


def foreign_with_lock(path: Path) -> None:
    foreign(path)
    (path / ".lock").write_text("mine too")


def hidden_only(path: Path) -> None:
    path.mkdir()
    (path / ".env").write_text("secret")


def broken_mark(path: Path) -> None:
    make_run(path)
    (path / ".run.json").write_text('{"run_id": "../../x", "format_version": 1}')


def a_file(path: Path) -> None:
    path.write_text("mine")


STATES = [make_run, foreign, foreign_with_lock, hidden_only, broken_mark]


@pytest.mark.parametrize("made", [*STATES, a_file])
def test_what_is_there_is_refused_and_untouched(tmp_path, made):
    made(tmp_path / "run")
    before = snapshot(tmp_path)
    with pytest.raises(RunFolderError, match="run") as refused:
        open_run_folder(tmp_path / "run")
    assert snapshot(tmp_path) == before
    assert refused.value.exit_code == 2
    assert ("--resume" in str(refused.value)) == (made is make_run)


@pytest.mark.parametrize("made", [foreign, foreign_with_lock, hidden_only, broken_mark])
def test_only_a_run_of_ours_is_resumed(tmp_path, made):
    made(tmp_path / "run")
    before = snapshot(tmp_path)
    with pytest.raises(RunFolderError, match="nothing to resume"):
        open_run_folder(tmp_path / "run", resume=True)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("made", STATES)
def test_overwrite_moves_aside_and_deletes_nothing(tmp_path, made):
    made(tmp_path / "run")
    (tmp_path / "run.old-1").mkdir()
    before = {name: found[2] for name, found in snapshot(tmp_path / "run").items()}
    with open_run_folder(tmp_path / "run", overwrite=True) as folder:
        assert not folder.resumed
        assert sorted(os.listdir(folder.path)) == [".lock", ".run.json", "log.jsonl"]
    assert {name: found[2] for name, found in snapshot(tmp_path / "run.old-2").items()} == before
    assert os.listdir(tmp_path / "run.old-1") == []


@pytest.mark.parametrize("way", [{}, {"resume": True}, {"overwrite": True}])
def test_empty_folders_start_a_run(tmp_path, way):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        with open_run_folder(tmp_path / name, **way) as folder:
            assert not folder.resumed
    with open_run_folder(tmp_path / "missing", **way) as folder:  # a run that ended before it wrote anything
        assert not folder.resumed
    assert sorted(os.listdir(tmp_path)) == ["empty", "missing"]


def test_resume_and_overwrite_exclude_each_other(tmp_path):
    with pytest.raises(RunFolderError, match="exclude each other"):
        open_run_folder(tmp_path / "run", resume=True, overwrite=True)
    assert os.listdir(tmp_path) == []


def test_a_newer_format_is_not_touched(tmp_path):
    make_run(tmp_path / "run")
    (tmp_path / "run" / ".run.json").write_text('{"run_id": "x", "format_version": 2}')
    with pytest.raises(RunFolderError, match="format 2"):
        open_run_folder(tmp_path / "run", resume=True)


def test_a_place_that_cannot_be_used_is_an_io_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be used") as refused:
        open_run_folder(tmp_path / "file" / "run")
    assert refused.value.exit_code == 74


def test_a_mark_that_cannot_be_read_is_an_io_error(tmp_path):
    """It is ours all the same: nobody is told to choose another folder, or may move it aside."""

    class Failing(Files):
        def read(self, path):
            raise OSError(5, "Input/output error", str(path))

    make_run(tmp_path / "run")
    for way in ({"resume": True}, {}):
        with pytest.raises(StorageError, match=r"Input/output error .*\.run\.json"):
            open_run_folder(tmp_path / "run", files=Failing(), **way)


@pytest.fixture
def owner(tmp_path):
    """A process that owns the run folder, killed at the end with its child."""
    started = []

    def start(*words: str) -> subprocess.Popen:
        tree = str(Path(finetune.__path__[0]).parent)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((tree, os.environ["PYTHONPATH"]))}
        command = [sys.executable, "-c", OWNER, str(tmp_path / "run"), *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("way", [{}, {"resume": True}, {"overwrite": True}])
def test_a_second_run_is_refused_by_name(tmp_path, owner, way):
    process = owner()
    before = snapshot(tmp_path)
    with pytest.raises(RunFolderError, match=rf"in use by process {process.pid} on host \S+ since \d{{4}}-"):
        open_run_folder(tmp_path / "run", **way)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("words", [(), ("fork",)])
def test_a_killed_owner_leaves_no_lock(tmp_path, owner, words):
    process = owner(*words)
    process.kill()  # and not its child, which has a copy of every open file
    process.wait()
    with open_run_folder(tmp_path / "run", resume=True) as folder:
        assert json.loads((folder.path / ".lock").read_text())["pid"] == os.getpid()


def test_the_lock_holds_within_a_process_too(tmp_path):
    with open_run_folder(tmp_path / "run"):
        with pytest.raises(RunFolderError, match=f"process {os.getpid()}"):
            open_run_folder(tmp_path / "run", resume=True)
    with open_run_folder(tmp_path / "run", resume=True) as folder:
        folder.close()
        folder.close()


def test_a_folder_that_is_moved_while_it_is_locked_has_one_owner(tmp_path, monkeypatch):
    """By one that overwrites: what the other then holds is the lock of the folder that was moved aside."""
    make_run(tmp_path / "run")
    owners, flock = [], fcntl.flock

    def moved(handle, how):
        monkeypatch.undo()
        owners.append(open_run_folder(tmp_path / "run", overwrite=True))
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", moved)
    with pytest.raises(RunFolderError, match="was moved aside by another process"):
        open_run_folder(tmp_path / "run", resume=True)
    with owners[0] as owner:
        assert json.loads((owner.path / ".lock").read_text())["pid"] == os.getpid()
    open_run_folder(tmp_path / "run", resume=True).close()


def test_leftovers_of_a_killed_process_are_swept(tmp_path):
    run_id = make_run(tmp_path / "run")
    path = tmp_path / "run"
    for name in (f".tmp-plan.json-{run_id}", f".old-config.yaml-{run_id}", ".tmp-mine", ".tmp-plan.json-other"):
        (path / name).write_text("left")
    (path / f".tmp-model-{run_id}").mkdir()
    (path / f".old-model-{run_id}").mkdir()
    (path / f".old-model-{run_id}" / "weights").touch()
    with (path / "log.jsonl").open("a") as log:
        log.write('{"step": 2')
    with open_run_folder(path, resume=True) as folder:
        assert read_log(folder.log.path) == [{"step": 1}]
    kept = [".lock", ".run.json", ".tmp-mine", ".tmp-plan.json-other", "config.yaml", "log.jsonl", "model"]
    assert sorted(os.listdir(path)) == kept
    assert os.listdir(path / "model") == ["weights"] and (path / "config.yaml").read_text() == "a: 1\n"


def test_documents_and_folders_are_replaced(tmp_path):
    with open_run_folder(tmp_path / "run") as folder:
        for text in ("one", "two"):
            folder.write_document("config.yaml", text)
            folder.write_document("plan.json", {"text": text, "loss": float("inf")})
            folder.write_folder("model", lambda into, text=text: (into / text).touch())
        assert (folder.path / "config.yaml").read_text() == "two"
        assert json.loads((folder.path / "plan.json").read_text()) == {"text": "two", "loss": "Infinity"}
        assert os.listdir(folder.path / "model") == ["two"]
        with pytest.raises(AssertionError):
            folder.write_document("../x", "")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "run" / "config.yaml").stat().st_mode & 0o777 == 0o666 & ~mask


def test_the_log_is_cut_at_whole_lines(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    ends = []
    for step in range(4):
        log.append({"step": step, "loss": float("nan")})
        ends.append(log.sync())
    assert ends[-1] == (tmp_path / "log.jsonl").stat().st_size
    log.truncate_to(10**9)
    assert log.offset == ends[3]
    log.truncate_to(ends[2] + 3)  # in the middle of a line
    assert log.offset == ends[2]
    log.truncate_to(ends[0])
    log.append({"step": 9})
    assert [record["step"] for record in read_log(log.path)] == [0, 9]
    log.close()
    log.close()


def test_a_full_disk_costs_lines_and_warns_once(tmp_path):
    class Full:
        """Takes half a line, then nothing, while ``full``."""

        full = False

        def __getattr__(self, name):
            return getattr(Files(), name)

        def write(self, handle, data):
            Files().write(handle, data[: len(data) // 2] if self.full else data)
            if self.full:
                raise OSError(28, "No space left on device")

    files = Full()
    log = Log(tmp_path / "log.jsonl", files=files)
    log.append({"step": 1})
    files.full = True
    with pytest.warns(UserWarning, match="lacks lines") as caught:
        log.append({"step": 2})
        log.append({"step": 3})
    assert len(caught) == 1
    files.full = False
    log.append({"step": 4})
    assert [record["step"] for record in read_log(log.path)] == [1, 4]
    log.close()


def test_a_record_that_is_not_json_names_its_key(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    with pytest.raises(TypeError, match="rates.head"):
        log.append({"rates": {"head": object()}})
    assert log.offset == 0
    log.close()


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"a": 1}\nrot\n{"a": 2}\n')
    with pytest.raises(ValueError, match="line 2"):
        read_log(tmp_path / "log.jsonl")


def test_a_broken_line_does_not_hide_how_a_run_ended(tmp_path):
    path = tmp_path / "log.jsonl"
    assert ending(path) is None
    path.write_text('{"a": 1}\nrot\n{"ended": "failed"}\n[]\n{"ended": "finished"}\n{"a": 2}\n{"torn')
    with pytest.warns(UserWarning, match=r"line 2: .* \(and 1 more lines\)") as told:
        assert ending(path) == "finished"
    assert len(told) == 1
    path.write_text('{"a": 1}\n')
    assert ending(path) is None


@pytest.mark.parametrize(("fails", "message"), [("close", "may lack its last lines"), ("read", None)])
def test_a_log_on_a_failing_disk(tmp_path, fails, message):
    class Failing(Files):
        def close(self, handle):
            super().close(handle)
            if fails == "close":
                raise OSError(5, "Input/output error")

        def read(self, path):
            if fails == "read":
                raise OSError(5, "Input/output error")
            return super().read(path)

    before = len(os.listdir("/proc/self/fd"))
    with pytest.warns(UserWarning, match=message) if message else pytest.raises(OSError):
        Log(tmp_path / "log.jsonl", files=Failing()).close()
    assert len(os.listdir("/proc/self/fd")) == before
