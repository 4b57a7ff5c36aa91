"""The run folder: one owner, nothing overwritten, every file whole.

A folder is ours when it holds ``.run.json``, written once, when the run begins: the run's id and the
format. All that a killed process may leave behind carries that id in its name, so it is swept without
touching anything else.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..choices import listed
from ..errors import RunFolderError, StorageError
from .atomic import finish_interrupted, temporary_name, write_file_atomically, write_folder_atomically
from .documents import from_json, to_json
from .files import Files, free_path, is_folder, is_safe_name
from .lock import LOCK, Lock, take_lock
from .log import Log, ending
from .manifest import FORMAT_VERSION
from .retention import sweep

FILES = Files()
MARK = ".run.json"
LOG = "log.jsonl"
CHECKPOINTS = "checkpoints"


class RunFolder:
    """A run folder that this process owns until it is closed; made by ``open_run_folder``.

    Attributes:
        path: The folder, absolute.
        run_id: 128 random bits in hex, the same over all resumes.
        resumed: Whether it was a run already, rather than a new folder.
        log: ``log.jsonl``, open.
    """

    def __init__(self, path: Path, *, run_id: str, resumed: bool, lock: Lock, files: Files):
        self.path = path
        self.run_id = run_id
        self.resumed = resumed
        self._lock = lock
        self._files = files
        finish_interrupted(path, tag=run_id, files=files)
        sweep(self.checkpoints, run_id=run_id, files=files)
        self.log = Log(path / LOG, files=files)

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are; may not exist yet."""
        return self.path / CHECKPOINTS

    def write_document(self, name: str, content: str | bytes | Mapping[str, Any]) -> Path:
        """Write or replace one file as a whole: text and bytes as they are, a mapping as JSON.

        Raises:
            OSError: The disk is full, or failed; the old file is untouched.
            TypeError: A mapping that is not JSON; names the key.
        """
        assert is_safe_name(name), name
        if isinstance(content, str):
            content = content.encode()
        data = content if isinstance(content, bytes) else to_json(content, indent=2)
        write_file_atomically(self.path / name, data, tag=self.run_id, files=self._files)
        return self.path / name

    def write_folder(self, name: str, fill: Callable[[Path], None]) -> Path:
        """Write or replace one folder as a whole; ``fill`` writes into the empty one that it is given.

        Raises:
            OSError: The disk is full, or failed; the old folder is untouched.
        """
        assert is_safe_name(name), name
        write_folder_atomically(self.path / name, fill, tag=self.run_id, files=self._files)
        return self.path / name

    def close(self) -> None:
        """Close the log and give the folder back; a second time does nothing."""
        try:
            self.log.close()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_run_folder(path: Path, *, resume: bool = False, overwrite: bool = False, files: Files = FILES) -> RunFolder:
    """Take a run folder, and refuse one that is in use or holds something.

    Args:
        path: The folder; made, with its parents, where it is missing.
        resume: Go on with the run that is there; a missing or empty folder starts a new one.
        overwrite: Move what is there to ``<name>.old-1`` (or the first free number) and start a new run.
        files: The file system.

    Raises:
        RunFolderError: In use, not empty, or not ours; nothing in it was changed.
        StorageError: It cannot be read or written.
    """
    path = Path(os.path.abspath(path))
    _check_asked(path, resume=resume, overwrite=overwrite)
    with _told_of_faults(path):
        return _open(path, resume=resume, overwrite=overwrite, files=files)


def check_run_folder(path: Path, *, resume: bool = False, overwrite: bool = False, files: Files = FILES) -> None:
    """Refuse what ``open_run_folder`` would refuse, and write nothing: the run may yet be refused for other reasons.

    Args:
        path: The folder; may be missing.
        resume: As for ``open_run_folder``.
        overwrite: As for ``open_run_folder``.
        files: The file system.

    Raises:
        RunFolderError: In use, not empty, or not ours.
        StorageError: It cannot be read.
    """
    path = Path(os.path.abspath(path))
    _check_asked(path, resume=resume, overwrite=overwrite)
    with _told_of_faults(path):
        if not path.exists():
            return
        _check_folder(path)
        if (path / LOCK).exists():
            take_lock(path).release()
        _admitted(path, resume=resume, overwrite=overwrite, files=files)


def read_run_id(path: Path, *, files: Files = FILES) -> str | None:
    """The id of the run in a folder, or None where the folder is not ours.

    Raises:
        RunFolderError: Made by a finetune that writes another format.
        OSError: The disk fails, which says nothing of whose it is.
    """
    try:
        found = from_json(files.read(path / MARK))
    except (FileNotFoundError, IsADirectoryError, ValueError):
        return None
    run_id, version = found.get("run_id"), found.get("format_version")
    if version != FORMAT_VERSION:
        raise RunFolderError(
            f"{path} has the format {version}; this finetune reads {FORMAT_VERSION}. "
            "Install the version that made it (environment.json names it), or choose another output_dir."
        )
    return run_id if isinstance(run_id, str) and is_safe_name(run_id) else None


def runs_inside(path: Path) -> str:
    """``", such as runs/x/2-probe"`` for a folder of several runs: the last of them; else nothing."""
    inside = sorted(model.parent for model in path.glob("*/model"))
    return f", such as {inside[-1]}" if inside else ""


def _check_asked(path: Path, *, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise RunFolderError(f"{path}: --resume and --overwrite exclude each other. Give one of them.")


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        raise RunFolderError(f"{path} is a file, expected a folder. Choose another output_dir.")


@contextlib.contextmanager
def _told_of_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise StorageError(
            f"the run folder {path} cannot be used: {fault.strerror or fault} "
            f"({fault.filename or path}). Choose another output_dir, or make this one writable."
        ) from fault


def _open(path: Path, *, resume: bool, overwrite: bool, files: Files) -> RunFolder:
    if not path.exists():
        _make_folders(path, files)
    _check_folder(path)
    # Someone else's folder is not even given a lock file before it is accepted.
    lock = take_lock(path) if (path / LOCK).exists() or not _contents(path, files) else None
    try:
        run_id = _admitted(path, resume=resume, overwrite=overwrite, files=files)
        if run_id is None and _contents(path, files):
            lock = _moved_aside(path, lock, files)
        lock = lock or take_lock(path)
        lock.sign()
        resumed = run_id is not None
        if run_id is None:
            run_id = secrets.token_hex(16)
            mark = to_json({"run_id": run_id, "format_version": FORMAT_VERSION})
            write_file_atomically(path / MARK, mark, files=files)
        return RunFolder(path, run_id=run_id, resumed=resumed, lock=lock, files=files)
    except BaseException:
        if lock is not None:
            lock.release()
        raise


def _contents(path: Path, files: Files) -> list[str]:
    """What a folder holds that a new run could overwrite; a run that died before it began left nothing."""
    left = {LOCK, MARK, temporary_name(MARK)}
    if (path / LOG).is_file() and (path / LOG).stat().st_size == 0:
        left.add(LOG)
    return [name for name in files.listdir(path) if name not in left]


def _admitted(path: Path, *, resume: bool, overwrite: bool, files: Files) -> str | None:
    """The id of the run to go on with, or None for a new one.

    Raises:
        RunFolderError: The folder holds something, and neither resuming nor moving it aside was asked for; or what is
            to be resumed cannot be found in it.
    """
    names = _contents(path, files)
    if not names or overwrite:
        return None
    run_id = read_run_id(path, files=files)
    if resume and run_id is not None:
        _check_checkpoints(path / CHECKPOINTS)
        return run_id
    if resume:
        raise RunFolderError(
            f"{path} holds {listed(names, most=3)} but is no run folder of ours (it has no {MARK}), so there is "
            "nothing to resume. Choose the folder of a run, or leave --resume out and choose an empty one."
        )
    is_finished = run_id is not None and ending(path / LOG) == "finished"
    own = "a finished run" if is_finished else "a run"
    kind = own if run_id is not None else f"{listed(names, most=3)}, which is no run of ours"
    remedy = "go on with it by --resume, " if run_id is not None and not is_finished else ""
    raise RunFolderError(
        f"{path} is not empty: it holds {kind}. Choose another output_dir, {remedy}"
        f"or move it aside to {_old_path(path).name} by --overwrite."
    )


def _check_checkpoints(folder: Path) -> None:
    """No link is followed, so a run would find nothing in it, and start again."""
    if os.path.lexists(folder) and not is_folder(folder):
        raise RunFolderError(f"{folder} is a link or a file, expected a folder. Move the checkpoints back there.")


def _moved_aside(path: Path, lock: Lock | None, files: Files) -> Lock:
    """Rename the folder, which is kept for ever, and take the lock of a new one in its place."""
    files.rename(path, _old_path(path))
    files.make_folder(path)
    files.fsync_path(path.parent)
    fresh = take_lock(path)
    if lock is not None:
        lock.release()
    return fresh


def _old_path(path: Path) -> Path:
    return free_path(path.parent, f"{path.name}.old")


def _make_folders(path: Path, files: Files) -> None:
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another run may start beside us
            files.make_folder(folder)
        files.fsync_path(folder.parent)
