"""The examples of one split: checked, labelled, and still able to say where each came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, final

import numpy as np

from ..choices import listed, nearest
from ..errors import DataError
from .rows import Fault, Rows

if TYPE_CHECKING:
    from PIL.Image import Image

_CHUNK = 1000  # texts in memory at a time, where all are gone through


@final
@dataclass(frozen=True, eq=False)
class Table:
    """One split of a data set.

    Args:
        rows: The source that the examples are in.
        positions: The row of each example, (examples,), int64.
        text: Names of the text columns; empty for images.
        image_column: Name of the image column; None for text.
        labels: (examples,) int64 classes or float32 targets, or (examples, labels) bool; None where the split has
            no labels.
        label_names: Names of the classes, by class; None for targets.
        digests: xxh3-128 of the image file of every row of the source (size, first and last 4 KiB).
        skipped: Rows of the source that ``bad_rows: skip`` left out; of a source that is cut into parts, with train.
    """

    rows: Rows
    positions: np.ndarray
    text: tuple[str, ...] = ()
    image_column: str | None = None
    labels: np.ndarray | None = None
    label_names: tuple[str, ...] | None = None
    digests: Sequence[bytes] = ()
    skipped: tuple[Fault, ...] = ()

    def __len__(self) -> int:
        return len(self.positions)

    def texts(self) -> list[tuple[str, ...]]:
        """The text of every example; two for pairs."""
        return list(chain.from_iterable(self.text_chunks(_CHUNK)))

    def text_chunks(self, size: int) -> Iterator[list[tuple[str, ...]]]:
        """The same, at most ``size`` at a time: of a large split, few are ever in memory."""
        columns: list[Sequence[str]] = [self.rows.columns[name] for name in self.text]
        if (np.diff(self.positions) < 0).any():
            columns = [column[:] for column in columns]  # else each chunk would load what many others need too
        for start in range(0, len(self), size):
            positions = self.positions[start : start + size]
            first, last = int(positions.min()), int(positions.max())
            parts = [column[first : last + 1] for column in columns]
            places = (positions - first).tolist()
            yield list(zip(*([part[place] for place in places] for part in parts), strict=True))

    def image(self, index: int) -> Image:
        """One image, decoded now: upright (EXIF), RGB, 8 bit.

        Raises:
            DataError: It cannot be decoded; names the file or row.
        """
        from .images import decoded

        assert self.image_column is not None, "a table of texts has no images"
        value = self.rows.columns[self.image_column][int(self.positions[index])]
        return decoded(value, folder=self.rows.folder, where=self.where(index))

    def column(self, name: str) -> np.ndarray:
        """A column of the source, (examples,): float64 where every value is a number, else as it is.

        Raises:
            DataError: No such column; names those there are.
        """
        if name not in self.rows.columns:
            there = listed(self.rows.columns)
            hint = nearest(name, self.rows.columns)
            raise DataError(f"{self.rows.source} has no column {name!r}{hint}; it has {there}.")
        values = self.rows.columns[name][:]
        kept = [values[position] for position in self.positions.tolist()]
        try:
            return np.array([float(value) for value in kept])
        except (TypeError, ValueError):
            pass
        if all(isinstance(value, str) for value in kept):
            return np.array(kept, dtype=str)
        array = np.empty(len(kept), dtype=object)
        array[:] = kept
        return array

    def where(self, index: int) -> str:
        """Where an example came from: ``"train.csv line 18"``, or the path of the image."""
        return self.rows.where(int(self.positions[index]))

    @property
    def contents(self) -> Iterator[Any]:
        """What each example shows the model, as a key: equal for equal texts or equal image files."""
        if self.image_column is None:
            return chain.from_iterable(self.text_chunks(_CHUNK))
        return (self.digests[position] for position in self.positions.tolist())

    @cached_property
    def fingerprint(self) -> str:
        """xxh3-128 over texts or image digests, labels and class names, in their order; 32 hex digits."""
        import xxhash

        state = xxhash.xxh3_128(repr((len(self), self.label_names)).encode())
        for content in self.contents:
            for part in (content,) if isinstance(content, bytes) else content:
                text = "\x1f".join(part) if isinstance(part, tuple) else part  # a sentence is the tuple of its words
                data = text if isinstance(text, bytes) else text.encode()
                state.update(len(data).to_bytes(8, "little") + data)
        if self.labels is not None:
            state.update(str(self.labels.dtype).encode() + self.labels.tobytes())
        return state.hexdigest()

    def subset(self, indices: np.ndarray) -> Table:
        """Some of the examples, in the order of ``indices``."""
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, positions=self.positions[indices], labels=labels)
