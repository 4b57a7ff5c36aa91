"""Rows of parquet files and of ``datasets``: saved to a folder, or objects in Python."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..choices import listed
from ..errors import DataError
from .rows import Rows


def read_parquet(path: Path, source: str) -> Rows:
    """Read a parquet file into memory; class names saved by ``datasets`` are kept.

    Raises:
        DataError: It cannot be read, or has no rows.
    """
    import pyarrow
    import pyarrow.parquet
    from datasets import Dataset
    from datasets.table import InMemoryTable

    if path.stat().st_size == 0:
        raise DataError(f"{source} is empty (zero bytes).")
    try:
        table = pyarrow.parquet.read_table(path, partitioning=None)
        table.validate(full=True)  # else texts that are no UTF-8, or end beyond the file, are found when they are used
        dataset = Dataset(InMemoryTable(table))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{source} cannot be read as parquet ({_line(error)}). Write it again.") from error
    return from_dataset(dataset, source, folder=path.absolute().parent)


def is_saved(folder: Path) -> bool:
    """Whether this folder was made by ``save_to_disk``."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def read_saved(folder: Path, source: str) -> Rows:
    """Read a folder made by ``Dataset.save_to_disk``.

    Raises:
        DataError: It cannot be read, or holds several splits.
    """
    from datasets import load_from_disk

    if away := [name for name in _files_of(folder) if not (folder / name).resolve().is_relative_to(folder.resolve())]:
        raise DataError(
            f"{source}: state.json names a file that is not in that folder: {away[0][:80]!r}. Copy it there."
        )
    try:
        dataset = load_from_disk(str(folder))
    except Exception as error:  # the readers below ``datasets`` raise their own kinds
        raise DataError(f"{source} cannot be read as a saved data set ({_line(error)}). Save it again.") from error
    if hasattr(dataset, "keys"):
        first = "train" if "train" in dataset else next(iter(dataset), "train")
        raise DataError(f"{source} holds splits ({listed(dataset)}). Name one: train: {source}/{first}.")
    return from_dataset(dataset, source)


def _files_of(folder: Path) -> list[str]:
    """The files that a saved data set names; none where it cannot be read, which its library then tells."""
    try:
        state = json.loads((folder / "state.json").read_bytes())
        return [str(file["filename"]) for file in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def from_dataset(dataset: Any, source: str, *, folder: Path | None = None) -> Rows:
    """Rows of a ``datasets.Dataset``; columns load when they are asked for, images stay encoded.

    Raises:
        DataError: It has no rows.
    """
    from datasets import ClassLabel, Image

    if len(dataset) == 0:
        raise DataError(f"{source} has no rows.")
    dataset = dataset.with_format(None)
    features = dict(dataset.features)
    images = tuple(name for name, feature in features.items() if isinstance(feature, Image))
    for name in images:
        dataset = dataset.cast_column(name, Image(decode=False))
    single = {name: getattr(feature, "feature", feature) for name, feature in features.items()}  # of lists, too
    classes = {name: tuple(feature.names) for name, feature in single.items() if isinstance(feature, ClassLabel)}
    columns = {name: _Column(dataset, name) for name in features}
    return Rows(source, columns, class_names=classes, image_columns=images, folder=folder or Path.cwd())


class _Column(Sequence):
    """One column, loaded in blocks; ``datasets``' own goes row by row (5 us each, measured, against 0.3)."""

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset = dataset.select_columns([name])
        self._name = name

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, key: int | slice) -> Any:
        return self._dataset[key][self._name]

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), 1000):
            yield from self[start : start + 1000]


def _line(error: Exception) -> str:
    lines = str(error.__cause__ or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
