"""Reading checkpoints: everything is validated before anything of it is used.

What is not good is passed over with a warning that names file and reason, or, where it was asked for by
name, refused. No pickle is read, and no link is followed inside a checkpoint.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunFolderError, StorageError
from .documents import MOST_BYTES, from_json
from .files import Files, is_folder
from .manifest import DOCUMENT, MANIFEST, TENSORS, DamagedError, Manifest, checksum
from .tensors import deserialised

if TYPE_CHECKING:
    from torch import Tensor

FILES = Files()
_STEP_NAME = re.compile(r"step-(\d{1,18})")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint held: tensors on the CPU and JSON documents, by file stem."""

    path: Path
    step: int
    run_id: str
    parent_step: int | None
    tensors: Mapping[str, Mapping[str, Tensor]]
    documents: Mapping[str, Mapping[str, Any]]


def accepted(checkpoint: Checkpoint) -> None:
    """Take whatever is whole."""


def step_name(step: int) -> str:
    """``step-000120``."""
    return f"step-{step:06d}"


def read_checkpoint(path: Path, *, files: Files = FILES) -> Checkpoint:
    """Read one named checkpoint; all of it is validated before any of it is used.

    Raises:
        RunFolderError: It cannot be used. Nothing else is tried: this one was asked for.
    """
    path = Path(path)
    try:
        return load(path.resolve(), files)
    except (DamagedError, OSError) as fault:
        raise RunFolderError(
            f"{path} is not a checkpoint that can be read: {reason(fault)}. "
            "Name another one, or leave it out to go on from the newest good one."
        ) from fault


def newest_good(
    root: Path,
    *,
    run_id: str | None = None,
    check: Callable[[Checkpoint], None] = accepted,
    files: Files = FILES,
) -> Checkpoint | None:
    """The checkpoint with the highest step that validates, or None where there is none at all.

    The step is the manifest's; neither times nor links decide anything. What does not validate is
    passed over with one warning each.

    Args:
        root: The ``checkpoints`` folder; it may be missing.
        run_id: Only this run's checkpoints; None takes any.
        check: Raises a DamagedError for content that is whole and still of no use.
        files: The file system.

    Raises:
        StorageError: There are checkpoints, and none of them is good.
    """
    faults: list[str] = []
    for _, folder in sorted(_candidates(root, files), key=lambda found: found[0], reverse=True):
        try:
            found = load(folder, files)
            if run_id is not None and found.run_id != run_id:
                raise DamagedError(MANIFEST, f"made by another run ({found.run_id})")
            check(found)
            return found
        except (DamagedError, OSError) as fault:
            faults.append(f"{folder.name}: {reason(fault)}")
            warnings.warn(f"passed over the checkpoint {folder}: {reason(fault)}", stacklevel=2)
    if faults:
        raise StorageError(
            f"no checkpoint in {root} can be read: {'; '.join(faults)}. "
            "Restore one of them, or start again with --overwrite (the folder is kept, moved aside)."
        )
    return None


def load(folder: Path, files: Files = FILES) -> Checkpoint:
    """What is in a checkpoint folder, which is no link.

    Raises:
        DamagedError: It is not as it was written.
        OSError: It cannot be read.
    """
    manifest = read_manifest(folder, files=files)
    tensors: dict[str, dict[str, Tensor]] = {}
    documents: dict[str, dict[str, Any]] = {}
    for name, data in contents(folder, manifest, files):
        try:
            if name.endswith(TENSORS):
                tensors[name.removesuffix(TENSORS)] = deserialised(data)
            else:
                documents[name.removesuffix(DOCUMENT)] = from_json(data)
        except ValueError as fault:
            raise DamagedError(name, str(fault)) from fault
    return Checkpoint(folder, manifest.step, manifest.run_id, manifest.parent_step, tensors, documents)


def read_manifest(folder: Path, *, files: Files = FILES) -> Manifest:
    """The manifest of a checkpoint folder.

    Raises:
        DamagedError: Missing, or not as it was written.
    """
    try:
        if files.size(folder / MANIFEST) > MOST_BYTES:
            raise DamagedError(MANIFEST, "larger than any manifest of ours")
        return Manifest.parse(files.read(folder / MANIFEST))
    except OSError as fault:
        raise DamagedError(MANIFEST, fault.strerror or str(fault)) from fault


def check_sizes(folder: Path, manifest: Manifest, files: Files = FILES) -> None:
    """Hold every file of a checkpoint against the manifest, by size alone.

    Raises:
        DamagedError: One is missing, is no plain file, or has another size.
    """
    for name, record in manifest.files.items():
        try:
            size = files.size(folder / name)
        except OSError as fault:
            raise DamagedError(name, fault.strerror or str(fault)) from fault
        if size != record.size:
            raise DamagedError(name, f"{size} bytes, expected {record.size}")


def step_folders(root: Path, files: Files = FILES) -> list[Path]:
    """The folders in ``root`` that have a checkpoint's name, whatever they hold; everything else is passed over."""
    if not is_folder(root):
        return []
    paths = [root / name for name in files.listdir(root) if _STEP_NAME.fullmatch(name)]
    return [path for path in paths if is_folder(path)]


def contents(folder: Path, manifest: Manifest, files: Files = FILES) -> Iterator[tuple[str, bytes]]:
    """Each file's name and bytes, once its size and checksum are found right.

    Raises:
        DamagedError: One is not as it was written.
        OSError: One cannot be read.
    """
    check_sizes(folder, manifest, files)
    for name, record in manifest.files.items():
        data = files.read(folder / name)
        if len(data) != record.size or checksum(data) != record.checksum:
            raise DamagedError(name, "its checksum does not match: the file changed after it was written")
        yield name, data


def _candidates(root: Path, files: Files) -> Iterator[tuple[tuple[int, bool], Path]]:
    """Folders to try, each with its key: the step of its manifest (of its name, where it has none)."""
    for folder in step_folders(root, files):
        try:
            step = read_manifest(folder, files=files).step
        except DamagedError:
            step = int(folder.name.removeprefix("step-"))
        yield (step, folder.name == step_name(step)), folder


def reason(fault: Exception) -> str:
    """Why something cannot be read, in a few words."""
    if isinstance(fault, OSError):
        return f"{Path(str(fault.filename)).name + ': ' if fault.filename else ''}{fault.strerror or fault}"
    return str(fault)
