"""The folder of a comparison: what it is of, what has run, and who is at it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ..checkpoints.atomic import write_file_atomically
from ..checkpoints.documents import from_json, to_json
from ..checkpoints.files import free_path
from ..checkpoints.lock import LOCK, Lock, check_unused, take_lock
from ..choices import listed
from ..errors import RunFolderError
from ..plan_document import differences
from .cells import Cell

DOCUMENT = "compare.json"
FORMAT = 1
# A cell that has run is not run again for these: they change no result, or only where it is written.
_FREE = ("workers", "log_every", "speed", "micro_batch", "checkpoint")


def claim(root: Path, *, existing: Literal["refuse", "resume", "overwrite"]) -> tuple[Lock, dict[str, Any]]:
    """The folder, locked, and the document of the comparison that it holds; an empty one for a new comparison.

    Raises:
        RunFolderError: It is no folder, in use, not empty, or holds no comparison to resume.
    """
    if root.exists() and not root.is_dir():
        raise RunFolderError(f"{root} is a file, expected a folder. Choose another output_dir.")
    there = sorted(set(os.listdir(root)) - {LOCK}) if root.is_dir() else []
    if there and existing == "refuse":
        raise RunFolderError(
            f"{root} is not empty: it holds {listed(there, most=3)}. Choose another output_dir, go on with its "
            "comparison by --resume, or move it aside by --overwrite."
        )
    if there and existing == "overwrite":
        check_unused(root)
        root.rename(free_path(root.parent, f"{root.name}.old"))
        there = []
    before = _read(root) if there else {}
    root.mkdir(parents=True, exist_ok=True)
    lock = take_lock(root)
    lock.sign()
    return lock, before


def write(root: Path, document: Mapping[str, Any]) -> None:
    """Write or replace the document as a whole."""
    write_file_atomically(root / DOCUMENT, to_json(document))


def check_same(before: Mapping[str, Any], cells: Sequence[Cell], *, root: Path) -> None:
    """Refuse to go on with cells that were other configurations when they ran; new ones may be added.

    Raises:
        RunFolderError: Names the cells and what is other.
    """
    faults: dict[str, list[str]] = {}
    for cell in cells:
        if cell.name in before:
            then, now = (_kept(config) for config in (before[cell.name]["config"], cell.content()))
            lines = differences(then, json.loads(json.dumps(now)))
            if lines:
                faults.setdefault("; ".join(lines[:5]), []).append(cell.name)
    if faults:
        told = "; ".join(f"cell {listed(names, most=5)}: {what}" for what, names in faults.items())
        raise RunFolderError(
            f"{root} holds other configurations by these names. {told}. Give the cells other names, go on with the "
            "old ones, or choose another output_dir."
        )


def _kept(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _FREE}


def _read(root: Path) -> dict[str, Any]:
    try:
        found = from_json((root / DOCUMENT).read_bytes())
        version = found["comparison"]
    except (OSError, ValueError, KeyError):
        raise RunFolderError(
            f"{root} holds no comparison of ours (it has no {DOCUMENT}), so there is nothing to resume. Choose "
            "another output_dir."
        ) from None
    if version != FORMAT:
        raise RunFolderError(f"{root} has the format {version}; this finetune reads {FORMAT}. Choose another folder.")
    return found
