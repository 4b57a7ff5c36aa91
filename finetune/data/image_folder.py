"""Pictures in folders, one folder a class: ``photos/train/cat/1.jpg``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from ..choices import listed
from ..errors import DataError
from ..letters import letter_fault
from .rows import Fault, Rows

_SUFFIXES = {
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".avif",
}
_SPLIT_NAMES = {"train", "training", "validation", "valid", "val", "dev", "test", "testing"}
_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}  # what operating systems leave behind


def read_image_folder(folder: Path, source: str) -> Rows:
    """List an image folder; columns ``image`` (the path) and ``label`` (the name of the class folder).

    Links are followed to files inside the folder, never out of it.

    Raises:
        DataError: There are no class folders, no pictures, or the folders are splits.
    """
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not _is_litter(entry.name))
    _check_classes(classes, folder, source)
    images, labels, faults, others = [], [], [], []
    for path, reason in _files(folder, classes):
        shown = os.path.join(source, path.relative_to(folder))
        if reason is not None:
            faults.append(Fault(0, shown, reason))
        elif path.suffix.lower() in _SUFFIXES:
            images.append(shown)
            labels.append(path.relative_to(folder).parts[0])
        else:
            others.append(path.name)
    if not images:
        others_said = f" It holds {listed(others, most=3)}, whose kind cannot be read." if others else ""
        raise DataError(
            f"{source} holds no pictures.{others_said} Expected {source}/<class>/<picture>.jpg (or .png …)."
        )
    _warn_of_depth(source, [path for path in images if len(Path(path).parts) > len(Path(source).parts) + 2])
    _warn(
        source,
        others,
        sorted(
            {entry.name for entry in classes if not (entry.is_symlink() or letter_fault(entry.name))} - set(labels)
        ),
    )
    columns = {"image": images, "label": labels}
    return Rows(
        source, columns, "file", faults=tuple(faults), image_columns=("image",), typed=False, folder=Path.cwd()
    )


def _check_classes(classes: list[Path], folder: Path, source: str) -> None:
    names = [entry.name for entry in classes]
    splits = [name for name in names if name.lower() in _SPLIT_NAMES]
    if splits and (len(splits) > 1 or splits == names):  # a class may be of trains
        first = "train" if "train" in splits else splits[0]
        raise DataError(f"{source} holds splits ({listed(splits)}), not classes. Name one: train: {source}/{first}.")
    if names:
        return
    if any(folder.glob("*.parquet")) or any(folder.glob("*.csv")) or any(folder.glob("*.jsonl")):
        raise DataError(f"{source} is a folder of data files; name the file itself, e.g. train: {source}/train.csv.")
    raise DataError(
        f"{source} holds no class folders. Expected {source}/<class>/<picture>.jpg, or a csv file with a column of "
        "paths and a column of labels."
    )


def _files(folder: Path, classes: list[Path]) -> Iterator[tuple[Path, str | None]]:
    """Every file below the class folders in a fixed order, and why it cannot be used."""
    root = folder.resolve()
    loose = [entry for entry in folder.iterdir() if entry.is_file() and entry.suffix.lower() in _SUFFIXES]
    for path in sorted(loose):
        yield path, "is in no class folder"
    for entry in classes:
        if letter_fault(entry.name):
            yield entry, "is a class whose name is no UTF-8 text; rename the folder"
            continue
        if entry.is_symlink():
            yield entry, "is a link to a folder, which is not followed; put the pictures themselves there"
            continue
        for place, folders, names in os.walk(entry):
            folders[:] = sorted(name for name in folders if not _is_litter(name))
            for name in [name for name in folders if os.path.islink(os.path.join(place, name))]:
                yield Path(place, name), "is a link to a folder, which is not followed"
            for name in sorted(name for name in names if not _is_litter(name)):
                path = Path(place, name)
                yield path, _link_fault(path, root)


def _link_fault(path: Path, root: Path) -> str | None:
    if not path.is_symlink():
        return None if path.is_file() else "is not a file"
    target = path.resolve()
    if not target.is_relative_to(root):
        return "is a link out of the folder, which is not followed; put the picture itself there"
    return None if target.is_file() else "is a link to nothing"


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _warn_of_depth(source: str, deeper: list[str]) -> None:
    if deeper:
        parts = Path(deeper[0]).relative_to(source).parts
        warnings.warn(
            f"{source}: {len(deeper)} pictures lie in folders of class folders, and count as the class above: "
            f"{parts[0]!r} for {'/'.join(parts[:-1])}. Where these are the classes, name the folder that holds them.",
            stacklevel=3,
        )


def _warn(source: str, others: list[str], empty: list[str]) -> None:
    if others:
        count = f"{len(others)} file{'s' if len(others) > 1 else ''}"
        warnings.warn(
            f"{source}: left out {count} that are no pictures by name: {listed(others, most=5)}", stacklevel=3
        )
    if empty:
        warnings.warn(f"{source}: class folders without pictures: {listed(empty, most=5)}", stacklevel=3)
