"""Writing a checkpoint: a folder of safetensors and JSON, made aside, synced, and renamed into place.

The order of the operations is the promise: files synced, then the manifest, then the folder, then the
rename, then its parent. So a folder that carries a final name is whole, whenever the process is killed
or the power fails.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from .documents import to_json
from .files import Files, free_path, is_folder, is_safe_name
from .manifest import DOCUMENT, MANIFEST, TENSORS, DamagedError, FileRecord, Manifest
from .reading import FILES, check_sizes, contents, read_manifest, step_name
from .tensors import serialised

if TYPE_CHECKING:
    from torch import Tensor

_PORTION = 2**20  # bytes that are still in the cache when they are written after they were summed


def write_checkpoint(
    root: Path,
    step: int,
    *,
    tensors: Mapping[str, Mapping[str, Tensor]],
    documents: Mapping[str, Mapping[str, Any]],
    run_id: str,
    parent_step: int | None = None,
    files: Files = FILES,
) -> Path:
    """Write ``root/step-…`` and return its path once it is durable.

    A good checkpoint of the same run and step that is there already is kept: what a run holds at a step
    is a function of the step. Anything else of that name is moved aside, and never deleted.

    Args:
        root: The ``checkpoints`` folder; made where it is missing.
        step: Updates attempted so far.
        tensors: File stem, then tensor name, then dense CPU tensor.
        documents: File stem, then JSON values (numbers, text, lists, mappings with text keys).
        run_id: Whose checkpoint it is.
        parent_step: The step of the checkpoint that this run last saved or started from.
        files: The file system.

    Raises:
        OSError: The disk is full, or failed; what was there before is untouched and nothing half-made is left.
        TypeError: Something is neither a tensor nor JSON; names it.
    """
    assert all(map(is_safe_name, [*tensors, *documents, run_id])), (*tensors, *documents, run_id)
    final = root / step_name(step)
    temporary = root / f".tmp-{final.name}-{run_id}"
    texts = {stem: to_json(document) for stem, document in documents.items()}
    if not is_folder(root):
        files.make_folder(root)
        files.fsync_path(root.parent)
    if not _is_good(final, run_id, step, files):
        if temporary.name in files.listdir(root):
            files.rmtree(temporary)
        try:
            files.make_folder(temporary)
            records = _write_files(temporary, tensors, texts, files)
            _write_manifest(temporary, Manifest(step, run_id, parent_step, records), files)
            _put_in_place(temporary, final, files)
        except Exception:
            with contextlib.suppress(OSError):
                files.rmtree(temporary)
            raise
    # Also for one that was kept: an earlier save may have failed just here.
    files.fsync_path(root)
    return final


def _write_files(
    folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], texts: Mapping[str, bytes], files: Files
) -> dict[str, FileRecord]:
    pieces: dict[str, Iterable[bytes | memoryview]] = {stem + TENSORS: serialised(tensors[stem]) for stem in tensors}
    pieces |= {stem + DOCUMENT: [text] for stem, text in texts.items()}
    return {name: _write(folder / name, parts, files) for name, parts in pieces.items()}


def _write_manifest(folder: Path, manifest: Manifest, files: Files) -> None:
    _write(folder / MANIFEST, [manifest.rendered()], files)
    files.fsync_path(folder)
    try:
        check_sizes(folder, manifest, files)
    except DamagedError as fault:
        raise OSError(errno.EIO, f"what was written is not there ({fault})", str(folder)) from fault


def _put_in_place(temporary: Path, final: Path, files: Files) -> None:
    """Rename; what is in the way (damaged, or another run's) is moved aside, and back if that fails."""
    aside = None
    if final.name in files.listdir(final.parent):
        aside = free_path(final.parent, f".bad-{final.name}")
        files.rename(final, aside)
    try:
        files.rename(temporary, final)
    except OSError:
        if aside is not None:
            with contextlib.suppress(OSError):
                files.rename(aside, final)
        raise


def _write(path: Path, pieces: Iterable[bytes | memoryview], files: Files) -> FileRecord:
    digest, size = xxhash.xxh3_128(), 0
    handle = files.open_write(path)
    try:
        for piece in pieces:
            for start in range(0, len(piece), _PORTION):
                portion = memoryview(piece)[start : start + _PORTION]
                digest.update(portion)
                files.write(handle, portion)
            size += len(piece)
        files.fsync(handle)
    finally:
        files.close(handle)
    return FileRecord(size, digest.hexdigest())


def _is_good(folder: Path, run_id: str, step: int, files: Files) -> bool:
    try:
        manifest = read_manifest(folder, files=files)
        for _ in contents(folder, manifest, files):
            pass  # reading is the check
    except (DamagedError, OSError):
        return False
    return manifest.run_id == run_id and manifest.step == step
