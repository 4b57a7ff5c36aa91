"""From what the user named - a file, a folder, a Hub id, an object - to rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..choices import listed, nearest
from ..errors import DataError
from .conll_rows import SUFFIXES as CONLL
from .rows import Rows
from .spec import SPLITS, Data, Split, is_dataset

_PACKED = (".gz", ".zip", ".bz2", ".xz", ".zst", ".tar", ".tgz")
_SHEETS = (".xlsx", ".xls", ".ods")
_READERS = (".csv", ".tsv", ".json", ".jsonl", ".parquet", *CONLL)


def read_rows(data: Data, split: Split) -> Rows:
    """The rows of a split that is not a share.

    Raises:
        DataError: There is no such split, or it cannot be read.
    """
    from .presets import offline_rows

    source = getattr(data, split)
    if is_dataset(source):
        from .arrow_rows import from_dataset

        return from_dataset(source, f"data.{split}")
    if data.name is None or _is_path(source):
        return read_path(source, split)
    offline = offline_rows(data.name, source or split)
    if offline is not None:
        return offline
    from .hub_rows import read_hub

    return read_hub(data.name, source or split, data.revision)


def _is_path(source: str | None) -> bool:
    """Whether this is a path, beside a name: a folder that happens to be called "train" is not meant."""
    return source is not None and ("/" in source or Path(source).suffix.lower() in _READERS)


def split_names(data: Data) -> tuple[str, ...]:
    """The splits that there are, shares included; a Hub data set whose train is not named is asked for its own."""
    given = {split for split in SPLITS if getattr(data, split) is not None}
    if data.name is not None and "/" in data.name and "train" not in given:
        from .hub_rows import hub_splits

        given |= set(hub_splits(data.name, data.revision)) & set(SPLITS)
    return tuple(split for split in SPLITS if split in given)


def read_path(source: str, split: Split) -> Rows:
    """The rows of a file or folder.

    Raises:
        DataError: It does not exist, is of another kind, or cannot be read.
    """
    path = Path(os.path.expanduser(source))  # Path's own raises where there is no such user
    shown = str(path) if source.startswith("~") else source
    try:
        if path.is_dir():
            return _read_folder(path, shown)
        if path.is_file():
            return _read_file(path, shown)
    except OSError as error:
        raise DataError(f"{source} cannot be read ({error.strerror or error}).") from error
    if os.path.lexists(path):
        raise DataError(
            f"task.data.{split}: {source!r} is neither a file nor a folder (a pipe, or a link to nothing)."
        )
    raise DataError(_missing(path, source, split))


def _read_file(path: Path, source: str) -> Rows:
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        from .csv_rows import read_csv

        return read_csv(path, source)
    if suffix in (".json", ".jsonl"):
        from .json_rows import read_json

        return read_json(path, source)
    if suffix in CONLL:
        from .conll_rows import read_conll

        return read_conll(path, source)
    if suffix == ".parquet":
        from .arrow_rows import read_parquet

        return read_parquet(path, source)
    remedy = (
        "Unpack it."
        if suffix in _PACKED
        else "Save it as csv."
        if suffix in _SHEETS
        else f"Expected one of {listed(_READERS)}."
    )
    raise DataError(f"{source}: a file of kind {suffix!r} cannot be read. {remedy}")


def _read_folder(path: Path, source: str) -> Rows:
    from .arrow_rows import is_saved, read_saved

    if is_saved(path):
        return read_saved(path, source)
    from .image_folder import read_image_folder

    return read_image_folder(path, source)


def _missing(path: Path, source: str, split: Any) -> str:
    folder = path.parent
    there = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    hint = nearest(path.name, there)
    hub = (
        ""
        if hint or source.count("/") != 1 or path.suffix
        else f" A Hub data set is given by name: task.data={source}."
    )
    return f"task.data.{split}: there is no file or folder {source!r}{hint}, looked in {Path.cwd()}.{hub}"
