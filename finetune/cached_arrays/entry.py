"""One entry: raw arrays and a manifest of their sizes and checksums."""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import re
import stat
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Shapes = Mapping[str, tuple[tuple[int, ...], np.dtype]]

MANIFEST = "manifest.json"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_FORMAT = 1
_LARGEST_MANIFEST = 1 << 20  # bytes
_NUMBERS = "biuf"  # kinds of numpy; an array of objects is one of addresses, which a file could name

_mapped: dict[str, list[weakref.ref[mmap.mmap]]] = {}  # of this process, by entry


def checked(entry: Path, key: str) -> dict[str, np.memmap] | None:
    """The arrays of an entry if all of it is as it was written; raises where it is not."""
    import numpy as np

    try:
        if _size(entry / MANIFEST) > _LARGEST_MANIFEST:
            raise ValueError(f"{MANIFEST} is too large")
        document = json.loads((entry / MANIFEST).read_bytes())
    except FileNotFoundError:
        if entry.is_dir():
            raise
        return None
    manifest = document["manifest"]
    if document["checksum"] != _checksum_of(manifest):
        raise ValueError(f"the checksum of {MANIFEST} differs")
    if (manifest["format"], manifest["key"]) != (_FORMAT, key):
        raise ValueError(f"{MANIFEST} is of another entry")
    shapes = {}
    for name, said in manifest["arrays"].items():
        shapes[name] = tuple(said["shape"]), np.dtype(said["dtype"])
        if not NAME.fullmatch(name) or shapes[name][1].kind not in _NUMBERS:
            raise ValueError(f"{MANIFEST} names what is no array of numbers: {name[:40]!r}, {said['dtype']!r}")
        path = file_of(entry, name)
        if (size := _size(path)) != said["bytes"]:
            raise ValueError(f"{path.name} has {size} bytes, not {said['bytes']}")
        if _checksum(path) != said["xxh3_128"]:
            raise ValueError(f"the checksum of {path.name} differs")
    return opened(entry, shapes)


def write_manifest(folder: Path, key: str, shapes: Shapes) -> None:
    """Put all files of an entry on the disk, and say last what they must be."""
    arrays: dict[str, Any] = {}
    for name, (shape, dtype) in shapes.items():
        path = file_of(folder, name)
        sync(path)
        said = {"shape": list(shape), "dtype": dtype.str, "bytes": _size(path), "xxh3_128": _checksum(path)}
        arrays[name] = said
    manifest = {"format": _FORMAT, "key": key, "arrays": arrays}
    text = json.dumps({"checksum": _checksum_of(manifest), "manifest": manifest}, indent=1)
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    sync(folder / MANIFEST)
    sync(folder)


def opened(entry: Path, shapes: Shapes) -> dict[str, np.memmap]:
    """The arrays of an entry that is known to be whole."""
    arrays = {name: map_file(file_of(entry, name), "r", *form) for name, form in shapes.items()}
    alive = [map for map in _mapped.get(str(entry), ()) if map() is not None]
    _mapped[str(entry)] = [*alive, *(weakref.ref(array._mmap) for array in arrays.values())]  # type: ignore[attr-defined]
    return arrays


def is_mapped(entry: Path) -> bool:
    """Whether an array of this entry, or a view of one, is alive in this process."""
    return any(map() is not None for map in _mapped.get(str(entry), ()))


def map_file(path: Path, mode: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
    """An array that is a file."""
    import numpy as np

    return np.memmap(path, dtype=dtype, mode=mode, shape=shape)


def plain(shapes: Shapes) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shapes as tuples, and types as objects: what may also be written as ``np.float32``."""
    import numpy as np

    return {name: (tuple(shape), np.dtype(dtype)) for name, (shape, dtype) in shapes.items()}


def reserve(path: Path, size: int) -> None:
    """Make a file that has all its blocks: a write to a map of a file that finds no block kills the process."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        os.posix_fallocate(handle, 0, max(size, 1))  # an empty file cannot be mapped
    finally:
        os.close(handle)


def file_of(folder: Path, name: str) -> Path:
    """Where an array of an entry is."""
    assert NAME.fullmatch(name), name
    return folder / f"{name}.bin"


def num_bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Of an array."""
    return math.prod(shape) * dtype.itemsize


def _size(path: Path) -> int:
    """Bytes of a regular file: a link may lead to what has no end."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path.name} is not a file")
    return found.st_size


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _checksum(path: Path) -> str:
    """xxh3-128 of a file; read, not mapped, so that checking a large one does not count as memory in use."""
    import xxhash

    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()  # type: ignore[arg-type]


def _checksum_of(manifest: Any) -> str:
    import xxhash

    return xxhash.xxh3_128_hexdigest(json.dumps(manifest, sort_keys=True).encode())
