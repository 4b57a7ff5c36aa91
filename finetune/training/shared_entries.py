"""Arrays on disk that all ranks read: found, or filled by all of them together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from ..cached_arrays import ArrayCache, CacheUnavailable, Draft, open_draft
from .ranks import Ranks

T = TypeVar("T")
_ARRAY = "hidden"  # the one array of an entry


class Form(NamedTuple):
    """An entry: its key, and the shape and type of its array."""

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype


class SharedEntries:
    """Entries by name, equal on all ranks. Every rank calls every method, and is told the same.

    Args:
        cache: The folder; rank 0 makes and commits entries, the others see its files.
        ranks: That fill and read them.
        forms: What is wanted.

    Raises:
        CacheUnavailable: It cannot be had, on every rank.
    """

    def __init__(self, cache: ArrayCache, ranks: Ranks, forms: Mapping[str, Form]) -> None:
        self._ranks = ranks
        self._forms = forms
        self._drafts: dict[str, Draft] = {}
        self.arrays: dict[str, np.ndarray] = {}

        def made() -> dict[str, Path]:
            for name, form in forms.items():
                found = cache.find(form.key)
                if found is not None and (found[_ARRAY].shape, found[_ARRAY].dtype) == form[1:]:
                    self.arrays[name] = found[_ARRAY]
            for name, form in forms.items():
                if name not in self.arrays:
                    self._drafts[name] = cache.create(form.key, {_ARRAY: form[1:]})
                    self.arrays[name] = self._drafts[name].arrays[_ARRAY]
            return {name: draft.folder for name, draft in self._drafts.items()}

        folders = self._on_first(made)
        self.missing = tuple(folders)  # names that are still to be filled
        if not self._all(self._seen(cache, folders)):
            self.discard()
            raise CacheUnavailable(f"not every process sees the files of another in {cache.folder}; share the folder")

    def commit(self) -> None:
        """Keep what was filled, once every rank has written its part.

        Raises:
            CacheUnavailable: It could not be written.
        """
        flushed = True
        for name in self.missing:
            try:
                array = self.arrays[name]
                assert isinstance(array, np.memmap)
                array.flush()
            except OSError:
                flushed = False
        if not self._all(flushed):
            self.discard()
            raise CacheUnavailable("what was computed could not be written to the disk")

        def committed() -> None:
            for name, draft in self._drafts.items():
                self.arrays[name] = draft.commit()[_ARRAY]

        self._on_first(committed)

    def discard(self) -> None:
        """Give up what was not committed."""
        self.arrays = {}
        for draft in self._drafts.values():
            draft.discard()

    def _seen(self, cache: ArrayCache, folders: Mapping[str, Path]) -> bool:
        """Whether this rank has them all; the name of a draft's folder is new, so its being there tells enough."""
        if self._ranks.is_first:
            return True
        try:
            for name, form in self._forms.items():
                if name in folders:
                    self.arrays[name] = open_draft(folders[name], {_ARRAY: form[1:]})[_ARRAY]
                else:
                    found = cache.find(form.key)
                    if found is None:
                        return False
                    self.arrays[name] = found[_ARRAY]
        except OSError:
            return False
        return True

    def _all(self, mine: bool) -> bool:  # noqa: FBT001
        """Whether it holds on every rank."""
        return int(self._ranks.sum(torch.tensor(int(mine)))) == self._ranks.count

    def _on_first(self, work: Callable[[], T]) -> T:
        """Rank 0's result on every rank, or its refusal raised on every rank."""
        value: T | None = None
        why = ""
        if self._ranks.is_first:
            try:
                value = work()
            except CacheUnavailable as refusal:
                why = str(refusal)
        value, why = self._ranks.first((value, why))
        if why:
            self.discard()
            raise CacheUnavailable(why)
        return value  # type: ignore[return-value]
