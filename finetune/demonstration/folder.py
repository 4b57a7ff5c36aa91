"""Where a demonstration leaves its runs: a folder of its own; of older ones exactly one is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoints.lock import LOCK, Lock, take_lock
from ..errors import RunFolderError

RESULTS = "demo.json"  # written when a demonstration begins, so it also marks a folder as one


def claim(folder: Path) -> tuple[Lock, str]:
    """An empty folder for a new demonstration, locked; an old one moves to ``<folder>.previous``, replacing that.

    Returns:
        The lock, and a line on what was moved ("" where nothing was).

    Raises:
        RunFolderError: The folder is not empty and no demonstration's, or one is running in it.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise RunFolderError(f"{folder} is no folder. Choose another place: finetune demo --output FOLDER.")
    moved = ""
    if _is_ours(folder):
        take_lock(folder).release()  # refuses while a demonstration runs in it
        previous = folder.with_name(f"{folder.name}.previous")
        if previous.exists() and not _is_ours(previous):
            raise RunFolderError(
                f"{folder} holds an older demonstration, and {previous}, where it would be moved, is not one of ours."
                " Move one of them away, or choose another place: finetune demo --output FOLDER."
            )
        shutil.rmtree(previous, ignore_errors=True)
        folder.rename(previous)
        moved = f"the last demonstration is now in {previous}"
    elif folder.exists() and any(entry.name != LOCK for entry in folder.iterdir()):
        raise RunFolderError(
            f"{folder} is not empty, and no demonstration wrote it. Choose another place: finetune demo --output"
            " FOLDER."
        )
    folder.mkdir(parents=True, exist_ok=True)
    lock = take_lock(folder)
    lock.sign()
    write_results(folder, {})
    return lock, moved


def write_results(folder: Path, results: Mapping[str, Any]) -> None:
    """What ``--json`` prints, as a file."""
    (folder / RESULTS).write_text(json.dumps({"demonstration": results}, indent=2) + "\n", encoding="utf-8")


def _is_ours(folder: Path) -> bool:
    try:
        return "demonstration" in json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
