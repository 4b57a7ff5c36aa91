"""How the checkpoints go that need not stay.

Only folders whose manifest is ours and agrees with their name are ever deleted; whatever else lies in
the folder is passed over. The order is that of the manifests' steps: copying a run, setting the clock
back or touching files changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .files import Files, free_path, is_folder
from .keeping import best_steps, retained
from .manifest import DamagedError
from .reading import FILES, check_sizes, read_manifest, step_folders, step_name

BEST = "best"
Warn = Callable[[str], None]


def warned(text: str) -> None:
    """Tell it as a warning, at once."""
    warnings.warn(text, stacklevel=3)


def saved_steps(root: Path, *, run_id: str, files: Files = FILES) -> list[int]:
    """The steps that this run has checkpoints of, ascending, by their manifests (contents are not read)."""
    steps = []
    for folder in step_folders(root, files):
        with contextlib.suppress(DamagedError):
            manifest = read_manifest(folder, files=files)
            if manifest.run_id == run_id and folder.name == step_name(manifest.step):
                steps.append(manifest.step)
    return sorted(steps)


def rotate(
    root: Path,
    *,
    run_id: str,
    scores: Mapping[int, float],
    keep_last: int,
    keep_best: int,
    marks: Sequence[int] = (),
    saves: Sequence[int] = (),
    files: Files = FILES,
    warn: Warn = warned,
) -> list[int]:
    """Point ``best`` at the best of this run's checkpoints, delete those that need not stay, return the others' steps.

    Called whenever a new one is durable, and once on resume, since the process may have died in between.
    Nothing is deleted if the newest does not hold what its manifest says. A link or a deletion that fails is
    a warning: the run loses disk space, not data.

    Args:
        root: The ``checkpoints`` folder.
        run_id: Whose.
        scores: Step, then score (higher is better), of every evaluation so far.
        keep_last: How many of the newest stay (at least one).
        keep_best: How many of the best stay.
        marks: Steps of which each keeps the first checkpoint from there on.
        saves: Steps at which saves are due, where these are kept spaced by age.
        files: The file system.
        warn: Is told what failed.
    """
    try:
        steps = saved_steps(root, run_id=run_id, files=files)
    except OSError as fault:
        warn(f"old checkpoints stay in {root} ({fault.strerror})")
        return []
    if not steps:
        return []
    newest = root / step_name(steps[-1])
    try:
        check_sizes(newest, read_manifest(newest, files=files), files)
    except DamagedError as fault:
        warn(f"no old checkpoint is deleted, because {newest} is damaged ({fault})")
        return steps
    saved = [(step, scores.get(step)) for step in steps]
    if keep_best and (best := best_steps(saved)):
        link_best(root, best[0], files=files, warn=warn)
    keep = retained(saved, keep_last=keep_last, keep_best=keep_best, marks=marks, saves=saves)
    _delete(root, [step for step in steps if step not in keep], run_id, files, warn)
    return sorted(keep)


def set_aside_after(root: Path, step: int, *, run_id: str, files: Files = FILES) -> list[int]:
    """Move this run's checkpoints later than ``step`` to ``.old-…``, and return their steps.

    For a resume from an earlier checkpoint than the newest: the later ones belong to a course that is being
    run anew, and their place in the log no longer exists. Nothing is deleted.
    """
    later = [found for found in saved_steps(root, run_id=run_id, files=files) if found > step]
    for found in sorted(later, reverse=True):
        files.rename(root / step_name(found), free_path(root, f".old-{step_name(found)}"))
    if later:
        files.fsync_path(root)
    return later


def sweep(root: Path, *, run_id: str, files: Files = FILES) -> None:
    """Remove what a killed save or deletion of this run left behind. Only under the run folder's lock."""
    if not is_folder(root):
        return
    ours = re.compile(rf"\.tmp-step-\d+-{re.escape(run_id)}|\.del-step-\d+-{re.escape(run_id)}-\d+")
    for name in files.listdir(root):
        if ours.fullmatch(name) and is_folder(root / name):
            _remove(root / name, files, warned)


def link_best(root: Path, step: int, *, files: Files = FILES, warn: Warn = warned) -> None:
    """Point the run folder's ``best`` at a checkpoint, for people; nothing of ours ever reads it.

    A relative link, replaced in one step. Where the file system has no links, a warning.
    """
    link = root.parent / BEST
    temporary = root.parent / f".tmp-{BEST}"
    target = Path(root.name) / step_name(step)
    try:
        if link.is_symlink() and os.readlink(link) == str(target):
            return
        if temporary.is_symlink():
            files.unlink(temporary)
        files.symlink(target, temporary)
        files.rename(temporary, link)
        files.fsync_path(root.parent)
    except OSError as fault:
        warn(f"{link} does not point at the best checkpoint, {target} ({fault.strerror})")


def _delete(root: Path, steps: Sequence[int], run_id: str, files: Files, warn: Warn) -> None:
    """Take the names away first, durably: no folder that is half gone ever carries one."""
    doomed = []
    try:
        for step in steps:
            path = free_path(root, f".del-{step_name(step)}-{run_id}")
            files.rename(root / step_name(step), path)
            doomed.append(path)
        if doomed:
            files.fsync_path(root)
    except OSError as fault:
        warn(f"old checkpoints stay in {root} ({fault.strerror})")
        return
    for path in doomed:
        _remove(path, files, warn)


def _remove(folder: Path, files: Files, warn: Warn) -> None:
    try:
        files.rmtree(folder)
    except OSError as fault:
        warn(f"{folder} could not be removed ({fault.strerror}); it is of no use any more")
