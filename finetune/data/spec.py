"""What data a task learns from: where it is, and which columns matter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

_SHARE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*")
SPLITS = ("train", "validation", "test")
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Data:
    """Splits and columns of one data set.

    Args:
        name: A preset (``sst2``, ``cifar10``, ``pydocs`` …) or a Hub data set, ``owner/name`` or
            ``owner/name:config``.
        train: A file (csv, tsv, json, jsonl, parquet), a saved ``datasets`` folder or an image folder,
            relative to the current directory; in Python also a ``datasets.Dataset``. With ``name``, the name
            of one of its splits; where train is not named, all of the Hub's own are there.
        validation: As ``train``, or a share such as ``"10%"``: held out of train, stratified by label, the same
            rows in every run.
        test: As ``validation``.
        text: The column with the text, or two columns for pairs; None finds it where only one can be meant.
        image: The column with the images, or with their paths; None finds it, and an image folder needs none.
        label: The column with the class, the target or the list of labels; None finds it. For tasks with several
            labels also two columns or more, one for each label, that hold 0 or 1.
        separator: What stands between the labels of one row where they are one text, as in ``"drama|war"``.
        bad_rows: ``"skip"`` leaves out rows that cannot be used, with a warning, and lists them in
            ``bad_rows-<split>.jsonl`` of the run folder. It decodes every image once before training, to find those
            that only break then.
        most_bad: The share of rows that ``skip`` may leave out; more are an error.
        revision: The revision of the Hub data set.

    Raises:
        ValueError: Fields that contradict each other, or nothing to read.
    """

    name: str | None = None
    train: Any = None
    validation: Any = None
    test: Any = None
    text: str | tuple[str, ...] | None = None
    image: str | None = None
    label: str | tuple[str, ...] | None = None
    separator: str | None = None
    bad_rows: Literal["error", "skip"] = "error"
    most_bad: str = "1%"
    revision: str | None = None

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name in ("text", "label"):
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
        self._check_labels()
        self._check_bad_rows()
        if self.name is None and all(getattr(self, split) is None for split in SPLITS):
            raise ValueError("no data: give a name ('sst2', 'owner/name'), or train: a file or folder")
        if self.name is None and self.revision is not None:
            raise ValueError("revision belongs to a Hub data set; give its name too, or leave revision out")
        for split in SPLITS:
            _check_source(split, getattr(self, split))
        self._check_shares()

    def _check_labels(self) -> None:
        if self.separator is not None and not self.separator:
            raise ValueError("separator: an empty text separates nothing; write e.g. '|' or ', '")
        if isinstance(self.label, tuple) and self.separator is not None:
            raise ValueError("separator: without effect where each label has a column of its own; leave it out")
        if isinstance(self.text, tuple) and (len(self.text) > 2 or len(set(self.text)) < len(self.text)):
            raise ValueError(f"text: got {list(self.text)}; expected one column, or two different ones for pairs")
        if isinstance(self.label, tuple) and len(set(self.label)) < max(2, len(self.label)):
            raise ValueError(f"label: got {list(self.label)}; expected one column, or two or more different ones")

    def _check_bad_rows(self) -> None:
        if self.bad_rows not in ("error", "skip"):
            raise ValueError(f"bad_rows: {self.bad_rows!r} is neither 'error' nor 'skip'")
        most = share_of(self.most_bad)
        if most is None or not 0 < most < 1:
            raise ValueError(f"most_bad: {self.most_bad!r} is not a share of the rows; write e.g. '1%'")
        if self.bad_rows == "error" and self.most_bad != Data.most_bad:
            raise ValueError("most_bad: without effect with bad_rows: error; set bad_rows: skip, or leave it out")

    def _check_shares(self) -> None:
        shares = self.shares
        if "train" in shares:
            raise ValueError(f"train: {self.train!r} is a share, and only validation and test can be shares of train")
        if shares and self.name is None and self.train is None:
            raise ValueError(f"{', '.join(shares)}: a share is held out of train, and there is no train")
        if sum(shares.values()) >= 1:
            raise ValueError("validation and test: the shares leave nothing to train on")

    @property
    def shares(self) -> dict[str, float]:
        """The splits that are shares of train, as fractions: ``{"validation": 0.1}``."""
        found = {split: share_of(getattr(self, split)) for split in SPLITS}
        return {split: share for split, share in found.items() if share is not None}


def share_of(source: Any) -> float | None:
    """``0.1`` for ``"10%"``; None for anything that is not a share."""
    match = _SHARE.fullmatch(source) if isinstance(source, str) else None
    return float(match[1]) / 100 if match else None


def is_dataset(source: Any) -> bool:
    """Whether this is a ``datasets.Dataset``, told without importing ``datasets``."""
    return all(hasattr(source, name) for name in ("column_names", "features", "with_format", "__len__", "__getitem__"))


def _check_source(split: str, source: Any) -> None:
    if source is None or is_dataset(source):
        return
    share = share_of(source)
    if share is not None and not 0 < share < 1:
        raise ValueError(f"{split}: {source!r} is not a share of train; write e.g. '10%'")
    if isinstance(source, str):
        if source.strip():
            return
        raise ValueError(f"{split}: an empty path")
    if isinstance(source, int | float):
        raise ValueError(f"{split}: {source!r} is neither a path nor a share; write a share as e.g. '10%'")
    if isinstance(source, Sequence):
        raise ValueError(f"{split}: one file or folder, got {len(source)}; join them into one first")
    raise ValueError(
        f"{split}: a {type(source).__name__} cannot be read; give a path or a datasets.Dataset with a length"
    )
